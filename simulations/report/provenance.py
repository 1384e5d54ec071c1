"""What stands behind the figures: budget, traffic, tensors, leakage, environment, configuration."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.config.load import describe
from common.config.schema import Config, Scalar, about_keys, keys_of
from common.config.sections import SYNTHETIC, Role
from common.config.sites import parse_sites
from common.formatting import numbers
from common.formatting.tables import Cell, Group, Row, Table
from common.runs.result import differing_keys
from simulations.report.records import LABELS, Pair, RunRecord, modes_of, sites_of
from simulations.report.tables import seconds_of


def budget_table(records: Sequence[RunRecord]) -> Table:
    """Return what a run of each mode used, on average: images seen, steps, rounds, time."""
    sites = sites_of(records)
    rows = []
    for mode in modes_of(records):
        runs = [run for run in records if run.mode == mode and run.completed]
        seen = [_mean(_images_seen(run, site) for run in runs) for site in sites]
        steps = _mean(max((row.step for row in run.rows), default=0) for run in runs)
        rounds = _mean(max((row.round for row in run.rows), default=0) for run in runs)
        seconds = _mean(seconds_of(run) for run in runs)
        cells = [Cell(_count(value)) for value in (*seen, steps, rounds)]
        rows.append(Row(LABELS[mode], (*cells, Cell(numbers.duration(seconds))), mode))
    columns = (*(f"Images seen, {site}" for site in sites), "Optimizer steps", "Rounds", "Time")
    note = (
        "Images seen count repetitions: a smaller site's images are shown more often, so that all "
        "sites take the same number of steps. In single-site training every site takes these "
        "steps with its own network. In federated training a round is an exchange with the "
        "server; without one, it ends where figures are taken. Time is the whole run's, on this "
        "machine."
    )
    return Table("Budget of one run", ("Mode", *columns), (Group("", tuple(rows)),), (note,))


def unequal_budgets(records: Iterable[tuple[str, RunRecord]]) -> list[str]:
    """Say where two modes or methods saw different numbers of images on the same fold and seed.

    Parameters
    ----------
    records : iterable of (str, RunRecord)
        What each run is called, and the run.
    """
    seen: dict[tuple[str, Pair], dict[int, list[str]]] = {}
    for name, run in records:
        if run.completed:
            for site in run.config.site_names:
                by_count = seen.setdefault((site, run.pair), {})
                by_count.setdefault(_images_seen(run, site), []).append(name)
    found = []
    for (site, (fold, seed)), by_count in seen.items():
        if len(by_count) > 1:
            told = [f"{numbers.listed(who)} {numbers.count(n)}" for n, who in by_count.items()]
            found.append(f"{site}, fold {fold}, seed {seed}: {numbers.listed(told)} images")
    return found


def traffic_tables(records: Sequence[RunRecord]) -> tuple[Table, Table] | None:
    """Return the bytes that federated training exchanges, in short and by round.

    The second table is of the first completed run. None without one.
    """
    runs = [run for run in records if run.mode == "federated" and run.completed and run.rows]
    if not runs:
        return None
    short, long = [], []
    for site in sites_of(runs):
        rows = [row for run in runs for row in run.curve(site)]
        down, up = _mean(row.bytes_down for row in rows), _mean(row.bytes_up for row in rows)
        total = sum(row.bytes_down + row.bytes_up for row in rows) / len(runs)
        short.append(Row(site, _sizes(down, up, total)))
        every = [
            Row(
                f"round {row.round}",
                _sizes(row.bytes_down, row.bytes_up, row.bytes_down + row.bytes_up),
            )
            for row in runs[0].curve(site)
        ]
        long.append(Group(site, tuple(every)))
    return (
        Table(
            "Bytes exchanged between a site and the server",
            ("Site", "Down in a round", "Up in a round", "All rounds"),
            (Group("", tuple(short)),),
            ("Down: from the server to the site. Up: from the site to the server. Means.",),
        ),
        Table(f"Every round of {runs[0].name}", ("Site and round", "Down", "Up", "Both"), (*long,)),
    )


def _sizes(*octets: float) -> tuple[Cell, ...]:
    return tuple(Cell(numbers.size(value)) for value in octets)


def leakage_table(records: Sequence[RunRecord]) -> Table | None:
    """Return every fold's images, and who falls on both sides; None where no run says."""
    rows: dict[tuple[str, int], Row] = {}
    for run in records:
        trained = run.result.get("train_images", {})
        for entry in run.result.get("leakage", ()):
            site, fold = str(entry["site"]), run.config.fold
            values = (
                trained.get(site, math.nan),
                run.figure(site, "images"),
                *(
                    entry[key]
                    for key in ("patients", "shared_patients", "shared_images", "unknown")
                ),
            )
            cells = (Cell(str(entry["unit"])), *(Cell(_count(value)) for value in values))
            rows[site, fold] = Row(f"fold {fold}", cells)
    if not rows:
        return None
    groups = tuple(
        Group(site, tuple(row for (of, _), row in sorted(rows.items()) if of == site))
        for site in dict.fromkeys(site for site, _ in rows)
    )
    columns = (
        "Site and fold",
        "Split by",
        "Training images",
        "Test images",
        "Patients",
        "Patients in both",
        "Test images of these",
        "Images without patient id",
    )
    return Table("Images and patients of every fold", columns, groups)


def environment_table(records: Sequence[RunRecord]) -> Table:
    """Return what the runs were computed with; a line holds every value that occurs."""
    lines: dict[str, dict[str, None]] = {}
    for run in records:
        for key, value in _flat_environment(run.environment):
            lines.setdefault(key, {}).setdefault(value)
    rows = tuple(Row(key, (Cell("; ".join(values)),)) for key, values in lines.items())
    return Table("Computed with", ("", ""), (Group("", rows),))


def _flat_environment(environment: "Any") -> Iterable[tuple[str, str]]:
    names = {
        "code_fingerprint": "Fingerprint of the code",
        "git": "Git revision",
        "cpu": "Processor",
        "gpus": "GPU",
        "memory_gib": "Memory (GiB)",
        "cuda": "CUDA of PyTorch",
    }
    for key, value in environment.items():
        label = names.get(key, key.replace("_", " ").capitalize())
        if key == "packages":
            yield from ((name, str(version or "not installed")) for name, version in value.items())
        elif key == "git":
            dirty = ", with uncommitted changes" if value and value.get("dirty") else ""
            yield label, f"{value['revision']}{dirty}" if value else "not a checkout"
        elif isinstance(value, list):
            yield label, ", ".join(map(str, value)) or "none"
        else:
            yield label, "none" if value is None else str(value)


def fingerprints(records: Sequence[RunRecord]) -> set[str]:
    """Return the fingerprints of the code that computed the runs."""
    found = {str(run.environment.get("code_fingerprint") or "") for run in records}
    return found - {""}


def config_table(config: Config, ranging: Sequence[str]) -> Table:
    """Return every key that determines a run; what is not the default comes first.

    Parameters
    ----------
    config : Config
        Of one of the runs.
    ranging : sequence of str
        Keys that differ between the runs on purpose, such as ``fold``.
    """
    values = config.to_run_config()
    changed: list[Row] = []
    default: list[Row] = []
    for key, usual, meaning in describe():
        # Where a run lives says nothing about it, and a report is handed on.
        if key in keys_of(Role.PLACE) or key in ranging:
            continue
        row = Row(key, (Cell(_shown(key, values[key])), Cell(" ".join(meaning.split()))))
        (default if values[key] == usual else changed).append(row)
    groups = (Group("Set for this run", tuple(changed)), Group("Defaults", tuple(default)))
    return Table("Configuration", ("Key", "Value", "Meaning"), tuple(g for g in groups if g.rows))


def _shown(key: str, value: Scalar) -> str:
    """Write a value; of a folder its last part, since a report is handed on."""
    if key == "sites":
        return ", ".join(site.name for site in parse_sites(str(value)))
    if about_keys()[key].path and value not in ("", SYNTHETIC):
        return f"…/{Path(str(value)).name}"
    return "''" if value == "" else str(value).lower() if isinstance(value, bool) else str(value)


def differing_configs(records: Sequence[RunRecord]) -> list[str]:
    """Return the keys, other than fold and seed, in which a run differs from the first."""
    found: dict[str, None] = {}
    for run in records[1:]:
        update = {"fold": records[0].config.fold, "seed": records[0].config.seed}
        same_cell = run.config.model_copy(update=update)
        for text in differing_keys(records[0].config, same_cell):
            found.setdefault(text.partition(" ")[0])
    # A run may settle these for its processes; they do not make one mode better than another.
    settled = keys_of(Role.MACHINE, Role.FOLDERS)
    return [key for key in found if key not in settled]


def _images_seen(run: RunRecord, site: str) -> int:
    return max((row.images_seen for row in run.curve(site)), default=0)


def _mean(values: Iterable[float]) -> float:
    held = [float(value) for value in values]
    return float(np.mean(held)) if held else math.nan


def _count(value: float) -> str:
    return numbers.count(value) if math.isfinite(value) else numbers.NOT_DEFINED
