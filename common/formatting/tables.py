"""A table as text in rows and columns, and its writer for a terminal.

Its writers for a Markdown file and for a page are in :mod:`simulations.report.markdown` and
:func:`common.formatting.page.table_html`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table as TerminalTable
from rich.text import Text


@dataclass(frozen=True)
class Row:
    """One row; ``mode`` gives its head the colour of a training mode.

    The first line of a cell is its text; further lines stand small below it.
    """

    head: str
    cells: Sequence[str]
    mode: str = ""


@dataclass(frozen=True)
class Group:
    """Rows under a common heading ('' for none)."""

    heading: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class Table:
    """A table: what it shows, its columns (the first one is of the rows' heads), its rows.

    ``spans`` are headings above the columns, each with the number of columns it is of. The first
    column and the last of one that is ``prose`` hold text to be read, not figures.
    """

    caption: str
    columns: Sequence[str]
    groups: Sequence[Group]
    notes: Sequence[str] = ()
    spans: Sequence[tuple[str, int]] = ()
    prose: bool = False


def plain_table(
    caption: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    notes: Sequence[str] = (),
    prose: bool = False,
) -> Table:
    """Return a table without groups; the first cell of a row is its head."""
    made = [Row(head, cells) for head, *cells in rows]
    return Table(caption, columns, [Group("", made)], notes, prose=prose)


def print_table(console: Console, table: Table) -> None:
    """Print a table on a terminal: text to the left, figures to the right, no notes.

    A narrow screen has folded cells; :func:`simulations.report.terminal.fitted` leaves out columns.
    """
    grouped = any(group.heading for group in table.groups)
    indent = "  " if grouped else ""
    widest = max((len(row.head) for group in table.groups for row in group.rows), default=0)
    made = TerminalTable(
        title=table.caption, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0)
    )
    # A group's heading may be folded, such as the long name of a site; a row's head is not.
    made.add_column(
        table.columns[0], overflow="fold", min_width=len(indent) + widest if grouped else None
    )
    for column in table.columns[1:]:
        made.add_column(column, justify="right", overflow="fold", no_wrap=grouped)
    for group in table.groups:
        if group.heading:
            made.add_row(Text(group.heading, style="bold"))
        for row in group.rows:
            made.add_row(Text(f"{indent}{row.head}"), *map(Text, row.cells))
        made.add_section()
    console.print(made)
