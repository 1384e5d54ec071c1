"""What a run's network says about images that carry no label."""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from common.config.sections import ImageKeys
from common.data.decode import count_frames, frame_names, locate
from common.data.decode_all import decode_all
from common.data.listing import files_below
from common.data.scale import Scale
from common.device import choose_device, limited_threads
from common.errors import RunError, SiteError
from common.files import write_atomic
from common.learning.evaluation import predict
from common.learning.local_site import TrainingSite
from common.methods.registry import require_plain_images
from common.runs.weights import Which, load_run_network, load_scale

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".dicom"})


@dataclass(frozen=True)
class ImagePredictions:
    """Predicted probabilities of unlabelled images."""

    files: tuple[Path, ...]
    """(n,) the images that could be read."""
    probabilities: NDArray[np.float64]
    """(n, classes)"""
    classes: tuple[str, ...]
    """Names of the classes, in label order."""
    failures: tuple[tuple[Path, str], ...]
    """Images that could not be read, and why."""


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Return the images that paths name, a folder standing for the images in and below it.

    Parameters
    ----------
    paths : sequence of Path
        Files, taken as they are, and folders. In a folder, files are images by their suffix, or
        DICOM by the letters that such a file holds from byte 128 on; what
        :func:`common.data.listing.files_below` passes over is none.

    Returns
    -------
    list of Path
        A file of several frames as one image each: ``scan.dcm#1`` and so on.

    Raises
    ------
    RunError
        If a path is missing, or a folder cannot be read or holds no image.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            try:
                inside = sorted(file for file in files_below(path) if _is_image(file))
            except OSError as error:
                raise RunError(f"Cannot read {error.filename}: {error.strerror}.") from error
            if not inside:
                raise RunError(f"The folder {path} holds no image (PNG, JPEG, BMP, TIFF or DICOM).")
            found += inside
        # Not a pipe: reading it would wait for ever.
        elif locate(path)[0].is_file():
            found.append(path)
        else:
            raise RunError(f"There is no file or folder {path}.")
    images: list[Path] = []
    for path in found:
        file, frame = locate(path)
        names = [path.name] if frame else frame_names(path.name, count_frames(file))
        images += (path.with_name(name) for name in names)
    return list(dict.fromkeys(images))


def _is_image(file: Path) -> bool:
    if not file.is_file():
        return False
    if file.suffix.lower() in IMAGE_SUFFIXES:
        return True
    # Hospitals export DICOM files without a suffix, or with a number as one.
    with file.open("rb") as opened:
        return opened.read(132)[128:] == b"DICM"


def predict_images(
    run: Path,
    site: str,
    files: Sequence[Path],
    which: Which = "final",
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> ImagePredictions:
    """Classify images with a run's network, decoded as the run decoded its own.

    Parameters
    ----------
    run : Path
        The run's folder.
    site : str
        The site whose normalisation is used: the one whose scanner made the images.
    files : sequence of Path
        The images.
    which : {"final", "best"}
        Weights of the last step, or the best by validation.
    device : str
        Where to compute.
    progress : callable, optional
        Told (done, total) images.

    Raises
    ------
    RunError
        If the folder is no run or the site none of its sites.
    CheckpointError
        If the weights are missing or do not fit.
    """
    network, config = load_run_network(run, site, which)
    require_plain_images(config)
    config = config.changed(device=device)
    chosen = choose_device(config)
    network.to(chosen.device)
    decoded = decode_images(files, config, load_scale(run, site, which), progress)
    batch = TrainingSite(
        site, torch.from_numpy(decoded.images), {}, np.arange(len(decoded.images)), chosen
    )
    with limited_threads(config):
        probabilities = predict(network, batch, batch.train, config)[0]
    return ImagePredictions(decoded.files, probabilities, config.class_names, decoded.failures)


@dataclass(frozen=True)
class DecodedImages:
    """Unlabelled images."""

    files: tuple[Path, ...]
    """(n,) those that could be read."""
    images: NDArray[np.uint8]
    """(n, size, size, channels)"""
    scale: Scale | None
    """What is black and white in their greys that name no scale."""
    failures: tuple[tuple[Path, str], ...]
    """Files that could not be read, and why."""


def decode_images(
    files: Sequence[Path],
    config: ImageKeys,
    scale: Scale | None,
    progress: Callable[[int, int], None] | None = None,
) -> DecodedImages:
    """Decode images.

    Parameters
    ----------
    files : sequence of Path
        The images.
    config : ImageKeys
        A run's.
    scale : Scale, optional
        Of the greys of the site that they come from; without it, of their own.
    progress : callable, optional
        Told (done, total) images.
    """
    images = np.empty((len(files), *(config.cached_size,) * 2, config.channels), np.uint8)
    read: list[int] = []
    failures: dict[Path, str] = {}

    def keep(place: int, image: NDArray[np.uint8]) -> None:
        images[place] = image
        read.append(place)

    def fail(file: Path, error: SiteError) -> None:
        failures[file] = str(error)

    scale, _ = decode_all(files, config, keep, fail, scale, progress)
    read.sort()
    return DecodedImages(
        tuple(files[place] for place in read),
        images[read],
        scale,
        tuple((file, failures[file]) for file in sorted(failures)),
    )


def write_table(
    path: Path,
    columns: Sequence[str],
    classes: Sequence[str],
    rows: Iterable[tuple[Sequence[object], NDArray[np.float64]]],
) -> None:
    """Write predictions as a table, atomically: own columns, one a class, the predicted class.

    Parameters
    ----------
    path : Path
        The file.
    columns, classes : sequence of str
        Names of the own columns, and of the classes in label order.
    rows : iterable of (sequence, ndarray of float64, shape (classes,))
        Cells of the own columns, and probabilities.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, *classes, "predicted"])
    for cells, row in rows:
        writer.writerow([*cells, *(f"{value:.6f}" for value in row), classes[int(row.argmax())]])
    write_atomic(path, text.getvalue().encode())
