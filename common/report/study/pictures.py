"""The drawings of a study: in its page, and each as SVG and PNG of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure

from common.files import write_atomic
from common.report.page import Panel, Panels
from common.report.study.curves import KINDS, curves, reliability_curves
from common.report.study.results import StudyResults
from common.report.svg import PAGE, PRINT, Theme, as_file, inline

FOLDER = "pictures"
GROUPS = ((False, "without an exchange"), (True, "federated"))

Draw = Callable[[Theme], tuple[Figure, str] | None]


@dataclass(frozen=True)
class Picture:
    """A drawing of a site.

    Attributes
    ----------
    name : str
        Of its files, without suffix.
    caption : str
        Of its panel.
    draw : callable
        Draws it in a theme's colours; None where there is nothing to draw.
    """

    name: str
    caption: str
    draw: Draw


def draw_curves(results: StudyResults, folder: Path) -> list[Panels]:
    """Draw ROC, precision-recall and reliability curves, write their files, and return them.

    Parameters
    ----------
    results : StudyResults
        The study; of more than two classes nothing is drawn.
    folder : Path
        The study's; files go into ``pictures``.

    Raises
    ------
    RunError
        If a file cannot be written.
    """
    if not results.binary or not results.records:
        return []
    told = [(kind.name, kind.title, kind.caption, _of_kind(results, kind.name)) for kind in KINDS]
    told.append(
        (
            "reliability",
            "Calibration",
            "Predicted probability of the positive class against the share of positive images, in "
            "ten bins, over all folds and seeds. Above the dotted diagonal: too low; below: too "
            "high.",
            _of_kind(results, "reliability"),
        )
    )
    return [
        Panels(name, title, caption, tuple(_panels(pictures, folder / FOLDER)))
        for name, title, caption, pictures in told
    ]


def _of_kind(results: StudyResults, name: str) -> list[Picture]:
    kinds = {kind.name: kind for kind in KINDS}
    pictures = []
    for site in results.sites:
        for federated, group in GROUPS:

            def draw(
                theme: Theme, site: str = site, federated: bool = federated
            ) -> tuple[Figure, str] | None:
                if name in kinds:
                    return curves(results, kinds[name], site, federated, theme)
                return reliability_curves(results, site, federated, theme)

            file = f"{name}-{site}-{'federated' if federated else 'local'}"
            pictures.append(Picture(file, f"{site}, {group}", draw))
    return pictures


def _panels(pictures: list[Picture], folder: Path) -> list[Panel]:
    panels = []
    for picture in pictures:
        shown, printed = picture.draw(PAGE), picture.draw(PRINT)
        if shown is None or printed is None:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        for kind in ("svg", "png"):
            write_atomic(folder / f"{picture.name}.{kind}", as_file(printed[0], kind))
        figure, text = shown
        svg = inline(figure, picture.name, picture.caption, text)
        panels.append(Panel(picture.caption, Markup(svg)))
    return panels
