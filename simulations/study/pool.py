"""Cells computed side by side: a process each on processors of its own, as memory allows."""

import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from threading import Thread

import psutil

from common.config.schema import Config
from simulations.runtime.processes import ProcessTree, free_memory, memory_of, start, undisturbed
from simulations.study.cells import Cell

GIB = 2**30

SPARE_MEMORY = GIB
STOP_SECONDS = 60.0
# For a cell whose study was killed; what it has written is whole at any moment.
GRACE_SECONDS = 10.0
SAMPLE_SECONDS = 5.0


def usual_memory(backend: str) -> dict[str, int]:
    """Return what a cell is taken to need before one of its mode has been measured, in bytes.

    Ray and Flower have a process for every site, and several more.
    """
    return {"federated": (5 if backend == "ray" else 2) * GIB, "pooled": 2 * GIB, "single": 2 * GIB}


@dataclass(frozen=True)
class Slot:
    """What one cell at a time may use: processors (none: all), and a GPU ('' for none)."""

    cpus: frozenset[int] = frozenset()
    gpu: str = ""


@dataclass
class Running:
    """A cell that is being computed."""

    cell: Cell
    """Which."""
    path: Path
    """Its folder."""
    slot: Slot
    """Where."""
    process: "Popen[bytes]"
    """Its first process."""
    tree: ProcessTree
    """All of them."""
    resumed: bool
    """Whether it goes on with what an earlier session began."""
    began: float = field(default_factory=time.monotonic)
    """When, by :func:`time.monotonic`."""
    memory: int = 0
    peak: int = 0
    """All its processes' memory, last and at the most, in bytes."""
    done: int = 0
    total: int = 0
    """Steps."""
    outcome: str = ""
    reason: str = ""
    """``"done"``, ``"stopped"`` or ``"failed"`` once it has ended, and of a failure why."""
    told: "Future[None]" = field(default_factory=Future)
    """Done once its process has told everything."""

    @property
    def seconds(self) -> float:
        """How long it has been computed by now."""
        return time.monotonic() - self.began


def make_slots(config: Config, jobs: int, gpus: int) -> tuple[Slot, ...]:
    """Deal this machine out to as many cells as may be computed at once.

    Parameters
    ----------
    config : Config
        Its ``threads`` are one cell's.
    jobs : int
        How many cells at once; 0: as many as there are GPUs, or as the processors allow.
    gpus : int
        Number of GPUs that the cells may use.
    """
    cpus = sorted(os.sched_getaffinity(0))
    threads = max(1, config.threads)
    count = jobs or gpus or max(1, len(cpus) // threads)
    share = len(cpus) // count
    # More cells than processors share them as the system sees fit.
    dealt = [frozenset(cpus[i * share : (i + 1) * share]) for i in range(count)]
    return tuple(Slot(own, str(i % gpus) if gpus else "") for i, own in enumerate(dealt))


class Pool:
    """The processes of the cells that are being computed.

    Parameters
    ----------
    slots : sequence of Slot
        How many at once, and where.
    scratch : Path
        Folder for the output of processes; of cells that failed it stays.
    """

    def __init__(self, slots: Sequence[Slot], scratch: Path) -> None:
        self._slots = tuple(slots)
        self._scratch = scratch
        self._sampled = 0.0
        self.running: list[Running] = []

    def has_room(self, expected: Mapping[str, int], mode: str) -> bool:
        """Say whether another cell of a mode may start beside those that run.

        Parameters
        ----------
        expected : mapping of str to int
            The memory that a cell needs at the most, by mode, in bytes.
        mode : str
            The cell's.
        """
        if not self.running:
            return True
        if len(self.running) >= len(self._slots):
            return False
        growing = sum(max(0, expected[one.cell.method.mode] - one.memory) for one in self.running)
        return free_memory() - growing >= expected[mode] + SPARE_MEMORY

    def start(self, cell: Cell, path: Path, config: Config, resumed: bool, backend: str) -> None:
        """Start the process of a cell.

        Parameters
        ----------
        cell : Cell
            Which.
        path : Path
            Its folder, which the run makes; it goes on with what is there.
        config : Config
            Of its run.
        resumed : bool
            Whether there is something to go on with.
        backend : str
            What runs the sites of a federated cell.
        """
        # Slots of more cells than processors are equal, and still one each.
        taken = {id(one.slot) for one in self.running}
        slot = next(slot for slot in self._slots if id(slot) not in taken)
        config = config.changed(run_name=path.name, runs_dir=str(path.parent), resume=resumed)
        environment = dict(os.environ) | {"FLWR_TELEMETRY_ENABLED": "0"}
        if slot.gpu:
            visible = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
            place = int(slot.gpu)
            environment["CUDA_VISIBLE_DEVICES"] = visible[place] if visible else slot.gpu
        self._scratch.mkdir(parents=True, exist_ok=True)
        log = self._scratch / f"{path.name}.txt"
        # -P: a folder that is called `common` where a study begins does not stand in for ours.
        command = [sys.executable, "-P", "-m", "simulations.study.worker"]
        process = start(command, Path.cwd(), environment, log, talking=True, grace=GRACE_SECONDS)
        order = {
            "config": config.to_run_config(),
            "mode": cell.method.mode,
            "backend": backend,
            "base": str(path.parent),
            "cpus": sorted(slot.cpus),
        }
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(json.dumps(order).encode())
        running = Running(cell, path, slot, process, ProcessTree(process), resumed)
        Thread(target=_listen, args=(running,), daemon=True).start()
        self.running.append(running)

    def wait(self, seconds: float) -> list[Running]:
        """Wait so many seconds at the most; return the cells that have ended, if any has."""
        wait([one.told for one in self.running], seconds, FIRST_COMPLETED)
        ended = [one for one in self.running if one.told.done()]
        for running in ended:
            self._finish(running)
        if time.monotonic() - self._sampled >= SAMPLE_SECONDS:
            self._sampled = time.monotonic()
            for running in self.running:
                running.memory = memory_of(running.tree.alive())
                running.peak = max(running.peak, running.memory)
        return ended

    def stop(self) -> list[Running]:
        """Ask every cell to stop, wait for it, and return those that had been running."""
        stopped = list(self.running)
        for running in stopped:
            with suppress(psutil.Error, ProcessLookupError):
                # Not SIGINT: what a shell starts in the background ignores it.
                running.process.terminate()
        latest = time.monotonic() + STOP_SECONDS
        try:
            while self.running and time.monotonic() < latest:
                self.wait(0.5)
        finally:
            with undisturbed():
                for running in list(self.running):
                    self._finish(running)
        return stopped

    def _finish(self, running: Running) -> None:
        """Leave no process of a cell behind, and say what became of one that could not."""
        running.tree.take_down()
        self.running.remove(running)
        if not running.outcome:
            code = running.process.poll()
            running.outcome = "failed"
            running.reason = (
                "its process was killed, as the system does when memory runs out"
                if code == -signal.SIGKILL
                else f"its process ended without a word (exit code {code})"
            )
        if running.outcome != "failed":
            (self._scratch / f"{running.path.name}.txt").unlink(missing_ok=True)


def _listen(running: Running) -> None:
    """Take what a cell's process tells, until its end."""
    assert running.process.stdout is not None
    for line in running.process.stdout:
        # A line that is cut short is the last of a process that was killed.
        with suppress(ValueError):
            vars(running).update(json.loads(line))
    running.told.set_result(None)
