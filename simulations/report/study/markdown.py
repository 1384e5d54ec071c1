"""Tables as Markdown."""

from simulations.report.tables import Cell, Table


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
