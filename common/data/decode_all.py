"""Many images are decoded at once, and their greys of more than 8 bits by one scale for all."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.config.sections import ImageKeys
from common.data.decode import as_shown, locate, network_image, pictures
from common.data.scale import Extent, Greys, Scale, find_scale
from common.errors import SiteError

Progress = Callable[[int, int], None]
"""Called with (done, total)."""
Job = tuple[Path, list[tuple[int, int | None]]]
"""A file, and which of the images are which of its frames."""


def decode_all(
    paths: Sequence[Path],
    config: ImageKeys,
    keep: Callable[[int, NDArray[np.uint8]], None],
    failed: Callable[[Path, SiteError], None],
    scale: Scale | None = None,
    progress: Progress | None = None,
) -> tuple[Scale | None, int]:
    """Decode images in threads: the decoders release Python's lock. A file is read once, or twice.

    Parameters
    ----------
    paths : sequence of Path
        The images; a frame of a file is named as of :func:`common.data.decode.decode_file`.
    config : ImageKeys
        Size of cached images, channels, window and scale.
    keep : callable
        Given an image's place in ``paths`` and the image, shape (size, size, channels).
    failed : callable
        Given a file that cannot be decoded, and why; what it raises ends everything.
    scale : Scale, optional
        The site's where it is known.
    progress : callable, optional
        Told how many of how many images are done.

    Returns
    -------
    Scale or None
        What is black and white in the greys that name no scale; None where there are none.
    int
        How many images it was found from: 0 where it was known.
    """
    extents: list[Extent] = []
    done = 0

    def decode(job: Job) -> tuple[list[tuple[int, int | None]], int]:
        """Return which frames wait for a scale, and how many are done."""
        path, images = job
        waiting = []
        try:
            frames = pictures(path, [frame for _, frame in images], config)
            for (place, frame), picture in zip(images, frames, strict=True):
                if isinstance(picture, Greys) and picture.scale is None and scale is None:
                    extents.append(picture.extent())
                    waiting.append((place, frame))
                else:
                    keep(place, network_image(as_shown(picture, config, scale), config))
        except SiteError as error:
            failed(path, error)
            return [], len(images)
        return waiting, len(images) - len(waiting)

    jobs: dict[Path, list[tuple[int, int | None]]] = {}
    for place, path in enumerate(paths):
        file, frame = locate(path)
        jobs.setdefault(file, []).append((place, frame))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        while jobs:
            left: dict[Path, list[tuple[int, int | None]]] = {}
            # An error ends the map, which cancels what has not begun.
            for file, (waiting, ready) in zip(jobs, pool.map(decode, jobs.items()), strict=True):
                done += ready
                if waiting:
                    left[file] = waiting
                if progress is not None:
                    progress(done, len(paths))
            if left:
                scale = find_scale(extents, config)
            jobs = left
    return scale, len(extents)
