"""Writing a synthetic hospital as an ordinary site folder: all of it, or nothing."""

import csv
import io
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.data.folder import LUNG_MASKS, MASKS
from common.errors import ConfigError
from common.files import replacing
from common.randomness import numpy_generator
from simulations.synthetic.lesions import FINDINGS
from simulations.synthetic.phantom import draw_case, draw_levels, make_slice
from simulations.synthetic.presets import Hospital, choose_hospital
from simulations.synthetic.scanner import acquire, place_patient

COLUMNS = ("file_name", "label", "patient_id", *FINDINGS)
BLOCK = 20  # patients among which the share of classes is exact

Row = dict[str, str | int]


def write_hospital(
    root: Path,
    name: str,
    index: int,
    patients: int,
    classes: Sequence[str],
    seed: int,
    size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a synthetic hospital of CT-like slices into a new site folder.

    The folder holds ``<class>/<patient>_<slice>.png`` (8-bit grey), masks of the same names
    (0 or 255) of the lesions below ``masks/``, empty for the negative class, and of the lungs
    below ``masks-lungs/``, and ``metadata.csv``. The same arguments write the same bytes, and a
    patient does not depend on how many there are. The folder appears under its name only once it
    is complete.

    Parameters
    ----------
    root : Path
        The folder to write; must be missing or empty.
    name : str
        The site's name; another name is another hospital with other patients.
    index : int
        Which kind of hospital: 0 to 4 are quite different presets, beyond them it is drawn.
    patients : int
        How many patients, at least 2; each has one to seven slices, three in the mean.
    classes : sequence of str
        Names of the negative and of the positive class.
    seed : int
        Seed of everything that is drawn.
    size : int
        Short side of the pictures in pixels, at least 64.
    progress : callable, optional
        Called with the patients done and their total.

    Raises
    ------
    ConfigError
        If there are not two classes.
    RunError
        If ``root`` is not empty or cannot be written.
    """
    if len(classes) != 2 or classes[0] == classes[1] or {MASKS, LUNG_MASKS} & set(classes):
        raise ConfigError(
            f"A synthetic hospital has two different classes, the negative first, and none is "
            f"called {MASKS!r} or {LUNG_MASKS!r}; found {', '.join(classes) or 'none'}. Set two "
            "classes, or name a folder of your own as data."
        )
    with replacing(root, mode=0o755) as part:
        part.mkdir()
        _fill(part, name, index, patients, classes, seed, size, progress)


def _fill(
    folder: Path,
    name: str,
    index: int,
    patients: int,
    classes: Sequence[str],
    seed: int,
    size: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write all patients and the table of metadata."""
    hospital = choose_hospital(index, numpy_generator(seed, name, index, "hospital"))
    for label in classes:
        (folder / label).mkdir()
        for masks in (MASKS, LUNG_MASKS):
            (folder / masks / label).mkdir(parents=True)
    rows: list[Row] = []
    for number in range(patients):
        if number % BLOCK == 0:
            block = _draw_classes(number // BLOCK, hospital.positive_share, name, seed)
        positive = block[number % BLOCK]
        rows += _write_patient(
            folder, name, number, hospital, classes[positive], positive, seed, size
        )
        if progress is not None:
            progress(number + 1, patients)
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _draw_classes(block: int, share: float, name: str, seed: int) -> list[bool]:
    """Draw which patients of a block are positive; every block keeps the hospital's share.

    The first block begins with one patient of either class, so that the smallest hospital that
    can be written has both.
    """
    positive = np.arange(BLOCK) < round(BLOCK * share)
    drawn: list[bool] = numpy_generator(seed, name, block, "classes").permutation(positive).tolist()
    if block == 0:
        other = drawn.index(not drawn[0])
        drawn[1], drawn[other] = drawn[other], drawn[1]
    return drawn


def _write_patient(
    folder: Path,
    name: str,
    number: int,
    hospital: Hospital,
    label: str,
    positive: bool,
    seed: int,
    size: int,
) -> list[Row]:
    """Write a patient's slices and masks; return their rows of metadata."""
    generator = numpy_generator(seed, name, number, "patient")
    case = draw_case(positive, hospital.severity, hospital.confounding, generator)
    grid = place_patient(hospital.scanner, size, generator)
    count = 1 + min(6, int(generator.poisson(2)))
    patient = f"p{number:04d}"
    rows: list[Row] = []
    for position, level in enumerate(sorted(draw_levels(case, count, generator))):
        own = numpy_generator(seed, name, number, position, "slice")
        made = make_slice(grid, case, level, hospital.scanner.couch, own)
        file_name = f"{label}/{patient}_{position:02d}.png"
        _write_png(folder / file_name, acquire(made.hu, grid, hospital.scanner, own))
        for masks, pixels in ((MASKS, made.mask), (LUNG_MASKS, made.lung)):
            _write_png(folder / masks / file_name, pixels.astype(np.uint8) * np.uint8(255))
        found = {finding: int(made.findings[finding]) for finding in FINDINGS}
        rows.append({"file_name": file_name, "label": label, "patient_id": patient, **found})
    return rows


def _write_png(path: Path, grey: NDArray[np.uint8]) -> None:
    """Write a grey picture; noise is packed fastest by run lengths."""
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG", compress_type=zlib.Z_RLE)
    path.write_bytes(buffer.getvalue())
