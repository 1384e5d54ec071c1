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


class StudyProgress:
    """On a terminal a bar for the study and one for each cell that is computed; elsewhere lines.

    Parameters
    ----------
    console : Console, optional
        Where they go; standard output without it.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            expand=True,
        )
        self._all = self._bars.add_task("cells", note="")
        self._tasks: dict[Cell, TaskID] = {}
        self._latest = time.monotonic()

    def message(self, text: str) -> None:
        """Say a sentence, above the bars."""
        wrap = not self._console.is_terminal
        self._console.print(text, markup=False, highlight=False, soft_wrap=wrap)

    def update(self, done: int, total: int, running: Sequence[Running], left: float) -> None:
        """Tell how far the study is; in lines, once a minute."""
        remaining = f"about {duration(left, estimated=True)} left" if left >= 1 else ""
        if self._console.is_terminal:
            self._bars.update(self._all, completed=done, total=total, note=remaining)
            self._bars.start()
            self._move_bars(running)
        elif time.monotonic() - self._latest >= SECONDS_BETWEEN_LINES:
            self._latest = time.monotonic()
            shares = [f" ({100 * one.done // one.total} %)" if one.total else "" for one in running]
            now = "; ".join(
                f"{one.cell}{share}" for one, share in zip(running, shares, strict=True)
            )
            parts = (f"{done} of {total} cells done", remaining)
            self.message(f"{', '.join(filter(None, parts))}; computing: {now}")

    def _move_bars(self, running: Sequence[Running]) -> None:
        """Move the bars of cells; one that is no longer computed loses its own."""
        for cell in self._tasks.keys() - {one.cell for one in running}:
            self._bars.remove_task(self._tasks.pop(cell))
        for one in running:
            if one.cell not in self._tasks:
                # Until its processes have begun it does not say how many steps it takes.
                self._tasks[one.cell] = self._bars.add_task(one.cell.name, total=None, note="")
            steps = one.total or None
            self._bars.update(self._tasks[one.cell], completed=one.done, total=steps)

    def close(self) -> None:
        """Give the terminal back."""
        if self._console.is_terminal:
            self._bars.stop()


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
