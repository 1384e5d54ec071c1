"""The configuration of a run, wherever its values come from.

A TOML file, ``flwr run --run-config`` and ``xsite … --set key=value`` all fill
:class:`~common.config.schema.Config` through the functions here, with the same kebab-case keys.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from common.config.schema import Config, Scalar
from common.config.toml_model import key_of, read_toml
from common.errors import ConfigError

LONGEST_SHOWN = 200
"""Characters of a wrong value that its error shows."""


def describe() -> list[tuple[str, Scalar, str]]:
    """Return (key, default, explanation) for every key, in the schema's order."""
    return [
        (key_of(name), field.default, field.description or "")
        for name, field in Config.model_fields.items()
    ]


def make_config(values: Mapping[str, Any], source: str = "") -> Config:
    """Check values and make a configuration of them.

    Parameters
    ----------
    values : mapping
        Values by kebab-case key; keys that are absent take their defaults.
    source : str
        Where the values come from (a file's name), for the error's sentence.

    Raises
    ------
    ConfigError
        Naming the key, what was found, what is allowed, and for an unknown key the nearest one.
    """
    where = f" (in {source})" if source else ""
    known = [key_of(name) for name in Config.model_fields]
    for key in values:
        if key == "exchange":
            raise ConfigError(
                f"Configuration key 'exchange'{where} is two keys now: share says what travels "
                "('weights' or 'prototypes'), codec how ('none', 'half-deltas', "
                "'int8-deltas' or 'int4-deltas')."
            )
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"Did you mean '{near[0]}'?" if near else "`xsite config` lists the keys."
            raise ConfigError(f"Unknown configuration key '{key}'{where}. {hint}")
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise ConfigError(f"Impossible configuration{where}: {message}.") from None
        key = str(first["loc"][0])
        raise ConfigError(
            f"Configuration key '{key}'{where}: {message}; found {_shown(first['input'])}."
        ) from None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]} …"


def load_config(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read a TOML file and lay overrides over it.

    Parameters
    ----------
    path : Path, optional
        A TOML file of kebab-case keys; without it the defaults are the ground.
    overrides : mapping, optional
        Values that win over the file's. An empty ``data`` is filled from ``XSITE_DATA``.

    Raises
    ------
    ConfigError
        If the file is missing or not TOML, or as :func:`make_config`.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values = read_toml(path, "the configuration", ConfigError)
        make_config(values, source=str(path))
    values |= dict(overrides or {})
    if values.get("data") == "":
        values["data"] = os.environ.get("XSITE_DATA", "")
    return make_config(values)


def parse_override(text: str) -> tuple[str, Scalar]:
    """Read one ``key=value`` of the command line, its value written as in TOML or as bare text.

    Raises
    ------
    ConfigError
        If there is no ``=``.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"'{text}' is not key=value, for example local-steps=8.")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        parsed = value
    return key.strip(), parsed if isinstance(parsed, str | int | float | bool) else value
