"""The runs of a comparison: which there are, which are done, and the report of them."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.config.load import load_config
from common.config.schema import Config
from common.errors import ConfigError, RunError
from common.files import write_atomic
from common.formatting.numbers import listed
from common.runs.result import differing_keys
from simulations.report import read_record, write_report, write_tables
from simulations.report.records import LABELS, MODES, RunRecord, with_chosen_weights
from simulations.report.statistics import compare_records
from simulations.report.tables import metrics_table, seconds_of

SETTINGS = "comparison.toml"
REPORT = "report.html"
NARROW, FIRST, EACH = 76, 16, 12
"""Columns of a screen below which there is room for two figures; of the other columns; of one."""
CELL_NAME = re.compile(rf"({'|'.join(MODES)})-fold(\d+)-seed(\d+)")


@dataclass(frozen=True)
class Cell:
    """One run of a comparison, to be done or done."""

    mode: str
    fold: int
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.mode}-fold{self.fold}-seed{self.seed}"


@dataclass
class OngoingComparison:
    """A comparison under way.

    Attributes
    ----------
    config : Config
        The configuration of every run but for its fold and seed.
    folder : Path
        The comparison's folder, which holds those of the runs.
    cells : tuple of Cell
        All runs, in the order in which they are done.
    seconds : dict
        How long the runs that ended took, by cell.
    failures : dict
        Why runs of this session failed, by cell.
    """

    config: Config
    folder: Path
    cells: tuple[Cell, ...]
    seconds: dict[Cell, float] = field(default_factory=dict)
    failures: dict[Cell, str] = field(default_factory=dict)


def make_cells(
    config: Config, seeds: Sequence[int], folds: Sequence[int], modes: Sequence[str]
) -> tuple[Cell, ...]:
    """Return all runs; the modes of a fold and seed follow each other, since they are compared.

    Raises
    ------
    ConfigError
        If there is no such mode or fold, or nothing to run.
    """
    for mode in modes:
        if mode not in MODES:
            raise ConfigError(f"There is no mode '{mode}'; there are {listed(MODES)}.")
    for fold in folds:
        if not 0 <= fold < config.folds:
            raise ConfigError(
                f"There is no fold {fold}: folds = {config.folds} allows 0 to {config.folds - 1}."
            )
    if not (seeds and folds and modes):
        raise ConfigError("A comparison needs at least one seed, one fold and one mode.")
    return tuple(
        dict.fromkeys(Cell(mode, fold, seed) for seed in seeds for fold in folds for mode in modes)
    )


def make_comparison(config: Config, base: Path, cells: tuple[Cell, ...]) -> OngoingComparison:
    """Make the folder of a comparison, or find the one that is there.

    Parameters
    ----------
    config : Config
        ``run-name`` names the folder; without it the configuration does, so that the same command
        finds it again.
    base : Path
        The folder of all runs.
    cells : tuple of Cell
        The comparison's runs.

    Raises
    ------
    RunError
        If the folder cannot be made.
    """
    common = config.changed(fold=0, seed=0, run_name="", runs_dir="", resume=False)
    folder = base.absolute() / (config.run_name or f"compare-{common.digest()[:8]}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"Cannot make the folder {folder}: {error.strerror}.") from error
    return OngoingComparison(common, folder, cells)


def resolve_settings(ongoing: OngoingComparison) -> None:
    """Write down the comparison's configuration, or check it against what is written.

    Raises
    ------
    RunError
        If the folder holds another comparison, or something else.
    """
    path = ongoing.folder / SETTINGS
    if path.exists():
        differing = differing_keys(load_config(path), ongoing.config)
        if differing:
            raise RunError(
                f"The comparison in {ongoing.folder} has another configuration: "
                f"{'; '.join(differing)}. Choose another name (--name), or change these back."
            )
        return
    if (ongoing.folder / "config.toml").exists():
        raise RunError(
            f"{ongoing.folder} is the folder of a run, not of a comparison; choose "
            "another name (--name)."
        )
    write_atomic(path, ongoing.config.to_toml().encode())


def is_done(ongoing: OngoingComparison, cell: Cell) -> bool:
    """Say whether a run is complete, and note how long it took.

    Raises
    ------
    RunError
        If the run's folder was made with another configuration.
    """
    record = _record(ongoing, cell)
    if record is None:
        return False
    wanted = ongoing.config.changed(fold=cell.fold, seed=cell.seed)
    differing = [
        text
        for text in differing_keys(record.config, wanted)
        if not _settled_by_the_run(text.partition(" ")[0], record.config, wanted)
    ]
    if differing or record.mode != cell.mode:
        raise RunError(
            f"The run {record.path} was made with another configuration: "
            f"{'; '.join(differing) or record.mode}. Remove it, or choose another name (--name)."
        )
    if record.completed:
        ongoing.seconds[cell] = seconds_of(record)
    return record.completed


def _settled_by_the_run(key: str, stored: Config, wanted: Config) -> bool:
    """Say whether a run chose this key's value itself, where it was left open."""
    if key == "threads":
        return wanted.threads == 0
    return key == "device" and stored.device == wanted.device.partition(":")[0]


def time_left(ongoing: OngoingComparison, cell: Cell) -> float:
    """Estimate the seconds until all is done from the runs that ended; NaN before the first."""
    known = {c: s for c, s in ongoing.seconds.items() if math.isfinite(s)}
    if not known:
        return math.nan
    usual = sum(known.values()) / len(known)
    total = 0.0
    for ahead in ongoing.cells[ongoing.cells.index(cell) :]:
        if ahead not in ongoing.seconds:
            alike = [seconds for done, seconds in known.items() if done.mode == ahead.mode]
            total += sum(alike) / len(alike) if alike else usual
    return total


def _record(ongoing: OngoingComparison, cell: Cell) -> RunRecord | None:
    path = ongoing.folder / cell.name
    return read_record(path) if (path / "config.toml").exists() else None


def read_comparison(folder: Path) -> list[RunRecord]:
    """Read every run of a comparison that has begun, by fold, seed and mode."""
    begun = [path.parent for path in folder.glob("*/config.toml")]
    records = [read_record(path) for path in begun if CELL_NAME.fullmatch(path.name)]
    return sorted(records, key=lambda run: (run.pair, MODES.index(run.mode)))


def publish(ongoing: OngoingComparison) -> Path:
    """Write the report and its tables of what there is, earlier runs of the folder included.

    Returns
    -------
    Path
        The report.
    """
    records = read_comparison(ongoing.folder)
    begun = {record.name for record in records}
    pending = {c.name: ongoing.failures.get(c, "") for c in ongoing.cells if c.name not in begun}
    modes = {record.mode for record in records} | {cell.mode for cell in ongoing.cells}
    sites = ongoing.config.site_names
    where = listed(sites) if len(sites) <= 4 else f"{len(sites)} sites"
    named = listed([LABELS[mode].lower() for mode in MODES if mode in modes])
    title = f"{named[:1].upper()}{named[1:]} training at {where}"
    write_tables(records, ongoing.folder)
    return write_report(records, ongoing.folder / REPORT, title, pending)


def print_comparison(console: Console, records: Sequence[RunRecord]) -> None:
    """Print the figures by site and mode, in percent.

    On a narrow screen accuracy and AUC alone, else as many more as there is room for.

    Parameters
    ----------
    console : Console
        Where to print.
    records : sequence of RunRecord
        The runs; completed ones count.
    """
    told = metrics_table(compare_records(with_chosen_weights(records)))
    table = Table(title=told.caption, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    first = [place for place, name in enumerate(told.columns[1:]) if name in ("Accuracy", "AUC")]
    shown = first
    if console.width >= NARROW:
        others = [place for place in range(1, len(told.columns) - 1) if place not in first]
        room = (console.width - FIRST) // EACH - len(first)
        shown = sorted([0, *first, *others[:room]])
    table.add_column("Site and mode", overflow="fold", min_width=2 + max(map(len, LABELS.values())))
    for place in shown:
        table.add_column(told.columns[1 + place], justify="right", no_wrap=True)
    for group in told.groups:
        table.add_row(Text(group.heading, style="bold"))
        for row in group.rows:
            cells = [
                f"{cell.text}\n{cell.detail}" if cell.detail else cell.text for cell in row.cells
            ]
            table.add_row(f"  {row.head}", *(cells[place] for place in shown))
        table.add_section()
    console.print(table)
