"""Figures of a comparison at a site: the AUC of every run, and learning curves."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from simulations.report.curves import MODE_STYLES, Curve
from simulations.report.pictures import FONT_SIZE, PAPER, Picture, drawn, panel
from simulations.report.records import RunRecord
from simulations.report.results import StudyResults
from simulations.report.tables import summary_cell

MARKERS = {"pooled": "s", "federated": "o", "single": "^"}


def runs_picture(results: StudyResults, site: str, low: float) -> Picture:
    """Draw the AUC of every run at a site, and each mode's mean.

    Parameters
    ----------
    results : StudyResults
        Of a comparison.
    site : str
        The site.
    low : float
        Where the axis begins, in percent.
    """
    methods = results.plan.methods
    figure, axes = panel(400, 54 + 30 * len(methods), left=76)
    told = []
    for row, method in enumerate(methods):
        colour = MODE_STYLES[method.mode]["color"]
        summary = results.summary(method.name, site, "auc")
        told.append(f"{method.label} {summary_cell(summary)}".replace("\n", " "))
        if not summary.n:
            continue
        if summary.n > 1:
            values = [100 * value for value in results.values(method.name, site, "auc").values()]
            axes.plot(values, [row] * len(values), "o", color=colour, alpha=0.45, ms=6, mew=0)
            axes.vlines(100 * summary.mean, row - 0.32, row + 0.32, color=colour, linewidth=2.5)
        else:
            if math.isfinite(summary.low):
                ends = (100 * summary.low, 100 * summary.high)
                axes.hlines(row, *ends, color=colour, linewidth=2)
            marker = MARKERS[method.mode]
            axes.plot(100 * summary.mean, row, marker, color=colour, ms=9, mec=PAPER)
    axes.set_yticks(range(len(methods)), [method.label for method in methods])
    axes.tick_params(axis="y", length=0)
    for method, label in zip(methods, axes.get_yticklabels(), strict=True):
        label.set_color(MODE_STYLES[method.mode]["color"])
    axes.grid(axis="y", visible=False)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.set_xlim(low, 100.5)
    axes.set_xlabel("AUC (%)")
    return drawn(figure, site, f"AUC of every run at {site}, in percent: {'; '.join(told)}")


def learning_picture(results: StudyResults, site: str, low: float) -> Picture:
    """Draw a site's test AUC over the optimizer steps: thin for each run, thick for their mean."""
    figure, axes = panel(400, 280, right=76)
    ends, told = {}, []
    for method in results.plan.methods:
        runs = results.runs(method.name)
        curves = [curve for run in runs if (curve := _learning(run, site))[0].size]
        if not curves:
            continue
        style = MODE_STYLES[method.mode]
        if len(curves) > 1:
            for steps, values in curves:
                axes.plot(steps, values, color=style["color"], linewidth=0.7, alpha=0.4)
        steps, values = _mean_curve(curves)
        axes.plot(steps, values, marker=MARKERS[method.mode] if len(steps) == 1 else "", **style)
        ends[method.label] = (float(values[-1]), style["color"])
        told.append(f"{method.label} from {values[0]:.1f} to {values[-1]:.1f}")
    axes.set_ylim(low, 100.5)
    axes.set_xlim(left=0)
    axes.set_xlabel("Optimizer steps")
    axes.set_ylabel("Test AUC (%)")
    _label_ends(axes, ends, gap=0.07 * (100.5 - low))
    return drawn(figure, site, f"Test AUC at {site} over the optimizer steps: {'; '.join(told)}")


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


def _learning(run: RunRecord, site: str) -> Curve:
    """Return a run's curve at a site, in percent."""
    points = np.array([(row.step, 100 * row.figures["auc"]) for row in run.curve(site)])
    steps, values = points.reshape(-1, 2).T.astype(np.float64)
    defined = np.isfinite(values)
    return steps[defined], values[defined]


def _mean_curve(curves: Sequence[Curve]) -> Curve:
    """Average curves over the steps that all of them cover, reading between points."""
    last = min(steps[-1] for steps, _ in curves)
    first = min(last, max(steps[0] for steps, _ in curves))
    union = np.unique(np.concatenate([steps for steps, _ in curves]))
    steps = union[(union >= first) & (union <= last)]
    return steps, np.mean([np.interp(steps, *curve) for curve in curves], axis=0)


def _label_ends(axes: Axes, ends: Mapping[str, tuple[float, str]], gap: float) -> None:
    """Write each mode at the end of its curve, moved apart where two would overlap."""
    placed = math.inf
    for label, (value, colour) in sorted(ends.items(), key=lambda item: -item[1][0]):
        placed = min(value, placed - gap)
        axes.annotate(
            label,
            (1.0, placed),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=FONT_SIZE,
            annotation_clip=False,
        )
