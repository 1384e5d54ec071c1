"""Images decoded once: a memory-mapped array, keyed by the files' content and the settings.

::

    <cache>/<site>-<key>/images.npy  manifest.json      (published whole, by one rename)
    <cache>/<site>.hashes.json         (size and time of each file → SHA-256, patient, frames)

Later epochs, runs and processes never touch the files. Two processes that want the same site
wait for each other, and the second finds the first one's work.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from pydantic import TypeAdapter

from common.config.sections import ImageKeys
from common.data.decode import count_frames, dicom_patient, frame_names
from common.data.decode_all import Progress, decode_all
from common.data.duplicates import content_keys, find_copies, fingerprints, kept_copies, with_copies
from common.data.folder import SiteFolder, with_headers
from common.data.scale import Scale
from common.errors import RunError, SiteError
from common.files import locked, read_object, why, write_json

FORMAT = 2
"""Version of the cache; raised whenever decoding gives other bytes."""


@dataclass(frozen=True, kw_only=True)
class SiteData(SiteFolder):
    """A site's folder with its images in memory."""

    images: NDArray[np.uint8]
    """Shape (n, size, size, channels). Memory-mapped, read-only."""
    scale: Scale | None = None
    """What is black and white in the greys that name no scale; None where there are none."""


def load_site(
    folder: SiteFolder,
    config: ImageKeys,
    cache_dir: Path,
    progress: Progress | None = None,
) -> SiteData:
    """Return a site's decoded images, decoding what the cache does not hold.

    Parameters
    ----------
    folder : SiteFolder
        The files, labels and patients.
    config : ImageKeys
        Size of cached images, channels and window.
    cache_dir : Path
        Where caches lie; made where it is missing.
    progress : callable, optional
        Told how many of how many images are decoded.

    Raises
    ------
    SiteError
        Naming site and file, if a file cannot be decoded.
    RunError
        If the cache cannot be written (a full disk, say).
    """
    with locked(cache_dir / f"{folder.name}.lock"):
        contents = _contents(folder, cache_dir)
        folder, origin = with_frames(folder, [content.frames for content in contents])
        contents = [contents[place] for place in origin]
        settings = {
            "size": config.cached_size,
            "channels": config.channels,
            "window": [config.window_center, config.window_width],
            "greys": [config.grey_low, config.grey_high],
        }
        key = _key(folder, contents, settings)
        target = cache_dir / f"{folder.name}-{key[:24]}"
        manifest = {"format": FORMAT, "key": key, "settings": settings}
        shape = (len(folder), config.cached_size, config.cached_size, config.channels)
        cached = _open(target, manifest, shape)
        if cached is None:
            _decode_all(folder, config, target, manifest, shape, progress)
            cached = _open(target, manifest, shape)
        if cached is None:
            raise RunError(f"The cache in {target} cannot be read back. Is the disk failing?")
        images, scale = cached
        keys = content_keys(folder, [content.sha256 for content in contents])
        copies = kept_copies(
            target / "copies.json", lambda: find_copies(fingerprints(images), keys)
        )
    folder = with_headers(folder, [content.patient for content in contents])
    folder, problems = with_copies(folder, copies)
    if problems:
        raise SiteError(problems[0])
    return SiteData(**vars(folder), images=images, scale=scale)


class _Content(NamedTuple):
    """What is known of a file as long as its size and time stay the same."""

    size: int
    time: int
    sha256: str
    patient: str | None
    frames: int


_INDEX = TypeAdapter(dict[str, _Content])


def _contents(folder: SiteFolder, cache_dir: Path) -> list[_Content]:
    """Return what is known of each image's file, reading those whose size or time changed."""
    index = cache_dir / f"{folder.name}.hashes.json"
    known: dict[str, _Content] = {}
    # What is not there or damaged is found out anew.
    with suppress(OSError, ValueError):
        known = _INDEX.validate_json(index.read_bytes(), strict=True)
    found: dict[str, _Content] = {}
    paths = [(folder.root / folder.frames.get(file, file)).absolute() for file in folder.files]
    for path in paths:
        try:
            status = path.stat()
            entry = known.get(str(path))
            if entry is None or entry[:2] != (status.st_size, status.st_mtime_ns):
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                about = dicom_patient(path), count_frames(path)
                entry = _Content(status.st_size, status.st_mtime_ns, digest, *about)
        except OSError as error:
            raise SiteError(
                f"Site '{folder.name}': cannot read {path}: {error.strerror}. "
                "Check that it is there and may be read."
            ) from error
        found[str(path)] = entry
    if found != known:
        write_json(index, found)
    return [found[str(path)] for path in paths]


def with_frames(folder: SiteFolder, frames: Sequence[int]) -> tuple[SiteFolder, list[int]]:
    """Make as many images of each file as it holds, unless its frames are named one by one.

    Parameters
    ----------
    folder : SiteFolder
        Of files.
    frames : sequence of int
        How many each holds.

    Returns
    -------
    SiteFolder
        Of images.
    list of int
        The place of each image's file among the files.
    """
    names = [
        frame_names(file, 1 if file in folder.frames else count)
        for file, count in zip(folder.files, frames, strict=True)
    ]
    origin = [place for place, of_file in enumerate(names) for _ in of_file]
    if len(origin) == len(names):
        return folder, origin
    columns = folder.columns.items()
    several = zip(folder.files, names, strict=True)
    expanded = replace(
        folder,
        files=tuple(name for of_file in names for name in of_file),
        frames={
            **folder.frames,
            **{name: file for file, own in several if len(own) > 1 for name in own},
        },
        targets={name: values[origin] for name, values in folder.targets.items()},
        patients=tuple(folder.patients[place] for place in origin),
        columns={name: tuple(cells[place] for place in origin) for name, cells in columns},
    )
    return expanded, origin


def _key(folder: SiteFolder, contents: Sequence[_Content], settings: dict[str, Any]) -> str:
    images = content_keys(folder, [content.sha256 for content in contents])
    return hashlib.sha256(json.dumps([FORMAT, settings, images]).encode()).hexdigest()


def _open(
    target: Path, manifest: dict[str, Any], shape: tuple[int, ...]
) -> tuple[NDArray[np.uint8], Scale | None] | None:
    """Return the cached images and their scale, None where they are absent, other, or damaged."""
    try:
        found = read_object(target / "manifest.json")
        scale = found.pop("scale")
        if found != manifest:
            return None
        images: NDArray[np.uint8] = np.load(target / "images.npy", mmap_mode="r")
        held = None if scale is None else Scale(*map(float, scale))
    # NumPy raises whatever a damaged header leads it to; what cannot be read is made anew.
    except Exception:
        return None
    return (images, held) if images.shape == shape and images.dtype == np.uint8 else None


def _decode_all(
    folder: SiteFolder,
    config: ImageKeys,
    target: Path,
    manifest: dict[str, Any],
    shape: tuple[int, ...],
    progress: Progress | None,
) -> None:
    """Decode every file into a temporary folder and publish it by one rename."""
    prefix = f".{target.name}."
    try:
        # Once it is renamed there is nothing left to clean up.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=prefix, suffix=".part") as name:
            part = Path(name)
            images = open_memmap(part / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
            # A memory map beyond the disk's end kills the process; blocks are claimed beforehand.
            with (part / "images.npy").open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, images.offset + images.nbytes)
            scale = _fill(images, folder, config, progress)
            images.flush()
            del images
            write_json(part / "manifest.json", manifest | {"scale": scale})
            shutil.rmtree(target, ignore_errors=True)
            part.rename(target)
    except OSError as error:
        raise RunError(
            f"Cannot write the cache of decoded images {target}: {why(error, target.parent)} The "
            "key cache-dir names it; the images themselves are untouched."
        ) from error


def _fill(
    images: NDArray[np.uint8],
    folder: SiteFolder,
    config: ImageKeys,
    progress: Progress | None,
) -> Scale | None:
    """Decode all images and stop at the first bad file; return the scale of all."""

    def fail(_: Path, error: SiteError) -> None:
        raise SiteError(f"Site '{folder.name}': {error}") from error

    paths = [folder.root / file for file in folder.files]
    scale, _ = decode_all(paths, config, images.__setitem__, fail, progress=progress)
    return scale
