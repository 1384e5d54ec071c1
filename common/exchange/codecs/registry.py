"""The codecs by name. A new one is a file beside this one and a line here."""

import difflib

from common.errors import ConfigError
from common.exchange.codecs.half_deltas import HalfDeltas
from common.exchange.codecs.none import NoCodec
from common.exchange.payload import Codec

CODECS: dict[str, Codec] = {codec.name: codec for codec in (NoCodec(), HalfDeltas())}


def find_codec(name: str) -> Codec:
    """Return a codec by its name.

    Raises
    ------
    ConfigError
        If there is none of that name, naming the nearest.
    """
    if name in CODECS:
        return CODECS[name]
    near = difflib.get_close_matches(name, CODECS, n=1, cutoff=0.5)
    hint = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(CODECS)}."
    raise ConfigError(f"No codec is called '{name}'. {hint}")
