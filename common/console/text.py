"""Text on the terminal, written as it is."""

import io
import sys

from rich.console import Console


def print_any_text() -> None:
    """Print '?' for a character that the terminal's encoding lacks, instead of ending the command.

    A run that is complete would else end in an error over a dash in its table of figures.
    Standard error has Python's own way of it.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def number(value: float | None, digits: int = 3) -> str:
    """Write a figure, a dash where it is not defined."""
    return "–" if value is None else f"{value:.{digits}f}"


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print a sentence as it is: names of files may look like markup."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
