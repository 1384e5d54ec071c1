"""Text on the terminal, written as it is."""

import io
import os
import sys

from rich.console import Console


def settle_encodings() -> None:
    """Take names of files as UTF-8 and print any text, whatever this machine's locale.

    Where Python would read names otherwise, the command starts anew in its UTF-8 mode, before it
    has done anything. Of what the terminal's encoding lacks, standard output shows a '?': a run
    that is complete would else end in an error over a dash in its table. Standard error has
    Python's own way of it.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.environ.setdefault("PYTHONIOENCODING", sys.stdout.encoding)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def number(value: float | None, digits: int = 3) -> str:
    """Write a figure, a dash where it is not defined."""
    return "–" if value is None else f"{value:.{digits}f}"


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print a sentence as it is: names of files may look like markup."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
