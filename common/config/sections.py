"""The keys of a configuration by section: type, range, meaning, and what kind of key each is.

Lists are written as comma-separated text because Flower's run configuration knows only text,
whole numbers, decimals and booleans.
"""

from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from common.config.classes import parse_classes_map
from common.config.sites import parse_sites
from common.config.toml_model import TomlModel
from common.errors import ConfigError

CODEC = r"^[a-z0-9]+(-[a-z0-9]+)*$"
SYNTHETIC = "synthetic"

Aggregation = Literal["uniform", "images", "median", "trimmed-mean", "krum"]


class Role(Enum):
    """What kind of key a key is; one that states none is of the kind ``RESULT``."""

    RESULT = auto()
    """It decides the result."""
    METHOD = auto()
    """It decides the result, and makes a run one method's and not another's."""
    IMAGES = auto()
    """It decides which images there are and on which folds: the same for all that is compared."""
    FOLDERS = auto()
    """It says where the images lie on a machine, and so which there are."""
    CELL = auto()
    """It decides the result, and tells a study's runs of one method from each other."""
    MACHINE = auto()
    """It decides the result in its last bits; a run may settle it for its processes."""
    WAITING = auto()
    """It says how long a run waits for sites."""
    PLACE = auto()
    """It says where a run lives."""


@dataclass(frozen=True)
class Key:
    """What a key says of itself beside type, range and meaning."""

    role: Role = Role.RESULT
    """What kind of key it is."""
    path: bool = False
    """Whether it names a file or a folder."""
    study: str = ""
    """If a study decides it for each of its runs: what to do instead of setting it."""


class DataKeys(TomlModel):
    """Sites, classes and folds."""

    data: Annotated[str, Key(Role.FOLDERS, path=True)] = SYNTHETIC
    """Folder that holds one folder a site, or 'synthetic' for hospitals made from the seed;
    '' takes the folder that the environment variable XSITE_DATA names.
    """
    sites: Annotated[str, Key(Role.FOLDERS)] = "hospital-a,hospital-b"
    """Comma-separated sites, each 'name' (a folder below data) or 'name=folder'."""
    classes: Annotated[str, Key(Role.IMAGES)] = "non-covid,covid"
    """Comma-separated class folders, the same at every site; of two, the second is positive."""
    classes_map: Annotated[str, Key(Role.IMAGES)] = ""
    """Other names that sites have for the classes, in folders and in labels of metadata.csv, as
    'COVID-19=covid,Normal=non-covid'; a name counts as it is, else without case and blanks.
    Images of a name without a class ('tb=') take no part.
    """
    task: Annotated[str, Key(Role.IMAGES)] = "classification"
    """What is learnt of an image: its class folder, or what else a task of that name says."""
    split: Annotated[Literal["patient", "image"], Key(Role.IMAGES)] = "patient"
    """Unit that a fold keeps together; 'image' is the paper's and can split a patient."""
    folds: Annotated[int, Key(Role.IMAGES)] = Field(4, ge=2, le=20)
    """Number of folds."""
    fold: Annotated[int, Key(Role.CELL, study="give folds = […] above [run]")] = Field(0, ge=0)
    """Which fold is the test set, from 0."""
    validation_fraction: float = Field(0.0, ge=0.0, lt=0.9)
    """Share of the training images that chooses the best weights; 0 keeps none."""
    train_images: Annotated[int, Key(Role.IMAGES)] = Field(0, ge=0)
    """Training images of each site, at most: taken patient by patient in the classes' proportion,
    by seed and fold, the first of a larger number; 0 takes all. Test and validation parts stay."""
    synthetic_patients: Annotated[int, Key(Role.IMAGES)] = Field(64, ge=8, le=100_000)
    """Patients at each synthetic hospital (three slices a patient on average)."""

    @property
    def site_names(self) -> tuple[str, ...]:
        """Names of the sites, in the order in which the server averages them."""
        return tuple(site.name for site in parse_sites(self.sites))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class folders in label order: label 0 first; of two classes the second is positive."""
        return tuple(name.strip() for name in self.classes.split(",") if name.strip())

    @property
    def own_class_names(self) -> dict[str, str]:
        """Names that sites have for the classes → class."""
        return parse_classes_map(self.classes_map)

    def site_folder(self, name: str) -> Path | None:
        """Return a site's folder, or None for a synthetic hospital.

        Raises
        ------
        ConfigError
            If nothing says where its folder is.
        """
        folders = {site.name: site.folder for site in parse_sites(self.sites)}
        if folders[name]:
            return Path(folders[name]).expanduser()
        if not self.data:
            raise ConfigError(
                f"No folder is named for site '{name}': give the folder of all sites "
                "as data (--data, or XSITE_DATA), or sites = 'name=folder'."
            )
        return None if self.data == SYNTHETIC else Path(self.data).expanduser() / name


class ImageKeys(TomlModel):
    """How images are decoded, cached and augmented."""

    image_size: int = Field(112, ge=16, le=1024)
    """Height and width that the network sees, in pixels; the paper's 224 needs a GPU. Whole
    torchvision networks need 17 or more in bfloat16 on a processor."""
    cache_size: int = Field(0, ge=0, le=1024)
    """Height and width of cached images; 0 means 8/7 of image-size (128 for 112)."""
    channels: Annotated[Literal[1, 3], Key(Role.IMAGES)] = 1
    """1 caches grey images, 3 colour."""
    window_center: Annotated[float, Key(Role.IMAGES)] = -600.0
    """Centre of the window for images in Hounsfield units that carry none."""
    window_width: Annotated[float, Key(Role.IMAGES)] = Field(1500.0, gt=0)
    """Width of that window."""
    grey_low: Annotated[float, Key(Role.IMAGES)] = 0.0
    """Value that is black in other greys of more than 8 bits that name no window."""
    grey_high: Annotated[float, Key(Role.IMAGES)] = 0.0
    """Value that is white; with 0 for both a site takes the range of the bits that its files
    use."""
    crop_scale: float = Field(0.5, gt=0, le=1)
    """Smallest share of an image's area that a random training crop keeps."""
    crop_scale_max: float = Field(1.0, ge=1, le=4)
    """Its largest share; above 1 the crop shows a mirrored rim, and all in it is smaller."""
    flip: bool = True
    """Flip training images left to right at random."""

    @property
    def cached_size(self) -> int:
        """Height and width of a cached image, in pixels."""
        return self.cache_size or round(self.image_size * 8 / 7)


class NetworkKeys(TomlModel):
    """The network and its heads."""

    backbone: str = "covidnet"
    """'covidnet' (the paper's redesign), 'covidnet-original', or any torchvision classifier
    with batch normalisation, as 'torchvision:resnet18', or its first modules alone, as
    'torchvision:resnet18:layer2': for small lesions in large images, and closer activation maps.
    """
    variant: Literal["corrected", "released"] = "corrected"
    """The redesign as the paper describes it, or as its authors' code computes it."""
    width: float = Field(1.0, gt=0, le=4)
    """Multiplier of every layer's width."""
    normalisation: Annotated[Literal["dsbn", "shared", "none"], Key(Role.METHOD)] = "dsbn"
    """'dsbn' gives every site its own batch normalisation; 'shared' has one for all; 'none' has
    none, but convolutions of standardised weights (FedWon)."""
    projection_hidden: int = Field(1024, ge=1)
    """Width of the projection head's hidden layer, before the multiplier."""
    projection_size: int = Field(128, ge=2)
    """Width of a projection."""
    adapters: Annotated[Literal["none", "series", "parallel"], Key(Role.METHOD)] = "none"
    """Every site's own residual adapters: none, after the shared convolutions, or beside them."""
    auxiliary: Annotated[bool, Key(Role.METHOD)] = False
    """Give every site a classification branch of its own that teaches the shared one (MS-Net)."""
    pretrained: Annotated[str, Key(path=True)] = ""
    """File of weights to start from (the authors' checkpoint, or one of xsite's); '' for none."""


class ObjectiveKeys(TomlModel):
    """The contrastive term and the prototypes that it meets."""

    alpha: float = Field(1.0, ge=0)
    """Weight of the contrastive term; 0: off."""
    temperature: float = Field(0.05, gt=0)
    """Temperature τ."""
    contrastive_on: Annotated[Literal["projection", "embedding"], Key(Role.METHOD)] = "projection"
    """What of an image the contrastive term, prototypes and other terms on projections are of: its
    projection; or its embedding, and there is no projection head."""
    denominator: Literal["nt-xent", "eq4"] = "nt-xent"
    """'nt-xent': positive and negatives (the released code); 'eq4': negatives alone."""
    min_prototype_count: int = Field(4, ge=1)
    """A class with fewer training images at a site sends no prototype."""
    prototype_images: int = Field(256, ge=1)
    """Latest images of a site behind its prototypes, at most, each as training saw it."""
    prototypes: Annotated[Literal["site", "average", "none"], Key(Role.METHOD)] = "site"
    """What a site meets of the others: each one's prototypes, all sites' average, or nothing."""
    prototype_draws: Annotated[int, Key(Role.METHOD)] = Field(32, ge=0, le=4096)
    """Vectors drawn of every prototype at a step, which together stand for its images; 0: its mean
    alone."""
    prototype_anchors: Annotated[bool, Key(Role.METHOD)] = True
    """Let what stands for the other sites' images be anchors too, as in a joint batch."""
    prototype_rank: int = Field(8, ge=0, le=64)
    """Directions of largest spread that a prototype tells beside the spread along each axis."""
    contrastive_within: Annotated[bool, Key(Role.METHOD)] = True
    """Count the pairs of two images of a batch, beside those with other sites, where these are
    known."""
    prototype_multiplicity: Annotated[bool, Key(Role.METHOD)] = True
    """Let a prototype count as often as the joint batch would hold its images, else once."""
    contrastive_warmup: float = Field(0.0, ge=0, le=1)
    """Share of all steps over which the contrastive weight rises from 0 to alpha."""


class MethodKeys(TomlModel):
    """Terms of the methods that xsite is compared with."""

    proximal: Annotated[float, Key(Role.METHOD)] = Field(0.0, ge=0)
    """FedProx's μ: a pull back to the received weights; 0: off."""
    model_contrast: Annotated[float, Key(Role.METHOD)] = Field(0.0, ge=0)
    """MOON's μ: projections like the received model's, unlike the site's last; 0: off."""
    model_contrast_temperature: float = Field(0.5, gt=0)
    """MOON's temperature."""
    prototype_pull: Annotated[float, Key(Role.METHOD)] = Field(0.0, ge=0)
    """FedProto's λ: a pull of projections to the prototypes of their class; 0: off."""
    algorithm: Annotated[str, Key(Role.METHOD)] = ""
    """Federated algorithm, by its name in `xsite methods`; '' is none of them."""
    algorithm_options: Annotated[str, Key(Role.METHOD)] = ""
    """Its options as TOML, for example 'rate = 0.1, tau = 0.01'; one left out has its default."""


class TrainingKeys(TomlModel):
    """The optimizer, and where it computes."""

    epochs: int = Field(10, ge=1)
    """Passes over the largest site; smaller sites are reloaded to keep step."""
    batch_size: int = Field(16, ge=2)
    """Images of each site in one step."""
    batches: Literal["shuffled", "balanced"] = "shuffled"
    """'balanced' draws each of a site's classes as often as the others, however few images it has;
    'shuffled' draws images."""
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
    clip_ratio: Annotated[float, Key(Role.METHOD)] = Field(0.0, ge=0)
    """Largest norm of a gradient by that of its weights, unit by unit but for the last layers
    (adaptive gradient clipping); 0: no such clipping."""
    device: Annotated[str, Key(Role.MACHINE)] = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """'auto', 'cpu', 'cuda' or 'cuda:1'."""
    precision: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    """'auto': bfloat16 where the device computes it natively, else float32."""
    threads: Annotated[int, Key(Role.MACHINE)] = Field(0, ge=0)
    """CPU threads of one training process; 0: as many as it may use."""
    statistics_images: int = Field(512, ge=2)
    """A site's training images behind the re-estimated running statistics, at most."""
    seed: Annotated[int, Key(Role.CELL, study="give seeds = […] above [run]")] = Field(0, ge=0)
    """Seed of everything random."""


class FederationKeys(TomlModel):
    """What sites and server exchange, and how long they wait."""

    local_steps: int = Field(16, ge=0)
    """Optimizer steps at a site between two exchanges; 0: one epoch. More save bytes and cost
    accuracy."""
    finish_alone: float = Field(0.0, ge=0, lt=1)
    """Share of all steps that each site takes by itself at the end, after the last exchange: its
    figures and predictions are its own network's, and the average of that exchange is for a
    hospital that took no part; 0: none. It changes nothing where nothing is exchanged."""
    share: Annotated[Literal["weights", "prototypes"], Key(Role.METHOD)] = "weights"
    """What the sites share: weights and prototypes, or (FedProto) prototypes alone."""
    codec: str = Field("none", pattern=CODEC)
    """How weights travel to the server: 'none' as they are, or their change in 16, 8 or 4 bits a
    value: 'half-deltas', 'int8-deltas' or 'int4-deltas'. What the last two lose is sent later."""
    codec_down: str = Field("none", pattern=CODEC)
    """How their average travels to the sites, by the same names; a site that lacks what a change is
    from gets whole weights."""
    optimizer_state: Literal["carry", "average", "reset"] = "carry"
    """What becomes of the optimizer's moments from round to round: a site carries its own, goes on
    from the sites' average of them (of shared tensors alone, and of Adam; else as 'carry'), or
    begins anew."""
    codec_moments: Literal["none", "int8", "int4"] = "none"
    """How moments travel that are averaged, both ways: 'none' as they are, or in 8 or 4 bits."""
    aggregation: Aggregation = "uniform"
    """How the server joins the sites' weights: their mean, alike or by training images; or, so that
    a site that lies moves it less, median, trimmed mean, or Krum (the most central site)."""
    min_sites: int = Field(0, ge=0)
    """Fewest good replies that complete a round, and fewest sites to begin with; 0: every site, and
    one that goes away is awaited until round-timeout. The others may come late, or leave."""
    site_statistics: bool = True
    """Have every site tell the greys of its training images together as it joins, so that the
    server sees one that stands apart (inverted, blank, far from the others) before training."""
    round_timeout: Annotated[float, Key(Role.WAITING)] = Field(3600.0, gt=0)
    """Seconds after which a round goes on without the sites that have not answered."""
    join_timeout: Annotated[float, Key(Role.WAITING)] = Field(600.0, gt=0)
    """Seconds that the server waits for sites to join before it gives up, or begins with fewer."""


class RunKeys(TomlModel):
    """Where a run lives."""

    run_name: Annotated[str, Key(Role.PLACE, study="name the study with --name")] = Field(
        "", pattern=r"^[A-Za-z0-9._-]*$", max_length=128
    )
    """Name of the run's folder; '' makes one from the mode and the time."""
    runs_dir: Annotated[
        str, Key(Role.PLACE, path=True, study="name the folder of all runs with --runs")
    ] = ""
    """Folder of all runs; '' is ./runs for the xsite command, ~/.xsite/runs under flwr run."""
    cache_dir: Annotated[str, Key(Role.PLACE, path=True)] = ""
    """Folder of decoded images; '' is ~/.xsite/cache."""
    resume: Annotated[bool, Key(Role.PLACE, study="a study goes on by itself")] = False
    """Go on with the run of that name."""
