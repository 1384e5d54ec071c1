"""What a person sees while something long runs: a bar on a terminal, plain lines elsewhere."""

import math
import sys
import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from common.formatting.numbers import duration

SECONDS_BETWEEN_LINES = 10.0


class ProgressListener:
    """Takes what a run tells while it goes on; this one keeps it to itself.

    ``start`` opens a stretch of ``total_steps`` (it closes the one before), ``step`` says how much
    of it is done; ``message`` says a sentence at any time; ``close`` ends the last stretch.
    """

    def start(self, title: str, total_steps: int) -> None:
        """Begin a stretch of known length."""

    def step(self, done: int, loss: float, images_per_second: float) -> None:
        """Say that ``done`` steps of the stretch are done; NaN leaves a figure out."""

    def message(self, text: str) -> None:
        """Say a sentence."""

    def close(self) -> None:
        """End the stretch; may be called more than once."""


class BarListener(ProgressListener):
    """A progress bar with loss, speed and time left, which fits a terminal of 60 columns.

    Parameters
    ----------
    console : Console
        Where it is drawn.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None

    def start(self, title: str, total_steps: int) -> None:
        """Write the title on a line of its own and draw an empty bar below it."""
        self.close()
        self.message(title)
        self._progress = Progress(
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            expand=True,
        )
        self._progress.add_task("", total=total_steps, figures="")
        self._progress.start()

    def step(self, done: int, loss: float, images_per_second: float) -> None:
        """Move the bar."""
        if self._progress is not None:
            task = self._progress.task_ids[0]
            figures = _figures(loss, images_per_second)
            self._progress.update(task, completed=done, figures=figures)

    def message(self, text: str) -> None:
        """Write a sentence above the bar."""
        self._console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """Leave the bar as it stands and give the terminal back."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


class LineReport(ProgressListener):
    """Plain lines for a log file or a pipe, at most one in ten seconds.

    Parameters
    ----------
    stream : TextIO
        Where they go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._total = 0
        self._began: tuple[float, int] | None = None
        self._last_line = 0.0
        self._told = 0

    def start(self, title: str, total_steps: int) -> None:
        """Write the title."""
        self._total, self._began, self._last_line = total_steps, None, time.monotonic()
        self._told = 0
        self.message(title)

    def step(self, done: int, loss: float, images_per_second: float) -> None:
        """Write a line if the last one is long enough ago, and once after the last step."""
        now = time.monotonic()
        if self._began is None:
            # What a resumed run did earlier says nothing about how fast this one is.
            self._began = (now, done)
        ended = done >= self._total > self._told
        if now - self._last_line < SECONDS_BETWEEN_LINES and not ended:
            return
        if done == self._told:
            return
        self._last_line, self._told = now, done
        began, first = self._began
        parts = [f"{done}/{self._total}", _figures(loss, images_per_second)]
        if first < done < self._total:
            left = (now - began) / (done - first) * (self._total - done)
            parts.append(f"{duration(left, estimated=True)} left")
        self.message("  ".join(part for part in parts if part))

    def message(self, text: str) -> None:
        """Write a sentence on a line of its own."""
        print(text, file=self._stream, flush=True)


class StepCounter:
    """Turns (done, total) of anything but training into a report's stretch.

    Parameters
    ----------
    listener : ProgressListener
        Told, from the first call on.
    title : str
        Title of the stretch.
    """

    def __init__(self, listener: ProgressListener, title: str) -> None:
        self._report, self._title = listener, title
        self._total = 0

    def __call__(self, done: int, total: int) -> None:
        """Say that ``done`` of ``total`` are done; another total begins another stretch."""
        if self._total != total:
            self._report.start(self._title, total)
            self._total = total
        self._report.step(done, math.nan, math.nan)


def make_listener() -> ProgressListener:
    """Return a bar where standard output is a terminal, plain lines where it is not."""
    if sys.stdout.isatty():
        return BarListener(Console())
    return LineReport(sys.stdout)


def _figures(loss: float, images_per_second: float) -> str:
    parts = []
    if math.isfinite(loss):
        parts.append(f"loss {loss:.4f}")
    if math.isfinite(images_per_second):
        parts.append(f"{images_per_second:.0f} images/s")
    return "  ".join(parts)
