"""A small sound site folder, for a case to spoil."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("non-covid", "covid")
TABLE = "metadata.csv"
Rows = dict[str, tuple[str, str | None]]
"""Class and patient of each image."""
SPOILT = "p99"
"""Stem of the image that a case of images adds."""


def picture(path: Path, seed: int = 0) -> Path:
    """Write an image of random greys."""
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_site(
    root: Path, images: int = 6, patients: int = 0, classes: Sequence[str] = CLASSES
) -> Path:
    """Write ``images`` images of each class, and a table of patients where there are any."""
    rows = ["file_name,label,patient_id"]
    for place, label in enumerate(classes):
        (root / label).mkdir(parents=True)
        for number in range(images):
            picture(root / label / f"p{number:02d}.png", 1000 * place + number)
            patient = f"{label}-{number % patients}" if patients else ""
            rows.append(f"{label}/p{number:02d}.png,{label},{patient}")
    if patients:
        (root / TABLE).write_text("\n".join(rows) + "\n")
    return root


def rows_of(patients: int = 0, *further: str, classes: Sequence[str] = CLASSES) -> Rows:
    """Return what :func:`write_site` writes, with further images of nobody."""
    found: Rows = {
        f"{label}/p{number:02d}.png": (label, f"{label}-{number % patients}" if patients else None)
        for label in classes
        for number in range(6)
    }
    return found | {name: (name.partition("/")[0], None) for name in further}
