"""One slice in Hounsfield units with its lesion mask, put together from all rooms."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.synthetic import confounders as other
from simulations.synthetic.anatomy import Patient, Section, cut_chest, draw_patient
from simulations.synthetic.body import paint_body
from simulations.synthetic.canvas import Grid, Picture
from simulations.synthetic.disease import Lesion, draw_lesions, levels_with_lesions
from simulations.synthetic.lesions import FINDINGS, LesionMaps, draw_maps
from simulations.synthetic.lungs import Lungs, Vessels, build_lungs, grow_vessels

BRONCHUS = -930.0  # HU of air in a bronchus
INFILTRATED = 32.0  # HU of lung without air


@dataclass(frozen=True)
class Case:
    """A patient with everything that the slices share."""

    patient: Patient
    vessels: Vessels
    lesions: tuple[Lesion, ...]
    confounders: other.Confounders


@dataclass(frozen=True)
class Slice:
    """A slice as the scanner meets it.

    Parameters
    ----------
    hu : Picture
        Density (height, width), HU.
    lung : NDArray
        Lung pixels (height, width).
    mask : NDArray
        Lesion pixels (height, width).
    findings : dict of str to bool
        Which of the five findings are in the slice.
    """

    hu: Picture
    lung: NDArray[np.bool_]
    mask: NDArray[np.bool_]
    findings: dict[str, bool]


def draw_case(
    positive: bool, severity: float, confounding: float, generator: np.random.Generator
) -> Case:
    """Draw a patient.

    Parameters
    ----------
    positive : bool
        Whether the patient has COVID-19.
    severity, confounding : float
        About 1; how severe the disease is, how common other findings are.
    generator : numpy.random.Generator
        The patient's own.
    """
    patient = other.with_large_vessels(draw_patient(generator), generator)
    vessels = grow_vessels(patient, generator)
    found = other.draw_confounders(confounding, positive, generator)
    lesions = draw_lesions(severity, generator) if positive else ()
    return Case(patient, vessels, lesions, found)


def draw_levels(case: Case, count: int, generator: np.random.Generator) -> list[float]:
    """Choose the levels of a patient's slices; with disease, all of them show some."""
    if case.lesions:
        return levels_with_lesions(case.lesions, count, generator)
    return [float(0.2 + 0.75 * generator.beta(2.0, 1.5)) for _ in range(count)]


def make_slice(
    grid: Grid, case: Case, level: float, couch: bool, generator: np.random.Generator
) -> Slice:
    """Make a slice of a patient.

    Parameters
    ----------
    grid : Grid
        The picture.
    case : Case
        The patient.
    level : float
        From 0 (top) to 1 (diaphragm).
    couch : bool
        Whether the couch is in the picture.
    generator : numpy.random.Generator
        The slice's own.
    """
    patient, found = case.patient, case.confounders
    section = cut_chest(patient, level)
    body = paint_body(grid, section, couch, generator)
    lungs = build_lungs(grid, section, case.vessels, generator)
    air = lungs.parenchyma + other.add_haze(grid, lungs, found, generator)
    solid = other.add_solid(grid, section, found)
    lines = other.add_lines(grid, lungs, found, generator)
    disease = _lesions(grid, section, lungs, case.lesions, generator)
    if found.infiltrate:
        focus = draw_maps(grid, section, lungs, found.infiltrate, generator)
        air, solid = air + focus.haze, np.maximum(solid, focus.solid)
    if disease is not None:
        air = air + disease.haze
        solid = np.maximum(solid, disease.solid)
        lines = np.maximum(lines, disease.lines)
    air = _over(air, lines, -60.0)
    air = _over(air, lungs.vessels, patient.blood)
    air = _over(air, solid, INFILTRATED)
    if disease is not None:
        air = _over(air, disease.bronchi, BRONCHUS)
    hu = other.move(_over(body, lungs.coverage, air), grid, found, generator)
    lung = lungs.coverage > 0.5
    if disease is None:
        return Slice(hu, lung, np.zeros_like(lung), dict.fromkeys(FINDINGS, False))
    return Slice(hu, lung, disease.mask, disease.labels(grid.spacing))


def _over(below: Picture, share: Picture, value: float | Picture) -> Picture:
    """Lay ``value`` over a picture with an opacity."""
    return np.asarray(below + share * (value - below), dtype=np.float32)


def _lesions(
    grid: Grid,
    section: Section,
    lungs: Lungs,
    lesions: Sequence[Lesion],
    generator: np.random.Generator,
) -> LesionMaps | None:
    """Draw the patient's lesions, larger until the slice shows one that can be named."""
    if not lesions:
        return None
    for growth in (1.0, 1.4, 2.0, 3.0, 5.0, 9.0, 20.0):
        maps = draw_maps(grid, section, lungs, lesions, generator, growth)
        named = maps.labels(grid.spacing)
        if named["ggo"] or named["consolidation"]:
            break
    return maps
