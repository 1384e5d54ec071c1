"""The tables of a report, as text in rows and columns."""

import math
from collections.abc import Mapping, Sequence

from common.formatting import numbers
from common.formatting.tables import Cell, Group, Row, Table
from simulations.report.records import LABELS, RunRecord
from simulations.report.statistics import REFERENCE, Comparison, Difference, Summary

OVER_CLASSES = (
    "There are more than two classes and none is the positive one. F1, sensitivity and precision: "
    "mean over the classes, each counting the same; AUC: mean of one class against the rest."
)


def metrics_table(comparison: Comparison) -> Table:
    """Return the figures by site and mode."""
    groups = []
    for site in comparison.sites:
        rows = []
        for mode in comparison.modes:
            summaries = [
                comparison.summaries[site, mode, figure.name] for figure in comparison.figures
            ]
            runs = max(summary.n for summary in summaries)
            cells = (Cell(str(runs)), *map(summary_cell, summaries))
            rows.append(Row(LABELS[mode], cells, mode))
        groups.append(Group(site, tuple(rows)))
    return Table(
        "Test figures by site and mode, in percent",
        ("Site and mode", "Runs", *(figure.label for figure in comparison.figures)),
        tuple(groups),
        _metrics_notes(comparison),
    )


def summary_cell(summary: Summary) -> Cell:
    """Write ``mean ± sd`` of several runs, or a single run's value with its interval."""
    if summary.n > 1:
        return Cell(f"{numbers.percent(summary.mean)} ± {numbers.percent(summary.sd)}")
    if math.isfinite(summary.low):
        bounds = f"[{numbers.percent(summary.low)}, {numbers.percent(summary.high)}]"
        return Cell(numbers.percent(summary.mean), bounds)
    return Cell(numbers.percent(summary.mean))


def _metrics_notes(comparison: Comparison) -> tuple[str, ...]:
    counts = {summary.n for summary in comparison.summaries.values()}
    notes = [] if comparison.binary else [OVER_CLASSES]
    if max(counts, default=0) > 1:
        notes.append(
            "Mean ± sample standard deviation over the runs (folds and seeds). The deviation "
            "holds the spread between folds and between seeds, not the uncertainty of one fold's "
            "images."
        )
    if 1 in counts:
        notes.append(
            "Of a single run: its value, and for the AUC a 95 % bootstrap interval over the test "
            "images (1,000 resamples within each class)."
        )
    if any(summary.n == 0 for summary in comparison.summaries.values()):
        notes.append(f"{numbers.NOT_DEFINED}: no completed run, or undefined in all of them.")
    return tuple(notes)


def differences_table(comparison: Comparison) -> Table | None:
    """Return how every mode differs from pooled training; None if that was not run."""
    if not comparison.differences:
        return None
    modes = [mode for mode in comparison.modes if mode != REFERENCE]
    groups, tested = [], False
    for site in comparison.sites:
        rows = []
        for mode in modes:
            found = [
                comparison.differences[site, mode, figure.name] for figure in comparison.figures
            ]
            tested = tested or any(math.isfinite(difference.p) for difference in found)
            pairs = max(difference.n for difference in found)
            cells = (Cell(str(pairs)), *map(_difference_cell, found))
            rows.append(Row(LABELS[mode], cells, mode))
        groups.append(Group(site, tuple(rows)))
    return Table(
        "Difference to pooled training, in percentage points",
        ("Site and mode", "Pairs", *(figure.label for figure in comparison.figures)),
        tuple(groups),
        _difference_notes(comparison, tested),
    )


def _difference_cell(difference: Difference) -> Cell:
    parts = (numbers.interval(difference.low, difference.high), numbers.p_value(difference.p))
    detail = "\n".join(part for part in parts if part)
    return Cell(numbers.points(difference.mean), detail)


def _difference_notes(comparison: Comparison, tested: bool) -> tuple[str, ...]:
    notes = ["Negative: worse than pooled training. A pair is one fold and seed run in both modes."]
    if tested:
        notes.append(
            "Below: 95 % interval of the mean difference and two-sided p of a paired t-test. "
            "Folds share training images and p is not corrected for the number of comparisons, "
            "so it is smaller than it should be; read a single p near 0.05 as no evidence."
        )
    reasons = {difference.reason for difference in comparison.differences.values()} - {""}
    notes += [f"No test where {reason}." for reason in sorted(reasons)]
    return tuple(notes)


def runs_table(records: Sequence[RunRecord], pending: Mapping[str, str]) -> Table:
    """Return every run with its state; ``pending`` is why a run has no folder ('': not begun)."""
    rows = [
        Row(
            run.name,
            (
                Cell(LABELS.get(run.mode, run.mode)),
                Cell(str(run.config.fold)),
                Cell(str(run.config.seed)),
                Cell(numbers.duration(seconds_of(run))),
                Cell(_state(run.status, run.reason)),
            ),
            run.mode,
        )
        for run in records
    ]
    rows += [
        Row(name, (*[Cell("")] * 4, Cell(_state("failed", why) if why else "not begun")))
        for name, why in pending.items()
    ]
    columns = ("Folder", "Mode", "Fold", "Seed", "Time", "State")
    return Table("All runs", columns, (Group("", tuple(rows)),))


def _state(status: str, reason: str) -> str:
    return f"{status}: {reason}" if reason and status != "completed" else status


def seconds_of(run: RunRecord) -> float:
    """Return how long a run took, in seconds; NaN where it does not say."""
    value = run.result.get("seconds")
    return math.nan if value is None else float(value)
