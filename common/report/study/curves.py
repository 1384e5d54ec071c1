"""ROC, precision-recall and reliability curves of all methods at a site."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_curve

from common.calibration import BINS, reliability
from common.methods.table import Method
from common.predictions_table import PredictionsTable
from common.report import numbers
from common.report.study.results import StudyResults
from common.report.svg import Theme, panel

GRID = np.linspace(0.0, 1.0, 201)
# Told apart on a light and on a dark page; the first is the reference's.
COLOURS = (
    *("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#b58900", "#56b4e9"),
    *("#8c6bb1", "#a6761d", "#7f7f7f", "#e7298a", "#66a61e", "#1b9e9e"),
)
# Colour alone would be lost in print and on many eyes.
STYLES = ("-", (0, (5, 2)), (0, (1.2, 1.2)), (0, (6, 2, 1.5, 2)))
PLOT, LINE_HEIGHT = 392.0, 17.0

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class Kind:
    """A kind of curve: its name, title, axes, what a table's curve is, and a figure beside it."""

    name: str
    title: str
    caption: str
    x: str
    y: str
    curve: Callable[[PredictionsTable], Curve]
    figure: Callable[[PredictionsTable], float]
    short: str


def _roc(table: PredictionsTable) -> Curve:
    false, true, _ = roc_curve(table.labels, table.probabilities[:, 1])
    y = np.interp(GRID, false, true)
    return np.concatenate([[0.0], GRID]), np.concatenate([[0.0], y])


def _auc(table: PredictionsTable) -> float:
    curve = roc_curve(table.labels, table.probabilities[:, 1])
    return float(np.trapezoid(curve[1], curve[0]))


def _precision_recall(table: PredictionsTable) -> Curve:
    precision, recall, _ = precision_recall_curve(table.labels, table.probabilities[:, 1])
    # At equal recall the highest precision counts: it is what a threshold can have.
    best = np.maximum.accumulate(precision)
    return GRID, np.interp(GRID, recall[::-1], best[::-1])


def _average_precision(table: PredictionsTable) -> float:
    return float(average_precision_score(table.labels, table.probabilities[:, 1]))


ROC = Kind(
    "roc",
    "ROC curves",
    "On the test images, averaged over folds and seeds at equal false positive rate. The dotted "
    "diagonal is chance.",
    "False positives (% of negative images)",
    "True positives (% of positive images)",
    _roc,
    _auc,
    "AUC",
)
PRECISION_RECALL = Kind(
    "precision-recall",
    "Precision and recall",
    "On the test images, averaged over folds and seeds at equal recall. AP: mean average "
    "precision. Precision depends on the share of positive images, which the dotted line shows.",
    "Recall (% of positive images)",
    "Precision (%)",
    _precision_recall,
    _average_precision,
    "AP",
)
KINDS = (ROC, PRECISION_RECALL)


def curves(
    results: StudyResults, kind: Kind, site: str, federated: bool, theme: Theme
) -> tuple[Figure, str] | None:
    """Draw the curves of the federated methods, or of the others; the reference among both.

    Parameters
    ----------
    results : StudyResults
        Of two classes.
    kind : Kind
        What is drawn.
    site : str
        Whose test images.
    federated : bool
        Which methods.
    theme : Theme
        The figure's colours.

    Returns
    -------
    tuple of Figure and str, or None
        The drawing and what is to be seen in it; None if no cell of these methods is done.
    """
    drawn: list[tuple[Method, Curve, float]] = []
    base = math.nan
    for method in _shown(results, federated):
        found_tables = results.tables(method.name, site, results.seeds)
        tables = [table for table in found_tables if _has_both(table)]
        if tables:
            found = [kind.curve(table) for table in tables]
            mean = np.mean([y for _, y in found], axis=0)
            figure = float(np.mean([kind.figure(table) for table in tables]))
            drawn.append((method, (found[0][0], mean), figure))
            base = float(np.mean([table.labels.mean() for table in tables]))
    if not drawn:
        return None
    chance: Curve = (np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    if kind is PRECISION_RECALL:
        chance = (np.array([0.0, 1.0]), np.array([base, base]))
    lines = [
        (f"{method.label}, {kind.short} {numbers.percent(figure)}", curve, method.name)
        for method, curve, figure in drawn
    ]
    return _draw(results, lines, chance, (kind.x, kind.y), theme)


def reliability_curves(
    results: StudyResults, site: str, federated: bool, theme: Theme
) -> tuple[Figure, str] | None:
    """Draw predicted against observed shares of positive images; as :func:`curves` otherwise."""
    lines = []
    for method in _shown(results, federated):
        labels, scores = results.test_scores(method.name, site, results.seeds)
        if len(labels):
            found = reliability(labels, scores)
            error = numbers.percent(results.calibration(method.name, site).mean)
            label = f"{method.label}, error {error}"
            lines.append((label, (found.predicted, found.observed), method.name))
    if not lines:
        return None
    ideal: Curve = (np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    axes = ("Predicted probability (%)", "Positive images (%)")
    return _draw(results, lines, ideal, axes, theme)


def _draw(
    results: StudyResults,
    lines: Sequence[tuple[str, Curve, str]],
    base: Curve,
    titles: tuple[str, str],
    theme: Theme,
) -> tuple[Figure, str]:
    below = 62.0 + LINE_HEIGHT * len(lines)
    figure, axes = panel(PLOT, PLOT - 70.0 + below, right=18.0, bottom=below, theme=theme)
    axes.plot(100 * base[0], 100 * base[1], color=theme.muted, linewidth=0.8, linestyle=(0, (2, 3)))
    place = 0
    for label, (x, y), name in lines:
        chosen = name == results.reference
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
    axes.set_xlabel(titles[0])
    axes.set_ylabel(titles[1])
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
    return figure, "; ".join(label for label, _, _ in lines)


def _shown(results: StudyResults, federated: bool) -> list[Method]:
    """Return the methods of a drawing, the reference first."""
    kept = [m for m in results.methods if (m.mode == "federated") == federated]
    reference = [m for m in results.methods if m.name == results.reference]
    return reference + [m for m in kept if m.name != results.reference] if kept else []


def _has_both(table: PredictionsTable) -> bool:
    return bool(0 < table.labels.sum() < len(table.labels))
