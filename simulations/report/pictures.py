"""Pictures of a report: how they look, as files and within a page, which fetches nothing."""

import base64
import io
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.files import write_atomic

FOLDER = "pictures"
FONT_SIZE = 12
# Of a picture on white. A page in the dark turns them round (page.css).
INK, MUTED, LINE, PAPER = "#1a1d21", "#59616b", "#d9dde3", "#ffffff"

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "xsite",
    "font.size": FONT_SIZE,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True)
class Picture:
    """A picture with its caption, as an element of a page."""

    caption: str
    image: Markup


def panel(
    width: float, height: float, left: float = 58.0, right: float = 10.0, bottom: float = 46.0
) -> tuple[Figure, Axes]:
    """Return a figure of one plot.

    Parameters
    ----------
    width, height : float
        In CSS pixels.
    left, right, bottom : float
        Room for labels beside and below the plot, in CSS pixels.
    """
    top = 8.0
    plot = (
        left / width,
        bottom / height,
        (width - left - right) / width,
        (height - bottom - top) / height,
    )
    # No pyplot: it keeps figures in a global list. No layout engine: it draws everything twice.
    with rc_context(_STYLE):
        figure = Figure(figsize=(width / 72, height / 72))
        axes = figure.add_axes(plot)
    axes.patch.set_alpha(0)
    axes.tick_params(colors=MUTED, labelcolor=MUTED, length=3)
    axes.grid(color=LINE, linewidth=0.7)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color(LINE)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(INK)
    return figure, axes


def save_figure(figure: Figure, folder: Path, name: str) -> Path:
    """Write a figure as ``<name>.png`` and ``<name>.svg``, atomically.

    Images within the SVG are embedded, so that it needs no other file. The same figure gives the
    same bytes.

    Returns
    -------
    Path
        The PNG.

    Raises
    ------
    RunError
        If the folder cannot be written.
    """
    for kind in ("png", "svg"):
        write_atomic(folder / f"{name}.{kind}", _bytes_of(figure, kind, PAPER))
    return folder / f"{name}.png"


def drawn(figure: Figure, caption: str, text: str) -> Picture:
    """Return a figure for a page, drawn in vectors on the page's own ground.

    Parameters
    ----------
    figure : Figure
        As :func:`panel` makes it.
    caption : str
        Above it.
    text : str
        What is to be seen in it, for who cannot see it.
    """
    return _picture(_bytes_of(figure, "svg", "none"), "svg+xml", caption, text, ' class="drawn"')


def photographed(png: Path, caption: str, text: str) -> Picture:
    """Return a PNG file for a page; parameters as for :func:`drawn`."""
    return _picture(png.read_bytes(), "png", caption, text)


def _bytes_of(figure: Figure, kind: str, ground: str) -> bytes:
    data = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type")) if kind == "svg" else {}
    with rc_context(_STYLE):
        # 144 pixels an inch.
        figure.savefig(data, format=kind, dpi=144, facecolor=ground, metadata=nothing)
    return data.getvalue()


def _picture(data: bytes, kind: str, caption: str, text: str, style: str = "") -> Picture:
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return Picture(caption, Markup(f'<img{style} alt="{escape(text)}" src="{source}">'))
