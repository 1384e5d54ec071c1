"""Tables and sentences on the terminal."""

from collections.abc import Sequence

from rich.console import Console

from common.formatting.tables import plain_table, print_table


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
