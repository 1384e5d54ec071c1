"""ROC, precision-recall and reliability curves of all methods at a site."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from common.formatting import numbers
from common.methods.registry import Method
from common.runs.tables import PredictionsTable
from common.tasks.figures import one_against_rest
from simulations.report.calibration import BINS, reliability
from simulations.report.figures import CURVES_OVER_CLASSES, ROC_AXES
from simulations.report.study.results import StudyResults
from simulations.report.svg import Theme, panel

GRID = np.linspace(0.0, 1.0, 201)
# Told apart on a light and on a dark page; the first is the reference's.
COLOURS = (
    *("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#b58900", "#56b4e9"),
    *("#8c6bb1", "#a6761d", "#7f7f7f", "#e7298a", "#66a61e", "#1b9e9e"),
)
# Colour alone would be lost in print and on many eyes.
STYLES = ("-", (0, (5, 2)), (0, (1.2, 1.2)), (0, (6, 2, 1.5, 2)))
PLOT, LINE_HEIGHT = 392.0, 17.0

Labels = NDArray[np.int64]
Scores = NDArray[np.float64]
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class Chart:
    """Curves of several methods at a site, to be drawn.

    Attributes
    ----------
    lines : tuple of (str, Curve, str)
        What the key says of a method, its curve, in shares, and its name.
    base : Curve
        What a method is held against: chance, or the ideal.
    axes : tuple of str
        Titles of x and y.
    """

    lines: tuple[tuple[str, Curve, str], ...]
    base: Curve
    axes: tuple[str, str]

    @property
    def text(self) -> str:
        """What is to be seen in it, for who cannot see it."""
        return "; ".join(label for label, _, _ in self.lines)


@dataclass(frozen=True)
class Kind:
    """A kind of chart: its name, title and caption, and how a site's chart is found.

    ``chart`` takes the study, a site, and whether it is of the federated methods or the others;
    the reference is in both. It returns None where no cell of these methods is done. ``several`` is
    the caption where there are more than two classes.
    """

    name: str
    title: str
    caption: str
    several: str
    chart: Callable[[StudyResults, str, bool], Chart | None]


DIAGONAL: Curve = (np.array([0.0, 1.0]), np.array([0.0, 1.0]))


def roc_chart(results: StudyResults, site: str, federated: bool) -> Chart | None:
    """Return ROC curves, the mean over folds and seeds at equal false positive rate."""
    lines = _averaged(results, site, federated, _roc, roc_auc_score, "AUC")
    return Chart(lines, DIAGONAL, ROC_AXES) if lines else None


def precision_chart(results: StudyResults, site: str, federated: bool) -> Chart | None:
    """Return precision by recall, the mean over folds and seeds at equal recall."""
    lines = _averaged(results, site, federated, _precision_recall, average_precision_score, "AP")
    if not lines:
        return None
    tables = _tables(results, lines[0][2], site)
    share = float(np.mean([truth.mean() for table in tables for truth, _ in _against_rest(table)]))
    base = (np.array([0.0, 1.0]), np.array([share, share]))
    return Chart(lines, base, ("Recall (% of positive images)", "Precision (%)"))


def reliability_chart(results: StudyResults, site: str, federated: bool) -> Chart | None:
    """Return observed by predicted shares of positive images, over all folds and seeds.

    Of more than two classes, of images whose decision is right.
    """
    lines = []
    for method in _shown(results, federated):
        labels, scores = results.test_scores(method.name, site, results.seeds)
        if len(labels):
            found = reliability(labels, scores)
            error = numbers.percent(results.calibration(method.name, site).mean)
            label = f"{method.label}, error {error}"
            lines.append((label, (found.predicted, found.observed), method.name))
    observed = "Positive images (%)" if results.binary else "Right decisions (%)"
    axes = ("Predicted probability (%)", observed)
    return Chart((*lines,), DIAGONAL, axes) if lines else None


ROC = (
    "On the test images, averaged over folds and seeds at equal false positive rate. The dotted "
    "diagonal is chance."
)
PRECISION_RECALL = (
    "On the test images, averaged over folds and seeds at equal recall. AP: mean average "
    "precision. Precision depends on the share of positive images, which the dotted line shows."
)
RELIABILITY = (
    "Predicted probability of the {} against the share of {}, in {} bins, over all folds and "
    "seeds. Above the dotted diagonal: too low; below: too high."
)
KINDS = (
    Kind("roc", "ROC curves", ROC, f"{ROC} {CURVES_OVER_CLASSES}", roc_chart),
    Kind(
        "precision-recall",
        "Precision and recall",
        PRECISION_RECALL,
        f"{PRECISION_RECALL} {CURVES_OVER_CLASSES}",
        precision_chart,
    ),
    Kind(
        "reliability",
        "Calibration",
        RELIABILITY.format("positive class", "positive images", BINS),
        RELIABILITY.format("class decided for", "right decisions", BINS),
        reliability_chart,
    ),
)


def _averaged(
    results: StudyResults,
    site: str,
    federated: bool,
    curve: Callable[[Labels, Scores], Curve],
    area: Callable[[Labels, Scores], float],
    short: str,
) -> tuple[tuple[str, Curve, str], ...]:
    """Return each method's mean curve over its cells, labelled with its mean area."""
    lines = []
    for method in _shown(results, federated):
        if tables := _tables(results, method.name, site):
            found = [curve(*pair) for table in tables for pair in _against_rest(table)]
            mean = (found[0][0], np.mean([y for _, y in found], axis=0))
            areas = [area(*pair) for table in tables for pair in _against_rest(table)]
            label = f"{method.label}, {short} {numbers.percent(float(np.mean(areas)))}"
            lines.append((label, mean, method.name))
    return (*lines,)


def _against_rest(table: PredictionsTable) -> list[tuple[Labels, Scores]]:
    """Return truth and scores of the positive class, or of each of several against the rest."""
    return [
        ((table.labels == label).astype(np.int64), table.probabilities[:, label])
        for label in one_against_rest(len(table.classes))
    ]


def _roc(labels: Labels, scores: Scores) -> Curve:
    false, true, _ = roc_curve(labels, scores)
    y = np.interp(GRID, false, true)
    return np.concatenate([[0.0], GRID]), np.concatenate([[0.0], y])


def _precision_recall(labels: Labels, scores: Scores) -> Curve:
    precision, recall, _ = precision_recall_curve(labels, scores)
    # At equal recall the highest precision counts: it is what a threshold can have.
    best = np.maximum.accumulate(precision)
    return GRID, np.interp(GRID, recall[::-1], best[::-1])


def draw_chart(chart: Chart, reference: str, theme: Theme) -> Figure:
    """Draw a chart, the key below it.

    Parameters
    ----------
    chart : Chart
        What is drawn.
    reference : str
        The method whose line stands out.
    theme : Theme
        The figure's colours.
    """
    below = 62.0 + LINE_HEIGHT * len(chart.lines)
    figure, axes = panel(PLOT, PLOT - 70.0 + below, right=18.0, bottom=below, theme=theme)
    x, y = chart.base
    axes.plot(100 * x, 100 * y, color=theme.muted, linewidth=0.8, linestyle=(0, (2, 3)))
    place = 0
    for label, (x, y), name in chart.lines:
        chosen = name == reference
        place += not chosen
        style: Any = "-" if chosen else STYLES[place % len(STYLES)]
        axes.plot(
            100 * x,
            100 * y,
            label=label,
            color=COLOURS[0 if chosen else 1 + (place - 1) % (len(COLOURS) - 1)],
            linestyle=style,
            linewidth=2.6 if chosen else 1.4,
            # A method whose predictions are all in one bin has no line.
            marker="o" if len(x) <= BINS else "",
            markersize=4,
            zorder=3 if chosen else 2,
        )
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100.5)
    axes.set_xlabel(chart.axes[0])
    axes.set_ylabel(chart.axes[1])
    height = PLOT - 68.0
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(-0.14, -44.0 / height),
        frameon=False,
        labelcolor=theme.ink,
        fontsize=10.5,
        labelspacing=0.25,
        handlelength=2.6,
        borderaxespad=0.0,
    )
    return figure


def _shown(results: StudyResults, federated: bool) -> list[Method]:
    """Return the methods of a drawing, the reference first."""
    kept = [m for m in results.methods if (m.mode == "federated") == federated]
    reference = [m for m in results.methods if m.name == results.reference]
    return reference + [m for m in kept if m.name != results.reference] if kept else []


def _tables(results: StudyResults, method: str, site: str) -> list[PredictionsTable]:
    """Return a method's tables at a site, of all folds and seeds, in which every class occurs."""
    found = results.tables(method, site, results.seeds)
    return [table for table in found if len(np.unique(table.labels)) == len(table.classes)]
