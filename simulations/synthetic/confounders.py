"""What makes the task hard: findings that are no COVID-19 pneumonia, in both classes.

Each is drawn for a patient and shows in all slices that it reaches; none is in a lesion mask.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from simulations.synthetic.anatomy import LEFT, LUNG_HEIGHT, RIGHT, Patient, Section, on_outline
from simulations.synthetic.canvas import Grid, Picture, clouds, smoothstep, web
from simulations.synthetic.disease import Lesion
from simulations.synthetic.lungs import Lungs


@dataclass(frozen=True)
class Confounders:
    """A patient's findings besides pneumonia; zero, or empty, where there is none.

    Parameters
    ----------
    atelectasis : float
        Rise of density of the lung that lies lowest, HU.
    effusion : tuple of float
        Height of fluid behind the right and the left lung, mm.
    nodules : tuple
        (side, phase, depth, level, radius in mm) of every nodule.
    emphysema : float
        Fall of density in patches, HU.
    oedema : float
        Opacity of septal lines of heart failure, 0 to 1.
    motion : float
        Shift between the two halves of a blurred exposure, mm.
    infiltrate : tuple of Lesion
        Another, central and one-sided pneumonia.
    """

    atelectasis: float = 0.0
    effusion: tuple[float, float] = (0.0, 0.0)
    nodules: tuple[tuple[int, float, float, float, float], ...] = ()
    emphysema: float = 0.0
    oedema: float = 0.0
    motion: float = 0.0
    infiltrate: tuple[Lesion, ...] = ()


def draw_confounders(rate: float, positive: bool, generator: np.random.Generator) -> Confounders:
    """Draw what else a patient has.

    Parameters
    ----------
    rate : float
        About 1; scales how often the findings occur.
    positive : bool
        Whether the patient has COVID-19: then the rest is rarer and there is no second pneumonia.
    generator : numpy.random.Generator
        What is drawn from; as many numbers for either class.
    """
    share = rate * (0.6 if positive else 1.0)
    happens = generator.random(7) < np.array([0.5, 0.14, 0.3, 0.2, 0.15, 0.2, 0.22]) * share
    heights = generator.uniform(5, 24, 2) * (generator.random(2) < 0.7)
    nodules = tuple(
        (
            int(generator.integers(2)),
            float(generator.uniform(0, 13)),
            float(generator.uniform(0.1, 0.8)),
            float(generator.uniform(0.15, 0.95)),
            float(2 + generator.gamma(1.5, 2.0)),
        )
        for _ in range(int(generator.integers(1, 9)))
    )
    atelectasis, emphysema = generator.uniform(70, 300), generator.uniform(25, 75)
    oedema, motion = generator.uniform(0.12, 0.4), generator.uniform(2.0, 6.0)
    infiltrate = _draw_infiltrate(generator)
    return Confounders(
        atelectasis=atelectasis if happens[0] else 0.0,
        effusion=(float(heights[0]), float(heights[1])) if happens[1] else (0.0, 0.0),
        nodules=nodules if happens[2] else (),
        emphysema=emphysema if happens[3] else 0.0,
        oedema=oedema if happens[4] else 0.0,
        motion=motion if happens[5] else 0.0,
        infiltrate=infiltrate if happens[6] and not positive else (),
    )


def _draw_infiltrate(generator: np.random.Generator) -> tuple[Lesion, ...]:
    """Draw one opacity near the hilum, dense and sharp as in a lobar pneumonia, or faint."""
    return (
        Lesion(
            side=int(generator.integers(2)),
            phase=float(generator.uniform(0, 13)),
            depth=float(generator.uniform(0.45, 0.95)),
            level=float(generator.uniform(0.25, 0.85)),
            reach=float(generator.uniform(0.15, 0.3)),
            length=float(generator.uniform(10, 26)),
            thickness=float(generator.uniform(10, 22)),
            haze=float(generator.uniform(90, 260)),
            core=float(generator.uniform(0.4, 0.9)) if generator.random() < 0.4 else 0.0,
            paving=False,
            bronchogram=False,
            septa=False,
        ),
    )


def with_large_vessels(patient: Patient, generator: np.random.Generator) -> Patient:
    """Widen the vessels of some patients, as congestion does."""
    wide = generator.random() < 0.25
    return replace(patient, vessels=patient.vessels * (generator.uniform(1.1, 1.35) if wide else 1))


def add_haze(
    grid: Grid, lungs: Lungs, found: Confounders, generator: np.random.Generator
) -> Picture:
    """Return the change of the lung's density (height, width) in HU: atelectasis and emphysema."""
    change = np.zeros((grid.height, grid.width), np.float32)
    if found.atelectasis:
        rough = clouds(grid, 20, generator)
        _, y = grid.coordinates
        band = np.exp(-lungs.depth / 5.5) * smoothstep(y + 6 * rough, 45, 88)
        change += np.float32(found.atelectasis) * band
    if found.emphysema:
        change -= np.float32(found.emphysema) * smoothstep(clouds(grid, 12, generator), 0.2, 1.2)
    return change


def add_solid(grid: Grid, section: Section, found: Confounders) -> Picture:
    """Return the share (height, width) of pixels filled by nodules and fluid."""
    solid = np.zeros((grid.height, grid.width), np.float32)
    x, y = grid.coordinates
    for side, phase, depth, middle, radius in found.nodules:
        gap = (section.level - middle) * LUNG_HEIGHT
        if abs(gap) >= radius + 2:
            continue
        points = section.lungs[side]
        place, _ = on_outline(points, phase)
        place = place + (points.mean(0) - place) * depth
        size = np.sqrt(max(radius**2 - gap**2, 1.0))
        distance = np.hypot(x - np.float32(place[0]), y - np.float32(place[1]))
        solid = np.maximum(solid, 1 - smoothstep(distance, size - 0.8, size + 0.8))
    for side, sign in ((RIGHT, -1), (LEFT, 1)):
        height = found.effusion[side] * max(0.0, section.level - 0.2) * 1.3
        if height > 2:
            back = section.lungs[side][:, 1].max()
            bottom = back - height - 0.0016 * (np.abs(x) - 70) ** 2
            solid = np.maximum(solid, smoothstep(y - bottom, -1, 1) * (x * sign > 0))
    return solid


def add_lines(
    grid: Grid, lungs: Lungs, found: Confounders, generator: np.random.Generator
) -> Picture:
    """Return the opacity (height, width) of septal lines that heart failure draws."""
    if not found.oedema:
        return np.zeros((grid.height, grid.width), np.float32)
    near = (lungs.depth > 0) & (lungs.depth < 16) & (clouds(grid, 25, generator) > -0.2)
    return np.asarray(found.oedema * web(*grid.coordinates, near, 16, generator))


def move(hu: Picture, grid: Grid, found: Confounders, generator: np.random.Generator) -> Picture:
    """Blur a slice by motion: the mean of two positions that lie ``found.motion`` mm apart."""
    if not found.motion:
        return hu
    shift = found.motion / grid.spacing
    angle = generator.uniform(0, 2 * np.pi)
    moved = ndimage.shift(
        hu, (shift * np.sin(angle), shift * np.cos(angle)), order=1, mode="nearest"
    )
    return np.asarray(0.6 * hu + 0.4 * moved, dtype=np.float32)
