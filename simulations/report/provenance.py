"""What stands behind the figures: budget, cost, traffic, tensors, leakage, cells, environment."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from common.config.load import describe
from common.config.schema import Config, Scalar, about_keys, keys_of
from common.config.sections import SYNTHETIC, Role
from common.config.sites import parse_sites
from common.formatting import numbers
from common.formatting.tables import Group, Row, Table, plain_table
from simulations.report.numbers import percent, span
from simulations.report.records import Pair, RunRecord
from simulations.report.results import StudyResults
from simulations.report.tables import grouped, table_by_method

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}
TensorEntry = tuple[str, tuple[int, ...] | None, int]
"""Name, shape and bytes of a tensor."""


def budget_table(results: StudyResults) -> Table:
    """Return what a run of each mode used, on average: images seen, steps, rounds, time."""
    rows = []
    for method in results.plan.methods:
        runs = results.runs(method.name)
        seen = [_mean(_images_seen(run, site) for run in runs) for site in results.sites]
        steps = _mean(max((row.step for row in run.rows), default=0) for run in runs)
        rounds = _mean(max((row.round for row in run.rows), default=0) for run in runs)
        seconds = _mean(run.seconds for run in runs)
        cells = (*map(_count, (*seen, steps, rounds)), numbers.duration(seconds))
        rows.append(Row(method.label, cells, method.mode))
    columns = (*(f"Images seen, {s}" for s in results.sites), "Optimizer steps", "Rounds", "Time")
    note = (
        "Images seen count repetitions: a smaller site's images are shown more often, so that all "
        "sites take the same number of steps. In single-site training every site takes these "
        "steps with its own network. In federated training a round is an exchange with the "
        "server; without one, it ends where figures are taken. Time is that of all rounds, on this "
        "machine, beside what else it computed."
    )
    return Table("Budget of one run", ("Mode", *columns), [Group("", rows)], [note])


def costs_table(results: StudyResults) -> Table:
    """Return what the cells of each method took."""

    def cells(method: str) -> Iterable[str]:
        took = [one for (name, _, _), one in results.cells.items() if name == method]
        most = max((one["peak_memory_bytes"] for one in took), default=0)
        runs = results.runs(method)
        return [
            str(len(runs)),
            numbers.duration(_mean(one["seconds"] for one in took if one["seconds"])),
            numbers.size(most) if most else numbers.NOT_DEFINED,
            span(n for run in runs for n in run.result.get("images_seen", {}).values()),
            _exchanged(runs),
        ]

    columns = ("Cells", "Time of one", "Memory at most", "Images seen by each site", "Exchanged")
    note = (
        "Time by the clock, start of all processes included, mean over cells that ran through in "
        "one go. Memory of all processes of a cell, pages that they share counted once. "
        "Exchanged: sent and received by all sites in one run."
    )
    return table_by_method("What the cells took", results, columns, cells, [note])


def _exchanged(runs: Sequence[RunRecord]) -> str:
    told: list[Mapping[str, int]] = [run.result.get("bytes", {}) for run in runs]
    totals = [one.get("down", 0) + one.get("up", 0) for one in told]
    return numbers.size(sum(totals) / len(totals)) if any(totals) else "nothing"


def cells_table(results: StudyResults) -> Table:
    """Return every cell with its folder, so that every figure can be traced."""
    order = {method.name: place for place, method in enumerate(results.plan.methods)}
    found = sorted(results.records.items(), key=lambda item: (order[item[0][0]], item[0][1:]))
    rows = [
        Row(
            run.path.name,
            (
                results.label(method),
                str(fold),
                str(seed),
                *(percent(run.figure(site, "auc")) for site in results.sites),
                numbers.duration(run.seconds),
                "done",
            ),
            run.mode,
        )
        for (method, fold, seed), run in found
    ]
    blank = [""] * (4 + len(results.sites))
    rows += [
        Row(name, (*blank, f"failed: {why}" if why else "not done"))
        for name, why in results.missing.items()
    ]
    aucs = (f"AUC {site}" for site in results.sites)
    columns = ("Folder", "Method", "Fold", "Seed", *aucs, "Time", "State")
    return Table("Every cell", columns, [Group("", rows)], prose=True)


def unequal_budgets(results: StudyResults) -> list[str]:
    """Say where two methods saw different numbers of images on the same fold and seed."""
    seen: dict[tuple[str, Pair], dict[int, list[str]]] = {}
    for (method, *_), run in results.records.items():
        for site in run.config.site_names:
            by_count = seen.setdefault((site, run.pair), {})
            by_count.setdefault(_images_seen(run, site), []).append(results.label(method))
    found = []
    for (site, (fold, seed)), by_count in seen.items():
        if len(by_count) > 1:
            told = [f"{numbers.listed(who)} {numbers.count(n)}" for n, who in by_count.items()]
            found.append(f"{site}, fold {fold}, seed {seed}: {numbers.listed(told)} images")
    return found


def traffic_tables(records: Sequence[RunRecord]) -> tuple[Table, ...]:
    """Return the bytes that federated training exchanges, in short and by round.

    The second table is of the first federated run. Nothing without one.
    """
    runs = [run for run in records if run.mode == "federated" and run.rows]
    if not runs:
        return ()
    short, long = [], []
    for site in runs[0].config.site_names:
        rows = [row for run in runs for row in run.curve(site)]
        down, up = _mean(row.bytes_down for row in rows), _mean(row.bytes_up for row in rows)
        total = sum(row.bytes_down + row.bytes_up for row in rows) / len(runs)
        short.append((site, *_sizes(down, up, total)))
        for row in runs[0].curve(site):
            both = row.bytes_down + row.bytes_up
            cells = _sizes(row.bytes_down, row.bytes_up, both)
            long.append((site, Row(f"round {row.round}", cells)))
    return (
        plain_table(
            "Bytes exchanged between a site and the server",
            ("Site", "Down in a round", "Up in a round", "All rounds"),
            short,
            ("Down: from the server to the site. Up: from the site to the server. Means.",),
        ),
        Table(
            f"Every round of {runs[0].name}",
            ("Site and round", "Down", "Up", "Both"),
            grouped(long),
        ),
    )


def _sizes(*octets: float) -> tuple[str, ...]:
    return tuple(map(numbers.size, octets))


def tensor_tables(records: Sequence[RunRecord]) -> list[Table]:
    """Return the shared and the private tensors of a federated run, or else of a pooled one.

    Sizes come from the run's files; where these are not at hand (private tensors stay at a
    deployed site), the names alone come from its result.
    """
    chosen = [run for run in records if run.mode in ("federated", "pooled")]
    if not chosen:
        return []
    run = min(chosen, key=lambda run: run.mode)
    sites = [run.path / "sites" / site for site in run.config.site_names]
    tables = []
    for part, folders in (("shared", [run.path]), ("private", sites)):
        files = [folder / f"{part}.safetensors" for folder in folders]
        entries = [entry for file in files for entry in _tensors(file)]
        names = [(str(name), None, 0) for name in run.result.get(part, ())]
        tables.append(_tensor_table(part.capitalize(), entries or names))
    return tables


def _tensor_table(title: str, entries: Sequence[TensorEntry]) -> Table:
    total = sum(octets for _, _, octets in entries)
    values = sum(math.prod(shape) for _, shape, _ in entries if shape is not None)
    known = f", {numbers.count(values)} values, {numbers.size(total)}" if values else ""
    rows = [
        (
            name,
            "–" if shape is None else " × ".join(map(str, shape)) or "1",
            numbers.size(octets) if octets else "–",
        )
        for name, shape, octets in entries
    ]
    noun = "tensor" if len(entries) == 1 else "tensors"
    caption = f"{title}: {numbers.count(len(entries))} {noun}{known}"
    return plain_table(caption, ("Tensor", "Shape", "Size"), rows, prose=True)


def _tensors(path: Path) -> list[TensorEntry]:
    """Return name, shape and bytes of a file's tensors without reading their values."""
    try:
        with safe_open(path, framework="np") as file:
            parts = [(name, file.get_slice(name)) for name in file.keys()]  # noqa: SIM118
            entries = [(name, tuple(part.get_shape()), part.get_dtype()) for name, part in parts]
    except (OSError, SafetensorError):
        return []
    return [(name, shape, math.prod(shape) * BYTES[kind]) for name, shape, kind in entries]


def leakage_table(records: Sequence[RunRecord]) -> Table | None:
    """Return every fold's images, and who falls on both sides; None where no run says."""
    rows: dict[tuple[str, int], Row] = {}
    for run in records:
        trained = run.result.get("train_images", {})
        for entry in run.result.get("leakage", ()):
            site, fold = str(entry["site"]), run.config.fold
            keys = ("patients", "shared_patients", "shared_images", "unknown")
            told = (entry[key] for key in keys)
            values = (trained.get(site, math.nan), run.figure(site, "images"), *told)
            rows[site, fold] = Row(f"fold {fold}", (entry["unit"], *map(_count, values)))
    if not rows:
        return None
    sites = list(dict.fromkeys(site for site, _ in rows))
    ordered = sorted(rows, key=lambda key: (sites.index(key[0]), key[1]))
    columns = (
        *("Site and fold", "Split by", "Training images", "Test images", "Patients"),
        *("Patients in both", "Test images of these", "Images without patient id"),
    )
    groups = grouped((key[0], rows[key]) for key in ordered)
    return Table("Images and patients of every fold", columns, groups)


def environment_table(records: Sequence[RunRecord]) -> Table:
    """Return what the runs were computed with; a line holds every value that occurs."""
    lines: dict[str, dict[str, None]] = {}
    for run in records:
        for key, value in _flat_environment(run.environment):
            lines.setdefault(key, {}).setdefault(value)
    rows = [(key, "; ".join(values)) for key, values in lines.items()]
    return plain_table("Computed with", ("", ""), rows, prose=True)


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


def config_table(configs: Sequence[Config]) -> Table:
    """Return every key in which the runs do not differ; what is not the default comes first.

    Parameters
    ----------
    configs : sequence of Config
        Of the runs, at least one.
    """
    values, *others = [config.to_run_config() for config in configs]
    ranging = [key for key, value in values.items() if any(one[key] != value for one in others)]
    # Where a run lives says nothing about it, and a report is handed on.
    hidden = {*keys_of(Role.PLACE), *ranging}
    rows = [
        (values[key] == usual, Row(key, (_shown(key, values[key]), " ".join(meaning.split()))))
        for key, usual, meaning in describe()
        if key not in hidden
    ]
    headings = ("Set for this run", "Defaults")
    groups = grouped((headings[of], row) for of in (False, True) for at, row in rows if at == of)
    return Table("Configuration", ("Key", "Value", "Meaning"), groups, prose=True)


def _shown(key: str, value: Scalar) -> str:
    """Write a value; of a folder its last part, since a report is handed on."""
    if key == "sites":
        return ", ".join(site.name for site in parse_sites(str(value)))
    if about_keys()[key].path and value not in ("", SYNTHETIC):
        return f"…/{Path(str(value)).name}"
    return "''" if value == "" else str(value).lower() if isinstance(value, bool) else str(value)


def _images_seen(run: RunRecord, site: str) -> int:
    return max((row.images_seen for row in run.curve(site)), default=0)


def _mean(values: Iterable[float]) -> float:
    held = [float(value) for value in values]
    return float(np.mean(held)) if held else math.nan


def _count(value: float) -> str:
    return numbers.count(value) if math.isfinite(value) else numbers.NOT_DEFINED
