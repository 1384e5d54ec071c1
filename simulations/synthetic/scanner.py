"""A hospital's scanner and archive: from Hounsfield units to the 8-bit picture it hands out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulations.synthetic.canvas import Grid, Picture

# A letter R as strokes on a unit square; burnt into a corner by some archives.
_LETTER = ((0, 1, 0, 0), (0, 0, 1, 0), (1, 0, 1, 0.5), (1, 0.5, 0, 0.5), (0.3, 0.5, 1, 1))


@dataclass(frozen=True)
class Scanner:
    """How a hospital acquires and exports its pictures.

    Parameters
    ----------
    window_level, window_width : float
        The exported window, HU.
    window_spread : float
        Standard deviation of both from picture to picture, HU.
    field_of_view : float
        Short side of the picture, mm.
    field_spread : float
        Standard deviation of the field of view from patient to patient, relative.
    aspect : float
        Width over height.
    rotation : float
        Standard deviation of the patient's turn, degrees.
    blur : float
        Standard deviation of the point spread, mm.
    edges : float
        Strength of the kernel's edge enhancement, 0 for none.
    noise : float
        Standard deviation, HU.
    grain : float
        Correlation length of the noise, mm.
    gamma : float
        Exponent of the grey curve; above 1 darkens.
    black, white : float
        Grey values, 0 to 255, of the window's ends.
    grey_levels : int
        How many greys are left.
    inverted : bool
        Whether air is white.
    couch, circle, marker : bool
        Whether the couch, the round field of reconstruction, a burnt-in marker are seen.
    """

    window_level: float = -600.0
    window_width: float = 1500.0
    window_spread: float = 15.0
    field_of_view: float = 360.0
    field_spread: float = 0.03
    aspect: float = 1.0
    rotation: float = 1.5
    blur: float = 0.8
    edges: float = 0.0
    noise: float = 25.0
    grain: float = 0.9
    gamma: float = 1.0
    black: float = 0.0
    white: float = 255.0
    grey_levels: int = 256
    inverted: bool = False
    couch: bool = True
    circle: bool = False
    marker: bool = False


def place_patient(scanner: Scanner, size: int, generator: np.random.Generator) -> Grid:
    """Draw how a patient lies in the picture.

    Parameters
    ----------
    scanner : Scanner
        The scanner.
    size : int
        Short side of the picture in pixels.
    generator : numpy.random.Generator
        The patient's own.
    """
    height, width = size, size
    if scanner.aspect >= 1:
        width = round(size * scanner.aspect)
    else:
        height = round(size / scanner.aspect)
    field = scanner.field_of_view * float(
        np.clip(generator.normal(1, scanner.field_spread), 0.8, 1.2)
    )
    turn = float(np.deg2rad(generator.normal(0, scanner.rotation)))
    centre = (float(generator.normal(0, 4)), float(generator.normal(8, 5)))
    return Grid(height, width, field / size, turn, centre)


def acquire(
    hu: Picture, grid: Grid, scanner: Scanner, generator: np.random.Generator
) -> NDArray[np.uint8]:
    """Turn a slice into the exported picture.

    Parameters
    ----------
    hu : Picture
        Density (height, width), HU.
    grid : Grid
        Where its pixels lie.
    scanner : Scanner
        The scanner.
    generator : numpy.random.Generator
        The slice's own: noise and window.

    Returns
    -------
    numpy.ndarray
        uint8 (height, width).
    """
    seen = ndimage.gaussian_filter(hu, scanner.blur / grid.spacing)
    if scanner.edges:
        seen += np.float32(scanner.edges) * (seen - ndimage.gaussian_filter(seen, 2 / grid.spacing))
    seen += _noise(grid, scanner, generator)
    level = scanner.window_level + generator.normal(0, scanner.window_spread)
    width = scanner.window_width + generator.normal(0, scanner.window_spread)
    share = np.clip((seen - np.float32(level)) / np.float32(width) + 0.5, 0, 1)
    if scanner.gamma != 1:
        share = share ** np.float32(scanner.gamma)
    if scanner.inverted:
        share = 1 - share
    share = np.round(share * (scanner.grey_levels - 1)) / (scanner.grey_levels - 1)
    grey = scanner.black + share * (scanner.white - scanner.black)
    if scanner.circle:
        grey = _cut_circle(grey, grid)
    if scanner.marker:
        _burn_marker(grey)
    return np.asarray(np.round(grey), dtype=np.uint8)


def _noise(grid: Grid, scanner: Scanner, generator: np.random.Generator) -> Picture:
    """Draw noise of the scanner's strength and grain."""
    white = generator.standard_normal((grid.height, grid.width), dtype=np.float32)
    sigma = scanner.grain / grid.spacing
    grained = ndimage.gaussian_filter(white, sigma, mode="wrap")
    return np.asarray(grained * np.float32(scanner.noise / grained.std()), dtype=np.float32)


def _cut_circle(grey: Picture, grid: Grid) -> Picture:
    """Blacken what lies outside the field of reconstruction."""
    rows = np.arange(grid.height, dtype=np.float32)[:, None] + 0.5 - grid.height / 2
    columns = np.arange(grid.width, dtype=np.float32) + 0.5 - grid.width / 2
    radius = max(grid.height, grid.width) / 2
    return np.where(rows**2 + columns**2 <= radius**2, grey, np.float32(0))


def _burn_marker(grey: Picture) -> None:
    """Burn the letter of the patient's right side and a scale into the picture, in place."""
    size = max(6, min(grey.shape) // 22)
    top, left = size, size
    for x0, y0, x1, y1 in _LETTER:
        for share in np.linspace(0, 1, 3 * size):
            row = top + int((y0 + (y1 - y0) * share) * size * 1.3)
            column = left + int((x0 + (x1 - x0) * share) * size)
            grey[row, column : column + 2] = 250
    middle, edge = grey.shape[0] // 2, grey.shape[1] - size
    reach = grey.shape[0] // 6
    grey[middle - reach : middle + reach, edge] = 250
    for tick in range(-5, 6):
        grey[
            middle + tick * reach // 5 - (tick == 5),
            edge - (size // 2 if tick % 5 else size) : edge,
        ] = 250
