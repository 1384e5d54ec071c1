"""What a person sees while something runs."""

import io
import math
from types import SimpleNamespace

import pytest
from rich.console import Console

from common.console import progress
from common.console.progress import BarListener, LineReport, StepCounter


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_lines_are_rare_and_tell_the_time_left(clock: list[float]) -> None:
    stream = io.StringIO()
    listener = LineReport(stream)
    listener.start("pooled training", 100)
    # A resumed run begins at step 50; two steps a second from there on.
    for number in range(50, 101):
        listener.step(number, 0.5, 320.4)
        clock[0] += 0.5
    clock[0] += 60
    listener.step(100, 0.5, 320.4)
    listener.close()
    assert stream.getvalue().splitlines() == [
        "pooled training",
        "70/100  loss 0.5000  320 images/s  15 s left",
        "90/100  loss 0.5000  320 images/s  5 s left",
        "100/100  loss 0.5000  320 images/s",
    ]


def test_the_bar_fits_sixty_columns() -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=60, force_terminal=True, color_system=None)
    listener = BarListener(console)
    listener.start("single-site training of [b]", 2000)
    listener.step(1234, 0.1234, 1234.0)
    listener.message("round 3: [b] accuracy 0.5")
    listener.close()
    listener.close()
    text = stream.getvalue()
    assert "single-site training of [b]" in text and "round 3: [b] accuracy 0.5" in text
    line = next(part for part in text.split("\n") if "1234/2000" in part)
    assert "loss 0.1234  1234 images/s" in line


def test_a_figure_that_is_not_there_is_not_written() -> None:
    assert progress._figures(math.nan, 12.0) == "12 images/s"
    assert progress._figures(math.nan, math.nan) == ""


def test_counting_starts_a_stretch_at_the_first_call_and_at_another_total() -> None:
    """A synthetic hospital's patients are drawn first, then its images are decoded."""
    told: list[tuple[object, ...]] = []

    class Noted(progress.ProgressListener):
        def start(self, title: str, total_steps: int) -> None:
            told.append((title, total_steps))

        def step(self, done: int, loss: float, images_per_second: float) -> None:
            assert math.isnan(loss) and math.isnan(images_per_second)
            told.append((done,))

    count = StepCounter(Noted(), "preparing")
    assert told == []
    for done, total in ((0, 8), (8, 8), (10, 20)):
        count(done, total)
    assert told == [("preparing", 8), (0,), (8,), ("preparing", 20), (10,)]
