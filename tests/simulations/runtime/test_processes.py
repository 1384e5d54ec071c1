import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from simulations.runtime.processes import ProcessTree, start, terminable, undisturbed

pytestmark = pytest.mark.usefixtures("interruptible")


# A child that starts a grandchild in a session of its own, writes the grandchild's id and sleeps.
FAMILY = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[2]], start_new_session=True)
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
{then}
"""
SLEEP = "import time; time.sleep(120)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(120)"


def wait_for(true: Callable[[], object], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.02)
    return bool(true())


def start_family(
    tmp_path: Path, grandchild: str, then: str = "time.sleep(120)"
) -> tuple["subprocess.Popen[bytes]", psutil.Process]:
    script = FAMILY.format(then=then)
    note = tmp_path / "grandchild"
    command = [sys.executable, "-c", script, str(note), grandchild]
    process = start(command, tmp_path, os.environ, tmp_path / "log")
    assert wait_for(lambda: note.exists() and note.read_text())
    return process, psutil.Process(int(note.read_text()))


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_tree_comes_down_with_descendants_in_other_sessions(tmp_path: Path) -> None:
    process, grandchild = start_family(tmp_path, SLEEP)
    tree = ProcessTree(process)
    tree.take_down()
    assert process.poll() is not None
    assert gone(grandchild)
    assert tree.alive() == []


def test_one_that_does_not_listen_comes_down_too(tmp_path: Path) -> None:
    process, grandchild = start_family(tmp_path, DEAF)
    time.sleep(0.5)  # until it has gone deaf
    ProcessTree(process).take_down()
    assert gone(grandchild)


def test_one_that_has_outlived_its_parent_is_remembered(tmp_path: Path) -> None:
    process, grandchild = start_family(tmp_path, SLEEP, then="time.sleep(1)")
    tree = ProcessTree(process)
    tree.update()
    process.wait(timeout=20)
    assert grandchild.is_running()
    tree.take_down()
    assert gone(grandchild)


def test_nothing_but_the_tree_is_touched(tmp_path: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", SLEEP])
    try:
        process, _ = start_family(tmp_path, SLEEP)
        ProcessTree(process).take_down()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait(timeout=10)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help exists on Linux alone")
def test_what_was_started_goes_when_its_starter_is_killed(tmp_path: Path) -> None:
    starter = """
        import os, pathlib, sys, time
        from simulations.runtime.processes import start
        here = pathlib.Path(sys.argv[1])
        child = start([sys.executable, "-c", sys.argv[2]], here, os.environ, here / "log")
        (here / "child").write_text(str(child.pid))
        time.sleep(120)
    """
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", textwrap.dedent(starter), str(tmp_path), SLEEP]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(root)})
    note = tmp_path / "child"
    assert wait_for(lambda: note.exists() and note.read_text())
    child = psutil.Process(int(note.read_text()))
    assert child.is_running()
    time.sleep(0.3)
    process.kill()
    process.wait(timeout=10)
    assert wait_for(lambda: gone(child))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_termination_inside_is_an_interrupt_and_outside_what_it_was(number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), terminable():
        os.kill(os.getpid(), number)
        time.sleep(1)
    assert signal.getsignal(number) == before


def test_cleaning_up_is_not_disturbed() -> None:
    with undisturbed():
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        time.sleep(0.05)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
