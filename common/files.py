"""Writing files so that a kill at any moment leaves the old file or the new one, never half."""

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from common.errors import CheckpointError, RunError

PART = ".part"


@contextmanager
def replacing(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """Give the block a temporary file to make, which then takes ``path``'s place.

    Parameters
    ----------
    path : Path
        The file to write; its folder is made where it is missing.
    mode : int
        Permission bits of the new file; until it is whole, only its owner may read it.

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
    except (OSError, SafetensorError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise RunError(
            f"Cannot write {path}: {reason}. "
            "Free some space or name another folder; what was written before is unharmed."
        ) from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def numbered(folder: Path, stem: str) -> list[Path]:
    """Return the tensor files of a folder that are called by a stem and a number, by number.

    A copy that somebody made of one, under another name, is none.
    """
    name = re.compile(rf"{re.escape(stem)}(\d+)\.safetensors", re.ASCII)
    found = {path: name.fullmatch(path.name) for path in folder.glob(f"{stem}*.safetensors")}
    return sorted((path for path in found if found[path]), key=lambda path: number_of(path))


def number_of(path: Path) -> int:
    """Return the number of a file of :func:`numbered`."""
    return int(path.stem.rpartition("-")[2])


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
    """Write ``value`` as indented JSON, atomically."""
    write_atomic(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    CheckpointError
        If the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text())
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


def save_tensors(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str] | None = None,
    mode: int = 0o644,
) -> None:
    """Write named tensors and text metadata as a safetensors file, atomically.

    Tensors that are contiguous and on the CPU go into the file as they lie, without a copy.
    """
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path, mode) as temporary:
        save_file(held, temporary, metadata=dict(metadata or {}))


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a safetensors file.

    Returns
    -------
    tuple of dict
        The tensors by name, on the CPU, and the metadata.

    Raises
    ------
    CheckpointError
        If the file is missing, truncated or not a safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = dict(file.metadata() or {})
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"Cannot read the weights in {path}: {error}. "
            "Expected a complete safetensors file that xsite wrote."
        ) from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` (made where missing), waiting for its holder.

    The lock belongs to the process and goes with it, so a killed holder leaves nothing to clean.

    Raises
    ------
    RunError
        If it cannot be made: its folder is a file, or nobody may write there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise RunError(
            f"Cannot write {path}: {error.strerror}. Free some space or name another folder."
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def alone_in(folder: Path, what: str = "the run") -> Iterator[None]:
    """Hold a folder for this process; the lock goes with the process, however it ends.

    Parameters
    ----------
    folder : Path
        Of a run, a comparison or a study.
    what : str
        Which of them, for the error's sentence.

    Raises
    ------
    RunError
        If another process holds it.
    """
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"Another process is writing {what} {folder}; wait for it.") from error
        yield
