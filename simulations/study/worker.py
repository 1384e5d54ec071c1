"""One cell of a study in a process of its own; what it tells goes to its parent, line by line.

A cell that runs out of memory, or that a library ends, takes no other cell with it. The parent
gives the order on standard input and reads JSON lines on standard output, whose keys are fields of
:class:`simulations.study.pool.Running`::

    {"done": 0, "total": 880}   {"done": 12}
    {"outcome": "done"}   {"outcome": "stopped"}   {"outcome": "failed", "reason": "…"}
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from common.config.load import make_config
from common.console.progress import ProgressListener
from common.console.text import settle_encodings
from common.errors import XsiteError


class _StepLines(ProgressListener):
    """Writes how many steps are done as JSON lines."""

    def __init__(self, channel: TextIO) -> None:
        self._channel = channel
        self._done = 0

    def start(self, title: str, total_steps: int) -> None:
        """Tell of a stretch."""
        self._done = 0
        self.write(done=0, total=total_steps)

    def step(self, done: int, loss: float, images_per_second: float) -> None:
        """Tell how many steps are done, if it is news."""
        if done != self._done:
            self._done = done
            self.write(done=done)

    def write(self, **told: int | str) -> None:
        """Write one line."""
        print(json.dumps(told), file=self._channel, flush=True)


def train(order: Mapping[str, Any], listener: ProgressListener) -> None:
    """Train a cell as its parent ordered."""
    config, base, mode = make_config(order["config"]), Path(order["base"]), order["mode"]
    if mode == "federated":
        from simulations.federated import backend_named, train_federated

        train_federated(config, base, listener, backend=backend_named(order["backend"]))
    else:
        from simulations.local import train_pooled, train_single

        (train_pooled if mode == "pooled" else train_single)(config, base, listener)


def main() -> None:
    """Do what standard input says and tell how it ended."""
    # Whatever else writes to standard output, such as a library, must not come between.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    settle_encodings()
    order = json.load(sys.stdin)
    if order["cpus"]:
        # Before PyTorch counts them.
        os.sched_setaffinity(0, order["cpus"])
    report = _StepLines(channel)
    try:
        train(order, report)
    except KeyboardInterrupt:
        report.write(outcome="stopped")
    except XsiteError as error:
        report.write(outcome="failed", reason=str(error))
    except Exception as error:
        # The traceback goes to the cell's output, which the parent keeps.
        sys.excepthook(*sys.exc_info())
        report.write(outcome="failed", reason=f"{type(error).__name__}: {error}")
    else:
        report.write(outcome="done")


if __name__ == "__main__":
    main()
