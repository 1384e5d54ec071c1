"""What a patient with COVID-19 pneumonia has: lesions in three dimensions, shared by all slices.

Lesions lie mostly under the pleura, in the back and in the lower lung.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Lesion:
    """One lesion of a patient, an ellipsoid with a ragged border. Lengths in mm.

    Parameters
    ----------
    side : int
        The lung.
    phase : float
        Where on the lung's outline, in units of control points.
    depth : float
        From 0 at the pleura to 1 in the middle of the lung.
    level : float
        Level of its middle.
    reach : float
        Half of its extent in levels.
    length, thickness : float
        Half axes along the pleura and across.
    haze : float
        Rise of the lung's density, HU.
    core : float
        Size of the consolidated core relative to the lesion, 0 for none.
    paving, bronchogram, septa : bool
        Whether it shows crazy paving, an air bronchogram, thickened septa.
    """

    side: int
    phase: float
    depth: float
    level: float
    reach: float
    length: float
    thickness: float
    haze: float
    core: float
    paving: bool
    bronchogram: bool
    septa: bool


def draw_lesions(severity: float, generator: np.random.Generator) -> tuple[Lesion, ...]:
    """Draw the lesions of a diseased patient.

    Parameters
    ----------
    severity : float
        About 1; scales number, size and density.
    generator : numpy.random.Generator
        What is drawn from.
    """
    grade = float(np.clip(severity * generator.beta(1.3, 1.6) * 1.9, 0.15, 2.0))
    count = 1 + generator.poisson(0.6 + 3.2 * grade)
    consolidates = generator.random() < 0.2 + 0.35 * grade
    paves = generator.random() < 0.1 + 0.3 * grade
    thickens = generator.random() < 0.3
    first_side = int(generator.integers(2))
    lesions = []
    for number in range(count):
        other = generator.random() < 0.5 if number else 0
        core = generator.uniform(0.4, 0.95) if consolidates and generator.random() < 0.6 else 0.0
        size = generator.uniform(8, 15) + 15 * grade * generator.random()
        lesions.append(
            Lesion(
                side=(first_side + int(other)) % 2,
                phase=2.0 + 6.4 * generator.beta(2.2, 1.3),
                depth=generator.beta(1.1, 5.0),
                level=0.2 + 0.75 * generator.beta(2.0, 1.4),
                reach=generator.uniform(0.06, 0.12) + 0.1 * grade,
                length=size * generator.uniform(1.0, 2.0),
                thickness=size * generator.uniform(0.65, 1.1),
                haze=generator.uniform(140, 290) + 130 * grade * generator.random() + 80 * core,
                core=core,
                paving=bool(paves and generator.random() < 0.7),
                bronchogram=bool(core > 0.55 and generator.random() < 0.65),
                septa=bool(thickens and generator.random() < 0.6),
            )
        )
    return tuple(lesions)


def levels_with_lesions(
    lesions: Sequence[Lesion], count: int, generator: np.random.Generator
) -> list[float]:
    """Choose levels of slices that show at least one lesion."""
    chosen = generator.integers(0, len(lesions), count)
    levels = [lesions[i].level + 0.6 * lesions[i].reach * generator.uniform(-1, 1) for i in chosen]
    return [float(np.clip(level, 0.12, 0.97)) for level in levels]
