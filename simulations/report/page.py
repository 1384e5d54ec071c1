"""A report as a page of sections, for a reader's browser and as Markdown; nothing is fetched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from common.formatting.page import html_page, table_html
from common.formatting.tables import Table
from simulations.report.markdown import markdown
from simulations.report.pictures import Picture

NOTE = (
    "Not a medical device: figures of a research comparison, no basis for the diagnosis of a "
    "patient."
)


@dataclass(frozen=True)
class Section:
    """A part of a report under a heading."""

    heading: str
    """Unique in the report."""
    tables: Sequence[Table | None] = ()
    """What it holds; None where there is nothing to tell."""
    pictures: Sequence[Picture] = ()
    """Below them; ``wide`` ones get a line each."""
    wide: bool = False
    folded: Sequence[Table] = ()
    """What is shown where it is asked for, and not in Markdown."""
    text: str = ""
    note: str = ""
    """Above all that, and below it."""

    @property
    def shown(self) -> list[Table]:
        """The tables that are there, without the notes that one above has."""
        said: set[str] = set()
        kept = []
        for table in filter(None, self.tables):
            kept.append(replace(table, notes=[one for one in table.notes if one not in said]))
            said.update(table.notes)
        return kept


def to_html(page: Mapping[str, Any]) -> str:
    """Return a report as one HTML file; no mark-up of a site's or a file's name becomes its own.

    Parameters
    ----------
    page : mapping of str to object
        What the template ``page.html`` asks for; :func:`simulations.report.sections.make_page`.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["html"] = lambda table: Markup(table_html(table))
    return html_page(page["title"], NOTE, environment.get_template("page.html").render(page))


def to_markdown(page: Mapping[str, Any]) -> str:
    """Return a report's text and tables as Markdown; parameters as for :func:`to_html`."""
    lines = [f"# {page['title']}", "", page["lead"], ""]
    lines += [*(f"- {what}: {answer}" for what, answer in page["facts"]), ""]
    lines += [*(f"- {sentence}" for sentence in (*page["leakage"], *page["warnings"])), ""]
    for section in page["sections"]:
        if section.shown:
            lines += [f"## {section.heading}", "", *map(markdown, section.shown)]
    return "\n".join(lines)
