"""Writing a synthetic hospital as an ordinary site folder: all of it, or nothing."""

import csv
import io
import shutil
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.data.folder import LUNG_MASKS, MASKS
from common.errors import ConfigError, SiteError
from common.randomness import numpy_generator
from simulations.synthetic.lesions import FINDINGS
from simulations.synthetic.phantom import draw_case, draw_levels, make_slice
from simulations.synthetic.presets import Hospital, choose_hospital
from simulations.synthetic.scanner import acquire, place_patient

COLUMNS = ("file_name", "label", "patient_id", *FINDINGS)
SMALLEST_SIZE = 64
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
        If there are not two classes, or a number is too small.
    SiteError
        If ``root`` is not empty or cannot be written.
    """
    _check_arguments(name, index, patients, classes, size)
    _check_root(name, root)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}.", suffix=".part"))
    except OSError as error:
        raise _unwritable(name, root, error) from error
    try:
        _fill(part, name, index, patients, classes, seed, size, progress)
        part.chmod(0o755)
        part.replace(root)
    except OSError as error:
        raise _unwritable(name, root, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _check_arguments(
    name: str, index: int, patients: int, classes: Sequence[str], size: int
) -> None:
    """Refuse what no hospital can be made from."""
    if len(classes) != 2 or classes[0] == classes[1] or {MASKS, LUNG_MASKS} & set(classes):
        raise ConfigError(
            f"A synthetic hospital has two different classes, the negative first, and none is "
            f"called {MASKS!r} or {LUNG_MASKS!r}; found {', '.join(classes) or 'none'}. Set two "
            "classes, or name a folder of your own as data."
        )
    for what, value, least in (
        ("index", index, 0),
        ("number of patients", patients, 2),
        ("size in pixels", size, SMALLEST_SIZE),
    ):
        if value < least:
            raise ConfigError(
                f"The {what} of the synthetic hospital {name} must be at least {least}; "
                f"found {value}."
            )


def _check_root(name: str, root: Path) -> None:
    """Refuse to write over anything."""
    if root.is_dir() and not any(root.iterdir()):
        return
    if root.exists() or root.is_symlink():
        raise SiteError(
            f"Cannot write the synthetic hospital {name} into {root}: expected a missing or an "
            "empty folder, found something there. Name another folder or empty it."
        )


def _unwritable(name: str, root: Path, error: OSError) -> SiteError:
    return SiteError(
        f"Cannot write the synthetic hospital {name} into {root}: {error.strerror}. "
        "Free some space or name another folder; nothing half-written is left under that name."
    )


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
