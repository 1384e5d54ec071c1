"""Processes that a simulation starts: found by descent, ended by their ids, never by a name."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import psutil

from clients.flower_host.prefork import CLIENT, STANDBY
from common.signals import handling

GUARD = Path(__file__).with_name("guard.py")


class ProcessTree:
    """A process with all that descends from it, also what has outlived its parent.

    Ray and Flower start processes in sessions of their own, so that no process group holds them
    all, and a descendant whose parent is gone is no descendant any more. Hence :meth:`update`,
    called every now and then, remembers whom it saw. psutil compares start times, so an id that
    the system gave to another process is not mistaken for ours.

    Parameters
    ----------
    root : subprocess.Popen
        The first process.
    """

    def __init__(self, root: "subprocess.Popen[bytes]") -> None:
        self._root = root
        self._seen: set[psutil.Process] = {psutil.Process(root.pid)}

    def update(self) -> None:
        """Remember the descendants of every process seen before."""
        # One pass over all processes of the machine: asking each for its children takes one each.
        children: dict[int, list[psutil.Process]] = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                children.setdefault(process.ppid(), []).append(process)
        unasked = list(self._seen)
        while unasked:
            parent = unasked.pop()
            # An id may be another process's by now.
            found = children.get(parent.pid, []) if parent.is_running() else []
            new = [child for child in found if child not in self._seen]
            self._seen.update(new)
            unasked += new

    def alive(self) -> list[psutil.Process]:
        """Return the processes that have not ended."""
        self.update()
        return [process for process in self._seen if _runs(process)]

    def take_down(self) -> None:
        """Kill every process, the eldest first, and wait for it.

        At once: files are written whole or not at all, and a server that saw its sites go first
        would write that they failed.
        """
        for _ in range(3):
            for process in sorted(self.alive(), key=psutil.Process.create_time):
                with suppress(psutil.Error):
                    process.kill()
            # Before looking for what was started meanwhile.
            psutil.wait_procs(self.alive(), timeout=5.0)
            self._root.poll()
            if not self.alive():
                return


def start(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    log: Path,
    talking: bool = False,
    grace: float = 0.0,
) -> "subprocess.Popen[bytes]":
    """Start a command in a session of its own, so that the terminal's Ctrl-C does not reach it.

    On Linux it ends with this process, also when this is killed with -9, and with it all that it
    ever started (see :mod:`simulations.runtime.guard`).

    Parameters
    ----------
    command : sequence of str
        Absolute path of a program, and its arguments.
    folder : Path
        Its working directory.
    environment : mapping
        All its environment variables.
    log : Path
        File that takes its output.
    talking : bool
        Whether its standard input and output are pipes to this process; the file then takes its
        standard error alone.
    grace : float
        Seconds that it has to end by itself when this process is gone; 0: it is killed at once.
    """
    guard = [sys.executable, "-I", "-S", str(GUARD), str(os.getpid()), str(grace)]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*(guard if sys.platform == "linux" else []), *command],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE if talking else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talking else output,
            stderr=output,
            start_new_session=True,
        )


def last_lines(log: Path) -> str:
    """Return the last lines of a process's output, for an error's sentence."""
    kept = log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
    return "Its last lines: " + " | ".join(line.strip() for line in kept if line.strip())


def program_line(process: psutil.Process) -> str:
    """Return what says which program a process runs: its first words, or a forked one's own name.

    Raises
    ------
    psutil.Error
        If it has ended.
    """
    # What was forked has its parent's command line.
    name = process.name()
    return name if name in (STANDBY, CLIENT) else " ".join(process.cmdline()[:4])


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does, so that it can clean up."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with handling(interrupt, signal.SIGTERM, signal.SIGHUP):
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let a block that cleans up end, however often Ctrl-C is pressed."""

    def ignore(_number: int, _frame: FrameType | None) -> None:
        return

    with handling(ignore, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        yield


@contextmanager
def stop_between_steps() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C (or SIGTERM, as a batch system sends it) into a question to ask.

    A second one interrupts at once.
    """
    asked = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    with handling(ask, signal.SIGINT, signal.SIGTERM):
        yield asked.is_set


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


_CGROUP = Path("/sys/fs/cgroup")


def memory_of(processes: Iterable[psutil.Process]) -> int:
    """Return the memory of processes together, in bytes.

    Parameters
    ----------
    processes : iterable of psutil.Process
        Those that have ended count nothing.

    Returns
    -------
    int
        Sum of proportional set sizes (PSS): a page that processes share counts once. Where the
        system does not tell these, of resident set sizes, which count it for each.
    """
    total = 0
    for process in processes:
        with suppress(psutil.Error):
            info = process.memory_full_info()
            total += getattr(info, "pss", info.rss)
    return total


def free_memory() -> int:
    """Return the bytes that new processes may use: the machine's, or the container's if fewer."""
    available = int(psutil.virtual_memory().available)
    try:
        limit = (_CGROUP / "memory.max").read_text(encoding="utf-8").strip()
        used = int((_CGROUP / "memory.current").read_text(encoding="utf-8"))
        # Cached files count as used, but give way.
        statistics = dict(
            line.split()
            for line in (_CGROUP / "memory.stat").read_text(encoding="utf-8").splitlines()
        )
        used -= int(statistics.get("inactive_file", 0))
    except (OSError, ValueError):
        return available
    return available if limit == "max" else min(available, max(0, int(limit) - used))
