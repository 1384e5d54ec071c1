"""Small site folders for the tests of reading, decoding and splitting."""

from pathlib import Path

import numpy as np
from PIL import Image

from common.config.sections import ImageKeys

CLASSES = ("non-covid", "covid")
SETTINGS = ImageKeys(cache_size=8)


def write_site(root: Path, images: int = 4, patients: int = 0) -> Path:
    """Write ``images`` random 10 × 12 PNGs of each class, and ids where there are patients."""
    rows = ["file_name,label,patient_id"]
    generator = np.random.default_rng(0)
    for label in CLASSES:
        (root / label).mkdir(parents=True)
        for number in range(images):
            pixels = generator.integers(0, 256, (10, 12), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"image {number} (1).png")
            patient = f"{label}-{number % patients}" if patients else ""
            rows.append(f"{label}/image {number} (1).png,{label},{patient}")
    if patients:
        (root / "metadata.csv").write_text("\n".join(rows) + "\n")
    return root
