import contextlib
import os
import signal
import subprocess
import sys
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


# A family whose members are in sessions of their own; the youngest one's parent is gone.
SCRIPTS = {
    "starter": """
from simulations.runtime.processes import start
start([sys.executable, "first.py", *sys.argv[1:]], here, os.environ, here / "log", grace=GRACE)
time.sleep(120)
""",
    "first": """
signal.signal(signal.SIGTERM, HEARD)
(here / "first").write_text(str(os.getpid()))
subprocess.Popen([sys.executable, "between.py"], start_new_session=True)
time.sleep(120)
""",
    "between": "subprocess.Popen([sys.executable, 'orphan.py'], start_new_session=True)",
    "orphan": """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
(here / "orphan").write_text(str(os.getpid()))
time.sleep(120)
""",
}


def start_scripts(
    folder: Path, heard: str, grace: float
) -> tuple["subprocess.Popen[bytes]", list[psutil.Process]]:
    """Start who starts a family; return it, and the family once all of it are there."""
    for name, script in SCRIPTS.items():
        head = "import os, pathlib, signal, subprocess, sys, time\nhere = pathlib.Path.cwd()\n"
        text = script.replace("GRACE", str(grace)).replace("HEARD", heard)
        (folder / f"{name}.py").write_text(head + text)
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": str(root)}
    starter = subprocess.Popen([sys.executable, "starter.py"], cwd=folder, env=environment)
    notes = [folder / "first", folder / "orphan"]
    assert wait_for(lambda: all(note.exists() and note.read_text() for note in notes))
    return starter, [psutil.Process(int(note.read_text())) for note in notes]


linux = pytest.mark.skipif(
    sys.platform != "linux", reason="the kernel's help exists on Linux alone"
)


@linux
def test_all_that_was_started_goes_when_its_starter_is_killed(tmp_path: Path) -> None:
    starter, family = start_scripts(tmp_path, "signal.SIG_IGN", grace=0.0)
    assert not any(map(gone, family))
    starter.kill()
    starter.wait(timeout=10)
    try:
        assert wait_for(lambda: all(map(gone, family)), seconds=5)
    finally:
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()


@linux
def test_what_may_end_by_itself_is_asked_to_and_the_rest_goes(tmp_path: Path) -> None:
    heard = "lambda *_: (here / 'asked').touch() or sys.exit()"
    starter, family = start_scripts(tmp_path, heard, grace=20.0)
    starter.kill()
    starter.wait(timeout=10)
    assert wait_for(lambda: all(map(gone, family)), seconds=10)
    assert (tmp_path / "asked").exists()


def test_a_program_ends_as_it_would_without_its_guard(tmp_path: Path) -> None:
    def code(program: str, number: int = 0) -> int:
        process = start([sys.executable, "-c", program], tmp_path, os.environ, tmp_path / "log")
        if number:
            time.sleep(1)
            process.send_signal(number)
        return process.wait(timeout=20)

    assert code("raise SystemExit(3)") == 3
    assert code("import os; os.kill(os.getpid(), 9)") == -signal.SIGKILL
    assert code("import os; os.abort()") == -signal.SIGABRT
    assert code(SLEEP, signal.SIGTERM) == -signal.SIGTERM
    assert code(f"import signal; signal.signal(15, lambda *_: exit(4)); {SLEEP}", 15) == 4
    nothing = start(["/absent"], tmp_path, os.environ, tmp_path / "log")
    assert nothing.wait(timeout=20) == 1
    assert "No such file or directory" in (tmp_path / "log").read_text()


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
