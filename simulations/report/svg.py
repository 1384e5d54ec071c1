"""Figures as SVG that lies inside a page: its font, its colours, light and dark, nothing fetched.

Matplotlib draws with the stand-in colours below; in the page they are CSS variables, so one
drawing serves a light and a dark page. A file of its own has colours of its own.
"""

import io
import re
from dataclasses import dataclass
from html import escape
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, LINE, PAPER = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04"
MODE_COLOURS = {"pooled": "#0a0b05", "federated": "#0a0b06", "single": "#0a0b07"}

_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    PAPER: "var(--paper)",
} | {colour: f"var(--{mode})" for mode, colour in MODE_COLOURS.items()}

FONT_SIZE = 12


@dataclass(frozen=True)
class Theme:
    """Colours of text, of what is less important, of lines, of the ground."""

    ink: str
    muted: str
    line: str
    paper: str


PAGE = Theme(INK, MUTED, LINE, PAPER)
"""Stand-ins for a page's own."""
PRINT = Theme("#1a1d21", "#59616b", "#d9dde3", "#ffffff")
"""Of a file: dark on white."""

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "xsite",
    "font.size": FONT_SIZE,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def panel(
    width: float,
    height: float,
    left: float = 58.0,
    right: float = 10.0,
    bottom: float = 46.0,
    theme: Theme = PAGE,
) -> tuple[Figure, Axes]:
    """Return a figure of one plot.

    Parameters
    ----------
    width, height : float
        In CSS pixels.
    left, right, bottom : float
        Room for labels beside and below the plot, in CSS pixels.
    theme : Theme
        Its colours; the ground is the page's.
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
        figure.patch.set_alpha(0)
        axes = figure.add_axes(plot)
    axes.patch.set_alpha(0)
    axes.tick_params(colors=theme.muted, labelcolor=theme.muted, length=3)
    axes.grid(color=theme.line, linewidth=0.7)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color(theme.line)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(theme.ink)
    return figure, axes


def as_file(figure: Figure, kind: str) -> bytes:
    """Return a figure as a file of its own.

    Parameters
    ----------
    figure : Figure
        Drawn in colours for print.
    kind : str
        ``"svg"`` or ``"png"`` (144 pixels an inch).
    """
    data = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type")) if kind == "svg" else {}
    with rc_context(_STYLE):
        figure.savefig(data, format=kind, dpi=144, facecolor=PRINT.paper, metadata=nothing)
    return data.getvalue()


def inline(figure: Figure, name: str, title: str, description: str) -> str:
    """Return a figure as an SVG element for a page.

    Parameters
    ----------
    figure : Figure
        Drawn in the stand-in colours.
    name : str
        Unique in the page; every id in the drawing begins with it.
    title : str
        What the figure shows.
    description : str
        What is to be seen in it, for who cannot see it.
    """
    text = io.StringIO()
    with rc_context(_STYLE):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", metadata=nothing)
    # The head names a DTD and namespaces, which HTML has no use for.
    _, _, body = text.getvalue().partition("<svg ")
    body = re.sub(r"<(metadata|style)\b.*?</\1>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bxmlns(:xlink)?="[^"]*"', "", body).replace("xlink:href", "href")
    body = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', body)
    body = re.sub(r"url\(#([^)]*)\)", rf"url(#{name}-\1)", body)
    body = re.sub(r'href="#([^"]*)"', rf'href="#{name}-\1"', body)
    body = re.sub(r"""font: ([^;"]*?[\d.]+px)[^;"]*""", r"font: \1 var(--sans)", body)
    body = re.sub(r'(?<=")[\d.]+pt(?=")', "100%", body, count=2).replace(' height="100%"', "", 1)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    head = f'<svg role="img" aria-labelledby="{name}-title {name}-text" '
    label = (
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-text">{escape(description)}</desc>'
    )
    attributes, _, content = body.partition(">")
    return f"{head}{attributes}>{label}{content}"
