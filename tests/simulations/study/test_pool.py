"""How many cells run at once, where, and for how much longer."""

import math
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from common.config.schema import Config
from simulations.comparison import METHODS
from simulations.runtime import processes
from simulations.runtime.processes import ProcessTree, free_memory, memory_of
from simulations.study import pool as pool_module
from simulations.study.cells import Cell
from simulations.study.pool import GIB, Pool, Running, Slot, make_slots
from simulations.study.progress import time_left

EXPECTED = {"pooled": 2 * GIB, "federated": 5 * GIB, "single": 2 * GIB}


def running(cell: Cell, memory: int = 0, seconds: float = 0.0) -> Running:
    process = subprocess.Popen([sys.executable, "-c", ""])
    tree = ProcessTree(process)
    process.wait()
    began = time.monotonic() - seconds
    return Running(cell, Path(cell.name), Slot(), process, tree, False, began, memory)


def cell(method: str, fold: int = 0) -> Cell:
    return Cell(METHODS[method], fold, 0)


def test_every_cell_gets_processors_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 5, 6, 7})
    slots = make_slots(Config(threads=2), 0, 0)
    assert [slot.cpus for slot in slots] == [{0, 1}, {2, 5}, {6, 7}]
    assert len(make_slots(Config(threads=4), 0, 0)) == 1
    assert [slot.cpus for slot in make_slots(Config(threads=1), 2, 0)] == [{0, 1, 2}, {5, 6, 7}]


def test_a_gpu_has_one_cell_at_a_time_unless_more_are_asked_for() -> None:
    assert [slot.gpu for slot in make_slots(Config(), 0, 2)] == ["0", "1"]
    assert [slot.gpu for slot in make_slots(Config(), 4, 2)] == ["0", "1", "0", "1"]


def test_another_cell_starts_where_memory_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = [Slot(frozenset({number})) for number in range(3)]
    pool = Pool(slots, tmp_path)
    monkeypatch.setattr(pool_module, "free_memory", lambda: 0)
    assert pool.has_room(EXPECTED, "federated"), "one cell always runs"
    pool.running.append(running(cell("xsite"), memory=1 * GIB))
    # It may grow by 4 GiB, and a GiB is spared: a pooled cell of 2 needs 7 to be free.
    monkeypatch.setattr(pool_module, "free_memory", lambda: 7 * GIB - 1)
    assert not pool.has_room(EXPECTED, "pooled")
    monkeypatch.setattr(pool_module, "free_memory", lambda: 7 * GIB)
    assert pool.has_room(EXPECTED, "pooled")
    assert not pool.has_room(EXPECTED, "federated")


def test_no_more_cells_than_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "free_memory", lambda: 999 * GIB)
    pool = Pool([Slot(), Slot(frozenset({1}))], tmp_path)
    pool.running += [running(cell("joint"), GIB), running(cell("sepnorm"), GIB)]
    assert not pool.has_room(EXPECTED, "pooled")


def test_more_cells_than_processors_are_computed_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    # It takes its order, tells a step and ends without a word.
    code = "import sys; sys.stdin.read(); print('{\"done\": 3}'); print('{\"outco')"

    def begin(_: object, *about: Any, **further: Any) -> "subprocess.Popen[bytes]":
        return processes.start([sys.executable, "-c", code], *about, **further)

    monkeypatch.setattr(pool_module, "start", begin)
    pool = Pool(make_slots(Config(threads=1), 3, 0), tmp_path)
    for fold in range(3):
        pool.start(cell("joint", fold), tmp_path / f"{fold}", Config(), False, "ray")
    assert len({id(one.slot) for one in pool.running}) == 3
    ended = []
    while pool.running:
        ended += pool.wait(5)
    assert sorted(one.cell.fold for one in ended) == [0, 1, 2]
    assert {(one.done, one.outcome) for one in ended} == {(3, "failed")}
    assert "its process ended without a word (exit code 0)" in ended[0].reason


def test_folders_that_are_called_like_ours_do_not_stand_in_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("common", "simulations"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    pool = Pool(make_slots(Config(threads=1), 1, 0), tmp_path / "scratch")
    pool.start(cell("joint"), tmp_path / "runs" / "cell", Config(proximal=1.0), False, "ray")
    while pool.running:
        ended = pool.wait(60)
    assert ended[0].reason.startswith("proximal is 1, but it is for federated training")


def test_the_time_left_goes_by_cells_of_the_same_method_then_of_the_same_mode() -> None:
    took = {cell("joint"): 100.0, cell("sepnorm"): 200.0, cell("fedavg"): 500.0, cell("moon"): None}
    known = {cell: {"seconds": seconds} for cell, seconds in took.items()}
    ahead = [cell("joint", 1), cell("ms-net"), cell("xsite"), cell("single")]
    # joint as joint, MS-Net as pooled ones, xsite as federated ones, single as any.
    whole = 100 + 150 + 500 + 800 / 3
    assert time_left(ahead, [], known, 2) == pytest.approx(whole / 2)
    now = SimpleNamespace(cell=cell("joint", 2), seconds=30.0)
    assert time_left([], [now], known, 1) == pytest.approx(70)  # type: ignore[list-item]
    assert math.isnan(time_left(ahead, [], {}, 2))


def test_memory_is_that_of_all_processes_together() -> None:
    code = "x = bytearray(200_000_000); import sys; print('held', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        alone = memory_of([psutil.Process()])
        both = memory_of([psutil.Process(), psutil.Process(process.pid)])
        assert both - alone > 190_000_000
    finally:
        process.kill()
        process.communicate()
    assert 0 < free_memory() <= psutil.virtual_memory().total
