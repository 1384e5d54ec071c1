"""A table on a screen that has no room for all of it."""

from collections.abc import Sequence
from dataclasses import replace

from common.formatting.tables import Table


def fitted(table: Table, keep: Sequence[str], width: int) -> Table:
    """Return a table with the columns that a screen has room for.

    Parameters
    ----------
    table : Table
        Any.
    keep : sequence of str
        Columns that are shown on any screen besides the first one; the others as far as the
        screen has room for them, those to the left before those to the right.
    width : int
        Of the screen, in characters.
    """
    rows = [row for group in table.groups for row in group.rows]
    heads = [*table.columns[:1], *(f"  {row.head}" for row in rows)]
    # A column is as wide as its longest line, and rich sets a space at either side of it.
    room = width - 3 - max(map(len, heads))
    widths = []
    for place, column in enumerate(table.columns[1:]):
        lines = [line for row in rows for line in row.cells[place].split("\n")]
        widths.append(2 + max(map(len, (column, *lines))))
    chosen = {place for place, column in enumerate(table.columns[1:]) if column in keep}
    for place in range(len(widths)):
        if sum(widths[other] for other in chosen | {place}) <= room:
            chosen.add(place)
    shown = sorted(chosen)
    groups = [
        replace(
            group,
            rows=[replace(row, cells=[row.cells[place] for place in shown]) for row in group.rows],
        )
        for group in table.groups
    ]
    columns = [table.columns[0], *(table.columns[1 + place] for place in shown)]
    return replace(table, columns=columns, groups=groups)
