"""ROC, precision-recall and reliability curves of all methods at a site."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_curve

from common.tasks.figures import one_against_rest
from server.metrics import mean_defined
from simulations.report.calibration import BINS
from simulations.report.numbers import percent
from simulations.report.page import Section
from simulations.report.pictures import FOLDER, INK, MUTED, Picture, drawn, panel, save_figure
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

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
DIAGONAL: Curve = (np.array([0.0, 1.0]), np.array([0.0, 1.0]))


Line = tuple[Curve, str, Curve]
"""A method's curve at a site, in shares; what the key says of it besides the method; and what it is
held against: chance, or the ideal."""


@dataclass(frozen=True)
class Kind:
    """A kind of chart."""

    name: str
    """Of its files."""
    title: str
    """Above its drawings."""
    axes: tuple[str, str]
    """Titles of x and y."""
    caption: str
    """Below its drawings."""
    line: Callable[[StudyResults, str, str], Line | None]
    """Returns a method's curve at a site, or None where no cell is done."""


def roc_line(results: StudyResults, method: str, site: str) -> Line | None:
    """Return the ROC curve, the mean over folds and seeds at equal false positive rate."""
    found = []
    for labels, scores in _against_rest(results, method, site):
        false, true, _ = roc_curve(labels, scores)
        found.append(np.concatenate([[0.0], np.interp(GRID, false, true)]))
    if not found:
        return None
    auc = mean_defined(results.values(method, site, "auc").values())
    curve = (np.concatenate([[0.0], GRID]), np.mean(found, axis=0))
    return curve, f"AUC {percent(auc)}", DIAGONAL


def precision_line(results: StudyResults, method: str, site: str) -> Line | None:
    """Return precision by recall, the mean over folds and seeds at equal recall."""
    pairs = _against_rest(results, method, site)
    if not pairs:
        return None
    found = []
    for pair in pairs:
        precision, recall, _ = precision_recall_curve(*pair)
        # At equal recall the highest precision counts: it is what a threshold can have.
        best = np.maximum.accumulate(precision)
        found.append(np.interp(GRID, recall[::-1], best[::-1]))
    area = float(np.mean([average_precision_score(*pair) for pair in pairs]))
    share = float(np.mean([truth.mean() for truth, _ in pairs]))
    base = (np.array([0.0, 1.0]), np.array([share, share]))
    return (GRID, np.mean(found, axis=0)), f"AP {percent(area)}", base


def reliability_line(results: StudyResults, method: str, site: str) -> Line | None:
    """Return observed by predicted shares of positive images, over all folds and seeds.

    Of more than two classes, of images whose decision is right.
    """
    found = results.reliability(method, site, results.plan.seeds)
    if found is None:
        return None
    error = percent(results.calibration(method, site).mean)
    return (found.predicted, found.observed), f"error {error}", DIAGONAL


def _against_rest(
    results: StudyResults, method: str, site: str
) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Return truth and scores of each cell whose images hold every class.

    Of the positive class, or of each of several against the rest.
    """
    return [
        ((table.labels == label).astype(np.int64), table.probabilities[:, label])
        for table in results.tables(method, site, results.plan.seeds)
        if has_every_class(table)
        for label in one_against_rest(len(table.classes))
    ]


def _kinds(binary: bool) -> tuple[Kind, ...]:
    over_classes = (
        ""
        if binary
        else " Each is the mean of the curves of one class, the positive one, against the rest."
    )
    predicted, came_true, observed = (
        ("positive class", "positive images", "Positive images (%)")
        if binary
        else ("class decided for", "right decisions", "Right decisions (%)")
    )
    return (
        Kind(
            "roc",
            "ROC curves",
            ("False positives (% of negative images)", "True positives (% of positive images)"),
            "On the test images, averaged over folds and seeds at equal false positive rate. The "
            f"dotted diagonal is chance.{over_classes}",
            roc_line,
        ),
        Kind(
            "precision-recall",
            "Precision and recall",
            ("Recall (% of positive images)", "Precision (%)"),
            "On the test images, averaged over folds and seeds at equal recall. AP: mean average "
            "precision. Precision depends on the share of positive images, which the dotted line "
            f"shows.{over_classes}",
            precision_line,
        ),
        Kind(
            "reliability",
            "Calibration",
            ("Predicted probability (%)", observed),
            f"Predicted probability of the {predicted} against the share of {came_true}, in {BINS} "
            "bins, over all folds and seeds. Above the dotted diagonal: too low; below: too high.",
            reliability_line,
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
    kinds = _kinds(results.binary)
    return [
        Section(
            kind.title,
            pictures=list(_pictures(results, kind, folder / FOLDER)),
            note=kind.caption,
        )
        for kind in (kinds[:1] if results.plan.comparison else kinds)
    ]


def _pictures(results: StudyResults, kind: Kind, folder: Path) -> Iterator[Picture]:
    for site in results.sites:
        for short, group, styles in _groups(results):
            lines = {
                method: line
                for method in styles
                if (line := kind.line(results, method, site)) is not None
            }
            if not lines:
                continue
            labels = [f"{results.label(name)}, {text}" for name, (_, text, _) in lines.items()]
            figure = _draw(kind, lines.values(), labels, [styles[name] for name in lines])
            if not results.plan.comparison:
                save_figure(figure, folder, f"{kind.name}-{site}-{short}")
            yield drawn(figure, f"{site}{group}", f"{kind.title} at {site}: {'; '.join(labels)}")


def _groups(results: StudyResults) -> Iterator[tuple[str, str, dict[str, LineStyle]]]:
    """Yield what is drawn together: short name, caption, and how each method is drawn.

    A study's federated methods are apart from the others; the reference is among both, stands
    first and stands out.
    """
    methods, reference = results.plan.methods, results.plan.reference
    if results.plan.comparison:
        yield "", "", {method.name: MODE_STYLES[method.mode] for method in methods}
        return
    chosen: LineStyle = {"color": COLOURS[0], "linestyle": "-", "linewidth": 2.6, "zorder": 3}
    for federated, short, group in (
        (False, "local", ", without an exchange"),
        (True, "federated", ", federated"),
    ):
        kept = [m.name for m in methods if (m.mode == "federated") == federated]
        styles: dict[str, LineStyle] = {
            name: {
                "color": COLOURS[1 + place % (len(COLOURS) - 1)],
                "linestyle": STYLES[(place + 1) % len(STYLES)],
                "linewidth": 1.4,
            }
            for place, name in enumerate(name for name in kept if name != reference)
        }
        if kept:
            named = any(method.name == reference for method in methods)
            yield short, group, ({reference: chosen} if named else {}) | styles


def _draw(
    kind: Kind, lines: Collection[Line], labels: Sequence[str], styles: Sequence[LineStyle]
) -> Figure:
    """Draw curves, the key below them, and what the first is held against."""
    below = 62.0 + LINE_HEIGHT * len(lines)
    figure, axes = panel(PLOT, PLOT - 70.0 + below, right=18.0, bottom=below)
    _, _, (x, y) = next(iter(lines))
    axes.plot(100 * x, 100 * y, color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
    for ((x, y), *_), label, style in zip(lines, labels, styles, strict=True):
        # A method whose predictions are all in one bin has no line.
        marker = "o" if len(x) <= BINS else ""
        axes.plot(100 * x, 100 * y, label=label, marker=marker, markersize=4, **style)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100.5)
    axes.set_xlabel(kind.axes[0])
    axes.set_ylabel(kind.axes[1])
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
