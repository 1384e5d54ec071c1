import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import CheckpointError, RunError
from common.files import alone_in, locked, read_json, why, write_atomic, write_json
from common.tensor_files import load_tensors, save_tensors
from tests.full_disk import small_disk


def test_a_write_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_atomic(path, b"first, and longer")
    write_atomic(path, b"second", mode=0o600)
    assert path.read_bytes() == b"second"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"Cannot write .*file: No space left on device\. Free"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_tensors_and_metadata_come_back(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    value = torch.arange(6, dtype=torch.float64).reshape(2, 3).t()
    save_tensors(path, {"a": value, "n": torch.tensor(3)}, {"site": "a"})
    tensors, metadata = load_tensors(path)
    assert torch.equal(tensors["a"], value)
    assert tensors["n"].item() == 3
    assert metadata == {"site": "a"}


@pytest.mark.parametrize("damage", ["missing", "truncated", "other"])
def test_a_damaged_file_of_weights_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "weights.safetensors"
    if damage == "truncated":
        save_tensors(path, {"a": torch.ones(100)})
        path.write_bytes(path.read_bytes()[:-50])
    elif damage == "other":
        path.write_text("not weights")
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        load_tensors(path)


def test_json_round_trip_and_damage(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    value: dict[str, Any] = {"site": "hôpital", "n": [1, 2.5]}
    write_json(path, value)
    assert read_json(path) == value
    path.write_text("{")
    with pytest.raises(CheckpointError, match=r"value\.json"):
        read_json(path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO, errno.ESTALE])
def test_a_disk_without_locks_is_no_other_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    for lock in (locked(tmp_path / "run" / ".lock"), alone_in(tmp_path / "run")):
        with pytest.raises(RunError) as caught, lock:
            pass
        told = str(caught.value)
        assert told.startswith(f"Cannot lock {tmp_path}/run/.lock: {os.strerror(number)}. ")
        assert "Another process" not in told
        for key in ("local disk", "mount", "cache-dir", "runs-dir", "state-dir", "XSITE_HOME"):
            assert key in told


def test_a_lock_that_is_held_is_told_as_another_process(tmp_path: Path) -> None:
    with (
        alone_in(tmp_path),
        pytest.raises(RunError, match="Another process is writing the run"),
        alone_in(tmp_path),
    ):
        pass


def test_of_a_full_disk_it_is_told_how_much_is_free_and_where(tmp_path: Path) -> None:
    told = r"Cannot write .*: No space left on device\. Free some space \(0 MB are free in .*/small"
    with small_disk(tmp_path / "small", 64) as disk:
        for write in (
            lambda: write_atomic(disk / "deep" / "file", bytes(200_000)),
            lambda: save_tensors(disk / "deep" / "weights", {"a": torch.ones(50_000)}),
        ):
            with pytest.raises(RunError, match=told):
                write()


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EACCES, "Let this account use it"),
        (errno.EROFS, "Mount its file system for writing"),
        (errno.EDQUOT, "Free some of this account's quota"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENAMETOOLONG, "Choose a shorter name"),
        (errno.ENOTDIR, "A file lies where a folder is wanted"),
    ],
)
def test_nobody_is_sent_to_free_space_that_is_not_lacking(number: int, remedy: str) -> None:
    told = why(OSError(number, os.strerror(number)), Path("/absent/file"))
    assert told.startswith(os.strerror(number)) and remedy in told
    assert "Free some space" not in told
