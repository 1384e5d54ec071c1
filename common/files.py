"""Writing files so that a kill at any moment leaves the old file or the new one, never half."""

import errno
import fcntl
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from common.errors import CheckpointError, RunError

PART = ".part"
_REMEDIES = {
    errno.EACCES: "Let this account use it, or name another folder.",
    errno.EPERM: "Let this account use it, or name another folder.",
    errno.EROFS: "Mount its file system for writing, or name another folder.",
    errno.EDQUOT: "Free some of this account's quota, or name another folder.",
    errno.ENOTDIR: "A file lies where a folder is wanted: name another folder.",
    errno.EEXIST: "A file lies where a folder is wanted: name another folder.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.EMFILE: "Raise the limit of this process (ulimit -n; LimitNOFILE= in a unit).",
    errno.ENFILE: "Raise the limit of this machine (sysctl fs.file-max).",
    errno.EIO: "The disk may be failing: name another folder.",
}
"""What helps, by the system's number of an error."""


def why(error: OSError, path: Path) -> str:
    """Say what the system says of a file or folder, and what a person can do about it.

    Parameters
    ----------
    error : OSError
        What the system says.
    path : Path
        What could not be used; how much is free there is told of a full disk.

    Returns
    -------
    str
        As ``"No space left on device. Free some space (0 MB are free in /tmp) or …"``.
    """
    remedy = _REMEDIES.get(error.errno or 0, "Name another.")
    if error.errno == errno.ENOSPC:
        there = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
        disk = os.statvfs(there)
        # A disk is also full that holds as many files as it can.
        room = "Remove some files" if disk.f_files and not disk.f_favail else "Free some space"
        remedy = f"{room} ({free_megabytes(there)} MB are free in {there}) or name another folder."
    return f"{error.strerror or error}. {remedy}"


def free_megabytes(folder: Path) -> int:
    """Return how many megabytes this account may still write to the disk of a folder."""
    return shutil.disk_usage(folder).free // 10**6


def file_of(error: OSError) -> Path | None:
    """Return the file that an error of the system is about; of a copy, the one that is written."""
    name = error.filename2 or error.filename
    return None if name is None else Path(os.fsdecode(name))


@contextmanager
def replacing(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """Give the block a temporary file, or folder, to make, which then takes ``path``'s place.

    Parameters
    ----------
    path : Path
        The file to write, or the missing or empty folder; the one around it is made where needed.
    mode : int
        Permission bits of what is new; until it is whole, only its owner may read it.

    Yields
    ------
    Path
        Where nothing is yet, on the same disk.

    Raises
    ------
    RunError
        If the disk is full or the folder cannot be written; a file that was there is unharmed.
    """
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # In a folder of its own, since a writer may make further files beside the one it writes.
        part = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART))
        temporary = part / path.name
        yield temporary
        temporary.chmod(mode)
        _to_disk(temporary)
        temporary.replace(path)
        _to_disk(path.parent)
    except OSError as error:
        raise RunError(
            f"Cannot write {path}: {why(error, path)} What was written before is unharmed."
        ) from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def remove_parts(folder: Path) -> None:
    """Remove what killed processes were writing into a folder; nobody may be writing now."""
    for part in folder.glob(f".*{PART}"):
        shutil.rmtree(part, ignore_errors=True)


def _to_disk(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write ``data`` to ``path``, atomically; parameters and errors as of :func:`replacing`."""
    with replacing(path, mode) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; an undefined figure is null, as NaN is none."""
    text = json.dumps(_without_nan(value), indent=2, ensure_ascii=False)
    write_atomic(path, f"{text}\n".encode())


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    CheckpointError
        If the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"Cannot read {path} as JSON: {error}.") from error


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises
    ------
    CheckpointError
        If the file is missing, is not JSON, or holds anything else.
    """
    found = read_json(path)
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds no JSON object; something else than xsite wrote it.")
    return found


@contextmanager
def locked(path: Path, taken: str = "") -> Iterator[None]:
    """Hold an exclusive lock on ``path`` (made where missing).

    The lock belongs to the process and goes with it, so a killed holder leaves nothing to clean.

    Parameters
    ----------
    path : Path
        The file.
    taken : str
        What to say where another process holds it; '' waits for it.

    Raises
    ------
    RunError
        If it is taken; if its file system has no locks, as many a network mount; or if it cannot
        be made: its folder is a file, or nobody may write there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise RunError(f"Cannot write {path}: {why(error, path)}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if taken else 0))
        except BlockingIOError as error:
            raise RunError(taken) from error
        except OSError as error:
            raise RunError(
                f"Cannot lock {path}: {error.strerror or error}. Without locks two processes could "
                "write one folder: mount its file system with locks, or name a folder on a local "
                "disk (cache-dir, runs-dir, state-dir, XSITE_HOME or TMPDIR: what leads there)."
            ) from error
        yield


def alone_in(folder: Path, what: str = "the run") -> AbstractContextManager[None]:
    """Hold a folder for this process: of a run, or of ``what``; nobody else may write there."""
    return locked(folder / ".lock", f"Another process is writing {what} {folder}; wait for it.")
