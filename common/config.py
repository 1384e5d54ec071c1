"""The configuration: one frozen schema, the same kebab-case keys wherever a value comes from.

A TOML file, ``flwr run --run-config`` and ``xsite … --set key=value`` all fill :class:`Config`.
Lists are written as comma-separated text because Flower's run configuration knows only text,
whole numbers, decimals and booleans.
"""

import difflib
import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.errors import ConfigError

SITE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
SYNTHETIC = "synthetic"

Scalar = str | int | float | bool


def _kebab(name: str) -> str:
    return name.replace("_", "-")


class Config(BaseModel):
    """Everything that determines a run. ``describe()`` lists every key with its default."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=_kebab, populate_by_name=True
    )

    # Sites and folds
    data: Annotated[str, Field(description=(
        "folder that holds one folder a site, or 'synthetic' for hospitals made from the seed"
    ))] = SYNTHETIC
    sites: Annotated[str, Field(description=(
        "comma-separated sites, each 'name' (a folder below data) or 'name=folder'"
    ))] = "hospital-a,hospital-b"
    classes: Annotated[str, Field(description=(
        "comma-separated class folders, the same at every site; of two, the second is positive"
    ))] = "non-covid,covid"
    split: Annotated[Literal["patient", "image"], Field(description=(
        "unit that a fold keeps together; 'image' is the paper's and can split a patient"
    ))] = "patient"
    folds: Annotated[int, Field(ge=2, le=20, description="number of folds")] = 4
    fold: Annotated[int, Field(ge=0, description="which fold is the test set, from 0")] = 0
    validation_fraction: Annotated[float, Field(ge=0.0, lt=0.9, description=(
        "share of the training images that chooses the best weights; 0 keeps none"
    ))] = 0.0
    synthetic_patients: Annotated[int, Field(ge=8, le=100_000, description=(
        "patients at each synthetic hospital (three slices a patient on average)"
    ))] = 64

    # Images
    image_size: Annotated[int, Field(ge=16, le=1024, description=(
        "height and width that the network sees, in pixels"
    ))] = 224
    cache_size: Annotated[int, Field(ge=0, le=1024, description=(
        "height and width of cached images; 0 means 8/7 of image-size (256 for 224)"
    ))] = 0
    channels: Annotated[Literal[1, 3], Field(description="1 caches grey images, 3 colour")] = 1
    window_center: Annotated[float, Field(description=(
        "centre in Hounsfield units of the window for DICOM images that carry none"
    ))] = -600.0
    window_width: Annotated[float, Field(gt=0, description="width of that window")] = 1500.0
    crop_scale: Annotated[float, Field(gt=0, le=1, description=(
        "smallest share of an image's area that a random training crop keeps"
    ))] = 0.5
    flip: Annotated[bool, Field(description="flip training images left to right at random")] = True

    # Network
    backbone: Annotated[str, Field(description=(
        "'covidnet' (the paper's redesign), 'covidnet-original', or any torchvision classifier "
        "with batch normalisation, as 'torchvision:resnet18'"
    ))] = "covidnet"
    variant: Annotated[Literal["corrected", "released"], Field(description=(
        "the redesign as the paper describes it, or as its authors' code computes it"
    ))] = "corrected"
    width: Annotated[float, Field(gt=0, le=4, description="multiplier of every layer's width")] = 1.0
    normalisation: Annotated[Literal["dsbn", "shared"], Field(description=(
        "'dsbn' gives every site its own batch normalisation; 'shared' has one for all"
    ))] = "dsbn"
    projection_hidden: Annotated[int, Field(ge=1, description=(
        "width of the projection head's hidden layer, before the multiplier"
    ))] = 1024
    projection_size: Annotated[int, Field(ge=2, description="width of a projection")] = 128
    pretrained: Annotated[str, Field(description=(
        "file of weights to start from (the authors' checkpoint, or one of xsite's); '' for none"
    ))] = ""

    # Objective
    alpha: Annotated[float, Field(ge=0, description="weight of the contrastive term; 0: off")] = 1.0
    temperature: Annotated[float, Field(gt=0, description="temperature τ")] = 0.05
    denominator: Annotated[Literal["nt-xent", "eq4"], Field(description=(
        "'nt-xent': positive and negatives (the released code); 'eq4': negatives alone"
    ))] = "nt-xent"
    min_prototype_count: Annotated[int, Field(ge=1, description=(
        "a class with fewer training images at a site sends no prototype"
    ))] = 4
    prototype_images: Annotated[int, Field(ge=0, description=(
        "images of a class behind its prototype; 0 takes all of the site's training images"
    ))] = 0
    contrastive_warmup: Annotated[float, Field(ge=0, le=1, description=(
        "share of all steps over which the contrastive weight rises from 0 to alpha"
    ))] = 0.0

    # Training
    epochs: Annotated[int, Field(ge=1, description=(
        "passes over the largest site; smaller sites are reloaded to keep step"
    ))] = 100
    batch_size: Annotated[int, Field(ge=2, description="images of each site in one step")] = 16
    optimizer: Annotated[Literal["adam", "sgd"], Field(description="optimizer")] = "adam"
    learning_rate: Annotated[float, Field(gt=0, description="learning rate at the first step")] = 1e-4
    schedule: Annotated[Literal["cosine", "constant"], Field(description=(
        "how the learning rate falls over all steps"
    ))] = "cosine"
    weight_decay: Annotated[float, Field(ge=0, description="weight decay")] = 1e-7
    clip_norm: Annotated[float, Field(ge=0, description=(
        "largest norm of the gradient of one step; 0: no clipping"
    ))] = 2.0
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$", description=(
        "'auto', 'cpu', 'cuda' or 'cuda:1'"
    ))] = "auto"
    precision: Annotated[Literal["auto", "float32", "bfloat16", "float64"], Field(description=(
        "'auto': bfloat16 where the device computes it natively, else float32"
    ))] = "auto"
    threads: Annotated[int, Field(ge=0, description=(
        "CPU threads of one training process; 0: as many as it may use"
    ))] = 0
    statistics_images: Annotated[int, Field(ge=2, description=(
        "a site's training images behind the re-estimated running statistics, at most"
    ))] = 512
    seed: Annotated[int, Field(ge=0, description="seed of everything random")] = 0

    # Federation
    local_steps: Annotated[int, Field(ge=0, description=(
        "optimizer steps at a site between two exchanges; 0: one epoch"
    ))] = 0
    optimizer_state: Annotated[Literal["carry", "reset"], Field(description=(
        "what a site does with its optimizer's moments at the start of a round"
    ))] = "carry"
    aggregation: Annotated[Literal["uniform", "images"], Field(description=(
        "how the server weighs the sites: alike, or by training images"
    ))] = "uniform"
    min_sites: Annotated[int, Field(ge=0, description=(
        "fewest good replies that complete a round; 0: every site must answer"
    ))] = 0
    round_timeout: Annotated[float, Field(gt=0, description=(
        "seconds after which a round goes on without the sites that have not answered"
    ))] = 3600.0
    join_timeout: Annotated[float, Field(gt=0, description=(
        "seconds that the server waits for the sites to join before it gives up"
    ))] = 600.0

    # Where a run lives
    run_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]*$", description=(
        "name of the run's folder; '' makes one from the mode and the time"
    ))] = ""
    runs_dir: Annotated[str, Field(description=(
        "folder of all runs; '' is ./runs for the xsite command, ~/.xsite/runs under flwr run"
    ))] = ""
    cache_dir: Annotated[str, Field(description=(
        "folder of decoded images; '' is ~/.xsite/cache"
    ))] = ""
    resume: Annotated[bool, Field(description="go on with the run of that name")] = False

    @model_validator(mode="before")
    @classmethod
    def _accept_whole_numbers_as_decimals(cls, values: Any) -> Any:
        """Let ``alpha = 1`` stand for ``1.0``: TOML and command lines write it either way."""
        if not isinstance(values, Mapping):
            return values
        decimals = {
            spelling
            for name, field in cls.model_fields.items()
            if field.annotation is float
            for spelling in (name, _kebab(name))
        }
        return {
            key: float(value) if key in decimals and type(value) is int else value
            for key, value in values.items()
        }

    @model_validator(mode="after")
    def _check_combinations(self) -> "Config":
        if self.fold >= self.folds:
            raise ValueError(
                f"fold is {self.fold}, but folds = {self.folds} allows 0 to {self.folds - 1}"
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
        if self.cache_size and self.cache_size < self.image_size:
            raise ValueError(
                f"cache-size is {self.cache_size}, smaller than image-size = {self.image_size}"
            )
        if self.min_sites > len(names):
            raise ValueError(f"min-sites is {self.min_sites}, but there are {len(names)} sites")
        if self.resume and not self.run_name:
            raise ValueError("resume needs run-name, the run to go on with")
        if self.variant == "released" and self.backbone != "covidnet":
            raise ValueError("variant = 'released' exists for backbone = 'covidnet' alone")
        return self

    @property
    def site_names(self) -> tuple[str, ...]:
        """Names of the sites, in the order in which the server averages them."""
        return tuple(entry.partition("=")[0].strip() for entry in _entries(self.sites))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class folders in label order: label 0 first; of two classes the second is positive."""
        return _entries(self.classes)

    @property
    def cached_size(self) -> int:
        """Height and width of a cached image, in pixels."""
        return self.cache_size or round(self.image_size * 8 / 7)

    def site_folder(self, name: str) -> Path | None:
        """Return a site's folder, or None for a synthetic hospital.

        Raises
        ------
        ConfigError
            If no site has that name.
        """
        for entry in _entries(self.sites):
            site, _, folder = entry.partition("=")
            if site.strip() == name:
                if folder.strip():
                    return Path(folder.strip()).expanduser()
                return None if self.data == SYNTHETIC else Path(self.data).expanduser() / name
        raise ConfigError(f"No site is called '{name}'; sites has {', '.join(self.site_names)}.")

    def changed(self, **values: Scalar) -> "Config":
        """Return a copy with some values replaced, checked as a whole.

        Parameters
        ----------
        **values
            New values by field name (``local_steps=4``).

        Raises
        ------
        ConfigError
            As :func:`make_config`.
        """
        return make_config(self.to_run_config() | {_kebab(k): v for k, v in values.items()})

    def to_run_config(self) -> dict[str, Scalar]:
        """Return every key in kebab-case with its value, as Flower's run configuration has it."""
        return self.model_dump(by_alias=True)

    def to_toml(self) -> str:
        """Return the whole configuration as TOML."""
        return tomli_w.dumps(self.to_run_config())

    def digest(self) -> str:
        """Return a SHA-256 over everything that determines a run's result.

        Where a run lives, the device's threads, and whether it resumes are left out.
        """
        elsewhere = {"run-name", "runs-dir", "cache-dir", "resume", "join-timeout", "round-timeout"}
        values = {k: v for k, v in self.to_run_config().items() if k not in elsewhere}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _entries(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def keys() -> tuple[str, ...]:
    """Return every configuration key, in the schema's order."""
    return tuple(_kebab(name) for name in Config.model_fields)


def describe() -> list[tuple[str, Scalar, str]]:
    """Return (key, default, explanation) for every key, in the schema's order."""
    return [
        (_kebab(name), field.default, field.description or "")
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

    Returns
    -------
    Config

    Raises
    ------
    ConfigError
        Naming the key, what was found, what is allowed, and for an unknown key the nearest one.
    """
    where = f" (in {source})" if source else ""
    for key in values:
        if key not in keys():
            near = difflib.get_close_matches(key, keys(), n=1, cutoff=0.5)
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
            f"Configuration key '{key}'{where}: {message}; found {first['input']!r}."
        ) from None


def load_config(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read a TOML file and lay overrides over it.

    Parameters
    ----------
    path : Path, optional
        A TOML file of kebab-case keys; without it the defaults are the ground.
    overrides : mapping, optional
        Values that win over the file's.

    Raises
    ------
    ConfigError
        If the file is missing or not TOML, or as :func:`make_config`.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text())
        except OSError as error:
            raise ConfigError(f"Cannot read the configuration {path}: {error.strerror}.") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"The configuration {path} is not TOML: {error}.") from error
        make_config(values, source=str(path))
    return make_config(values | dict(overrides or {}))


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
    except tomllib.TOMLDecodeError:
        parsed = value
    return key.strip(), parsed if isinstance(parsed, str | int | float | bool) else value
