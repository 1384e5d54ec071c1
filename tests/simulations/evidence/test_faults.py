"""The fault matrix: its way to hold a process at a moment, and one real cell of it."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from common.config.load import load_config
from common.tensor_files import load_tensors
from simulations.evidence.faults.matrix import (
    CONFIG,
    HOOK,
    MOMENTS,
    PROCESSES,
    UNDISTURBED,
    FaultOutcome,
    faults_page,
    run_cell,
)
from tests.federation.hospitals import federate

PROCESS = {process.name: process for process in PROCESSES}
MOMENT = {moment.name: moment for moment in MOMENTS}


def in_a_process(folder: Path, role: str, after: bool) -> "subprocess.Popen[bytes]":
    """Start a process that calls a function three times and writes down each result."""
    fault = {"module": "colorsys", "name": "rgb_to_hsv", "after": after, "call": 2}
    code = (
        "import colorsys, pathlib\n"
        "for n in range(3):\n"
        "    value = colorsys.rgb_to_hsv(0, 0, n)[2]\n"
        f"    with pathlib.Path({str(folder / 'done')!r}).open('a') as file:\n"
        "        file.write(str(value))\n"
    )
    environment = os.environ | {
        "XSITE_FAULT": json.dumps(fault | {"role": "hospital-a", "folder": str(folder)}),
        "XSITE_STATE": f"/somewhere/{role}",
        "PYTHONPATH": str(HOOK),
    }
    return subprocess.Popen([sys.executable, "-c", code], env=environment)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists() or not path.stat().st_size:
        assert time.monotonic() < deadline, f"{path} does not come"
        time.sleep(0.02)


@pytest.mark.parametrize("after", [False, True])
def test_a_process_is_held_at_the_moment_and_goes_on_when_told(tmp_path: Path, after: bool) -> None:
    process = in_a_process(tmp_path, "hospital-a", after)
    try:
        wait_for(tmp_path / "reached")
        assert int((tmp_path / "reached").read_text()) == process.pid
        assert process.poll() is None
        assert len((tmp_path / "calls").read_text()) == 2
        (tmp_path / "go").touch()
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / "done").read_text() == "012"


def test_processes_of_others_are_not_held(tmp_path: Path) -> None:
    assert in_a_process(tmp_path, "hospital-b", after=False).wait(timeout=30) == 0
    assert not (tmp_path / "calls").exists()


def test_where_nothing_can_be_killed_nothing_is_started(tmp_path: Path) -> None:
    fate = run_cell(
        tmp_path / "cell", PROCESS["ClientApp"], MOMENT["after send"], None, threading.Event()
    )
    assert (fate.equal, fate.seconds) == (None, 0.0)
    assert list((tmp_path / "cell").iterdir()) == []


def test_the_page_has_a_line_for_every_cell() -> None:
    fates = [
        FaultOutcome(process.name, moment.name, "went on", 61.7, moment.answering)
        for process in PROCESSES
        for moment in MOMENTS
    ]
    told = faults_page(fates, 3)
    assert told.count("| went on | 62 |") == len(PROCESSES) * len(MOMENTS)
    assert told.count("| NOT EQUAL |") == 3 * len(PROCESSES)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_superlink_that_is_killed_while_the_server_averages_changes_no_weight(
    tmp_path: Path,
) -> None:
    simulated = load_config(CONFIG, {"runs-dir": str(tmp_path), "run-name": UNDISTURBED})
    federate(simulated.changed(cache_dir=str(tmp_path / "cache")))
    fate = run_cell(
        tmp_path / "cell", PROCESS["SuperLink"], MOMENT["mid-aggregation"], None, threading.Event()
    )
    weights = [
        load_tensors(folder / UNDISTURBED / "shared.safetensors")[0]
        for folder in (tmp_path, tmp_path / "cell" / "runs")
    ]
    assert fate.equal is None, fate.told
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
