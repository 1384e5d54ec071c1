"""What a hospital's SuperExec starts its ClientApps from."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from clients.flower_host.prefork import CLIENT, fingerprint
from common.exchange.fingerprint import DEPLOYED
from simulations.runtime.bundle import ROOT

LOADS = """
import threading
import torch
from clients.flower_host.prefork import load
asked = []
for name in ("_cuda_getDeviceCount", "_cuda_init"):
    if hasattr(torch._C, name):
        setattr(torch._C, name, lambda *_, name=name: asked.append(name) or 0)
load()
assert not asked, asked
assert threading.active_count() == 1, threading.enumerate()
"""
STANDS = """
import json, os, random, sys, time
from pathlib import Path
from clients.flower_host import prefork as standby

folder = Path(sys.argv[1])

def client():
    own = [sys.argv, Path("/proc/self/comm").read_text().strip(), random.random()]
    (folder / f"{os.getpid()}.json").write_text(json.dumps(own))

def found():
    return standby.Fingerprint((folder / "changed").exists() and ["changed"] or [])

standby.LOADED, standby.run_client, standby.fingerprint = (), client, found
standby.PAUSE_SECONDS = 0.0
sys.argv = [str(folder / "program"), "--parent-pid", sys.argv[2]]
stands = standby.Standby()
print(stands.pid, flush=True)
for line in sys.stdin:
    print(stands.start(json.loads(line)), flush=True)
"""


class Stands:
    """A process that has another stand by, asked line by line.

    If it begins anew, it is a program that writes its arguments.
    """

    def __init__(self, folder: Path, node: int) -> None:
        program = folder / "program"
        program.write_text(f'#!/bin/sh\necho "$@" > {folder}/anew\n')
        program.chmod(0o755)
        command = [sys.executable, "-c", STANDS, str(folder), str(node)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.standby = psutil.Process(int(self.told()))

    def told(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def start(self, *arguments: str) -> str:
        assert self.process.stdin is not None
        print(json.dumps([CLIENT, *arguments]), file=self.process.stdin, flush=True)
        return self.told()

    def end(self) -> None:
        self.process.communicate(timeout=30)


def started(folder: Path, count: int) -> list[tuple[list[str], str, float]]:
    """Return what so many clients have written, waiting for them."""
    deadline = time.monotonic() + 30
    while len(files := list(folder.glob("*.json"))) < count or not all(
        file.stat().st_size for file in files
    ):
        assert time.monotonic() < deadline, files
        time.sleep(0.02)
    return [json.loads(file.read_text()) for file in files]


@pytest.fixture
def ended() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_every_client_is_a_process_of_its_own_with_its_own_arguments_and_chance(
    tmp_path: Path, ended: int
) -> None:
    stands = Stands(tmp_path, ended)
    assert [stands.start("--token", "1"), stands.start("--token", "2")] == ["True", "True"]
    own = sorted(started(tmp_path, 2))
    assert [arguments for arguments, _, _ in own] == [
        [CLIENT, "--token", "1"],
        [CLIENT, "--token", "2"],
    ]
    assert own[0][1] == own[1][1] == CLIENT
    assert own[0][2] != own[1][2]
    stands.end()


def test_a_client_belongs_to_the_node_and_not_to_the_superexec(tmp_path: Path) -> None:
    stands = Stands(tmp_path, os.getpid())
    assert stands.start("--parent-pid", str(stands.process.pid)) == "True"
    assert started(tmp_path, 1)[0][0] == [CLIENT, "--parent-pid", str(os.getpid())]
    stands.end()


def test_what_stands_by_takes_the_place_of_a_killed_superexec(tmp_path: Path) -> None:
    stands = Stands(tmp_path, os.getpid())
    stands.process.kill()
    psutil.wait_procs([stands.standby], timeout=30)
    assert (tmp_path / "anew").read_text() == f"--parent-pid {os.getpid()}\n"
    stands.end()


def test_it_ends_where_the_node_has_ended(tmp_path: Path, ended: int) -> None:
    stands = Stands(tmp_path, ended)
    stands.process.kill()
    psutil.wait_procs([stands.standby], timeout=30)
    assert not stands.standby.is_running() and not (tmp_path / "anew").exists()
    stands.end()


def test_a_request_is_not_answered_where_nothing_stands_by_any_more(
    tmp_path: Path, ended: int
) -> None:
    stands = Stands(tmp_path, ended)
    stands.standby.kill()
    assert stands.start() == "False"
    stands.end()
    assert not list(tmp_path.glob("*.json"))


def test_an_xsite_that_was_changed_since_it_was_loaded_is_not_run(
    tmp_path: Path, ended: int
) -> None:
    stands = Stands(tmp_path, ended)
    assert stands.start() == "True"
    (tmp_path / "changed").touch()
    assert stands.start() == "False"
    stands.end()
    assert len(started(tmp_path, 1)) == 1


def test_any_change_of_the_installed_files_is_seen(tmp_path: Path) -> None:
    for package in DEPLOYED:
        shutil.copytree(ROOT / package, tmp_path / package)
    seen = [fingerprint(tmp_path)]
    assert fingerprint(tmp_path) == seen[0] and len(seen[0]) > 50
    with (tmp_path / "clients" / "app.py").open("a") as file:
        file.write("# another\n")
    seen.append(fingerprint(tmp_path))
    (tmp_path / "common" / "new.py").touch()
    seen.append(fingerprint(tmp_path))
    (tmp_path / "server" / "app.py").unlink()
    seen.append(fingerprint(tmp_path))
    assert len(set(seen)) == 4


def test_what_is_loaded_beforehand_touches_no_gpu_and_starts_no_thread() -> None:
    """A fork could use neither."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", LOADS], env=environment, check=True, timeout=120)
