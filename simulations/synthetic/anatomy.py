"""A patient's chest: what is the same in every slice, and the lungs' outline at a level.

A level runs from 0 (above the aortic arch) to 1 (the diaphragm). Outlines are interpolated
between five hand-drawn levels and deformed by what was drawn for the patient.
"""

from dataclasses import dataclass

import numpy as np

from simulations.synthetic.canvas import Points

LUNG_HEIGHT = 210.0  # mm from level 0 to level 1
KEY_LEVELS = (0.0, 0.3, 0.55, 0.8, 1.0)
RIGHT, LEFT = 0, 1  # the patient's right lung lies at the image's left

# Thirteen points (x, y) in mm around a lung, from its anterior medial tip along the chest wall
# to the spine (8) and back past the hilum (10).
_RIGHT_KEYS = (
    "-22,-45 -48,-58 -75,-45 -95,-15 -98,18 -85,48 -60,62 "
    "-42,60 -28,50 -25,30 -26,8 -25,-12 -22,-30",
    "-12,-70 -48,-79 -85,-61 -110,-25 -118,12 -106,48 -82,76 "
    "-54,84 -33,70 -27,45 -31,15 -31,-15 -21,-45",
    "-18,-78 -55,-88 -95,-68 -122,-28 -130,15 -120,55 -92,84 "
    "-58,92 -33,78 -27,48 -41,15 -40,-20 -29,-52",
    "-30,-76 -60,-83 -98,-63 -124,-24 -132,18 -122,58 -94,86 "
    "-58,93 -33,80 -28,50 -46,15 -52,-22 -42,-52",
    "-40,-72 -70,-76 -104,-58 -126,-22 -133,18 -124,58 -95,88 "
    "-58,95 -34,82 -30,55 -46,18 -56,-20 -50,-52",
)
_LEFT_KEYS = (
    "24,-45 49,-58 75,-46 94,-16 97,18 85,48 61,62 43,60 32,48 31,30 29,8 28,-12 25,-30",
    "17,-70 50,-79 85,-61 109,-25 117,12 106,48 82,76 56,83 36,71 37,46 45,15 44,-15 30,-46",
    "22,-78 58,-87 96,-67 122,-27 130,15 120,55 92,84 60,92 37,80 42,52 47,18 50,-18 38,-52",
    "60,-77 88,-70 112,-46 130,-8 132,25 120,60 92,86 60,93 37,81 41,54 60,30 84,2 77,-42",
    "78,-66 97,-60 117,-40 131,-6 133,26 122,62 94,88 60,95 37,82 42,56 64,32 88,2 86,-38",
)


def _parse(keys: tuple[str, ...]) -> Points:
    parsed = np.array([[pair.split(",") for pair in key.split()] for key in keys], dtype=float)
    parsed.setflags(write=False)
    return parsed


_OUTLINES = (_parse(_RIGHT_KEYS), _parse(_LEFT_KEYS))  # (levels, 13, 2) each


@dataclass(frozen=True)
class Patient:
    """What all slices of a patient share. Lengths in mm, densities in HU.

    Parameters
    ----------
    width, depth : float
        Scale of the chest from side to side and from front to back.
    fat : float
        Thickness of the subcutaneous fat.
    muscle : float
        Scale of the muscles.
    breasts : float
        Thickness of the breasts, 0 for none.
    heart : float
        Scale of the heart.
    blood : float
        Density of blood; above 100 with contrast agent.
    bone : float
        Density of cortical bone.
    lung : float
        Density of aerated lung.
    gravity : float
        Rise of the lung's density per mm towards the back.
    vessels : float
        Scale of the vessels' radii.
    wobble : Points
        Displacement (2, 13, 2) of the lungs' control points.
    """

    width: float
    depth: float
    fat: float
    muscle: float
    breasts: float
    heart: float
    blood: float
    bone: float
    lung: float
    gravity: float
    vessels: float
    wobble: Points


def draw_patient(generator: np.random.Generator) -> Patient:
    """Draw a patient's build."""
    woman = generator.random() < 0.45
    size = generator.normal(0.93 if woman else 1.0, 0.04)
    contrast = generator.random() < 0.3
    return Patient(
        width=size * generator.normal(1, 0.04),
        depth=size * generator.normal(1, 0.05),
        fat=float(np.clip(generator.gamma(3.0, 4.5), 4, 34)),
        muscle=generator.normal(0.9 if woman else 1.05, 0.1),
        breasts=generator.uniform(15, 45) if woman else 0.0,
        heart=generator.normal(1.0, 0.08),
        blood=generator.uniform(110, 220) if contrast else generator.normal(42, 4),
        bone=generator.normal(650, 90),
        lung=generator.normal(-862, 22),
        gravity=generator.uniform(0.15, 0.6),
        vessels=generator.normal(1, 0.1),
        wobble=generator.normal(0, 2.2, (2, 13, 2)),
    )


@dataclass(frozen=True)
class Section:
    """The outlines at one level of a patient's chest.

    Parameters
    ----------
    patient : Patient
        Whose chest.
    level : float
        From 0 (top) to 1 (diaphragm).
    lungs : tuple of Points
        Control points (13, 2) in mm around the right and the left lung.
    """

    patient: Patient
    level: float
    lungs: tuple[Points, Points]

    def wall(self, offset: float) -> Points:
        """Return the open control line (16, 2) along the chest wall's inside, moved outwards.

        It runs from the right of the spine around the front to the left of the spine.
        """
        line = np.concatenate([self.lungs[RIGHT][8:0:-1], self.lungs[LEFT][1:9]])
        length = np.sqrt((line**2).sum(1))[:, None]
        return np.asarray(line * (1 + offset / length))


def cut_chest(patient: Patient, level: float) -> Section:
    """Cut a patient's chest at a level."""
    right, left = lung_points(patient, RIGHT, level), lung_points(patient, LEFT, level)
    return Section(patient, level, (right, left))


def lung_points(patient: Patient, side: int, level: float) -> Points:
    """Return the control points (13, 2) in mm of a lung's outline at a level.

    Parameters
    ----------
    patient : Patient
        Whose lung.
    side : int
        ``RIGHT`` or ``LEFT``.
    level : float
        From 0 (top) to 1 (diaphragm).
    """
    keys = _OUTLINES[side]
    last = len(KEY_LEVELS) - 1
    upper = int(np.clip(np.searchsorted(KEY_LEVELS, level, side="right") - 1, 0, last - 1))
    span = KEY_LEVELS[upper + 1] - KEY_LEVELS[upper]
    share = float(np.clip((level - KEY_LEVELS[upper]) / span, 0, 1))
    share = share * share * (3 - 2 * share)
    points = keys[upper] * (1 - share) + keys[upper + 1] * share
    # A large heart pushes the lower medial border aside.
    pressed = np.zeros(13)
    pressed[[0, 10, 11, 12]] = 1
    shift = (patient.heart - 1) * 50 * np.clip((level - 0.4) / 0.4, 0, 1)
    points[:, 0] += pressed * shift * (1 if side == LEFT else -0.5)
    points += patient.wobble[side]
    return np.asarray(points * (patient.width, patient.depth))


def on_outline(points: Points, phase: float) -> tuple[Points, Points]:
    """Return the point of a lung's outline at a phase and the unit tangent there.

    Parameters
    ----------
    points : Points
        Control points (13, 2).
    phase : float
        Position in units of control points, for example 4.5 between the points 4 and 5.
    """
    count = len(points)
    index, share = int(phase) % count, phase % 1
    start, end = points[index], points[(index + 1) % count]
    tangent = end - start
    return start * (1 - share) + end * share, tangent / (np.hypot(*tangent) + 1e-9)


def hilum(patient: Patient, side: int) -> Points:
    """Return where (x, y, z in mm) vessels and airways enter a lung."""
    x, y, level = ((-36.0, 8.0, 0.52), (42.0, 10.0, 0.48))[side]
    return np.array([x * patient.width, y * patient.depth, level * LUNG_HEIGHT])


def domes(section: Section) -> tuple[Points, ...]:
    """Return the control points (9, 2) of liver and spleen where they rise into the lungs."""
    found = []
    patient = section.patient
    angles = np.arange(9) * (2 * np.pi / 9)
    for side, (x, y, top, size) in enumerate(((-80.0, 5.0, 0.87, 62.0), (84.0, 36.0, 0.93, 50.0))):
        if section.level > top:
            radius = size * np.sqrt(min(1.0, (section.level - top) / 0.22))
            radii = radius * (1 + 0.025 * patient.wobble[side, :9, 0])
            circle = np.stack([0.9 * np.cos(angles), np.sin(angles)], 1) * radii[:, None]
            found.append(circle + np.array([x * patient.width, y * patient.depth]))
    return tuple(found)
