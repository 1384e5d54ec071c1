"""A table as text in rows and columns, for a page, a Markdown file or a terminal."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """One cell: its text, and what stands small below it, on a line or several."""

    text: str
    detail: str = ""


@dataclass(frozen=True)
class Row:
    """One row; ``mode`` gives its head the mode's colour."""

    head: str
    cells: tuple[Cell, ...]
    mode: str = ""


@dataclass(frozen=True)
class Group:
    """Rows under a common heading ('' for none)."""

    heading: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Table:
    """A table: what it shows, its columns (the first one is of the rows' heads), its rows.

    ``spans`` are headings above the columns, each with the number of columns it is of.
    """

    caption: str
    columns: tuple[str, ...]
    groups: tuple[Group, ...]
    notes: tuple[str, ...] = ()
    spans: tuple[tuple[str, int], ...] = ()


def markdown(table: Table, level: int = 3) -> str:
    """Return a table under its caption, groups as rows of their own, its notes below.

    Parameters
    ----------
    table : Table
        Any of a report's.
    level : int
        Of the caption's heading.
    """
    lines = [f"{'#' * level} {table.caption}", ""]
    above = [heading for heading, columns in table.spans for _ in range(columns)]
    above = [f"{heading}: " if heading else "" for heading in above] or [""] * len(table.columns)
    lines.append(_line([a + column for a, column in zip(above, table.columns, strict=True)]))
    lines.append("|---" * len(table.columns) + "|")
    for group in table.groups:
        if group.heading:
            lines.append(_line([f"**{group.heading}**", *[""] * (len(table.columns) - 1)]))
        lines += [_line([row.head, *map(_text, row.cells)]) for row in group.rows]
    for note in table.notes:
        lines += ["", note]
    return "\n".join(lines) + "\n"


def _text(cell: Cell) -> str:
    return f"{cell.text} {cell.detail}".strip().replace("\n", "; ")


def _line(cells: "list[str] | tuple[str, ...]") -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
