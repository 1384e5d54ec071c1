"""Images decoded once: a memory-mapped array, keyed by the files' content and the settings.

::

    <cache>/<site>-<key>/images.npy  manifest.json      (published whole, by one rename)
    <cache>/<site>.hashes.json                          (size and time of each file → SHA-256)

Later epochs, runs and processes never touch the files. Two processes that want the same site
wait for each other, and the second finds the first one's work.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from pydantic import TypeAdapter

from common.config.sections import ImageKeys
from common.data.decode import decode_file, dicom_patient
from common.data.duplicates import content_keys, find_copies, fingerprints, kept_copies, with_copies
from common.data.folder import SiteFolder, with_headers
from common.errors import RunError, SiteError
from common.files import locked, read_json, write_json

FORMAT = 1
"""Version of the cache; raised whenever decoding gives other bytes."""

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


@dataclass(frozen=True, kw_only=True)
class SiteData(SiteFolder):
    """A site's folder with its images in memory."""

    images: NDArray[np.uint8]
    """Shape (n, size, size, channels). Memory-mapped, read-only."""


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
        settings = {
            "size": config.cached_size,
            "channels": config.channels,
            "window_center": config.window_center,
            "window_width": config.window_width,
        }
        key = _key(contents, settings)
        target = cache_dir / f"{folder.name}-{key[:24]}"
        manifest = {"format": FORMAT, "key": key, "settings": settings}
        shape = (len(folder), config.cached_size, config.cached_size, config.channels)
        images = _open(target, manifest, shape)
        if images is None:
            _decode_all(folder, config, target, manifest, shape, progress)
            images = _open(target, manifest, shape)
        if images is None:
            raise RunError(f"The cache in {target} cannot be read back. Is the disk failing?")
        decoded, keys = images, content_keys(folder, [content.sha256 for content in contents])
        copies = kept_copies(
            target / "copies.json", lambda: find_copies(fingerprints(decoded), keys)
        )
    folder = with_headers(folder, [content.patient for content in contents])
    folder, problems = with_copies(folder, copies)
    if problems:
        raise SiteError(problems[0])
    return SiteData(**vars(folder), images=images)


class _Content(NamedTuple):
    """What is known of a file as long as its size and time stay the same."""

    size: int
    time: int
    sha256: str
    patient: str | None


_INDEX = TypeAdapter(dict[str, _Content])


def _contents(folder: SiteFolder, cache_dir: Path) -> list[_Content]:
    """Return each file's hash and DICOM patient, reading only files whose size or time changed."""
    index = cache_dir / f"{folder.name}.hashes.json"
    known: dict[str, _Content] = {}
    # What is not there or damaged is found out anew.
    with suppress(OSError, ValueError):
        known = _INDEX.validate_json(index.read_bytes(), strict=True)
    found: dict[str, _Content] = {}
    for file in folder.files:
        path = (folder.root / file).absolute()
        try:
            status = path.stat()
            entry = known.get(str(path))
            if entry is None or entry[:2] != (status.st_size, status.st_mtime_ns):
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                entry = _Content(status.st_size, status.st_mtime_ns, digest, dicom_patient(path))
        except OSError as error:
            raise SiteError(
                f"Site '{folder.name}': cannot read {path}: {error.strerror}. "
                "Check that it is there and may be read."
            ) from error
        found[str(path)] = entry
    if found != known:
        write_json(index, found)
    return list(found.values())


def _key(contents: Sequence[_Content], settings: dict[str, float]) -> str:
    # As the caches that there are were named.
    values = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    first = f"({FORMAT}, DecodeSettings({values}))"
    text = "\n".join([first, *(content.sha256 for content in contents)])
    return hashlib.sha256(text.encode()).hexdigest()


def _open(
    target: Path, manifest: dict[str, Any], shape: tuple[int, ...]
) -> NDArray[np.uint8] | None:
    """Return the cached images, None where they are absent, of another kind, or damaged."""
    try:
        if read_json(target / "manifest.json") != manifest:
            return None
        images: NDArray[np.uint8] = np.load(target / "images.npy", mmap_mode="r")
    # NumPy raises whatever a damaged header leads it to; what cannot be read is made anew.
    except Exception:
        return None
    return images if images.shape == shape and images.dtype == np.uint8 else None


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
            _fill(images, folder, config, progress)
            images.flush()
            del images
            write_json(part / "manifest.json", manifest)
            shutil.rmtree(target, ignore_errors=True)
            part.rename(target)
    except OSError as error:
        raise RunError(
            f"Cannot write the cache of decoded images {target}: {error.strerror}. Free some space "
            "or set cache-dir; the images themselves are untouched."
        ) from error


def _fill(
    images: NDArray[np.uint8],
    folder: SiteFolder,
    config: ImageKeys,
    progress: Progress | None,
) -> None:
    """Decode in threads (the decoders release Python's lock) and stop at the first bad file."""

    def decode(number: int) -> None:
        try:
            images[number] = decode_file(folder.root / folder.files[number], config)
        except SiteError as error:
            raise SiteError(f"Site '{folder.name}': {error}") from error

    total = len(folder)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        # An error ends the map, which cancels what has not begun.
        for done, _ in enumerate(pool.map(decode, range(total)), start=1):
            if progress is not None:
                progress(done, total)
