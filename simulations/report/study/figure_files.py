"""Writing a figure of its own: as PNG for a look, as SVG for a page."""

from pathlib import Path

from matplotlib.figure import Figure

from common.files import write_atomic
from simulations.report.svg import as_file


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
