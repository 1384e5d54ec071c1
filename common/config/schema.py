"""The schema of a configuration: every key, its type, its range, what it means.

Lists are written as comma-separated text because Flower's run configuration knows only text,
whole numbers, decimals and booleans.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import Field, model_validator

from common.config.toml_model import TomlModel, fits_64_bits, key_of
from common.errors import ConfigError

SITE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
SYNTHETIC = "synthetic"

Scalar = str | int | float | bool
Aggregation = Literal["uniform", "images", "median", "trimmed-mean", "krum"]


class Config(TomlModel):
    """Everything that determines a run; a key is the field's name in kebab-case."""

    # Sites and folds
    data: str = SYNTHETIC
    """Folder that holds one folder a site, or 'synthetic' for hospitals made from the seed;
    '' takes the folder that the environment variable XSITE_DATA names.
    """
    sites: str = "hospital-a,hospital-b"
    """Comma-separated sites, each 'name' (a folder below data) or 'name=folder'."""
    classes: str = "non-covid,covid"
    """Comma-separated class folders, the same at every site; of two, the second is positive."""
    split: Literal["patient", "image"] = "patient"
    """Unit that a fold keeps together; 'image' is the paper's and can split a patient."""
    folds: int = Field(4, ge=2, le=20)
    """Number of folds."""
    fold: int = Field(0, ge=0)
    """Which fold is the test set, from 0."""
    validation_fraction: float = Field(0.0, ge=0.0, lt=0.9)
    """Share of the training images that chooses the best weights; 0 keeps none."""
    synthetic_patients: int = Field(64, ge=8, le=100_000)
    """Patients at each synthetic hospital (three slices a patient on average)."""

    # Images
    image_size: int = Field(112, ge=16, le=1024)
    """Height and width that the network sees, in pixels; the paper's 224 needs a GPU."""
    cache_size: int = Field(0, ge=0, le=1024)
    """Height and width of cached images; 0 means 8/7 of image-size (128 for 112)."""
    channels: Literal[1, 3] = 1
    """1 caches grey images, 3 colour."""
    window_center: float = -600.0
    """Centre in Hounsfield units of the window for DICOM images that carry none."""
    window_width: float = Field(1500.0, gt=0)
    """Width of that window."""
    crop_scale: float = Field(0.5, gt=0, le=1)
    """Smallest share of an image's area that a random training crop keeps."""
    crop_scale_max: float = Field(1.0, ge=1, le=4)
    """Its largest share; above 1 the crop shows a mirrored rim, and all in it is smaller."""
    flip: bool = True
    """Flip training images left to right at random."""

    # Network
    backbone: str = "covidnet"
    """'covidnet' (the paper's redesign), 'covidnet-original', or any torchvision classifier
    with batch normalisation, as 'torchvision:resnet18', or its first modules alone, as
    'torchvision:resnet18:layer2': for small lesions in large images, and closer activation maps.
    """
    variant: Literal["corrected", "released"] = "corrected"
    """The redesign as the paper describes it, or as its authors' code computes it."""
    width: float = Field(1.0, gt=0, le=4)
    """Multiplier of every layer's width."""
    normalisation: Literal["dsbn", "shared"] = "dsbn"
    """'dsbn' gives every site its own batch normalisation; 'shared' has one for all."""
    projection_hidden: int = Field(1024, ge=1)
    """Width of the projection head's hidden layer, before the multiplier."""
    projection_size: int = Field(128, ge=2)
    """Width of a projection."""
    adapters: Literal["none", "series", "parallel"] = "none"
    """Every site's own residual adapters: none, after the shared convolutions, or beside them."""
    auxiliary: bool = False
    """Give every site a classification branch of its own that teaches the shared one (MS-Net)."""
    pretrained: str = ""
    """File of weights to start from (the authors' checkpoint, or one of xsite's); '' for none."""

    # Objective
    alpha: float = Field(1.0, ge=0)
    """Weight of the contrastive term; 0: off."""
    temperature: float = Field(0.05, gt=0)
    """Temperature τ."""
    denominator: Literal["nt-xent", "eq4"] = "nt-xent"
    """'nt-xent': positive and negatives (the released code); 'eq4': negatives alone."""
    min_prototype_count: int = Field(4, ge=1)
    """A class with fewer training images at a site sends no prototype."""
    prototype_images: int = Field(64, ge=0)
    """Images of a class behind its prototype, at most; 0 takes all the training images."""
    prototypes: Literal["site", "average", "none"] = "site"
    """What a site meets of the others: each one's prototypes, all sites' average, or nothing."""
    prototype_multiplicity: bool = True
    """Let a prototype count as often as the joint batch would hold its images, else once."""
    contrastive_warmup: float = Field(0.0, ge=0, le=1)
    """Share of all steps over which the contrastive weight rises from 0 to alpha."""

    # Terms of compared methods
    proximal: float = Field(0.0, ge=0)
    """FedProx's μ: a pull back to the received weights; 0: off."""
    model_contrast: float = Field(0.0, ge=0)
    """MOON's μ: projections like the received model's, unlike the site's last; 0: off."""
    model_contrast_temperature: float = Field(0.5, gt=0)
    """MOON's temperature."""
    prototype_pull: float = Field(0.0, ge=0)
    """FedProto's λ: a pull of projections to the prototypes of their class; 0: off."""

    # Training
    epochs: int = Field(10, ge=1)
    """Passes over the largest site; smaller sites are reloaded to keep step."""
    batch_size: int = Field(16, ge=2)
    """Images of each site in one step."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Optimizer."""
    learning_rate: float = Field(1e-4, gt=0)
    """Learning rate at the first step."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """How the learning rate falls over all steps."""
    weight_decay: float = Field(1e-7, ge=0)
    """Weight decay."""
    clip_norm: float = Field(2.0, ge=0)
    """Largest norm of the gradient of one step; 0: no clipping."""
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """'auto', 'cpu', 'cuda' or 'cuda:1'."""
    precision: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    """'auto': bfloat16 where the device computes it natively, else float32."""
    threads: int = Field(0, ge=0)
    """CPU threads of one training process; 0: as many as it may use."""
    statistics_images: int = Field(512, ge=2)
    """A site's training images behind the re-estimated running statistics, at most."""
    seed: int = Field(0, ge=0)
    """Seed of everything random."""

    # Federation
    local_steps: int = Field(16, ge=0)
    """Optimizer steps at a site between two exchanges; 0: one epoch. More save bytes and cost
    accuracy."""
    exchange: Literal["weights", "half-deltas", "prototypes"] = "weights"
    """What the sites exchange: shared weights and prototypes; the same, but a site sends the change
    of its weights in half precision; or (FedProto) prototypes alone."""
    optimizer_state: Literal["carry", "reset"] = "carry"
    """What a site does with its optimizer's moments at the start of a round."""
    aggregation: Aggregation = "uniform"
    """How the server joins the sites' weights: their mean, alike or by training images; or, so that
    a site that lies moves it less, median, trimmed mean, or Krum (the most central site)."""
    min_sites: int = Field(0, ge=0)
    """Fewest good replies that complete a round, and fewest sites to begin with; 0: every site, and
    one that goes away is awaited until round-timeout. The others may come late, or leave."""
    round_timeout: float = Field(3600.0, gt=0)
    """Seconds after which a round goes on without the sites that have not answered."""
    join_timeout: float = Field(600.0, gt=0)
    """Seconds that the server waits for sites to join before it gives up, or begins with fewer."""

    # Where a run lives
    run_name: str = Field("", pattern=r"^[A-Za-z0-9._-]*$", max_length=128)
    """Name of the run's folder; '' makes one from the mode and the time."""
    runs_dir: str = ""
    """Folder of all runs; '' is ./runs for the xsite command, ~/.xsite/runs under flwr run."""
    cache_dir: str = ""
    """Folder of decoded images; '' is ~/.xsite/cache."""
    resume: bool = False
    """Go on with the run of that name."""

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
            for spelling in (name, key_of(name))
        }
        return {
            # A larger one is none; what is left as it is, is refused by its key.
            key: float(value)
            if key in decimals and type(value) is int and fits_64_bits(value)
            else value
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
        for name in self.class_names:
            if "/" in name or name.startswith("."):
                raise ValueError(f"classes holds '{name}', which names no folder within a site's")
        if self.cache_size and self.cache_size < self.image_size:
            raise ValueError(
                f"cache-size is {self.cache_size}, smaller than image-size = {self.image_size}"
            )
        if self.min_sites > len(names):
            raise ValueError(f"min-sites is {self.min_sites}, but there are {len(names)} sites")
        if self.exchange == "prototypes" and not self.meets_prototypes:
            raise ValueError(
                "exchange = 'prototypes' needs a term that meets them: prototype-pull or alpha, "
                "and prototypes other than 'none'"
            )
        if self.exchange == "prototypes":
            for key in ("pretrained", "proximal", "model_contrast"):
                if getattr(self, key):
                    raise ValueError(
                        f"{key_of(key)} is about shared weights, and exchange = 'prototypes' "
                        "shares none"
                    )
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
    def meets_prototypes(self) -> bool:
        """Whether a site meets prototypes of the others in its objective."""
        return self.prototypes != "none" and (self.alpha > 0 or self.prototype_pull > 0)

    @property
    def cached_size(self) -> int:
        """Height and width of a cached image, in pixels."""
        return self.cache_size or round(self.image_size * 8 / 7)

    def site_folder(self, name: str) -> Path | None:
        """Return a site's folder, or None for a synthetic hospital.

        Raises
        ------
        ConfigError
            If no site has that name, or nothing says where its folder is.
        """
        for entry in _entries(self.sites):
            site, _, folder = entry.partition("=")
            if site.strip() == name:
                if folder.strip():
                    return Path(folder.strip()).expanduser()
                if not self.data:
                    raise ConfigError(
                        f"No folder is named for site '{name}': give the folder of all sites "
                        "as data (--data, or XSITE_DATA), or sites = 'name=folder'."
                    )
                return None if self.data == SYNTHETIC else Path(self.data).expanduser() / name
        raise ConfigError(f"No site is called '{name}'; sites has {', '.join(self.site_names)}.")

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
        elsewhere = {"run-name", "runs-dir", "cache-dir", "resume", "join-timeout", "round-timeout"}
        return {k: v for k, v in self.to_run_config().items() if k not in elsewhere}

    def digest(self) -> str:
        """Return a SHA-256 over everything that determines a run's result."""
        return hashlib.sha256(json.dumps(self.result_keys(), sort_keys=True).encode()).hexdigest()


def _entries(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
