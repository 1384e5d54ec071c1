"""What a TOML file may say: fields by kebab-case key, checked strictly, explained by docstrings."""

from pydantic import BaseModel, ConfigDict


def kebab(name: str) -> str:
    """Return the key of a field: ``local_steps`` is ``local-steps``."""
    return name.replace("_", "-")


class Keyed(BaseModel):
    """Frozen; no key but the fields', no other type, no number that is not finite."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        alias_generator=kebab,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )
