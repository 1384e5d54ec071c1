"""The configuration of a run: all keys of its sections, checked together."""

import hashlib
import json

import tomli_w
from pydantic import model_validator

from common.config.classes import LEFT_OUT
from common.config.sections import (
    SYNTHETIC,
    DataKeys,
    FederationKeys,
    ImageKeys,
    Key,
    MethodKeys,
    NetworkKeys,
    ObjectiveKeys,
    Role,
    RunKeys,
    TrainingKeys,
)
from common.config.sites import SITE_NAME
from common.config.toml_model import key_of

Scalar = str | int | float | bool


class Config(
    # Python lists the fields of the last base first.
    RunKeys,
    FederationKeys,
    TrainingKeys,
    MethodKeys,
    ObjectiveKeys,
    NetworkKeys,
    ImageKeys,
    DataKeys,
):
    """Everything that determines a run; a key is the field's name in kebab-case."""

    @model_validator(mode="after")
    def _check_combinations(self) -> "Config":
        if self.fold >= self.folds:
            raise ValueError(
                f"fold is {self.fold}, but folds = {self.folds} allows 0 to {self.folds - 1}"
            )
        if self.grey_high < self.grey_low or (self.grey_high == self.grey_low != 0):
            raise ValueError(
                f"grey-high is {self.grey_high:g}, not above grey-low = {self.grey_low:g}; 0 for "
                "both takes the bits that a site's files use"
            )
        names = self.site_names
        if not names and self.data == SYNTHETIC:
            raise ValueError("sites is empty, but synthetic hospitals need names")
        for name in names:
            if not SITE_NAME.fullmatch(name):
                raise ValueError(
                    f"sites holds '{name}': a name is lower-case letters, digits, '-' and '_', "
                    "at most 63 of them"
                )
        if len(set(names)) < len(names):
            raise ValueError("sites names one site twice")
        if len(self.class_names) < 2 or len(set(self.class_names)) < len(self.class_names):
            raise ValueError("classes must name at least two different classes")
        for name in (*self.class_names, *self.own_class_names):
            if "/" in name or name.startswith("."):
                key = "classes" if name in self.class_names else "classes-map"
                raise ValueError(f"{key} holds '{name}', which names no folder within a site's")
        for name, label in self.own_class_names.items():
            if label not in (*self.class_names, LEFT_OUT):
                raise ValueError(
                    f"classes-map gives '{name}' the class '{label}', which is none of classes "
                    f"({', '.join(self.class_names)})"
                )
            if name in self.class_names and name != label:
                another = f"another, '{label}'" if label else "none"
                raise ValueError(f"classes-map gives the class '{name}' {another}")
        if self.cache_size and self.cache_size < self.image_size:
            raise ValueError(
                f"cache-size is {self.cache_size}, smaller than image-size = {self.image_size}"
            )
        if self.min_sites > len(names):
            raise ValueError(f"min-sites is {self.min_sites}, but there are {len(names)} sites")
        if self.share == "prototypes" and not self.meets_prototypes:
            raise ValueError(
                "share = 'prototypes' needs a term that meets them: prototype-pull or alpha, "
                "and prototypes other than 'none'"
            )
        if self.share == "prototypes":
            for key in ("pretrained", "proximal", "model_contrast", "algorithm"):
                if getattr(self, key) not in ("", 0, "none"):
                    raise ValueError(
                        f"{key_of(key)} is about shared weights, and share = 'prototypes' "
                        "shares none"
                    )
        if self.resume and not self.run_name:
            raise ValueError("resume needs run-name, the run to go on with")
        if self.variant == "released" and self.backbone != "covidnet":
            raise ValueError("variant = 'released' exists for backbone = 'covidnet' alone")
        return self

    @property
    def meets_prototypes(self) -> bool:
        """Whether a site meets prototypes of the others in its objective."""
        return self.prototypes != "none" and (self.alpha > 0 or self.prototype_pull > 0)

    @property
    def averages_moments(self) -> bool:
        """Whether sites average moments: SGD has none, and without weights none are shared."""
        adam = self.optimizer == "adam" and self.share == "weights"
        return adam and self.optimizer_state == "average"

    def changed(self, **values: Scalar) -> "Config":
        """Return a copy with some values replaced by field name, checked as a whole.

        Raises
        ------
        pydantic.ValidationError
            If the copy would not be valid.
        """
        return Config.model_validate(self.model_dump() | values)

    def to_run_config(self) -> dict[str, Scalar]:
        """Return every key in kebab-case with its value, as Flower's run configuration has it."""
        return self.model_dump(by_alias=True)

    def to_toml(self) -> str:
        """Return the whole configuration as TOML."""
        return tomli_w.dumps(self.to_run_config())

    def result_keys(self) -> dict[str, Scalar]:
        """Return the keys that determine a run's result, in kebab-case with their values.

        Where a run lives, how long it waits for sites, and whether it resumes are left out. The
        threads are not: sums depend on how many there are.
        """
        elsewhere = keys_of(Role.PLACE, Role.WAITING)
        return {k: v for k, v in self.to_run_config().items() if k not in elsewhere}

    def digest(self) -> str:
        """Return a SHA-256 over everything that determines a run's result."""
        return hashlib.sha256(json.dumps(self.result_keys(), sort_keys=True).encode()).hexdigest()


def about_keys() -> dict[str, Key]:
    """Return what every key says of itself, by key, in the schema's order."""
    return {
        key_of(name): next((about for about in field.metadata if isinstance(about, Key)), Key())
        for name, field in Config.model_fields.items()
    }


def keys_of(*roles: Role) -> tuple[str, ...]:
    """Return the keys of these kinds, in the schema's order."""
    return tuple(key for key, about in about_keys().items() if about.role in roles)
