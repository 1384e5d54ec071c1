"""The codecs by name. A new one is a file beside this one and a line here."""

from common.errors import refuse_unknown
from common.exchange.codecs.half_deltas import HalfDeltas
from common.exchange.codecs.integer_deltas import Int4Deltas, Int8Deltas
from common.exchange.payload import Codec

CODECS: dict[str, Codec] = {
    codec.name: codec for codec in (Codec(), HalfDeltas(), Int8Deltas(), Int4Deltas())
}


def find_codec(name: str) -> Codec:
    """Return a codec by its name.

    Raises
    ------
    ConfigError
        If there is none of that name, naming the nearest.
    """
    refuse_unknown("codec", name, CODECS)
    return CODECS[name]
