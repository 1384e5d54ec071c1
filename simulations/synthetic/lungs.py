"""The lungs of a slice: coverage, distance to the pleura, parenchyma, vessels and airways.

Vessels are trees grown once per patient in three dimensions from the hilum outwards; a slice
shows the pieces that cross it, so that slices of a patient fit each other.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulations.synthetic.anatomy import (
    LEFT,
    LUNG_HEIGHT,
    RIGHT,
    Patient,
    Section,
    domes,
    hilum,
    lung_points,
)
from simulations.synthetic.canvas import (
    Grid,
    Painter,
    Picture,
    Points,
    clouds,
    enlarge,
    smooth_outline,
)

LEAVES = 360  # end branches of a tree; two trees (artery and vein) a lung
SLAB = 3.5  # mm, half of the thickness that a slice shows the finest vessels of


@dataclass(frozen=True)
class Vessels:
    """A patient's vascular trees as segments.

    Parameters
    ----------
    starts, ends : Points
        Both ends (n, 3) of every segment in mm; z is ``level · LUNG_HEIGHT``.
    radii : Points
        Radius (n,) in mm.
    airway : NDArray
        Whether a bronchus (n,) runs beside the segment.
    """

    starts: Points
    ends: Points
    radii: Points
    airway: NDArray[np.bool_]


@dataclass(frozen=True)
class Lungs:
    """The lungs of one slice, all (height, width).

    Parameters
    ----------
    coverage : Picture
        Share of a pixel that is lung, 0 to 1.
    depth : Picture
        Distance to the pleura in mm, 0 outside.
    parenchyma : Picture
        Aerated lung without vessels, HU.
    vessels : Picture
        Share of a pixel that is vessel or airway wall, 0 to 1.
    """

    coverage: Picture
    depth: Picture
    parenchyma: Picture
    vessels: Picture


def grow_vessels(patient: Patient, generator: np.random.Generator) -> Vessels:
    """Grow an arterial and a venous tree in either lung."""
    airway = np.array([True, False, True, False])  # bronchi run along arteries
    points = np.concatenate([_draw_points(patient, side, generator) for side in (RIGHT, LEFT)])
    roots = np.stack([hilum(patient, side) for side in (RIGHT, RIGHT, LEFT, LEFT)])
    roots += np.where(airway, 1, -1)[:, None] * np.array([0, 4, 3])
    starts, ends, radii = _grow(points, roots)
    return Vessels(
        starts.reshape(-1, 3),
        ends.reshape(-1, 3),
        radii.ravel() * patient.vessels,
        np.repeat(airway, LEAVES),
    )


def _draw_points(patient: Patient, side: int, generator: np.random.Generator) -> Points:
    """Draw points (2, LEAVES, 3) in a lung, evenly over its cross-sections."""
    count = 2 * LEAVES
    levels = np.linspace(-0.02, 1.04, 12)
    outlines = np.stack([smooth_outline(lung_points(patient, side, t), 4) for t in levels])
    place = np.clip(generator.beta(1.25, 1.1, count) * 11, 0, 10.999)
    index, share = place.astype(int), (place % 1)[:, None]
    corner = generator.integers(0, outlines.shape[1], count)
    edge = outlines[index, corner] * (1 - share) + outlines[index + 1, corner] * share
    middle = outlines.mean(1)
    centre = middle[index] * (1 - share) + middle[index + 1] * share
    reach = 0.97 * np.sqrt(generator.uniform(0.01, 1, count))[:, None]
    plane = centre + (edge - centre) * reach
    z = np.interp(place, np.arange(12), levels) * LUNG_HEIGHT
    return np.column_stack([plane, z]).reshape(2, LEAVES, 3)


def _grow(points: Points, roots: Points) -> tuple[Points, Points, Points]:
    """Join points (trees, n, 3) to a tree each; radii follow Murray's law.

    Every point, closest to the root first, joins the node that makes its own way and a share of
    the way from there to the root shortest (Cuntz et al. 2010), which gives straight branches.
    """
    order = np.argsort(((points - roots[:, None]) ** 2).sum(2), axis=1, kind="stable")
    nodes = np.concatenate([roots[:, None], np.take_along_axis(points, order[..., None], 1)], 1)
    x, y, z = np.moveaxis(nodes, 2, 0).astype(np.float32)
    path = np.zeros(x.shape, dtype=np.float32)
    parents = np.zeros(x.shape, dtype=np.int64)
    trees = np.arange(len(points))[:, None]
    stop = 1
    while stop < x.shape[1]:  # a few points at a time join those before them
        start, stop = stop, min(stop + 1 + stop // 12, x.shape[1])
        square = np.zeros((len(points), stop - start, start), dtype=np.float32)
        for axis in (x, y, z):
            gap = axis[:, start:stop, None] - axis[:, None, :start]
            square += gap * gap
        distance = np.sqrt(square)
        parent = (distance + np.float32(0.55) * path[:, None, :start]).argmin(2)
        parents[:, start:stop] = parent
        way = np.take_along_axis(distance, parent[..., None], 2)[..., 0]
        path[:, start:stop] = path[trees, parent] + way
    starts = np.take_along_axis(nodes, parents[..., None], 1)
    return starts[:, 1:], nodes[:, 1:], 0.42 * _loads(parents)[:, 1:] ** (1 / 2.7)


def _loads(parents: NDArray[np.int64]) -> Points:
    """Count the nodes (trees, n) that hang on every node, itself included."""
    loads = np.ones(parents.shape)
    for load, above in zip(loads, parents.tolist(), strict=True):
        counts = [1] * len(above)
        for i in range(len(above) - 1, 0, -1):
            counts[above[i]] += counts[i]
        load[:] = counts
    return loads


def build_lungs(
    grid: Grid, section: Section, vessels: Vessels, generator: np.random.Generator
) -> Lungs:
    """Make the lungs of a slice.

    Parameters
    ----------
    grid : Grid
        The picture.
    section : Section
        The chest at the slice's level.
    vessels : Vessels
        The patient's trees.
    generator : numpy.random.Generator
        The slice's own variation.
    """
    painter = Painter(grid, 0.0)
    for points in section.lungs:
        painter.fill(smooth_outline(points), 1.0)
    for points in domes(section):
        painter.fill(smooth_outline(points), 0.0)
    coverage = painter.picture()
    depth = _depth(grid, coverage)
    _, y = grid.coordinates
    patient = section.patient
    parenchyma = patient.lung + patient.gravity * y
    parenchyma = parenchyma + 15 * clouds(grid, 8, generator)
    tree = _paint_vessels(grid, section, vessels)
    return Lungs(coverage, depth, parenchyma.astype(np.float32), tree)


def _depth(grid: Grid, coverage: Picture) -> Picture:
    """Measure the distance to the pleura on every other pixel, which is smooth enough."""
    inside = np.pad(coverage[::2, ::2] > 0.5, 1)
    distance = ndimage.distance_transform_edt(inside)[1:-1, 1:-1] * (2 * grid.spacing)
    return np.clip(enlarge(distance, grid), 0, None) * (coverage > 0.5)


def _paint_vessels(grid: Grid, section: Section, vessels: Vessels) -> Picture:
    """Paint the pieces of the trees that a slice shows, and the fissures."""
    middle = section.level * LUNG_HEIGHT
    half = SLAB + 1.8 * vessels.radii  # a wide vessel reaches into more slices
    low, high = middle - half, middle + half
    z0, z1 = vessels.starts[:, 2], vessels.ends[:, 2]
    crossing = (np.minimum(z0, z1) < high) & (np.maximum(z0, z1) > low)
    starts, ends = vessels.starts[crossing], vessels.ends[crossing]
    radii, airway = vessels.radii[crossing], vessels.airway[crossing]
    low, high = low[crossing], high[crossing]
    rise = ends[:, 2] - starts[:, 2]
    rise = np.where(np.abs(rise) < 1e-6, 1e-6, rise)
    enter, leave = (low - starts[:, 2]) / rise, (high - starts[:, 2]) / rise
    first = np.clip(np.minimum(enter, leave), 0, 1)[:, None]
    last = np.clip(np.maximum(enter, leave), 0, 1)[:, None]
    way = (ends - starts)[:, :2]
    pieces = np.stack([starts[:, :2] + way * first, starts[:, :2] + way * last], 1)
    # A vessel thinner than the slice fills only a part of it, unless it runs along the axis.
    steep = np.abs(rise) / (np.hypot(*way.T) + np.abs(rise))
    opacity = np.clip(radii / 2.5 + 0.35 * steep, 0.2, 1.0)
    painter = Painter(grid, 0.0, factor=3)
    _fissures(painter, section)
    _airways(painter, pieces[airway], radii[airway])
    order = np.argsort(radii, kind="stable")
    painter.branches(pieces[order], 2 * radii[order], opacity[order])
    return painter.picture()


def _airways(painter: Painter, pieces: Points, radii: Points) -> None:
    """Paint thin-walled bronchi beside the larger arteries: a faint wall, an empty lumen."""
    wide = radii > 1.5
    pieces, radii = pieces[wide], radii[wide]
    way = pieces[:, 1] - pieces[:, 0]
    normal = np.stack([-way[:, 1], way[:, 0]], 1) / (np.hypot(*way.T)[:, None] + 1e-6)
    beside = pieces + (normal * 1.9 * radii[:, None])[:, None]
    painter.branches(beside, 2.2 * radii, np.full(len(radii), 0.5))
    painter.branches(beside, 1.4 * radii, np.full(len(radii), 0.0))


def _fissures(painter: Painter, section: Section) -> None:
    """Paint the oblique fissures, which move forwards from top to bottom."""
    for points in section.lungs:
        place = float(np.clip(6.2 - 4.6 * section.level, 1.3, 6.5))
        outer = points[int(place)] * (1 - place % 1) + points[int(place) + 1] * (place % 1)
        inner = points[10] * 0.8 + points[4] * 0.2
        middle = (outer + inner) / 2 + (0, 7)
        painter.stroke(smooth_outline([outer, middle, inner], 6, closed=False), 1.4, 0.13)
