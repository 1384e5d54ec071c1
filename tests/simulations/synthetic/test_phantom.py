"""The phantom itself: geometry, anatomy, and masks that hold what the lesions changed."""

from dataclasses import replace

import numpy as np
import pytest

from common.randomness import numpy_generator
from simulations.synthetic.anatomy import LEFT, LUNG_HEIGHT, RIGHT, cut_chest, draw_patient
from simulations.synthetic.canvas import Grid, Painter, net_distance, smooth_outline
from simulations.synthetic.confounders import Confounders
from simulations.synthetic.lesions import FINDINGS, SMALLEST, draw_maps
from simulations.synthetic.lungs import build_lungs, grow_vessels
from simulations.synthetic.phantom import Case, Slice, draw_case, draw_levels, make_slice
from simulations.synthetic.scanner import Scanner, acquire

GRID = Grid(128, 160, 2.6, 0.1, (3.0, 8.0))


def diseased(number: int) -> tuple[Case, float]:
    generator = numpy_generator(number, "case")
    case = replace(draw_case(True, 1.2, 1.0, generator), confounders=Confounders())
    return case, draw_levels(case, 1, generator)[0]


def draw(case: Case, level: float, number: int = 0) -> Slice:
    return make_slice(GRID, case, level, True, numpy_generator(number, "slice"))


def test_pixels_and_millimetres_agree() -> None:
    x, y = GRID.coordinates
    row, column = 17, 120
    place = GRID.to_pixels([(x[row, column], y[row, column])])[0]
    np.testing.assert_allclose(place, (column + 0.5, row + 0.5), atol=1e-4)
    # A clockwise turn by 0.1 takes the patient's left, at the image's right, downwards.
    assert GRID.to_pixels([(50.0, 8.0)])[0][1] > GRID.height / 2


def test_painted_areas_are_right_and_edges_smooth() -> None:
    painter = Painter(GRID, 0.0, factor=3)
    painter.disc((0, 0), (60, 40), 1.0, turn=0.7)
    picture = painter.picture()
    # The ellipse is painted as a polygon of 28 corners: sin(2π/28) / (2π/28) of its area.
    share = np.sin(2 * np.pi / 28) / (2 * np.pi / 28)
    area = np.pi * 60 * 40 * share / GRID.spacing**2
    assert picture.sum() == pytest.approx(area, rel=0.02)
    assert ((picture > 0.05) & (picture < 0.95)).sum() > 50


def test_a_smooth_outline_passes_through_its_control_points() -> None:
    points = np.array([(0.0, 0.0), (10, 1), (12, 9), (1, 11)])
    np.testing.assert_allclose(smooth_outline(points, 5)[::5], points, atol=1e-12)
    opened = smooth_outline(points, 5, closed=False)
    np.testing.assert_allclose(opened[::5], points, atol=1e-12)
    assert len(opened) == 16


def test_a_net_s_edges_lie_between_two_middles() -> None:
    x, y = np.meshgrid(np.linspace(0, 60, 241), np.linspace(0, 60, 241))
    distance = net_distance(
        x.astype(np.float32), y.astype(np.float32), 10, numpy_generator(0, "net")
    )
    assert distance.min() >= 0
    # Half the gap between two distances changes at most as fast as the place does.
    assert np.abs(np.diff(distance, axis=1)).max() <= 0.25 + 1e-4
    # 36 polygons of 10 mm: the middle of each lies about half a mesh from the edges.
    assert 1.5 < distance.mean() < 3.5 and distance.max() < 10


def test_lungs_are_largest_below_the_middle_and_no_wider_than_the_chest() -> None:
    patient = draw_patient(numpy_generator(1, "patient"))
    areas = {}
    for level in (0.0, 0.3, 0.7):
        section = cut_chest(patient, level)
        for points in section.lungs:
            x, y = smooth_outline(points).T
            area = abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
            areas[level] = areas.get(level, 0.0) + area
        assert section.lungs[RIGHT][:, 0].max() < 0 < section.lungs[LEFT][:, 0].min()
        inside = np.abs(section.wall(0)[:, 0]).max()
        assert np.abs(section.wall(9)[:, 0]).max() == pytest.approx(inside + 9, abs=1.0)
    assert areas[0.0] < areas[0.3] < areas[0.7]


def test_vessels_taper_from_the_hilum() -> None:
    patient = draw_patient(numpy_generator(2, "patient"))
    vessels = grow_vessels(patient, numpy_generator(2, "vessels"))
    ends = {tuple(end): radius for end, radius in zip(vessels.ends, vessels.radii, strict=True)}
    feeders = [ends.get(tuple(start)) for start in vessels.starts]
    pairs = [(f, r) for f, r in zip(feeders, vessels.radii, strict=True) if f is not None]
    assert len(pairs) > 0.9 * len(vessels.radii)
    assert all(feeder > radius for feeder, radius in pairs)
    assert -0.1 * LUNG_HEIGHT < vessels.ends[:, 2].min() < vessels.ends[:, 2].max() < 250


def test_densities_stand_in_the_right_order() -> None:
    case = replace(diseased(3)[0], lesions=())
    made = draw(case, 0.5)
    x, y = GRID.coordinates
    patient = case.patient
    spine = np.hypot(x, y - 64 * patient.depth) < 12
    lung = made.lung & (made.hu < -700)
    outside = np.hypot(x, y) > 205
    assert made.hu[outside & (y < 0)].max() == -1000
    assert np.median(made.hu[lung]) == pytest.approx(patient.lung, abs=40)
    assert 80 < np.median(made.hu[spine]) < 400
    assert made.hu.max() > 400  # cortical bone
    assert (np.abs(made.hu + 102) < 1).sum() > 200  # subcutaneous fat


@pytest.mark.parametrize("number", range(6))
def test_the_mask_lies_in_the_lungs_and_holds_what_the_lesions_changed(number: int) -> None:
    case, level = diseased(number)
    ill, well = draw(case, level, number), draw(replace(case, lesions=()), level, number)
    assert ill.mask.any() and not (ill.mask & ~ill.lung).any()
    assert not well.mask.any() and not any(well.findings.values())
    change = ill.hu - well.hu
    assert change[ill.mask].mean() > 60
    # Haze fades out beyond the mask, but nothing that is clearly seen lies there.
    strong = np.abs(change) > 120
    assert (strong & ~ill.mask & ill.lung).sum() <= 0.08 * strong.sum()
    assert np.abs(change[~ill.lung]).max() < 520  # partial pixels of the lung's edge alone
    assert not change[np.hypot(*GRID.coordinates) > 190].any()


def test_every_finding_is_labelled_from_its_own_pixels() -> None:
    seen = dict.fromkeys(FINDINGS, 0)
    for number in range(24):
        case, level = diseased(number)
        generator = numpy_generator(number, "maps")
        section = cut_chest(case.patient, level)
        lungs = build_lungs(GRID, section, case.vessels, generator)
        maps = draw_maps(GRID, section, lungs, case.lesions, generator)
        labels = maps.labels(GRID.spacing)
        for name, least in zip(FINDINGS, SMALLEST, strict=True):
            area = np.count_nonzero(maps.masks[name]) * GRID.spacing**2
            assert labels[name] == (area >= least)
            seen[name] += labels[name]
        assert (maps.masks["air_bronchogram"] <= maps.masks["consolidation"]).all()
        assert not (maps.masks["ggo"] & maps.masks["consolidation"]).any()
        assert np.array_equal(maps.mask, sum(maps.masks.values()) > 0)
    assert min(seen.values()) >= 1, seen


def test_negative_patients_have_confounders_but_no_lesions() -> None:
    cases = [draw_case(False, 1, 1, numpy_generator(i, "negative")) for i in range(40)]
    assert not any(case.lesions for case in cases)
    found = [case.confounders for case in cases]
    for name in ("atelectasis", "nodules", "emphysema", "oedema", "motion", "infiltrate"):
        assert 1 <= sum(bool(getattr(f, name)) for f in found) < 40, name
    made = draw(cases[[bool(f.infiltrate) for f in found].index(True)], 0.5)
    assert not made.mask.any()


def test_the_scanner_windows_inverts_and_quantises() -> None:
    plain = Scanner(blur=0.01, noise=0.001, window_spread=0, window_level=-600, window_width=1500)
    hu = np.full((GRID.height, GRID.width), -600, np.float32)
    hu[:10], hu[-10:] = -1400, 200

    def exported(**changes: object) -> list[int]:
        scanner = replace(plain, **changes)  # type: ignore[arg-type]
        grey = acquire(hu, GRID, scanner, numpy_generator(0, "scan"))
        return [int(grey[row, 80]) for row in (2, 64, -2)]

    assert exported() == [0, 128, 255] or exported() == [0, 127, 255]
    assert exported(inverted=True)[::2] == [255, 0]
    assert exported(black=40, white=240, grey_levels=3) == [40, 140, 240]
    assert exported(gamma=2.0)[1] == pytest.approx(64, abs=1)
