"""Tensor files: safetensors, written atomically, read whole, and held against what is expected."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from common.errors import CheckpointError
from common.files import replacing
from common.formatting.misfits import misfits

Value = TypeVar("Value")


def save_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    mode: int = 0o644,
) -> None:
    """Write named tensors and text metadata as a safetensors file, atomically.

    Tensors that are contiguous and on the CPU go into the file as they lie, without a copy.
    """
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path, mode) as temporary:
        try:
            save_file(held, temporary, metadata=dict(metadata or {}))
        except SafetensorError as error:
            # So a full disk is called here, and by its number.
            number = re.search(r"\(os error (\d+)\)", str(error))
            told = (int(number[1]), os.strerror(int(number[1]))) if number else (str(error),)
            raise OSError(*told) from error


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
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


def below(prefix: str, tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Return the tensors or arrays whose names begin with a prefix, by what follows it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def faults_of(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], typed: bool = False
) -> str:
    """Say which tensors are missing, additional, misshapen or mistyped, or not finite; or ""."""

    def form(one: Tensor) -> object:
        return f"{tuple(one.shape)} {one.dtype}" if typed else tuple(one.shape)

    found, wanted = ({name: form(one) for name, one in of.items()} for of in (tensors, expected))
    held = [name for name in expected if name in tensors]
    infinite = [name for name in held if not bool(tensors[name].isfinite().all())]
    return misfits(found, wanted, infinite)


def refuse_misfits(
    path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> None:
    """Check that a file, named in the error, holds finite tensors of the expected shapes alone.

    Raises
    ------
    CheckpointError
        Naming the tensors that are missing, additional, misshapen or not finite.
    """
    if faults := faults_of(tensors, expected):
        raise CheckpointError(f"The weights in {path} do not fit the network ({faults}).")
