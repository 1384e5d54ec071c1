"""The frame of every page: one HTML file with its style inlined, nothing fetched from anywhere."""

from datetime import datetime
from html import escape
from pathlib import Path
from string import Template

from common.formatting.tables import Table

HERE = Path(__file__).parent


def html_page(title: str, note: str, sections: str) -> str:
    """Return a page.

    Parameters
    ----------
    title : str
        The page's heading.
    note : str
        A sentence below it.
    sections : str
        What the page shows, as HTML.
    """
    return Template((HERE / "frame.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        note=escape(note),
        sections=sections,
    )


def table_html(table: Table) -> str:
    """Return a table as HTML, with its caption and notes.

    Parameters
    ----------
    table : Table
        All text in it is text: no mark-up of a site's or a file's name becomes the page's.
    """
    caption = escape(table.caption)
    kind = ' class="dense"' if len(table.columns) > 8 else ""
    kind = ' class="text"' if table.prose else kind
    spans = "".join(
        f'<th colspan="{columns}" scope="colgroup">{escape(heading)}</th>'
        for heading, columns in table.spans
    )
    columns = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    lines = [
        f"<h3>{caption}</h3>",
        f'<div class="box" tabindex="0" role="region" aria-label="{caption}, scrollable">',
        f'<table{kind} aria-label="{caption}">',
        "<thead>",
        *([f"<tr>{spans}</tr>"] if spans else []),
        f"<tr>{columns}</tr></thead>",
    ]
    for group in table.groups:
        lines.append("<tbody>")
        if group.heading:
            lines.append(
                f'<tr class="group"><th scope="rowgroup" colspan="{len(table.columns)}">'
                f"<span>{escape(group.heading)}</span></th></tr>"
            )
        for row in group.rows:
            swatch = f'<i class="swatch {escape(row.mode)}"></i>' if row.mode else ""
            cells = "".join(map(_cell, row.cells))
            lines.append(f'<tr><th scope="row">{swatch}{escape(row.head)}</th>{cells}</tr>')
        lines.append("</tbody>")
    notes = (f'<p class="note">{escape(note)}</p>' for note in table.notes)
    return "\n".join([*lines, "</table>", "</div>", *notes])


def _cell(cell: str) -> str:
    text, _, detail = cell.partition("\n")
    small = f"<small>{escape(detail)}</small>" if detail else ""
    return f"<td>{escape(text)}{small}</td>"
