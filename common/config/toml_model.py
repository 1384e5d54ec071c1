"""What a TOML file may say: fields by kebab-case key, checked strictly, explained by docstrings."""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from common.errors import XsiteError, is_plain


def read_toml(path: Path, what: str, error: type[XsiteError]) -> dict[str, Any]:
    """Read a TOML file.

    Parameters
    ----------
    path : Path
        The file.
    what : str
        What it is, for the error's sentence: ``"the policy"``.
    error : type of XsiteError
        Raised if the file cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as fault:
        raise error(f"Cannot read {what} {path}: {fault.strerror or fault}.") from fault
    # Beside what is no TOML: what is not UTF-8, thousands of digits, thousands of brackets.
    except (ValueError, RecursionError) as fault:
        raise error(f"Cannot read {what} {path}: {path.name} is not TOML ({fault}).") from fault


def key_of(name: str) -> str:
    """Return the key of a field: ``local_steps`` is ``local-steps``."""
    return name.replace("_", "-")


class TomlModel(BaseModel):
    """Frozen; no key but the fields', no other type, no number that is not finite."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        alias_generator=key_of,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    @field_validator("*")
    @classmethod
    def _refuse_what_cannot_travel(cls, value: Any) -> Any:
        """Refuse what no message, no path and no line of a file can hold."""
        if type(value) is int and not -(2**63) <= value < 2**63:
            raise ValueError("a whole number has at most 63 bits")
        if isinstance(value, str) and not is_plain(value):
            raise ValueError("a text is one line of UTF-8 without control characters")
        return value
