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
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from common.data.decode import DecodeSettings, decode_file, dicom_patient
from common.data.folder import CLASS, SiteFolder
from common.errors import CheckpointError, RunError, SiteError
from common.files import locked, read_json, write_json

FORMAT = 1
"""Version of the cache; raised whenever decoding gives other bytes."""

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


@dataclass(frozen=True)
class SiteData:
    """A site's images in memory.

    Attributes
    ----------
    name : str
        The site.
    images : ndarray of uint8, shape (n, size, size, channels)
        Memory-mapped, read-only.
    targets : mapping of str to ndarray, each of shape (n, …)
        What is to be learnt of each image, as of :class:`common.data.folder.SiteFolder`.
    patients : tuple of (str or None)
        Patient of each image, where known.
    files : tuple of str
        POSIX paths below the site's folder.
    classes : tuple of str
        Class names, in label order.
    warnings : tuple of str
        From reading the folder.
    """

    name: str
    images: NDArray[np.uint8]
    targets: Mapping[str, NDArray[Any]]
    patients: tuple[str | None, ...]
    files: tuple[str, ...]
    classes: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def labels(self) -> NDArray[np.int64]:
        """Classes, as positions in ``classes``, shape (n,)."""
        return self.targets[CLASS]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)


def load_site(
    folder: SiteFolder,
    settings: DecodeSettings,
    cache_dir: Path,
    workers: int = 0,
    progress: Progress | None = None,
) -> SiteData:
    """Return a site's decoded images, decoding what the cache does not hold.

    Parameters
    ----------
    folder : SiteFolder
        The files, labels and patients.
    settings : DecodeSettings
        Size, channels and window.
    cache_dir : Path
        Where caches lie; made where it is missing.
    workers : int
        Threads that decode; 0 takes one for each usable processor.
    progress : callable, optional
        Told how many of how many images are decoded.

    Returns
    -------
    SiteData

    Raises
    ------
    SiteError
        Naming site and file, if a file cannot be decoded.
    RunError
        If the cache cannot be written (a full disk, say).
    """
    with locked(cache_dir / f"{folder.name}.lock"):
        contents = _contents(folder, cache_dir)
        key = _key(contents, settings)
        target = cache_dir / f"{folder.name}-{key[:24]}"
        manifest = {"format": FORMAT, "key": key, "settings": asdict(settings)}
        images = _open(target, manifest, len(folder.files), settings)
        if images is None:
            _decode_all(folder, settings, target, manifest, workers, progress)
            images = _open(target, manifest, len(folder.files), settings)
        if images is None:
            raise RunError(f"The cache in {target} cannot be read back. Is the disk failing?")
    patients = tuple(
        patient or known.patient for known, patient in zip(contents, folder.patients, strict=True)
    )
    return SiteData(
        folder.name,
        images,
        folder.targets,
        patients,
        folder.files,
        folder.classes,
        folder.warnings,
    )


class _Content(NamedTuple):
    """What is known of a file as long as its size and time stay the same."""

    size: int
    time: int
    sha256: str
    patient: str | None


def _contents(folder: SiteFolder, cache_dir: Path) -> list[_Content]:
    """Return each file's hash and DICOM patient, reading only files whose size or time changed."""
    index = cache_dir / f"{folder.name}.hashes.json"
    known = _known(index)
    found: dict[str, _Content] = {}
    for file in folder.files:
        path = (folder.root / file).absolute()
        try:
            status = path.stat()
            entry = known.get(str(path), [])
            if entry[:2] != [status.st_size, status.st_mtime_ns]:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                entry = [status.st_size, status.st_mtime_ns, digest, dicom_patient(path)]
        except OSError as error:
            raise SiteError(
                f"Site '{folder.name}': cannot read {path}: {error.strerror}. "
                "Check that it is there and may be read."
            ) from error
        found[str(path)] = _Content(*entry)
    if {path: list(content) for path, content in found.items()} != known:
        write_json(index, found)
    return list(found.values())


def _known(index: Path) -> dict[str, list[Any]]:
    """Return what was written of each file before; what is damaged is found out anew."""
    held: Any = None
    with suppress(CheckpointError):
        held = read_json(index)
    kinds = ((int,), (int,), (str,), (str, type(None)))
    return {
        path: entry
        for path, entry in (held.items() if isinstance(held, dict) else ())
        if isinstance(entry, list)
        and len(entry) == len(kinds)
        and all(isinstance(part, kind) for part, kind in zip(entry, kinds, strict=True))
    }


def _key(contents: Sequence[_Content], settings: DecodeSettings) -> str:
    text = "\n".join([repr((FORMAT, settings)), *(content.sha256 for content in contents)])
    return hashlib.sha256(text.encode()).hexdigest()


def _open(
    target: Path, manifest: dict[str, Any], count: int, settings: DecodeSettings
) -> NDArray[np.uint8] | None:
    """Return the cached images, None where they are absent, of another kind, or damaged."""
    try:
        if read_json(target / "manifest.json") != manifest:
            return None
        images: NDArray[np.uint8] = np.load(target / "images.npy", mmap_mode="r")
    # NumPy raises whatever a damaged header leads it to; what cannot be read is made anew.
    except Exception:
        return None
    fits = images.shape == (count, settings.size, settings.size, settings.channels)
    return images if fits and images.dtype == np.uint8 else None


def _decode_all(
    folder: SiteFolder,
    settings: DecodeSettings,
    target: Path,
    manifest: dict[str, Any],
    workers: int,
    progress: Progress | None,
) -> None:
    """Decode every file into a temporary folder and publish it by one rename."""
    try:
        part = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part"))
    except OSError as error:
        raise _cannot_write(target, error) from error
    try:
        shape = (len(folder.files), settings.size, settings.size, settings.channels)
        images = open_memmap(part / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
        # A memory map beyond the disk's end kills the process; blocks are claimed beforehand.
        with (part / "images.npy").open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, images.offset + images.nbytes)
        _fill(images, folder, settings, workers, progress)
        images.flush()
        del images
        write_json(part / "manifest.json", manifest)
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
    except OSError as error:
        raise _cannot_write(target, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _fill(
    images: NDArray[np.uint8],
    folder: SiteFolder,
    settings: DecodeSettings,
    workers: int,
    progress: Progress | None,
) -> None:
    """Decode in threads (the decoders release Python's lock) and stop at the first bad file."""

    def decode(number: int) -> None:
        try:
            images[number] = decode_file(folder.root / folder.files[number], settings)
        except SiteError as error:
            raise SiteError(f"Site '{folder.name}': {error}") from error

    total = len(folder.files)
    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        futures = [pool.submit(decode, number) for number in range(total)]
        try:
            for done, future in enumerate(futures, start=1):
                future.result()
                if progress is not None:
                    progress(done, total)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _cannot_write(target: Path, error: OSError) -> RunError:
    return RunError(
        f"Cannot write the cache of decoded images {target}: {error.strerror}. Free some space or "
        "set cache-dir; the images themselves are untouched."
    )


def bad_files(folder: SiteFolder, files: Sequence[str], settings: DecodeSettings) -> list[str]:
    """Return a sentence for every file that cannot be decoded."""

    def problem(file: str) -> str | None:
        try:
            decode_file(folder.root / file, settings)
        except SiteError as error:
            return f"Site '{folder.name}': {error}"
        return None

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return [found for found in pool.map(problem, files) if found is not None]
