"""What benchmarks share: two sites of PNG files, and a look at what runs meanwhile."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ImageFilter import GaussianBlur

from common.config.schema import Config, Scalar
from common.randomness import numpy_generator

SITES = ("site-a", "site-b")
CLASSES = ("non-covid", "covid")
BATCH, FOLDS = 2, 4


def two_sites(folder: Path, images: Sequence[int], size: int, **values: Scalar) -> Config:
    """Write both sites and return the configuration of a run with them.

    The images are grey PNG files that compress as a CT slice does.

    Parameters
    ----------
    folder : Path
        Of all files.
    images : sequence of int
        How many each site has.
    size : int
        Height and width of the files, in pixels.
    **values
        What else differs from the defaults.
    """
    for name, count in zip(SITES, images, strict=True):
        generator = numpy_generator(0, name, "benchmark images")
        for number in range(count):
            path = folder / "data" / name / CLASSES[number % 2] / f"{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = generator.integers(0, 256, (size // 16, size // 16), dtype=np.uint8)
            smooth = Image.fromarray(coarse).resize((size, size)).filter(GaussianBlur(3))
            grey = np.asarray(smooth) + generator.normal(0, 3, (size, size))
            Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).save(path)
    return Config().changed(
        data=str(folder / "data"),
        sites=",".join(SITES),
        classes=",".join(CLASSES),
        split="image",
        cache_dir=str(folder / "cache"),
        **values,
    )


def one_step_rounds(folder: Path, rounds: int, **values: Scalar) -> Config:
    """Return the same with rounds of one step, so many of them in an epoch."""
    images = rounds * BATCH * FOLDS // (FOLDS - 1)
    always = {"batch_size": BATCH, "folds": FOLDS, "local_steps": 1, "threads": 1}
    runs = {"runs_dir": str(folder / "runs")}
    return two_sites(folder, [images] * len(SITES), 64, **runs, **always, **values)


@contextmanager
def looking(look: Callable[[], None], seconds: float) -> Iterator[None]:
    """Look from a thread, every so many seconds, within a block."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            look()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
