"""Ways in which a file of tensors (safetensors) is spoilt."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from common.tensor_files import load_tensors, save_tensors

Spoil = Callable[[Path], None]


def nothing(path: Path) -> None:
    path.write_bytes(b"")


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def huge_header(path: Path) -> None:
    path.write_bytes((2**62).to_bytes(8, "little") + path.read_bytes()[8:])


def header_of(text: bytes) -> Spoil:
    """Return a spoiler that writes a header of one's own over the values."""

    def spoil(path: Path) -> None:
        path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))

    return spoil


def pickled(path: Path) -> None:
    torch.save({"state_dict": {}}, path)


def changed(change: Callable[[dict[str, Tensor], dict[str, str]], object]) -> Spoil:
    """Return a spoiler that changes tensors and metadata and leaves a sound file."""

    def spoil(path: Path) -> None:
        tensors, about = load_tensors(path)
        change(tensors, about)
        save_tensors(path, tensors, about)

    return spoil


def first(tensors: Mapping[str, Tensor]) -> str:
    """Return the name of the first tensor of several decimals, of a moment where there is one."""
    names = sorted(tensors, key=lambda name: (not name.startswith("moment/"), name))
    return next(n for n in names if tensors[n].is_floating_point() and tensors[n].numel() > 1)


def without_one(tensors: dict[str, Tensor], _: dict[str, str]) -> None:
    del tensors[first(tensors)]


def with_one_more(tensors: dict[str, Tensor], _: dict[str, str]) -> None:
    tensors[f"{first(tensors)}.more"] = torch.ones(3)


def renamed(tensors: dict[str, Tensor], _: dict[str, str]) -> None:
    name = first(tensors)
    tensors[f"module.{name}"] = tensors.pop(name)


def reshaped(tensors: dict[str, Tensor], _: dict[str, str]) -> None:
    tensors[first(tensors)] = tensors[first(tensors)].reshape(-1, 1)


def of_another_type(tensors: dict[str, Tensor], _: dict[str, str]) -> None:
    tensors[first(tensors)] = tensors[first(tensors)].to(torch.int32)


def not_a_number(tensors: dict[str, Tensor], _: dict[str, str]) -> None:
    tensors[first(tensors)] = torch.full_like(tensors[first(tensors)], torch.nan)


def saying(key: str, value: object) -> Spoil:
    """Return a spoiler that changes one thing that a file says of itself; None takes it away."""

    def change(_: dict[str, Tensor], about: dict[str, str]) -> None:
        del about[key]
        if value is not None:
            about[key] = value if isinstance(value, str) else json.dumps(value)

    return changed(change)


UNREADABLE: tuple[tuple[str, str, Spoil], ...] = (
    ("0 bytes", "a copy that a full disk ended", nothing),
    ("cut short", "a transfer broke off", half),
    ("a folder", "in the file's place", a_folder),
    ("link to itself", "made the wrong way", link_to_itself),
    ("a header of 4 EiB", "a length that lies", huge_header),
    ("a header of text", "no JSON", header_of(b"weights of the network, see mail")),
    ("a header of brackets", "a parser's stack ends", header_of(b"[" * 10_000)),
    (
        "offsets beyond the end",
        "a header that lies",
        header_of(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36000]}}'),
    ),
    (
        "an unknown type",
        "of a later version",
        header_of(b'{"a":{"dtype":"Q7","shape":[16],"data_offsets":[0,64]}}'),
    ),
    ("a pickle", "another kind of file", pickled),
)
"""Name, why, and how, of what is no sound file."""
MISFITS: tuple[tuple[str, str, Spoil], ...] = (
    ("a tensor missing", "of another network", changed(without_one)),
    ("a tensor more", "of another network", changed(with_one_more)),
    ("a tensor renamed", "by another program", changed(renamed)),
    ("a tensor's shape", "of another network", changed(reshaped)),
    ("a tensor's type", "by another program", changed(of_another_type)),
    ("NaN", "by another program", changed(not_a_number)),
)
"""The same, of a sound file whose tensors do not fit."""
