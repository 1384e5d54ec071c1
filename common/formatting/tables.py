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


def print_table(console: Console, table: Table, keep: Sequence[str] = ()) -> None:
    """Print a table on a terminal: text to the left, figures to the right, no notes.

    Parameters
    ----------
    console : Console
        Where to print.
    table : Table
        Any.
    keep : sequence of str
        Columns that are shown on any screen besides the first one; the others as far as the
        screen has room for them, those to the left before those to the right. All columns, and
        folded cells on a narrow screen, where none are named.
    """
    shown = _fitting(table, keep, console.width) if keep else list(range(len(table.columns) - 1))
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
    for place in shown:
        made.add_column(table.columns[1 + place], justify="right", overflow="fold", no_wrap=grouped)
    for group in table.groups:
        if group.heading:
            made.add_row(Text(group.heading, style="bold"))
        for row in group.rows:
            made.add_row(Text(f"{indent}{row.head}"), *(Text(row.cells[place]) for place in shown))
        made.add_section()
    console.print(made)


def _fitting(table: Table, keep: Sequence[str], width: int) -> list[int]:
    """Return the places among the rows' cells of the columns that a screen has room for."""
    rows = [row for group in table.groups for row in group.rows]
    heads = [*table.columns[:1], *(f"  {row.head}" for row in rows)]
    # A column is as wide as its longest line, and rich sets a space at either side of it.
    room = width - 3 - max(map(len, heads))
    widths = []
    for place, column in enumerate(table.columns[1:]):
        lines = [line for row in rows for line in row.cells[place].split("\n")]
        widths.append(2 + max(map(len, (column, *lines))))
    shown = {place for place, column in enumerate(table.columns[1:]) if column in keep}
    for place in range(len(widths)):
        if sum(widths[other] for other in shown | {place}) <= room:
            shown.add(place)
    return sorted(shown)
