"""From millimetres to pixels: the grid of a picture, smooth outlines, painting, noise fields.

Anatomy is described in millimetres: x grows to the image's right (the patient's left), y grows
to the back, the origin lies in the middle of the chest.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

Picture = NDArray[np.float32]
Points = NDArray[np.float64]

_ANGLES = np.arange(28) * (2 * np.pi / 28)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], 1)
_QUARTER_TURN = np.array([-1.0, 1.0])
_CATMULL_ROM = np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]])


@dataclass(frozen=True)
class Grid:
    """Where the pixels of a picture lie in the chest.

    Parameters
    ----------
    height, width : int
        Size of the picture in pixels.
    spacing : float
        Edge of a pixel in mm.
    rotation : float
        Turn of the patient in the picture, radians, clockwise on the screen.
    centre : tuple of float
        The point (x, y) in mm that lies in the middle of the picture.
    """

    height: int
    width: int
    spacing: float
    rotation: float = 0.0
    centre: tuple[float, float] = (0.0, 0.0)

    @cached_property
    def affine(self) -> tuple[Points, Points]:
        """Matrix (2, 2), applied from the right, and shift (2,) that take mm to pixels."""
        cosine, sine = np.cos(self.rotation), np.sin(self.rotation)
        matrix = np.array([[cosine, sine], [-sine, cosine]]) / self.spacing
        middle = np.array([self.width / 2, self.height / 2])
        return matrix, middle - np.asarray(self.centre) @ matrix

    def to_pixels(self, points: ArrayLike) -> Points:
        """Map points (n, 2) in mm to pixel coordinates (column, row) counted from the corner."""
        matrix, shift = self.affine
        return np.asarray(np.asarray(points) @ matrix + shift)

    @cached_property
    def coordinates(self) -> tuple[Picture, Picture]:
        """Coordinates x and y in mm of every pixel's middle, both (height, width)."""
        columns = (np.arange(self.width, dtype=np.float32) + 0.5 - self.width / 2) * self.spacing
        rows = (np.arange(self.height, dtype=np.float32) + 0.5 - self.height / 2) * self.spacing
        cosine, sine = np.cos(self.rotation), np.sin(self.rotation)
        x = columns * cosine + rows[:, None] * sine + self.centre[0]
        y = rows[:, None] * cosine - columns * sine + self.centre[1]
        return x.astype(np.float32), y.astype(np.float32)


class Painter:
    """Paints shapes over one another on a finer grid and averages it down: smooth edges.

    Parameters
    ----------
    grid : Grid
        The picture to make.
    background : float
        Value of what nothing is painted on.
    factor : int
        Fine pixels per pixel, along each axis.
    """

    def __init__(self, grid: Grid, background: float, factor: int = 2) -> None:
        self._grid = grid
        self._factor = factor
        self._image = Image.new("F", (grid.width * factor, grid.height * factor), background)
        self._draw = ImageDraw.Draw(self._image)

    def fill(self, outline: ArrayLike, value: float) -> None:
        """Fill a closed outline (n, 2) in mm."""
        self._draw.polygon(self._fine(outline), fill=value)

    def disc(self, centre: ArrayLike, radii: ArrayLike, value: float, turn: float = 0.0) -> None:
        """Fill an ellipse; ``radii`` in mm, ``turn`` in radians."""
        self.fill(ellipse(centre, radii, turn), value)

    def stroke(self, line: ArrayLike, width: float, value: float, tapered: bool = False) -> None:
        """Draw an open line (n, 2) of a width in mm; ``tapered`` rounds its ends."""
        points = np.asarray(line, dtype=float)
        way = np.empty_like(points)
        way[1:-1] = points[2:] - points[:-2]
        way[0], way[-1] = points[1] - points[0], points[-1] - points[-2]
        half = width / 2 / (np.hypot(way[:, 0], way[:, 1]) + 1e-9)
        if tapered:
            place = np.arange(len(points)) * (1.92 / (len(points) - 1)) - 0.96
            half *= np.sqrt(1 - place**4)
        normal = way[:, ::-1] * half[:, None] * _QUARTER_TURN
        self.fill(np.concatenate([points + normal, (points - normal)[::-1]]), value)

    def branches(self, segments: Points, widths: Points, values: Points) -> None:
        """Draw segments (n, 2, 2) of widths (n,) in mm with round ends where they are wide."""
        ends = self._grid.to_pixels(segments.reshape(-1, 2)).reshape(-1, 4) * self._factor
        fine = widths / self._grid.spacing * self._factor
        for (x0, y0, x1, y1), width, value in zip(
            ends.tolist(), fine.tolist(), values.tolist(), strict=True
        ):
            self._draw.line((x0, y0, x1, y1), fill=value, width=max(1, round(width)))
            if width > 2.5:
                r = width / 2
                self._draw.ellipse((x0 - r, y0 - r, x0 + r, y0 + r), fill=value)
                self._draw.ellipse((x1 - r, y1 - r, x1 + r, y1 + r), fill=value)

    def picture(self) -> Picture:
        """Return what was painted, (height, width)."""
        return np.asarray(self._image.reduce(self._factor), dtype=np.float32)

    def _fine(self, points: ArrayLike) -> list[float]:
        flat: list[float] = (self._grid.to_pixels(points) * self._factor).ravel().tolist()
        return flat


def smooth_outline(points: ArrayLike, steps: int = 6, closed: bool = True) -> Points:
    """Run a Catmull-Rom spline through control points.

    Parameters
    ----------
    points : array_like
        Control points (k, 2).
    steps : int
        Points of the curve per control point.
    closed : bool
        Whether the last control point joins the first.

    Returns
    -------
    Points
        The curve: (k · steps, 2) if closed, else ((k − 1) · steps + 1, 2).
    """
    p = np.asarray(points, dtype=float)
    count = len(p)
    start = np.arange(count if closed else count - 1)
    index = start[:, None] + np.arange(-1, 3)
    if closed:
        corners = p[index % count]
    else:
        corners = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])[index + 1]
    u = np.arange(steps)[:, None] / steps
    weights = 0.5 * (u ** np.arange(4)) @ _CATMULL_ROM  # (steps, 4)
    curve = (weights @ corners).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, p[-1:]])


def ellipse(centre: ArrayLike, radii: ArrayLike, turn: float = 0.0) -> Points:
    """Return the outline (28, 2) of an ellipse turned by ``turn`` radians."""
    rx, ry = np.broadcast_to(np.asarray(radii, dtype=float), (2,))
    cosine, sine = np.cos(turn), np.sin(turn)
    matrix = np.array([[rx * cosine, rx * sine], [-ry * sine, ry * cosine]])
    return np.asarray(_CIRCLE @ matrix + centre)


def enlarge(values: NDArray[np.floating], grid: Grid) -> Picture:
    """Resize a coarse field to the picture, smoothly."""
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    size = (grid.width, grid.height)
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC), dtype=np.float32)


def clouds(grid: Grid, scale: float, generator: np.random.Generator) -> Picture:
    """Draw a smooth random field of standard deviation about one.

    Parameters
    ----------
    grid : Grid
        The picture.
    scale : float
        Size of a cloud in mm.
    generator : numpy.random.Generator
        What is drawn from.

    Returns
    -------
    Picture
        (height, width).
    """
    rows = max(3, round(grid.height * grid.spacing / scale))
    columns = max(3, round(grid.width * grid.spacing / scale))
    # Interpolation averages the drawn values; 1.35 restores their spread.
    return enlarge(generator.standard_normal((rows, columns)) * 1.35, grid)


def net_distance(
    x: Picture, y: Picture, cell: float, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Measure how far points lie from the edges of an irregular polygonal net (Worley noise).

    Parameters
    ----------
    x, y : Picture
        Coordinates in mm, any shape.
    cell : float
        Mean size of a polygon in mm.
    generator : numpy.random.Generator
        What is drawn from.

    Returns
    -------
    numpy.ndarray
        About the distance in mm to the closest edge, in the shape of ``x``.
    """
    period = 64
    right, down = generator.uniform(0.08, 0.92, (2, period * period)).astype(np.float32)
    u, v = x / np.float32(cell), y / np.float32(cell)
    column, row = np.floor(u), np.floor(v)
    u, v = u - column, v - row
    first, top = column.astype(np.int32), row.astype(np.int32)
    nearest = np.full(u.shape, 99, dtype=np.float32)
    second = nearest.copy()
    for j in (-1, 0, 1):
        line = (top + j) % period * period
        for i in (-1, 0, 1):
            index = line + (first + i) % period
            du, dv = right[index] + np.float32(i) - u, down[index] + np.float32(j) - v
            distance = du * du + dv * dv
            np.minimum(second, np.maximum(nearest, distance), out=second)
            np.minimum(nearest, distance, out=nearest)
    return np.asarray((np.sqrt(second) - np.sqrt(nearest)) * np.float32(cell / 2))


def web(
    x: Picture,
    y: Picture,
    where: NDArray[np.bool_],
    cell: float,
    generator: np.random.Generator,
) -> Picture:
    """Draw a net of thin lines, meshes of ``cell`` mm, inside ``where``; 1 on a line, else 0."""
    lines = np.zeros(x.shape, np.float32)
    lines[where] = 1 - smoothstep(net_distance(x[where], y[where], cell, generator), 0.35, 1.05)
    return lines


def smoothstep(values: Picture, low: float, high: float) -> Picture:
    """Rise smoothly from 0 at ``low`` to 1 at ``high``."""
    u = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    return np.asarray(u * u * (3 - 2 * u), dtype=np.float32)
