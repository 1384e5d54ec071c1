"""Tables on the terminal: what a run came to, what a site's folder holds, what was predicted."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from common.formatting.tables import Table, plain_table, print_table
from common.runs.result import read_result
from common.tasks.figures import AUC_BOUNDS, FIGURES, Figure

KEPT = ("Acc", "AUC", "95 %")
"""Columns of a run's figures that have their place on the narrowest screen."""


def print_result(console: Console, run: Path) -> None:
    """Print a completed run's figures on its test images, and where its files are.

    Parameters
    ----------
    console : Console
        Where to print.
    run : Path
        The run's folder.

    Raises
    ------
    CheckpointError
        If the folder holds no result.
    """
    result = read_result(run)
    last = _figures("Test images, weights of the last step", result.get("metrics", {}))
    print_table(console, last, KEPT)
    best = result.get("best") or {}
    if best:
        print_table(console, _figures("Test images, weights that validation chose", best), KEPT)
    say(console, f"Run folder: {run}")


def _figures(title: str, metrics: Mapping[str, Any]) -> Table:
    tests = {site: subsets.get("test", {}) for site, subsets in metrics.items()}
    # A figure of another number of classes has no column; a run's result does not tell its number.
    shown = [
        figure
        for figure in FIGURES
        if figure.share
        and (
            not figure.classes or any(test.get(figure.name) is not None for test in tests.values())
        )
    ]
    headings = (part for figure in shown for part in _headings(figure))
    rows = []
    for site, test in tests.items():
        cells = (cell for figure in shown for cell in _cells(figure, test))
        rows.append((site, str(test.get("images", "")), *cells))
    return plain_table(title, ("Site", "n", *headings), rows)


def _headings(figure: Figure) -> tuple[str, ...]:
    return (figure.short, "95 %") if figure.name == "auc" else (figure.short,)


def _cells(figure: Figure, test: Mapping[str, Any]) -> list[str]:
    """Write a figure, and the interval of the AUC beside it."""
    cells = [number(test.get(figure.name))]
    if figure.name == "auc":
        low, high = (test.get(bound) for bound in AUC_BOUNDS)
        cells.append("–" if low is None else f"{number(low, 2)}–{number(high, 2)}")
    return cells


def number(value: float | None, digits: int = 3) -> str:
    """Write a figure, a dash where it is not defined."""
    return "–" if value is None else f"{value:.{digits}f}"


def print_rows(
    console: Console, title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Print a table whose first column is text and whose others are figures."""
    print_table(console, plain_table(title, headings, rows))


def say(console: Console, text: str) -> None:
    """Print a sentence as it is: names of files may look like markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
