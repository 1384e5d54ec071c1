"""What a person sees of a study: how many cells are done, which are computed, the time left."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from common.formatting.numbers import duration
from simulations.study.cells import Cell
from simulations.study.pool import Running

SECONDS_BETWEEN_LINES = 60.0


class LineProgress:
    """Plain lines: a sentence for what happens, and a line a minute on how far all is.

    Parameters
    ----------
    console : Console
        Where they go.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._latest = time.monotonic()

    def message(self, text: str) -> None:
        """Say a sentence."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def update(self, done: int, total: int, running: Sequence[Running], left: float) -> None:
        """Tell how far the study is, once a minute."""
        if time.monotonic() - self._latest < SECONDS_BETWEEN_LINES:
            return
        self._latest = time.monotonic()
        shares = [f" ({100 * one.done // one.total} %)" if one.total else "" for one in running]
        now = "; ".join(f"{one.cell}{share}" for one, share in zip(running, shares, strict=True))
        self.message(f"{done} of {total} cells done{_left(left)}; computing: {now}")

    def close(self) -> None:
        """Do nothing: every line is written already."""


class BarProgress:
    """A bar for the study and one for each cell that is computed.

    Parameters
    ----------
    console : Console
        A terminal.
    """

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            expand=True,
        )
        self._all = self._progress.add_task("cells", note="")
        self._tasks: dict[Cell, TaskID] = {}

    def message(self, text: str) -> None:
        """Say a sentence above the bars."""
        self._progress.console.print(text, markup=False, highlight=False)

    def update(self, done: int, total: int, running: Sequence[Running], left: float) -> None:
        """Move the bars; a cell that is no longer computed loses its own."""
        self._progress.start()
        note = _left(left).removeprefix(", ")
        self._progress.update(self._all, completed=done, total=total, note=note)
        for cell in self._tasks.keys() - {one.cell for one in running}:
            self._progress.remove_task(self._tasks.pop(cell))
        for one in running:
            if one.cell not in self._tasks:
                # Until its processes have begun it does not say how many steps it takes.
                task = self._progress.add_task(one.cell.name, total=None, note="")
                self._tasks[one.cell] = task
            steps = one.total or None
            self._progress.update(self._tasks[one.cell], completed=one.done, total=steps)

    def close(self) -> None:
        """Give the terminal back."""
        self._progress.stop()


StudyProgress = LineProgress | BarProgress


def make_progress() -> StudyProgress:
    """Return bars where standard output is a terminal, plain lines where it is not."""
    console = Console()
    return BarProgress(console) if console.is_terminal else LineProgress(console)


def time_left(
    ahead: Iterable[Cell],
    running: Sequence[Running],
    done: Mapping[Cell, Mapping[str, Any]],
    slots: int,
) -> float:
    """Estimate the seconds until a study is done; NaN before there is anything to go by.

    Parameters
    ----------
    ahead : iterable of Cell
        Cells that have not begun.
    running : sequence of Running
        Cells that are being computed.
    done : mapping of Cell to mapping
        Records of the cells that are done; ``seconds`` is None where it is not known.
    slots : int
        How many are computed at once.
    """
    known = {cell: record["seconds"] for cell, record in done.items() if record["seconds"]}
    if not known:
        return math.nan
    rest = sum(_expected(cell, known) for cell in ahead)
    rest += sum(max(0.0, _expected(one.cell, known) - one.seconds) for one in running)
    return rest / slots


def _expected(cell: Cell, known: Mapping[Cell, float]) -> float:
    """Return how long a cell takes: as others of its method, else of its mode, else as any."""
    alike = [s for done, s in known.items() if done.method.name == cell.method.name]
    alike = alike or [s for done, s in known.items() if done.method.mode == cell.method.mode]
    alike = alike or list(known.values())
    return sum(alike) / len(alike)


def _left(seconds: float) -> str:
    return f", about {duration(seconds, estimated=True)} left" if seconds >= 1 else ""
