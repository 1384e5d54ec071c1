"""How a slice shows pneumonia: five findings, drawn and told apart pixel by pixel.

Ground-glass opacity, consolidation, crazy paving, air bronchogram, interlobular septal thickening.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.synthetic.anatomy import Section, on_outline
from simulations.synthetic.canvas import (
    Grid,
    Painter,
    Picture,
    Points,
    clouds,
    smooth_outline,
    smoothstep,
    web,
)
from simulations.synthetic.disease import Lesion
from simulations.synthetic.lungs import Lungs

FINDINGS = (
    "ggo",
    "consolidation",
    "crazy_paving",
    "air_bronchogram",
    "interlobular_septal_thickening",
)
SMALLEST = (30.0, 25.0, 15.0, 8.0, 12.0)  # mm², the least area that a finding is labelled from
VISIBLE_HAZE = 45.0  # HU, the least rise of density that a mask takes in


@dataclass(frozen=True)
class LesionMaps:
    """The lesions of one slice, all (height, width) with values from 0 to 1 but ``haze``.

    Parameters
    ----------
    haze : Picture
        Rise of density, HU.
    solid : Picture
        Consolidated share.
    lines : Picture
        Share of thickened septa, of crazy paving and others.
    bronchi : Picture
        Share of air-filled bronchi inside consolidation.
    masks : dict of str to NDArray
        Pixels of every finding.
    """

    haze: Picture
    solid: Picture
    lines: Picture
    bronchi: Picture
    masks: dict[str, NDArray[np.bool_]]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """All lesion pixels (height, width)."""
        return np.asarray(np.logical_or.reduce(list(self.masks.values())))

    def labels(self, spacing: float) -> dict[str, bool]:
        """Tell which findings are large enough to be named, for pixels of ``spacing`` mm."""
        return {
            name: bool(self.masks[name].sum() * spacing**2 >= least)
            for name, least in zip(FINDINGS, SMALLEST, strict=True)
        }


def draw_maps(
    grid: Grid,
    section: Section,
    lungs: Lungs,
    lesions: Sequence[Lesion],
    generator: np.random.Generator,
    growth: float = 1.0,
) -> LesionMaps:
    """Draw the lesions that a slice cuts.

    Parameters
    ----------
    grid : Grid
        The picture.
    section : Section
        The chest at the slice's level.
    lungs : Lungs
        The slice's lungs; no mask reaches outside.
    lesions : sequence of Lesion
        The patient's lesions.
    generator : numpy.random.Generator
        The slice's own variation of the borders.
    growth : float
        Enlarges the lesions in all directions.
    """
    haze, solid, paved, septal, air = np.zeros((5, grid.height, grid.width), np.float32)
    noise = np.stack([clouds(grid, scale, generator) for scale in (26, 15, 6)])
    bronchi = Painter(grid, 0.0, factor=3)
    for lesion in lesions:
        gap = (section.level - lesion.level) / (lesion.reach * growth)
        if abs(gap) >= 1:
            continue
        cut = _cut(grid, section, lesion, growth * float(np.sqrt(1 - gap**2)))
        rough = noise[(slice(None), *cut.window)]
        body = _add_body(haze[cut.window], solid[cut.window], cut, rough)
        x, y = (axis[cut.window] for axis in grid.coordinates)
        if lesion.paving:
            lines = web(x + 1.2 * rough[1], y, body > 0.4, 6.5, generator)
            _raise(paved[cut.window], lines)
        if lesion.septa:
            depth = lungs.depth[cut.window]
            edge = (depth > 0) & (depth < 24) & (cut.distance < 1.7) & (body < 0.85)
            edge &= rough[2] > -0.9  # not every septum is thickened
            _raise(septal[cut.window], web(x + 1.5 * rough[1], y, edge, 15, generator))
        if lesion.bronchogram:
            _branch(bronchi, cut, generator)
    if any(lesion.bronchogram for lesion in lesions):
        air = bronchi.picture() * (solid > 0.5)
    inside = lungs.coverage > 0.5
    clear = inside & (solid < 0.5)
    found = (
        clear & (haze > VISIBLE_HAZE),
        inside & (solid >= 0.5),
        clear & (paved > 0.45),
        inside & (air > 0.35),
        clear & (septal > 0.45),
    )
    lines = np.maximum(0.4 * paved, 0.5 * septal)
    return LesionMaps(haze, solid, lines, air, dict(zip(FINDINGS, found, strict=True)))


@dataclass(frozen=True)
class _Cut:
    """A lesion where a slice cuts it.

    Parameters
    ----------
    lesion : Lesion
        The lesion.
    scale : float
        Its size in this slice, relative to its half axes.
    centre, tangent : Points
        Its middle in mm and the direction (unit) of the pleura beside it.
    window : tuple of slice
        Rows and columns of the picture that hold it; may be empty.
    distance : Picture
        Distance of the window's pixels from the middle, in half axes.
    """

    lesion: Lesion
    scale: float
    centre: Points
    tangent: Points
    window: tuple[slice, slice]
    distance: Picture


def _cut(grid: Grid, section: Section, lesion: Lesion, scale: float) -> _Cut:
    """Place a lesion of a size in a slice."""
    points = section.lungs[lesion.side]
    place, tangent = on_outline(points, lesion.phase)
    centre = place + (points.mean(0) - place) * lesion.depth
    radius = 2 * scale * max(lesion.length, lesion.thickness) / grid.spacing
    column, row = grid.to_pixels(centre)
    window = (
        slice(max(0, int(row - radius)), max(0, int(row + radius) + 1)),
        slice(max(0, int(column - radius)), max(0, int(column + radius) + 1)),
    )
    x, y = (axis[window] for axis in grid.coordinates)
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    along = (dx * tangent[0] + dy * tangent[1]) / (scale * lesion.length)
    across = (dy * tangent[0] - dx * tangent[1]) / (scale * lesion.thickness)
    distance = np.hypot(along, across).astype(np.float32)
    return _Cut(lesion, scale, centre, tangent, window, distance)


def _add_body(haze: Picture, solid: Picture, cut: _Cut, noise: Picture) -> Picture:
    """Add a lesion's haze and core, in place; return its opacity.

    ``noise`` holds clouds of three sizes, largest first: they fray borders and vary density.
    """
    broad, rough, fine = noise
    lesion = cut.lesion
    opacity = smoothstep(1 - (cut.distance + 0.26 * rough + 0.1 * fine), -0.12, 0.42)
    texture = np.clip(0.85 + 0.12 * fine + 0.1 * rough, 0.35, 1.3)
    _raise(haze, np.float32(lesion.haze) * opacity * texture)
    if lesion.core:
        inside = lesion.core - (cut.distance + 0.2 * broad + 0.05 * fine)
        _raise(solid, smoothstep(inside, -0.1, 0.3) * np.clip(0.93 + 0.1 * fine, 0.7, 1))
    return opacity


def _raise(layer: Picture, values: Picture) -> None:
    """Lift a layer to ``values`` where they are higher, in place."""
    np.maximum(layer, values, out=layer)


def _branch(painter: Painter, cut: _Cut, generator: np.random.Generator) -> None:
    """Paint a bronchus that enters a lesion from the hilum's side and forks."""
    centre, tangent, lesion = cut.centre, cut.tangent, cut.lesion
    outward = np.array([tangent[1], -tangent[0]])
    outward = outward if outward @ centre > 0 else -outward
    reach = lesion.core * cut.scale * np.hypot(lesion.thickness, lesion.length) / 1.4
    heading = float(np.arctan2(outward[1], outward[0]) + generator.normal(0, 0.3))
    start = centre - outward * reach * generator.uniform(0.6, 0.9)
    shoots = [(start, heading, 0)]
    while shoots:
        place, heading, order = shoots.pop()
        bend = heading + generator.normal(0, 0.25)
        length = reach * generator.uniform(0.45, 0.75) * 0.72**order
        middle = place + 0.5 * length * np.array([np.cos(heading), np.sin(heading)])
        end = middle + 0.5 * length * np.array([np.cos(bend), np.sin(bend)])
        curve = smooth_outline([place, middle, end], 3, closed=False)
        painter.stroke(curve, 3.0 - 0.6 * order, 1.0)
        for turn in (-1, 1):
            if order < 2 and (turn == 1 or generator.random() < 0.75):
                shoots.append((end, bend + turn * generator.uniform(0.25, 0.75), order + 1))
