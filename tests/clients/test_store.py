import errno
import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from clients.store import (
    Owner,
    PrivateState,
    PrivateStore,
    digest_of,
    open_store,
)
from common.errors import RunError, StoreError

OWNER = Owner("north", "run", "c" * 64)


def state(value: float, **moments: Tensor) -> PrivateState:
    """Return a state that is told from others by its value."""
    private = {"norm.weight": torch.full((3,), value), "norm.count": torch.tensor(int(value))}
    return PrivateState(private, moments or {"0/exp_avg": torch.full((2, 2), -value)}, f"{value}")


def evaluated(private: dict[str, Tensor]) -> PrivateState:
    return PrivateState(private, {}, "", {"ditto/weights": np.full(2, 7.0)})


@pytest.fixture
def store(tmp_path: Path) -> PrivateStore:
    return open_store(tmp_path / "store", OWNER)


def filled(store: PrivateStore, *rounds: int) -> PrivateStore:
    for round in rounds:
        store.save(round, state(round), previous=round - 1)
    return store


def content(store: PrivateStore) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.folder.iterdir()}


def same(one: PrivateState, other: PrivateState) -> bool:
    return one.sent == other.sent and all(
        found.keys() == expected.keys()
        and all(torch.equal(found[n], expected[n]) for n in expected)
        and all(found[n].dtype == expected[n].dtype for n in expected)
        for found, expected in ((one.private, other.private), (one.moments, other.moments))
    )


def test_a_state_comes_back_in_another_process_s_store(store: PrivateStore) -> None:
    turned = torch.arange(6.0, dtype=torch.float64).reshape(2, 3).t()
    before = state(1, **{"0/exp_avg": turned, "0/step": torch.tensor(7.0)})
    store.save(1, before, previous=0)
    after = open_store(store.folder, OWNER).load(1)
    assert same(after, before)
    assert after.moments["0/step"].shape == ()


def test_the_last_round_and_the_one_before_are_kept(store: PrivateStore) -> None:
    filled(store, 1, 2, 3, 4)
    assert store.rounds() == [3, 4]
    assert same(store.load(3), state(3))
    assert same(store.load(4), state(4))


def test_the_round_that_was_gone_on_from_is_kept_however_old(store: PrivateStore) -> None:
    """The server left this site's rounds 2 and 3 out: it may go back to 1 once more."""
    filled(store, 1)
    for round in (2, 3, 4):
        store.save(round, state(round), previous=1)
    assert store.rounds() == [1, 4]


def test_a_site_goes_back_to_the_round_that_the_server_names(store: PrivateStore) -> None:
    filled(store, 1, 2, 3)
    assert same(store.load(2), state(2))
    # It trains round 3 once more, from 2, and then 4: of the first round 3 nothing is left.
    store.save(3, state(33), previous=2)
    assert same(store.load(3), state(33))
    filled(store, 4)
    assert store.rounds() == [3, 4]
    assert same(store.load(3), state(33))


def test_a_round_that_is_not_there_is_told_with_those_that_are(store: PrivateStore) -> None:
    with pytest.raises(StoreError, match=r"'north' shall go on from round 3, .*rounds: none\."):
        store.load(3)
    filled(store, 1, 2)
    with pytest.raises(StoreError, match=r"from round 3, .* holds the rounds: 1, 2\. If"):
        store.load(3)


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_a_truncated_file_is_named_and_not_taken(store: PrivateStore, length: int) -> None:
    filled(store, 1, 2)
    path = store.folder / "round-0002.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(StoreError, match=r"round-0002\.safetensors cannot be read; restore it"):
        store.load(2)
    assert same(store.load(1), state(1))


OTHERS: list[tuple[dict[str, str], str]] = [
    ({"site": "south"}, "site 'north', not of 'south'"),
    ({"run": "another"}, "run 'run', not of 'another'"),
    ({"config": "d" * 64}, f"configuration '{'c' * 12}…', not of '{'d' * 12}…'"),
]


@pytest.mark.parametrize(("changes", "said"), OTHERS)
def test_somebody_else_s_store_is_refused(
    store: PrivateStore, changes: dict[str, str], said: str
) -> None:
    filled(store, 1)
    before = content(store)
    with pytest.raises(StoreError) as caught:
        open_store(store.folder, replace(OWNER, **changes))
    assert str(caught.value) == (
        f"{store.folder} holds the private state of {said}. "
        "Name another state-dir or run, or move that folder away."
    )
    assert content(store) == before


@pytest.mark.parametrize(("changes", "said"), OTHERS)
def test_somebody_else_s_file_in_the_own_store_is_refused(
    store: PrivateStore, tmp_path: Path, changes: dict[str, str], said: str
) -> None:
    filled(store, 1)
    store.save_evaluated(1, evaluated({}), best=1)
    other = open_store(tmp_path / "other", replace(OWNER, **changes))
    for path in store.folder.glob("*.safetensors"):
        path.rename(other.folder / path.name)
    with pytest.raises(StoreError) as caught:
        other.load(1)
    assert f"round-0001.safetensors holds the private state of {said}" in str(caught.value)
    with pytest.raises(StoreError) as caught:
        other.load_evaluated(1)
    assert f"evaluated-0001.safetensors holds the private state of {said}" in str(caught.value)


@pytest.mark.parametrize("manifest", ["", "{", "[]", '"text"', "{}", '{"site": "north"}'])
def test_a_damaged_manifest_is_refused(store: PrivateStore, manifest: str) -> None:
    (store.folder / "manifest.json").write_text(manifest)
    with pytest.raises(StoreError, match=r"manifest\.json is damaged|private state of \w+ '"):
        open_store(store.folder, OWNER)


@pytest.mark.parametrize("value", [None, 7, ["e"], {"e": 1}])
def test_a_manifest_of_strange_values_is_refused(store: PrivateStore, value: Any) -> None:
    manifest = store.folder / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"config": value}))
    with pytest.raises(StoreError, match="holds the private state of configuration"):
        open_store(store.folder, OWNER)


def test_private_tensors_of_nobody_are_not_taken_over(store: PrivateStore) -> None:
    filled(store, 1)
    (store.folder / "manifest.json").unlink()
    with pytest.raises(StoreError, match=r"no manifest\.json says whose they are"):
        open_store(store.folder, OWNER)
    assert not (store.folder / "manifest.json").exists()


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("place", ["os.fsync", "pathlib.Path.replace", "tempfile.mkdtemp"])
@pytest.mark.parametrize("what", ["save", "evaluated", "settle"])
def test_a_full_disk_leaves_the_former_state_whole(
    store: PrivateStore, place: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(store, 1, 2)
    store.save_evaluated(1, evaluated({"norm.weight": torch.ones(3)}), best=1)
    before = content(store)
    with monkeypatch.context() as patch, pytest.raises(RunError, match="No space left on device"):
        patch.setattr(place, lambda *_, **__: full())
        if what == "save":
            store.save(3, state(3), previous=2)
        elif what == "evaluated":
            store.save_evaluated(2, evaluated({"norm.weight": torch.zeros(3)}), best=2)
        else:
            store.settle(2, {})
    assert content(store) == before
    assert same(store.load(2), state(2))


def test_a_kill_between_writing_and_removing_leaves_both_rounds(store: PrivateStore) -> None:
    filled(store, 1, 2)
    if (child := os.fork()) == 0:
        Path.unlink = lambda *_, **__: os.kill(os.getpid(), 9)  # type: ignore[method-assign]
        filled(store, 3)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    assert store.rounds() == [1, 2, 3]
    assert same(open_store(store.folder, OWNER).load(3), state(3))
    assert filled(store, 4).rounds() == [3, 4]


def test_what_a_killed_process_left_half_written_is_removed(store: PrivateStore) -> None:
    filled(store, 1)
    if (child := os.fork()) == 0:
        os.fsync = lambda *_: os.kill(os.getpid(), 9)
        filled(store, 2)
        os._exit(0)
    os.waitpid(child, 0)
    assert len(list(store.folder.glob(".*.part"))) == 1
    again = open_store(store.folder, OWNER)
    assert sorted(content(again)) == ["manifest.json", "round-0001.safetensors"]
    with pytest.raises(StoreError):
        open_store(store.folder, replace(OWNER, site="south"))


def test_a_settled_store_keeps_the_last_normalisation_and_no_moments(store: PrivateStore) -> None:
    filled(store, 1, 2)
    store.settle(2, {})
    assert store.rounds() == [2]
    assert same(store.load(2), replace(state(2), moments={}))
    store.settle(2, {})
    assert same(store.load(2), replace(state(2), moments={}))


def test_a_round_to_settle_that_is_not_there_removes_nothing(store: PrivateStore) -> None:
    filled(store, 1, 2)
    with pytest.raises(StoreError):
        store.settle(3, {})
    assert store.rounds() == [1, 2]


def test_the_best_round_s_normalisation_is_kept_beside_the_last_one(store: PrivateStore) -> None:
    for round, best in ((1, 0), (2, 1), (3, 1), (4, 3)):
        private = {"norm.weight": torch.full((3,), float(round))}
        store.save_evaluated(round, evaluated(private), best)
    assert sorted(path.name for path in store.folder.glob("evaluated-*")) == [
        "evaluated-0003.safetensors",
        "evaluated-0004.safetensors",
    ]
    chosen = store.load_evaluated(3)
    assert chosen.private["norm.weight"].tolist() == [3, 3, 3]
    assert chosen.memory["ditto/weights"].tolist() == [7, 7]
    assert store.rounds() == []
    with pytest.raises(StoreError, match=r"Validation chose round 1, but .* 'north' has kept noth"):
        store.load_evaluated(1)


def test_files_are_their_owner_s_alone(store: PrivateStore) -> None:
    filled(store, 1)
    store.save_evaluated(1, evaluated({}), best=1)
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    for path in store.folder.glob("*.safetensors"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_digest_is_of_values_and_type_whatever_the_memory() -> None:
    flat = np.arange(6, dtype=np.float32)
    assert digest_of(flat) == digest_of(np.repeat(flat, 2)[::2])
    changed = flat.copy()
    changed[5] = np.nextafter(changed[5], np.float32(0))
    others: list[NDArray[Any]] = [
        flat.astype(np.float64),
        flat.view(np.int32),
        flat[:-1],
        flat[::-1],
        changed,
    ]
    assert len({digest_of(flat), *(digest_of(other) for other in others)}) == 6
