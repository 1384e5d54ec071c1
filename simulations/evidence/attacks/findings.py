"""What an attack found, as text: tables, what the attacker knows, and what follows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.formatting.tables import Table, markdown


@dataclass(frozen=True)
class Findings:
    """One attack's part of the report.

    Attributes
    ----------
    title : str
        The attack.
    about : tuple of str
        Paragraphs: what the attacker knows and does, and how it was measured.
    tables : tuple of Table
        What it got, with the defences off and on.
    means : tuple of str
        Paragraphs: what follows from the tables.
    picture : Path or None
        A picture that was written, and ``caption`` below it.
    """

    title: str
    about: tuple[str, ...]
    tables: tuple[Table, ...]
    means: tuple[str, ...] = ()
    picture: Path | None = None
    caption: str = ""


def findings_page(title: str, opening: Sequence[str], findings: Sequence[Findings]) -> str:
    """Return a page in Markdown."""
    blocks = [f"# {title}", *opening]
    for one in findings:
        blocks += [f"## {one.title}", *one.about]
        blocks += [markdown(table).rstrip() for table in one.tables]
        if one.picture is not None:
            blocks += [f"![{one.caption}]({one.picture.name})", one.caption]
        blocks += one.means
    return "\n\n".join(blocks) + "\n"
