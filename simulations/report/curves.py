"""ROC, precision-recall and reliability curves of all methods at a site."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_curve,
)

from common.formatting import numbers
from common.methods.method import Variant
from common.runs.predictions import PredictionsTable
from common.tasks.figures import one_against_rest
from server.metrics import mean_defined
from simulations.report.calibration import BINS, reliability
from simulations.report.page import Section
from simulations.report.pictures import (
    FOLDER,
    INK,
    MUTED,
    Picture,
    drawn,
    panel,
    save_figure,
)
from simulations.report.records import has_every_class
from simulations.report.results import StudyResults

GRID = np.linspace(0.0, 1.0, 201)
# Told apart on a light and on a dark page; the first is the reference's.
COLOURS = (
    *("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#b58900", "#56b4e9"),
    *("#8c6bb1", "#a6761d", "#7f7f7f", "#e7298a", "#66a61e", "#1b9e9e"),
)
# Colour alone would be lost in print and on many eyes.
STYLES = ("-", (0, (5, 2)), (0, (1.2, 1.2)), (0, (6, 2, 1.5, 2)))
PLOT, LINE_HEIGHT = 392.0, 17.0
LineStyle = Mapping[str, Any]
MODE_STYLES: Mapping[str, LineStyle] = {
    # The colours of page.css.
    "pooled": {"color": "#b24a00", "linestyle": STYLES[1], "linewidth": 2.0},
    "federated": {"color": "#0064a8", "linestyle": STYLES[0], "linewidth": 2.0},
    "single": {"color": "#007a5a", "linestyle": STYLES[2], "linewidth": 2.0},
}
ROC_AXES = ("False positives (% of negative images)", "True positives (% of positive images)")
CURVES_OVER_CLASSES = (
    "Each is the mean of the curves of one class, the positive one, against the rest."
)

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

    ``chart`` takes the results, a site, and the methods to be drawn. It returns None where no cell
    of these is done. ``several`` is the caption where there are more than two classes.
    """

    name: str
    title: str
    caption: str
    several: str
    chart: Callable[[StudyResults, str, Sequence[Variant]], Chart | None]


DIAGONAL: Curve = (np.array([0.0, 1.0]), np.array([0.0, 1.0]))


def roc_chart(results: StudyResults, site: str, methods: Sequence[Variant]) -> Chart | None:
    """Return ROC curves, the mean over folds and seeds at equal false positive rate."""

    def label(method: Variant, tables: list[PredictionsTable]) -> str:
        aucs = results.values(method.name, site, "auc").values()
        return f"{method.label}, AUC {numbers.percent(mean_defined(aucs))}"

    lines = _averaged(results, site, methods, _roc, label)
    return Chart(lines, DIAGONAL, ROC_AXES) if lines else None


def precision_chart(results: StudyResults, site: str, methods: Sequence[Variant]) -> Chart | None:
    """Return precision by recall, the mean over folds and seeds at equal recall."""

    def label(method: Variant, tables: list[PredictionsTable]) -> str:
        areas = [
            average_precision_score(*pair) for table in tables for pair in _against_rest(table)
        ]
        return f"{method.label}, AP {numbers.percent(float(np.mean(areas)))}"

    lines = _averaged(results, site, methods, _precision_recall, label)
    if not lines:
        return None
    tables = _tables(results, lines[0][2], site)
    share = float(np.mean([truth.mean() for table in tables for truth, _ in _against_rest(table)]))
    base = (np.array([0.0, 1.0]), np.array([share, share]))
    return Chart(lines, base, ("Recall (% of positive images)", "Precision (%)"))


def reliability_chart(results: StudyResults, site: str, methods: Sequence[Variant]) -> Chart | None:
    """Return observed by predicted shares of positive images, over all folds and seeds.

    Of more than two classes, of images whose decision is right.
    """
    lines = []
    for method in methods:
        labels, scores = results.test_scores(method.name, site, results.plan.seeds)
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


def curve_sections(results: StudyResults, folder: Path) -> list[Section]:
    """Draw ROC, precision-recall and reliability curves; ROC curves alone of a comparison.

    Parameters
    ----------
    results : StudyResults
        What is reported.
    folder : Path
        Of the report. A study's drawings are written into ``pictures`` too, as SVG and PNG.

    Raises
    ------
    RunError
        If a file cannot be written.
    """
    if not results.records:
        return []
    return [
        Section(
            kind.title,
            pictures=(*_pictures(results, kind, folder / FOLDER),),
            note=kind.caption if results.binary else kind.several,
        )
        for kind in (KINDS[:1] if results.plan.comparison else KINDS)
    ]


def _pictures(results: StudyResults, kind: Kind, folder: Path) -> Iterator[Picture]:
    for site in results.sites:
        for short, group, methods in _groups(results):
            chart = kind.chart(results, site, methods)
            if chart is None:
                continue
            figure = draw_chart(chart, _styles(results, methods))
            if not results.plan.comparison:
                save_figure(figure, folder, f"{kind.name}-{site}-{short}")
            yield drawn(figure, f"{site}{group}", f"{kind.title} at {site}: {chart.text}")


def _groups(results: StudyResults) -> Iterator[tuple[str, str, list[Variant]]]:
    """Yield what is drawn together: short name, caption and methods.

    A study's federated methods are apart from the others; the reference is among both.
    """
    if results.plan.comparison:
        yield "", "", list(results.plan.methods)
        return
    reference = [method for method in results.plan.methods if method.name == results.plan.reference]
    for federated, short, group in (
        (False, "local", ", without an exchange"),
        (True, "federated", ", federated"),
    ):
        kept = [m for m in results.plan.methods if (m.mode == "federated") == federated]
        if kept:
            yield short, group, reference + [m for m in kept if m.name != results.plan.reference]


def _styles(results: StudyResults, methods: Sequence[Variant]) -> dict[str, LineStyle]:
    """Return how each method is drawn; a study's reference, which stands first, stands out."""
    if results.plan.comparison:
        return {method.name: MODE_STYLES[method.mode] for method in methods}
    others = [method.name for method in methods if method.name != results.plan.reference]
    styles: dict[str, LineStyle] = {
        name: {
            "color": COLOURS[1 + place % (len(COLOURS) - 1)],
            "linestyle": STYLES[(place + 1) % len(STYLES)],
            "linewidth": 1.4,
        }
        for place, name in enumerate(others)
    }
    chosen: LineStyle = {"color": COLOURS[0], "linestyle": "-", "linewidth": 2.6, "zorder": 3}
    return styles | {results.plan.reference: chosen}


def _averaged(
    results: StudyResults,
    site: str,
    methods: Sequence[Variant],
    curve: Callable[[Labels, Scores], Curve],
    label: Callable[[Variant, list[PredictionsTable]], str],
) -> tuple[tuple[str, Curve, str], ...]:
    """Return each method's mean curve over its cells, with its label."""
    lines = []
    for method in methods:
        if tables := _tables(results, method.name, site):
            found = [curve(*pair) for table in tables for pair in _against_rest(table)]
            mean = (found[0][0], np.mean([y for _, y in found], axis=0))
            lines.append((label(method, tables), mean, method.name))
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


def draw_chart(chart: Chart, styles: Mapping[str, LineStyle]) -> Figure:
    """Draw a chart, the key below it.

    Parameters
    ----------
    chart : Chart
        What is drawn.
    styles : mapping of str to LineStyle
        By method.
    """
    below = 62.0 + LINE_HEIGHT * len(chart.lines)
    figure, axes = panel(PLOT, PLOT - 70.0 + below, right=18.0, bottom=below)
    x, y = chart.base
    axes.plot(100 * x, 100 * y, color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
    for label, (x, y), name in chart.lines:
        # A method whose predictions are all in one bin has no line.
        marker = "o" if len(x) <= BINS else ""
        axes.plot(100 * x, 100 * y, label=label, marker=marker, markersize=4, **styles[name])
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100.5)
    axes.set_xlabel(chart.axes[0])
    axes.set_ylabel(chart.axes[1])
    height = PLOT - 68.0
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(-0.14, -44.0 / height),
        frameon=False,
        labelcolor=INK,
        fontsize=10.5,
        labelspacing=0.25,
        handlelength=2.6,
        borderaxespad=0.0,
    )
    return figure


def _tables(results: StudyResults, method: str, site: str) -> list[PredictionsTable]:
    """Return a method's tables at a site, of all folds and seeds, in which every class occurs."""
    found = results.tables(method, site, results.plan.seeds)
    return [table for table in found if has_every_class(table)]
