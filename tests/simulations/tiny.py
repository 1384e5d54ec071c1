"""Site folders and a configuration so small that a run takes a second."""

from pathlib import Path

import numpy as np
from PIL import Image

from common.config.schema import Config

SETTINGS = {
    "image_size": 32,
    "width": 0.05,
    "projection_hidden": 64,
    "projection_size": 8,
    "batch_size": 4,
    "threads": 1,
    "precision": "float32",
    "device": "cpu",
    "folds": 3,
    "epochs": 2,
    "local_steps": 0,
}


def write_site(root: Path, images: int = 9, shift: int = 0) -> None:
    """Write ``images`` 32-pixel images of each class; positives have a bright square."""
    generator = np.random.default_rng(shift)
    for label in ("non-covid", "covid"):
        (root / label).mkdir(parents=True)
        for number in range(images):
            pixels = generator.integers(0, 120, (32, 32), dtype=np.uint8) + np.uint8(shift)
            if label == "covid":
                pixels[8:20, 8:20] += 100
            Image.fromarray(pixels).save(root / label / f"p{number:02d}.png")


def tiny_config(tmp_path: Path, **values: str | int | float | bool) -> Config:
    """Write sites 'a' and 'b' (once) and return a configuration of them."""
    data = tmp_path / "data"
    if not data.exists():
        write_site(data / "a")
        write_site(data / "b", images=12, shift=20)
    return Config().changed(
        data=str(data),
        sites="a,b",
        cache_dir=str(tmp_path / "cache"),
        **(SETTINGS | values),
    )
