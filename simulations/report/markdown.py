"""A table as Markdown."""

from collections.abc import Sequence

from common.formatting.tables import Table


def markdown(table: Table, level: int = 3) -> str:
    """Return a table under its caption, groups as rows of their own, its notes below.

    Parameters
    ----------
    table : Table
        Any.
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
        lines += [_line([row.head, *map(_one_line, row.cells)]) for row in group.rows]
    for note in table.notes:
        lines += ["", note]
    return "\n".join(lines) + "\n"


def _one_line(cell: str) -> str:
    text, _, detail = cell.partition("\n")
    return f"{text} {detail}".strip().replace("\n", "; ")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
