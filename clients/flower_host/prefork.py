"""The hospital's own ``flower-superexec``: it starts a ClientApp at once, with everything loaded.

Flower starts a new process for every message, and most of what that costs is loading PyTorch,
scikit-learn and Flower itself. In a hospital's folder this program stands in front of Flower's of
the same name. Next to the SuperExec it keeps a process that has loaded them once, does nothing else
and is forked for every message, as web servers do ("prefork"). The forked process is what
:mod:`clients.flower_host.installed_code` is otherwise started as, and does the same.

The two watch over each other, since Flower starts neither again. Where the SuperExec is gone, the
process that stood by takes its place. Where that one is gone, or xsite was changed since it was
loaded, a message is answered in Flower's way, and the SuperExec begins anew.
"""

import gc
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from clients.flower_host.installed_code import INSTALLED
from clients.flower_host.installed_code import main as run_client
from common.exchange.fingerprint import SHIPPED, code_fingerprint, python_files
from common.signals import handling

STANDBY, CLIENT = "xsite-standby", "flwr-clientapp"
PARENT = "--parent-pid"
LOADED = (
    "flwr.supernode.cli",
    "clients.app",
    # What they would load when they are first needed.
    "sklearn.metrics",
    "sklearn.model_selection",
    "torch._dynamo",
)
LONGEST_SECONDS = 120.0
"""To wait for a fork: the first one waits until everything is loaded."""
PAUSE_SECONDS = 3.0
"""Before a SuperExec is started again: one that cannot start is not to be started all the time."""
LONGEST_REQUEST = 1 << 16
FORKED = b"forked"

Fingerprint = frozenset[tuple[str, int, int]]


class Standby:
    """A process that is forked for every ClientApp.

    Made before this process has any thread, since a fork copies none.
    """

    def __init__(self) -> None:
        """Start it; it begins to load."""
        own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for stream in (sys.stdout, sys.stderr):
            # What is not yet written would be written by both.
            stream.flush()
        self.pid = os.fork()
        if self.pid == 0:
            own.close()
            _serve(other)
            sys.exit()
        other.close()
        own.settimeout(LONGEST_SECONDS)
        self._requests = own

    def start(self, arguments: Sequence[str]) -> bool:
        """Have a ClientApp started.

        Parameters
        ----------
        arguments : sequence of str
            Its command line.

        Returns
        -------
        bool
            Whether it was; if not, nothing stands by any more.
        """
        with suppress(OSError):
            self._requests.send(json.dumps(list(arguments)).encode())
            if self._requests.recv(len(FORKED)) == FORKED:
                return True
        with suppress(ProcessLookupError):
            # It must not start later what is now started in Flower's way.
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return False


def fingerprint(installed: Path = INSTALLED) -> Fingerprint:
    """Return path, size and time of change (ns) of every file of the installed xsite."""
    stats = ((str(path), path.stat()) for path in python_files(installed, SHIPPED))
    return frozenset((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats)


def load() -> None:
    """Import what a ClientApp needs; no GPU is touched, since a fork could not use it then."""
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    for name in LOADED:
        import_module(name)
    # A fifth of a second of every fork, if it were not done here.
    code_fingerprint()


def main() -> None:
    """Do what ``flower-superexec`` does, and start ClientApps from a process that stands by."""
    standby = Standby()
    from flwr.supercore.cli import flower_superexec

    def start(command: Sequence[str], **named: Any) -> None:
        if command[0] != CLIENT:
            subprocess.Popen(command, **named)
        elif not standby.start(command):
            subprocess.Popen(command, **named)
            _begin_anew("What stood by is gone, or xsite was changed: beginning anew.")

    executor: Any = import_module("flwr.supercore.superexec.executor.subprocess_executor")
    # Flower makes no use of what Popen returns.
    executor.subprocess = SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL)
    flower_superexec()


def _serve(requests: socket.socket) -> None:
    """Fork for every request, and in the fork be the ClientApp; be the SuperExec if it is gone."""
    _call_itself(STANDBY)
    # A Ctrl-C is for the SuperExec, whose end ends this. Ended children need no farewell.
    with handling(signal.SIG_IGN, signal.SIGINT, signal.SIGCHLD):
        request = _stand_by(requests)
    if request:
        _be_client(json.loads(request))
    elif request is not None and _node_runs():
        _begin_anew("The SuperExec is gone: taking its place.")


def _stand_by(requests: socket.socket) -> bytes | None:
    """Fork for every request, and return it in the fork.

    In the process that stands by, return nothing where the SuperExec is gone, and None where the
    installation has changed, which the SuperExec sees too and begins anew.
    """
    known = fingerprint()
    load()
    gc.collect()
    # What is never looked at again is never copied.
    gc.freeze()
    while request := _next(requests):
        if fingerprint() != known:
            return None
        if os.fork() == 0:
            requests.close()
            return request
        with suppress(OSError):
            requests.send(FORKED)
    time.sleep(PAUSE_SECONDS)
    return b""


def _next(requests: socket.socket) -> bytes:
    """Return the next request, or none where nobody is there any more to ask."""
    try:
        return requests.recv(LONGEST_REQUEST)
    except OSError:
        return b""


def _be_client(arguments: list[str]) -> None:
    """Be the process of a command line."""
    import numpy as np

    _call_itself(CLIENT)
    # Else every fork would draw the same numbers.
    random.seed()
    np.random.seed()
    if PARENT in arguments and _node():
        # It ends with the node; what it trains outlives the SuperExec, whose it is by default.
        arguments[arguments.index(PARENT) + 1] = _node()
    sys.argv = arguments
    run_client()


def _node() -> str:
    """Return the SuperNode's number, of which a SuperExec is told so that it ends with it."""
    return sys.argv[sys.argv.index(PARENT) + 1] if PARENT in sys.argv else ""


def _node_runs() -> bool:
    try:
        os.kill(int(_node()), 0)
    except (ValueError, ProcessLookupError):
        return False
    return True


def _begin_anew(why: str) -> NoReturn:
    """Say why, and run the same program from its start, in the same process."""
    print(f"xsite: {why}", flush=True)
    os.execv(sys.argv[0], sys.argv)


def _call_itself(name: str) -> None:
    """Change the name that ``ps`` and ``top`` show, where there is Linux's way to."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name, encoding="utf-8")
