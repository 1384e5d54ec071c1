"""Processes that are started again when they end, as systemd does with units."""

import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import RunError
from simulations.runtime.processes import ProcessTree, last_lines, start, undisturbed

SETTLED_SECONDS = 30.0
MOST_STARTS = 30
"""Of one unit in a run: who cannot keep a process alive for a whole run has to be told."""


@dataclass
class SupervisedProcess:
    """A process and its successors.

    Attributes
    ----------
    name : str
        For a sentence.
    script : Path
        What starts it.
    folder : Path
        Where it starts.
    environment : mapping
        All its environment variables.
    log : Path
        Takes its output.
    pause : float
        Seconds between an end and the next start.
    """

    name: str
    script: Path
    folder: Path
    environment: Mapping[str, str]
    log: Path
    pause: float
    process: "subprocess.Popen[bytes]" = field(init=False)
    trees: list[ProcessTree] = field(default_factory=list)
    due: float | None = None
    started: float = 0.0

    def __post_init__(self) -> None:
        """Start it."""
        self._start()

    def keep(self) -> None:
        """Start it again if it has ended and its pause is over.

        Raises
        ------
        RunError
            If it ended by itself as soon as it was started first, since it would again; or if it
            was started too often.
        """
        for tree in self.trees:
            # What outlives its parent must be known to be ended.
            tree.update()
        code = self.process.poll()
        if code is None:
            return
        early = len(self.trees) == 1 and time.monotonic() - self.started < SETTLED_SECONDS
        if early and code >= 0:
            raise RunError(f"{self.name}'s process ended at once. {last_lines(self.log)}")
        if self.due is None:
            self.due = time.monotonic() + self.pause
        elif time.monotonic() >= self.due:
            if len(self.trees) == MOST_STARTS:
                raise RunError(
                    f"{self.name}'s process was started {MOST_STARTS} times, and ended again. "
                    f"{last_lines(self.log)}"
                )
            self._start()

    def take_down(self) -> None:
        """End it, with all that ever came of it."""
        for tree in self.trees:
            tree.take_down()

    def _start(self) -> None:
        with undisturbed():
            self.process = start([str(self.script)], self.folder, self.environment, self.log)
            self.trees.append(ProcessTree(self.process))
        self.due, self.started = None, time.monotonic()
