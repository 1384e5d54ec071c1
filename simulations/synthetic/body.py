"""Everything around the lungs, painted in Hounsfield units: chest wall, bones, mediastinum."""

import numpy as np

from simulations.synthetic.anatomy import LEFT, RIGHT, Section
from simulations.synthetic.canvas import Grid, Painter, Picture, Points, smooth_outline

AIR, FAT, MUSCLE, SKIN, ORGAN = -1000.0, -102.0, 52.0, 15.0, 58.0


def paint_body(
    grid: Grid, section: Section, couch: bool, generator: np.random.Generator
) -> Picture:
    """Paint a slice without its lungs.

    Parameters
    ----------
    grid : Grid
        The picture.
    section : Section
        The chest at the slice's level.
    couch : bool
        Whether the patient lies on a visible couch.
    generator : numpy.random.Generator
        The slice's own variation, for example which ribs are cut.

    Returns
    -------
    Picture
        (height, width), HU.
    """
    painter = Painter(grid, FAT)
    outline = body_outline(section)
    _breasts(painter, section, generator)
    _muscles(painter, section)
    _mediastinum(painter, section)
    _spine(painter, section, generator)
    _ribs(painter, section, generator)
    _front_and_blades(painter, section, generator)
    closed = np.concatenate([outline, outline[:1]])
    for half, edge in ((closed[:49], 900.0), (closed[48:], -900.0)):  # clear what is outside
        start, end = half[0], half[-1]
        corners = [(end[0] * 9, end[1]), (end[0] * 9, edge), (start[0] * 9, edge)]
        painter.fill(np.concatenate([half, corners, [(start[0] * 9, start[1])]]), AIR)
    painter.stroke(closed, 2.2, SKIN)
    if couch:
        _couch(painter, float(outline[:, 1].max()))
    return painter.picture()


def body_outline(section: Section) -> Points:
    """Return the skin's closed outline (n, 2) in mm."""
    patient, level = section.patient, section.level
    wall = section.wall(0)
    # Arms are raised: muscles of the shoulder keep the upper chest as wide as the lower.
    lateral = float(np.abs(wall[:, 0]).max()) + patient.muscle * (20 + 38 * (1 - level))
    front = float(-wall[:, 1].min()) + 17 * patient.muscle
    back = float(wall[:, 1].max()) + 30 * patient.muscle
    angles = np.arange(96) * (2 * np.pi / 96)
    cosine, sine = np.cos(angles), np.sin(angles)
    behind = sine > 0
    height = np.where(behind, back + 0.8 * patient.fat, front + patient.fat)
    power = np.where(behind, 2.7, 2.35)
    a = lateral + 0.8 * patient.fat
    radius = (np.abs(cosine / a) ** power + np.abs(sine / height) ** power) ** (-1 / power)
    radius -= 7 * np.exp(-(((angles - np.pi / 2) / 0.1) ** 2))  # furrow over the spine
    radius -= 5 * np.exp(-(((angles - 1.5 * np.pi) / 0.16) ** 2))  # and over the sternum
    bulge = patient.breasts * np.exp(-(((level - 0.62) / 0.25) ** 2))
    for place in (1.5 * np.pi - 0.72, 1.5 * np.pi + 0.72):
        radius += bulge * np.exp(-(((angles - place) / 0.3) ** 2))
    return np.stack([radius * cosine, radius * sine], 1)


def _couch(painter: Painter, back: float) -> None:
    """Paint a curved couch top: a thin shell with a lighter core below the back."""
    x = np.linspace(-215, 215, 15)
    top = back + 4 + 26 * (np.abs(x) / 215) ** 2.4 * -1.2
    painter.stroke(np.stack([x, top], 1), 2.6, -250)
    painter.stroke(np.stack([x, top + 24], 1), 2.2, -350)


def _breasts(painter: Painter, section: Section, generator: np.random.Generator) -> None:
    """Paint glandular strands into the breasts' fat."""
    patient, level = section.patient, section.level
    size = patient.breasts * np.exp(-(((level - 0.62) / 0.25) ** 2))
    if size < 8:
        return
    top = float(section.wall(0)[:, 1].min()) - 14 * patient.muscle - patient.fat
    for side in (-1, 1):
        for _ in range(4):
            centre = (side * generator.uniform(55, 95), top + generator.uniform(-0.35, 0.5) * size)
            radii = (generator.uniform(4, 12), generator.uniform(2, 6))
            painter.disc(centre, radii, generator.uniform(-20, 35), generator.uniform(0, 3))


def _muscles(painter: Painter, section: Section) -> None:
    """Paint the muscles of the chest wall with the fat planes between them."""
    patient, level = section.patient, section.level
    strength = patient.muscle
    wall = section.wall(13.0)
    painter.fill(smooth_outline(wall, 5, closed=False), MUSCLE - 6)
    front = float(wall[:, 1].min())
    back = float(wall[:, 1].max())
    side_x = float(np.abs(wall[:, 0]).max())
    upper = 1 - level
    for side in (-1, 1):
        chest = (side * side_x * 0.5, front + 3 - 5 * upper)
        painter.disc(chest, (side_x * 0.46, (5 + 9 * upper) * strength), FAT, side * 0.22)
        painter.disc(chest, (side_x * 0.44, (3 + 9 * upper) * strength), MUSCLE, side * 0.22)
        lateral = (side * (side_x + 5 + 12 * upper), 18 + 12 * upper)
        painter.disc(lateral, ((6 + 11 * upper) * strength, 48), FAT, side * 0.12)
        painter.disc(lateral, ((4.5 + 10 * upper) * strength, 44), MUSCLE, side * 0.12)
        below = (side * side_x * 0.66, back - 4)
        painter.disc(below, (46, (7 + 13 * upper) * strength), FAT, -side * 0.5)
        painter.disc(below, (43, (5 + 12 * upper) * strength), MUSCLE, -side * 0.5)
        spinal = (side * 26 * patient.width, back + 6)
        painter.disc(spinal, (24 * strength, 15 * strength), FAT, -side * 0.15)
        painter.disc(spinal, (22 * strength, 13.5 * strength), MUSCLE + 4, -side * 0.15)


def _mediastinum(painter: Painter, section: Section) -> None:
    """Paint fat between the lungs, then heart, vessels, airways and the upper belly."""
    patient, level = section.patient, section.level
    sx, sy, blood = patient.width, patient.depth, patient.blood

    def disc(x: float, y: float, rx: float, ry: float, value: float, turn: float = 0.0) -> None:
        painter.disc((x * sx, y * sy), (rx * sx, ry * sy), value, turn)

    painter.fill(smooth_outline(section.wall(1.5), 5, closed=False), -92)
    disc(2, 41, 8, 6.5, 36)  # oesophagus
    if level > 0.24:
        disc(22, 53, 12.5 - 2 * level, 12.5 - 2 * level, blood)  # descending aorta
    disc(-23, -20 + 10 * level, 9.5, 11, blood - 4)  # superior vena cava
    if level < 0.24:
        for x, y, r in ((-13, -12, 7.5), (6, -16, 5.5), (18, 6, 6.0), (-30, -30, 7), (22, -34, 7)):
            disc(x, y, r, r, blood)
    elif level < 0.36:
        disc(6, -2, 38 - abs(level - 0.3) * 150, 12.5, blood, 0.95)  # arch
    elif level < 0.66:
        disc(-9, -27, 16.5, 16, blood)  # ascending aorta
    if 0.42 < level < 0.6:
        disc(19, -36, 15, 14, blood)  # pulmonary trunk and its right branch
        line = np.array([(16, -22), (0, -6), (-18, 1), (-38, 4)]) * (sx, sy)
        painter.stroke(smooth_outline(line, 4, closed=False), 15 * sx, blood - 2)
        painter.stroke(np.array([(26, -26), (42, 2), (45, 16)]) * (sx, sy), 12 * sx, blood - 2)
    _heart(painter, section)
    if level < 0.4:
        disc(-1, 14, 9.5, 9, 90)  # trachea with its wall
        disc(-1, 14, 8, 7.6, -990)
    elif level < 0.56:
        spread = (level - 0.4) / 0.16
        for side in (-1.0, 1.0):
            middle = side * (11 + 20 * spread)
            disc(middle, 18, 8.5 + 2 * spread, 6.8, 80, -side * 0.25)
            disc(middle, 18, 7.2 + 2 * spread, 5.5, -985, -side * 0.25)


def _heart(painter: Painter, section: Section) -> None:
    """Paint the heart: a tilted blob in epicardial fat, its chambers a little brighter."""
    patient, level = section.patient, section.level
    if level < 0.55:
        return
    grown = min(1.0, 0.72 + (level - 0.55) * 2)
    right, left = section.lungs[RIGHT], section.lungs[LEFT]
    sx, sy = patient.width, patient.depth
    front = 0.8 * float(right[0, 1])
    sides = [right[12], right[11], right[10] - (0, 3), (-16 * sx, 27 * sy), (22 * sx, 33 * sy)]
    sides += [left[10] - (4, 4), left[11], left[12] + (0, 6)]
    sides += [(0.5 * left[12, 0], front), (-8 * sx, front)]
    outline = np.array(sides)
    middle = outline.mean(0)
    outline = middle + (outline - middle) * 0.93 * grown
    painter.fill(smooth_outline(outline), MUSCLE - 8)
    spread = np.ptp(outline, axis=0)
    for u, v, rx, ry in (
        (0.2, 0.14, 0.24, 0.2),
        (-0.14, -0.24, 0.23, 0.17),
        (-0.3, 0.06, 0.13, 0.2),
    ):
        painter.disc(middle + spread * (u, v), spread * (rx, ry), patient.blood, 0.6)


def _spine(painter: Painter, section: Section, generator: np.random.Generator) -> None:
    """Paint a vertebra: body with a dense rim, canal, pedicles, transverse and spinous process."""
    patient, level = section.patient, section.level
    bone, sx, sy = patient.bone, patient.width, patient.depth
    grow = 0.86 + 0.2 * level
    disc_space = generator.random() < 0.25

    def at(*points: tuple[float, float]) -> Points:
        return np.array(points) * (sx * grow, sy) + (0, 64 * sy)

    for side in (-1, 1):
        painter.stroke(at((side * 10, 18), (side * 22, 25), (side * 36, 27)), 8, bone * 0.75)
        painter.stroke(at((side * 12, 19), (side * 34, 26.5)), 4, 190)
        painter.stroke(at((side * 13, 8), (side * 13, 22)), 7, bone * 0.8)
        painter.stroke(at((side * 12, 30), (0, 38)), 6, bone * 0.85)
    painter.stroke(at((0, 36), (0.5, 58)), 7, bone * 0.8)
    painter.stroke(at((0, 38), (0.5, 55)), 3, 220)
    painter.disc(at((0, 0))[0], (18 * grow * sx, 15.5 * grow * sy), bone * 0.8)
    inner = 95 if disc_space else generator.uniform(150, 260)
    painter.disc(at((0, 0))[0], (16 * grow * sx, 13.5 * grow * sy), inner)
    painter.disc(at((0, 22.5))[0], (10.5 * grow * sx, 9 * sy), 25)
    painter.disc(at((0, 22.5))[0], (6 * grow * sx, 4.8 * sy), 48)


def _ribs(painter: Painter, section: Section, generator: np.random.Generator) -> None:
    """Paint obliquely cut ribs along the chest wall; towards the sternum they are cartilage."""
    patient = section.patient
    line = smooth_outline(section.wall(7.5), 8, closed=False)
    shares = np.arange(7) / 6
    for half in (line[:60], line[:59:-1]):
        steps = np.hypot(*np.diff(half, axis=0).T)
        along = np.concatenate([[0], np.cumsum(steps)])
        start = generator.uniform(-25, 12)
        while start < along[-1] - 12:
            length = generator.uniform(26, 58)
            stop = min(start + length, along[-1] - 4)
            if stop - max(start, 2) > 9:
                first = max(start, 2)
                places = first + (stop - first) * shares
                bar = np.array([np.interp(places, along, axis) for axis in half.T]).T
                front = first + stop > 2 * 0.84 * along[-1]
                painter.stroke(bar, 7.6, 110 if front else patient.bone, tapered=True)
                if not front:
                    painter.stroke(bar[1:-1], 3.6, generator.uniform(120, 280), tapered=True)
            start = stop + generator.uniform(12, 26)


def _front_and_blades(painter: Painter, section: Section, generator: np.random.Generator) -> None:
    """Paint sternum and, in the upper chest, the blades of the scapulae."""
    patient, level = section.patient, section.level
    wall = section.wall(13.0)
    front = float(wall[:, 1].min()) - 1
    if level < 0.93:
        breadth = 23 - 9 * level
        painter.disc((0, front + 5), (breadth, 6.5), patient.bone * 0.75)
        painter.disc((0, front + 5), (breadth - 3, 4), 140)
    if level > 0.62:
        return
    side_x, back = float(np.abs(wall[:, 0]).max()), float(wall[:, 1].max())
    reach = 1 - level / 0.75
    for side in (-1, 1):
        lift = generator.normal(0, 2)
        blade = [(0.55, back + 4), (0.82, back - 18 + lift), (1.08, back - 46 * reach - 14)]
        points = smooth_outline([(side * u * side_x, v) for u, v in blade], 5, closed=False)
        painter.stroke(points, 4.5, patient.bone * 0.85, tapered=True)
        painter.stroke(points[6:], 2.0, 260)
