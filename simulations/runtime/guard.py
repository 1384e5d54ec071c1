"""A process in front of a program, which ends it when who started it is gone: by ``kill -9``, too.

Run by its path, as :func:`simulations.runtime.processes.start` does, on Linux alone::

    python -I -S guard.py PARENT SECONDS PROGRAM ARGUMENT...

The kernel tells it of its parent's end, and gives it whatever outlives its own parent below it. So
all that descends from the program is found, whatever sessions and groups it is in, and no process
of a run is left to compute for nobody. Else it is as if it were the program: it passes signals on
to it, and ends as it does.
"""

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

SET_PARENT_DEATH_SIGNAL, SET_CHILD_SUBREAPER = 1, 36
"""Of prctl(2)."""
ORPHANED = signal.SIGUSR1
PASSED_ON = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
PAUSE_SECONDS = 0.02


def main() -> None:
    """Start the program, and stand by until it or the parent ends."""
    parent, grace, command = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    heard = {signal.SIGCHLD, ORPHANED, *PASSED_ON}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    prctl = ctypes.CDLL(None).prctl
    prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    prctl(SET_PARENT_DEATH_SIGNAL, ORPHANED)
    if os.getppid() != parent:
        # It went before the kernel was asked.
        return
    program = os.fork()
    if program == 0:
        prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.execv(command[0], command)
    while True:
        number = signal.sigwait(heard)
        if number in PASSED_ON:
            os.kill(program, number)
        elif (status := _reap(program)) is not None:
            _end_as(status)
        # A thread of the parent that ends sends this signal, too.
        elif number == ORPHANED and os.getppid() != parent:
            take_down(program, grace)
            return


def take_down(program: int, grace: float) -> None:
    """End all that descends from this process, a program first, the eldest before their children.

    Parameters
    ----------
    program : int
        Its id.
    grace : float
        Seconds that it has to end by itself; 0: it is not asked to.
    """
    latest = time.monotonic() + grace
    if grace:
        os.kill(program, signal.SIGTERM)
        while _reap(program) is None and time.monotonic() < latest:
            time.sleep(PAUSE_SECONDS)
    while alive := descendants():
        for process in alive:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(PAUSE_SECONDS)
        _reap(program)


def descendants() -> list[int]:
    """Return the processes that descend from this one and have not ended, parents first."""
    children: dict[int, list[tuple[int, bytes]]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in brackets, may hold anything.
            state, parent = stat.read_bytes().rpartition(b")")[2].split()[:2]
        except OSError:
            continue
        children.setdefault(int(parent), []).append((int(stat.parent.name), state))
    found, alive = [os.getpid()], []
    for process in found:
        for child, state in sorted(children.get(process, [])):
            found.append(child)
            alive += [] if state in b"ZX" else [child]
    return alive


def _reap(program: int) -> int | None:
    """Take note of the children that have ended; return the program's status if it has."""
    ended = None
    while True:
        try:
            process, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if process == program:
            ended = status
        if process == 0:
            return ended


def _end_as(status: int) -> NoReturn:
    """End as the program did, by a signal if it did so."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
