"""The plan of a study: which methods on which folds with which seeds, read from a TOML file.

::

    title = "…"                       # of the report
    methods = ["joint", "xsite"]      # names that `xsite methods` lists, or of [[method]] below
    folds = [0, 1, 2, 3]
    seeds = [0, 1]
    reference = "xsite"               # what the others are held against
    orders = ["joint < sepnorm",      # what is expected, and held against what comes out:
              "sepnorm = xsite"]      # above, or within one point
    unseen = ["sepnorm-contrastive"]  # methods that are also trained without each site in turn
    backend = "in-process"            # what runs the sites of federated cells; "ray" without it

    [run]                             # keys of every run's configuration, as for --config
    [[method]]                        # a method of one's own: name, label, mode, settings
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.config.load import load_config, make_config
from common.config.schema import Config, Scalar, about_keys, keys_of
from common.config.sections import Role
from common.config.sites import SITE_NAME, parse_sites
from common.config.toml_model import read_toml
from common.errors import ConfigError
from common.files import write_atomic
from common.methods.method import Mode, Variant
from server.checks import check_names
from simulations.comparison import METHODS, find_method, values_of
from simulations.study.cells import Cell

PLAN = "study.toml"
ADVICE = {key: about.study for key, about in about_keys().items() if about.study}
"""Keys that a study decides for each of its runs, and what to do instead of setting them."""


class OwnMethod(BaseModel):
    """A method that a study brings along."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(pattern=f"^{SITE_NAME.pattern}$")
    label: str = Field(min_length=1)
    mode: Mode
    settings: dict[str, str | int | float | bool] = Field(default_factory=dict)


class StudyFile(BaseModel):
    """What a study's file may say."""

    model_config = ConfigDict(extra="forbid", strict=True)

    title: str = ""
    methods: list[str] = Field(min_length=1)
    folds: list[int] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)
    reference: str = ""
    orders: list[str] = Field(default_factory=list)
    unseen: list[str] = Field(default_factory=list)
    backend: Literal["ray", "in-process"] = "ray"
    preset: Literal["", "comparison"] = ""
    run: dict[str, Any] = Field(default_factory=dict)
    method: list[OwnMethod] = Field(default_factory=list)


@dataclass(frozen=True)
class Order:
    """An order of two methods that is expected, to be held against what came out.

    ``level``: whether they are expected to be level, within a point, instead of the upper above.
    """

    lower: str
    upper: str
    level: bool = False


@dataclass(frozen=True)
class StudyPlan:
    """A study as it was asked for, checked; what its file says stands at the top of this module."""

    title: str
    methods: tuple[Variant, ...]
    """Rows of its tables, in this order."""
    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    reference: str
    config: Config
    """What all runs share; its fold and seed are 0."""
    orders: tuple[Order, ...] = ()
    unseen: tuple[Variant, ...] = ()
    backend: str = "ray"
    comparison: bool = False
    """Whether it is the preset of :mod:`simulations.study.presets`: the methods are training modes
    of one configuration. Then figures are summarised over all runs alike, and the report is the
    shorter one."""

    def cells(self) -> tuple[Cell, ...]:
        """Return all cells; the methods of a seed and fold follow each other, to be compared."""
        pairs = [(seed, fold) for seed in self.seeds for fold in self.folds]
        main = [Cell(method, fold, seed) for seed, fold in pairs for method in self.methods]
        without = [
            Cell(method, fold, seed, site)
            for seed, fold in pairs
            for method in self.unseen
            for site in self.config.site_names
        ]
        return (*main, *without)

    def config_of(self, cell: Cell) -> Config:
        """Return the configuration of a cell's run, without the folder that it lives in.

        Raises
        ------
        ConfigError
            If the method's settings and the study's contradict each other.
        """
        values = self.config.to_run_config() | values_of(cell.method)
        values |= {"fold": cell.fold, "seed": cell.seed}
        if cell.without:
            sites = parse_sites(self.config.sites)
            values["sites"] = ",".join(str(site) for site in sites if site.name != cell.without)
        return make_config(values, source=f"method '{cell.method.name}'")

    def write(self, path: Path) -> None:
        """Write the plan as a file that :func:`read_file` reads, every key of a run spelt out."""
        run = {k: v for k, v in self.config.to_run_config().items() if k not in ADVICE}
        known = {method.name: method for method in (*self.methods, *self.unseen)}
        own = [] if self.comparison else [m for m in known.values() if METHODS.get(m.name) != m]
        told = vars(self) | {
            "methods": [method.name for method in self.methods],
            "orders": [f"{o.lower} {'=' if o.level else '<'} {o.upper}" for o in self.orders],
            "unseen": [method.name for method in self.unseen],
            "preset": "comparison" if self.comparison else "",
            "run": run,
            "method": [vars(method) | {"settings": dict(method.settings)} for method in own],
        }
        text = tomli_w.dumps({name: told[name] for name in StudyFile.model_fields})
        write_atomic(path, text.encode())


def plan_study(
    file: StudyFile,
    source: str,
    values: Mapping[str, Scalar],
    methods: Sequence[str] = (),
    folds: Sequence[int] = (),
    seeds: Sequence[int] = (),
) -> StudyPlan:
    """Make a plan of what a file says and a command line changes.

    Parameters
    ----------
    file : StudyFile
        As :func:`read_file` returns it.
    source : str
        The file's name, for errors and as a title where it gives none.
    values : mapping
        The configuration of all runs: the file's, with what wins over it.
    methods, folds, seeds : sequence, optional
        These instead of the file's.

    Raises
    ------
    ConfigError
        Naming what is wrong, and for a misspelt name the nearest one.
    """
    if file.preset:
        raise ConfigError(f"{source} is of a comparison, which `xsite compare` goes on with.")
    for key, advice in ADVICE.items():
        if key in values:
            raise ConfigError(f"{key} is set, but a study decides it itself: {advice}.")
    for one in file.method:
        for key in ADVICE.keys() & one.settings.keys():
            raise ConfigError(f"[[method]] '{one.name}' of {source} sets {key}: {ADVICE[key]}.")
    own = {one.name: Variant(**vars(one)) for one in file.method}
    if taken := sorted(own.keys() & METHODS.keys()):
        raise ConfigError(f"[[method]] of {source}: '{taken[0]}' is the name of a method of xsite.")
    known = METHODS | own
    chosen = _unique(methods or file.methods)
    reference = find_method(file.reference, known).name if file.reference else ""
    plan = StudyPlan(
        file.title or Path(source).stem,
        tuple(find_method(name, known) for name in chosen),
        _unique(folds or file.folds),
        _unique(seeds or file.seeds),
        reference if reference in chosen else chosen[-1],
        load_config(None, values),
        tuple(order for text in file.orders if (order := _order(text, known, chosen))),
        tuple(find_method(name, known) for name in _unique(file.unseen)),
        file.backend,
    )
    check(plan)
    return plan


def read_file(path: Path) -> StudyFile:
    """Read a study's file.

    Raises
    ------
    ConfigError
        If it is missing, no TOML, or says what no study's file says.
    """
    try:
        file = StudyFile.model_validate(read_toml(path, "the study", ConfigError))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = ", ".join(StudyFile.model_fields)
            raise ConfigError(
                f"The study {path} has no key '{key}'; it has {known}. Keys of the runs' "
                "configuration go below [run]."
            ) from None
        if first["type"] == "missing":
            raise ConfigError(
                f"{path} names no {key}, so it is no study: a study has methods, folds and seeds, "
                "and the configuration of their runs below [run]."
            ) from None
        raise ConfigError(f"The study {path}, {key}: {first['msg']}.") from None
    make_config(file.run, source=f"[run] of {path}")
    return file


def _order(text: str, known: Mapping[str, Variant], chosen: Sequence[str]) -> Order | None:
    """Read ``a < b`` or ``a = b``; None if the study leaves one of the two methods out."""
    sign = next((sign for sign in "<=" if sign in text), "")
    lower, _, upper = (part.strip() for part in text.partition(sign or " "))
    if not sign:
        raise ConfigError(f"orders holds '{text}', which is not 'a < b' or 'a = b'.")
    for name in (lower, upper):
        find_method(name, known)
    return Order(lower, upper, sign == "=") if {lower, upper} <= set(chosen) else None


def check(plan: StudyPlan) -> None:
    """Refuse what would fail hours later, cell by cell.

    Raises
    ------
    ConfigError
        In a sentence.
    """
    for fold in plan.folds:
        if not 0 <= fold < plan.config.folds:
            raise ConfigError(
                f"There is no fold {fold}: folds = {plan.config.folds} allows 0 to "
                f"{plan.config.folds - 1}."
            )
    if min(plan.seeds) < 0:
        raise ConfigError(f"A seed is 0 or more; seeds holds {min(plan.seeds)}.")
    if plan.unseen and len(plan.config.site_names) < 2:
        raise ConfigError("unseen leaves a site out and trains on the others: it needs two sites.")
    for cell in plan.cells():
        plan.config_of(cell)
    # All methods of a study meet the same images on the same folds.
    of_the_data = keys_of(Role.FOLDERS, Role.IMAGES)
    ours = plan.config.to_run_config()
    for method in (*plan.methods, *plan.unseen):
        config = plan.config_of(Cell(method, plan.folds[0], plan.seeds[0]))
        check_names(config)
        theirs = config.to_run_config()
        if other := [key for key in of_the_data if theirs[key] != ours[key]]:
            raise ConfigError(
                f"Method '{method.name}' sets {other[0]}, but all methods of a study meet the same "
                "images on the same folds. Set it below [run], or make it a study of its own."
            )
        if config.cached_size != plan.config.cached_size:
            raise ConfigError(
                f"Method '{method.name}' would meet images of {config.cached_size} pixels where "
                f"the others meet {plan.config.cached_size} (image-size, cache-size). Set one "
                "cache-size below [run], or make it a study of its own."
            )


def _unique(values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(values))
