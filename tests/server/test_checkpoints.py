import json
import os
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from common.errors import CheckpointError, RunError
from common.tensor_files import load_tensors, save_tensors
from server.checkpoints import ARRAYS, checkpoints, load_checkpoint, save_checkpoint
from server.state import RunState
from tests.server.answers import prototypes

IMAGES = {"south": 10, "north": 24}


def state(round: int) -> RunState:
    """Return a state whose every value differs from its default."""
    return RunState(
        round=round,
        shared=np.arange(8, dtype=np.float32) + np.float32(round / 3),
        began_with=IMAGES,
        prototypes={"south": prototypes("south"), "north": prototypes("north")},
        moments={
            "exp_avg": np.full(8, -0.1, np.float32),
            "exp_avg_sq": np.full(8, 0.01, np.float32),
            "step": np.array([3.0, 0.0], np.float32),
        },
        methods={"first/moment": np.arange(8.0) + round, "second/moment": np.ones(0, np.float32)},
        completed={"south": round, "north": round - 1},
        figures={"south": {"train/loss": 0.1 + 0.2, "bytes/up": 7}},
        images_seen={"south": 12 * round, "north": 12},
        best_round=1,
        best_auc=2 / 3,
        bytes_down=10**12 + 1,
        bytes_up=50,
        seconds=0.1,
    )


def save(folder: Path, *rounds: int) -> None:
    for round in rounds:
        save_checkpoint(folder, state(round), "digest")


def load(folder: Path) -> RunState:
    found = load_checkpoint(folder, IMAGES, "digest")
    assert found is not None
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_state_comes_back_to_the_bit(tmp_path: Path, dtype: type[np.floating]) -> None:
    before = state(3)
    shared = np.array([0.0, -0.0, 1e-45, np.pi], dtype=dtype)
    save_checkpoint(tmp_path, RunState(**vars(before) | {"shared": shared}), "digest")
    after = load(tmp_path)
    assert (after.shared.tobytes(), after.shared.dtype) == (shared.tobytes(), shared.dtype)
    for name in {field.name for field in fields(RunState)} - set(ARRAYS):
        assert getattr(after, name) == getattr(before, name), name
    assert after.moments.keys() == before.moments.keys()
    for name, array in before.moments.items():
        np.testing.assert_array_equal(after.moments[name], array, strict=True)
    assert set(after.methods) == {"first/moment", "second/moment"}
    for name, array in before.methods.items():
        np.testing.assert_array_equal(after.methods[name], array, strict=True)
    # The order of the sites is that in which they are averaged and met.
    assert list(after.prototypes) == list(after.completed) == ["south", "north"]
    for site, own in before.prototypes.items():
        for part in ("classes", "vectors", "counts"):
            found, expected = getattr(after.prototypes[site], part), getattr(own, part)
            assert (found.tobytes(), found.dtype) == (expected.tobytes(), expected.dtype)


def test_a_state_without_prototypes_comes_back(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, RunState(1, np.ones(2, np.float32)), "digest")
    assert load(tmp_path).prototypes == {}


def test_nothing_is_loaded_where_nothing_was_written(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "none", IMAGES, "digest") is None


def test_what_a_killed_server_was_writing_is_removed(tmp_path: Path) -> None:
    half = tmp_path / ".round-0001.safetensors.x1y2.part" / "round-0001.safetensors"
    half.parent.mkdir()
    half.write_bytes(b"half")
    save(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["round-0001.safetensors"]


def test_the_last_two_rounds_are_kept_by_number_and_not_by_name(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3)
    assert [path.name for path in checkpoints(tmp_path)] == [
        "round-0002.safetensors",
        "round-0003.safetensors",
    ]
    save(tmp_path, 9999, 10000)
    assert [path.name for path in checkpoints(tmp_path)] == [
        "round-9999.safetensors",
        "round-10000.safetensors",
    ]
    assert load(tmp_path).round == 10000


@pytest.mark.parametrize("damage", ["truncated", "empty", "other"])
def test_the_former_checkpoint_serves_where_the_newest_is_damaged(
    tmp_path: Path, damage: str
) -> None:
    save(tmp_path, 1, 2)
    newest = checkpoints(tmp_path)[-1]
    whole = newest.read_bytes()
    newest.write_bytes({"truncated": whole[:-5], "empty": b"", "other": b"x" * 500}[damage])
    assert load(tmp_path).round == 1


def test_where_no_checkpoint_is_whole_the_last_one_tried_is_named(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    for path in checkpoints(tmp_path):
        path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=r"Cannot read the weights in .*round-000[12]\."):
        load(tmp_path)


@pytest.mark.parametrize("lost", ["shared", "prototypes/north/counts", "moments/step"])
def test_a_checkpoint_that_lacks_a_tensor_is_damaged(tmp_path: Path, lost: str) -> None:
    save(tmp_path, 1, 2)
    newest = checkpoints(tmp_path)[-1]
    tensors, about = load_tensors(newest)
    del tensors[lost]
    save_tensors(newest, tensors, about)
    assert load(tmp_path).round == 1


@pytest.mark.parametrize("lost", ["state", "prototypes"])
def test_a_checkpoint_that_lacks_what_it_says_of_itself_is_damaged(
    tmp_path: Path, lost: str
) -> None:
    save(tmp_path, 1, 2)
    newest = checkpoints(tmp_path)[-1]
    tensors, about = load_tensors(newest)
    del about[lost]
    save_tensors(newest, tensors, about)
    assert load(tmp_path).round == 1


def test_a_checkpoint_of_other_code_that_knows_other_numbers_is_damaged(tmp_path: Path) -> None:
    save(tmp_path, 2)
    (path,) = checkpoints(tmp_path)
    tensors, about = load_tensors(path)
    numbers = json.dumps(json.loads(about["state"]) | {"momentum": 0.9})
    save_tensors(path, tensors, about | {"state": numbers})
    with pytest.raises(CheckpointError, match=r"round-0002\.safetensors"):
        load(tmp_path)


def test_another_configuration_is_refused_and_not_fallen_back_from(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save_checkpoint(tmp_path, state(2), "another")
    with pytest.raises(CheckpointError, match=r"round-0002\..* belongs to another configuration"):
        load(tmp_path)


def test_a_site_whose_images_changed_is_named(tmp_path: Path) -> None:
    save(tmp_path, 1)
    expected = "north has 23 training images; at the start of the run it had 24"
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(tmp_path, {"south": 10, "north": 23}, "digest")


def test_a_site_that_is_away_or_came_late_does_not_hinder_a_resumption(tmp_path: Path) -> None:
    save(tmp_path, 1)
    found = load_checkpoint(tmp_path, {"south": 10, "east": 5}, "digest")
    assert found is not None
    assert found.began_with == IMAGES


def test_a_full_disk_leaves_the_former_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, 2)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(RunError, match=r"round-0003.*No space"):
        patch.setattr(os, "fsync", full)
        save(tmp_path, 3)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert load(tmp_path).round == 2


# The process dies with what it has written so far: before the bytes are on the disk, before the
# new file has its name, and before the oldest one is removed.
@pytest.mark.parametrize(
    ("place", "left"),
    [("os.fsync", 2), ("pathlib.Path.replace", 2), ("pathlib.Path.unlink", 3)],
)
def test_a_kill_in_the_middle_of_writing_leaves_a_checkpoint(
    tmp_path: Path, place: str, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, 2)
    if (child := os.fork()) == 0:
        monkeypatch.setattr(place, lambda *_: os.kill(os.getpid(), 9))
        save(tmp_path, 3)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    assert load(tmp_path).round == left
    save(tmp_path, 3)
    assert [path.stem for path in checkpoints(tmp_path)] == ["round-0002", "round-0003"]
    assert load(tmp_path).shared.tobytes() == state(3).shared.tobytes()
