"""Text on the terminal, written as it is."""

from rich.console import Console


def number(value: float | None, digits: int = 3) -> str:
    """Write a figure, a dash where it is not defined."""
    return "–" if value is None else f"{value:.{digits}f}"


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print a sentence as it is: names of files may look like markup."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
