"""The drawings of a study: in its page, and each as SVG and PNG of its own."""

from collections.abc import Iterator
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure

from common.files import write_atomic
from simulations.report.page import Panel, Panels
from simulations.report.study.curves import KINDS, Kind, draw_chart
from simulations.report.study.results import StudyResults
from simulations.report.svg import PAGE, PRINT, as_file, inline

FOLDER = "pictures"
GROUPS = ((False, "local", "without an exchange"), (True, "federated", "federated"))


def draw_curves(results: StudyResults, folder: Path) -> list[Panels]:
    """Draw ROC, precision-recall and reliability curves, write their files, and return them.

    Parameters
    ----------
    results : StudyResults
        The study.
    folder : Path
        The study's; files go into ``pictures``.

    Raises
    ------
    RunError
        If a file cannot be written.
    """
    if not results.records:
        return []
    return [
        Panels(
            kind.name,
            kind.title,
            kind.caption if results.binary else kind.several,
            (*_panels(results, kind, folder / FOLDER),),
        )
        for kind in KINDS
    ]


def _panels(results: StudyResults, kind: Kind, folder: Path) -> Iterator[Panel]:
    for site in results.sites:
        for federated, short, group in GROUPS:
            chart = kind.chart(results, site, federated)
            if chart is None:
                continue
            name, caption = f"{kind.name}-{site}-{short}", f"{site}, {group}"
            save_figure(draw_chart(chart, results.reference, PRINT), folder, name)
            shown = draw_chart(chart, results.reference, PAGE)
            yield Panel(caption, Markup(inline(shown, name, caption, chart.text)))


def save_figure(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """Write a figure as ``<name>.png`` and ``<name>.svg``, atomically.

    Images within the SVG are embedded, so that it needs no other file. The same figure gives the
    same bytes.

    Returns
    -------
    tuple of Path
        PNG and SVG.

    Raises
    ------
    RunError
        If the folder cannot be written.
    """
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    for path, kind in ((png, "png"), (svg, "svg")):
        write_atomic(path, as_file(figure, kind))
    return png, svg
