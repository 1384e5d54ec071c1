"""The figures of a report: AUC of every run, learning curves, ROC curves; one panel a site."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from common.formatting import numbers
from common.runs.tables import PredictionsTable
from common.tasks.figures import one_against_rest
from simulations.report.records import LABELS, RunRecord
from simulations.report.statistics import Comparison
from simulations.report.svg import FONT_SIZE, INK, MODE_COLOURS, MUTED, PAPER, inline, panel
from simulations.report.tables import summary_cell

MARKERS = {"pooled": "s", "federated": "o", "single": "^"}
# Colour alone would be lost in print and on many eyes.
STYLES = {"pooled": (0, (5, 2)), "federated": "-", "single": (0, (1.2, 1.2))}
GRID = np.linspace(0.0, 1.0, 101)
ROC_AXES = ("False positives (% of negative images)", "True positives (% of positive images)")
CURVES_OVER_CLASSES = (
    "Each is the mean of the curves of one class, the positive one, against the rest."
)

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


def runs_panel(
    records: Sequence[RunRecord], comparison: Comparison, site: str, low: float, name: str
) -> str:
    """Draw the AUC of every run at a site, and each mode's mean.

    Parameters
    ----------
    records : sequence of RunRecord
        All runs.
    comparison : Comparison
        Their summaries.
    site : str
        The site.
    low : float
        Where the axis begins, in percent.
    name : str
        Of the SVG element.
    """
    modes = comparison.modes
    figure, axes = panel(400, 54 + 30 * len(modes), left=76)
    told = []
    for row, mode in enumerate(modes):
        colour = MODE_COLOURS[mode]
        summary = comparison.summaries[site, mode, "auc"]
        cell = summary_cell(summary)
        told.append(f"{LABELS[mode]} {cell.text} {cell.detail}".strip())
        if not summary.n:
            continue
        values = [100 * run.figure(site, "auc") for run in _completed(records, mode)]
        if summary.n > 1:
            axes.plot(values, [row] * len(values), "o", color=colour, alpha=0.45, ms=6, mew=0)
            axes.vlines(100 * summary.mean, row - 0.32, row + 0.32, color=colour, linewidth=2.5)
        else:
            if math.isfinite(summary.low):
                ends = (100 * summary.low, 100 * summary.high)
                axes.hlines(row, *ends, color=colour, linewidth=2)
            axes.plot(100 * summary.mean, row, MARKERS[mode], color=colour, ms=9, mec=PAPER)
    axes.set_yticks(range(len(modes)), [LABELS[mode] for mode in modes])
    axes.tick_params(axis="y", length=0)
    for mode, label in zip(modes, axes.get_yticklabels(), strict=True):
        label.set_color(MODE_COLOURS[mode])
    axes.grid(axis="y", visible=False)
    axes.set_ylim(len(modes) - 0.5, -0.5)
    axes.set_xlim(low, 100.5)
    axes.set_xlabel("AUC (%)")
    return inline(figure, name, f"AUC of every run at {site}, in percent", "; ".join(told))


def learning_panel(
    records: Sequence[RunRecord], modes: Sequence[str], site: str, low: float, name: str
) -> str:
    """Draw a site's test AUC over the optimizer steps: thin for each run, thick for their mean."""
    figure, axes = panel(400, 280, right=76)
    ends, told = {}, []
    for mode in modes:
        # An unfinished run's short curve would cut the mean short.
        runs = _completed(records, mode) or [run for run in records if run.mode == mode]
        curves = [curve for run in runs for curve in _learning(run, site)]
        if not curves:
            continue
        colour = MODE_COLOURS[mode]
        if len(curves) > 1:
            for steps, values in curves:
                axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.4)
        steps, values = _mean_curve(curves)
        marker = MARKERS[mode] if len(steps) == 1 else ""
        axes.plot(steps, values, color=colour, linewidth=2, linestyle=STYLES[mode], marker=marker)
        ends[mode] = float(values[-1])
        told.append(f"{LABELS[mode]} from {values[0]:.1f} to {values[-1]:.1f}")
    axes.set_ylim(low, 100.5)
    axes.set_xlim(left=0)
    axes.set_xlabel("Optimizer steps")
    axes.set_ylabel("Test AUC (%)")
    _label_ends(axes, ends, gap=0.07 * (100.5 - low))
    return inline(figure, name, f"Test AUC at {site} over the optimizer steps", "; ".join(told))


def roc_panel(
    records: Sequence[RunRecord], comparison: Comparison, site: str, name: str
) -> str | None:
    """Draw a site's ROC curve in every mode, averaged over runs at equal false positive rate.

    Of more than two classes, the mean of the curves of one class against the rest. None if no
    run wrote predictions.
    """
    figure, axes = panel(400, 382, right=14)
    axes.plot([0, 100], [0, 100], color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
    told = []
    for mode in comparison.modes:
        tables = [run.predictions(site) for run in _completed(records, mode)]
        curves = [roc for table in tables if table is not None for roc in _rocs(table)]
        if not curves:
            continue
        if len(curves) == 1:
            x, y = curves[0]
        else:
            x, y = GRID, np.mean([np.interp(GRID, *curve) for curve in curves], axis=0)
            x, y = np.concatenate([[0.0], x]), np.concatenate([[0.0], y])
        auc = numbers.percent(comparison.summaries[site, mode, "auc"].mean)
        told.append(f"{LABELS[mode]} AUC {auc}")
        axes.plot(
            100 * x,
            100 * y,
            label=told[-1],
            color=MODE_COLOURS[mode],
            linestyle=STYLES[mode],
            linewidth=2,
            clip_on=False,
        )
    if not told:
        return None
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_aspect("equal")
    axes.set_xlabel(ROC_AXES[0])
    axes.set_ylabel(ROC_AXES[1])
    axes.legend(loc="lower right", frameon=False, labelcolor=INK, fontsize=FONT_SIZE)
    return inline(figure, name, f"ROC curves at {site}", "; ".join(told))


def lowest_auc(records: Sequence[RunRecord], sites: Sequence[str], curves: bool) -> float:
    """Return where the AUC axes of all sites begin, in percent: at most 90, at a whole ten."""
    seen = [
        value
        for run in records
        for site in sites
        for value in (
            [row.figures["auc"] for row in run.curve(site)]
            if curves
            else [run.figure(site, "auc"), run.figure(site, "auc_low")]
        )
        if math.isfinite(value)
    ]
    return float(min(90, math.floor(10 * min(seen, default=0.5)) * 10))


def _completed(records: Sequence[RunRecord], mode: str) -> list[RunRecord]:
    return [run for run in records if run.mode == mode and run.completed]


def _learning(run: RunRecord, site: str) -> list[Curve]:
    """Return a run's curve at a site as a list of one, or of none where it has no points."""
    aucs = [(row.step, row.figures["auc"]) for row in run.curve(site)]
    points = [(step, 100 * auc) for step, auc in aucs if math.isfinite(auc)]
    if not points:
        return []
    steps, values = np.array(points, dtype=np.float64).T
    return [(steps, values)]


def _mean_curve(curves: Sequence[Curve]) -> Curve:
    """Average curves over the steps that all of them cover, reading between points."""
    last = min(steps[-1] for steps, _ in curves)
    first = min(last, max(steps[0] for steps, _ in curves))
    union = np.unique(np.concatenate([steps for steps, _ in curves]))
    steps = union[(union >= first) & (union <= last)]
    return steps, np.mean([np.interp(steps, *curve) for curve in curves], axis=0)


def _rocs(table: PredictionsTable) -> list[Curve]:
    """Return (false, true) positive rates; one curve, or one a class of more than two."""
    curves = []
    for label in one_against_rest(len(table.classes)):
        truth = table.labels == label
        if truth.any() and not truth.all():
            false, true, _ = roc_curve(truth, table.probabilities[:, label])
            curves.append((false, true))
    return curves


def _label_ends(axes: Axes, ends: dict[str, float], gap: float) -> None:
    """Write each mode at the end of its curve, moved apart where two would overlap."""
    placed = math.inf
    for mode, value in sorted(ends.items(), key=lambda item: -item[1]):
        placed = min(value, placed - gap)
        axes.annotate(
            LABELS[mode],
            (1.0, placed),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=MODE_COLOURS[mode],
            fontsize=FONT_SIZE,
            annotation_clip=False,
        )
