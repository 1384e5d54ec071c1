"""A report as a page of sections, for a reader's browser and as Markdown; nothing is fetched."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from common.formatting.page import html_page, table_html
from common.formatting.tables import Table, markdown
from simulations.report.pictures import Picture

NOTE = (
    "Not a medical device: figures of a research comparison, no basis for the diagnosis of a "
    "patient."
)


@dataclass(frozen=True)
class Section:
    """A part of a report under a heading.

    Attributes
    ----------
    heading : str
        Unique in the report.
    tables : tuple of Table
        What it holds.
    pictures : tuple of Picture
        Below them; ``wide`` ones get a line each.
    folded : tuple of Table
        What is shown where it is asked for, and not in Markdown.
    text, note : str
        Above all that, and below it.
    """

    heading: str
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    wide: bool = False
    folded: tuple[Table, ...] = ()
    text: str = ""
    note: str = ""


@dataclass(frozen=True)
class Card:
    """One mode's result: its AUC, and how far that is from the reference."""

    mode: str
    label: str
    value: str
    text: str


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes
    ----------
    title : str
        Its heading.
    lead : str
        The result in a sentence or two.
    cards : tuple of Card
        The result by mode.
    leaks : bool
        Whether patients are, or may be, in both training and test; ``leakage`` says of every site.
    leakage, warnings : tuple of str
        What keeps the figures from being taken at face value.
    facts : tuple of (str, str)
        What was compared, as (what, answer).
    sections : tuple of Section
        All else.
    """

    title: str
    lead: str
    cards: tuple[Card, ...]
    leaks: bool
    leakage: tuple[str, ...]
    warnings: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]


def to_html(page: Page) -> str:
    """Return a report as one HTML file; no text in it becomes mark-up."""
    sections = [replace(one, tables=_without_repeats(one.tables)) for one in page.sections]
    values = vars(page) | {"sections": sections}
    return _fill(Path(__file__).parent / "page.html", **values)


def to_markdown(page: Page) -> str:
    """Return a report's text and tables as Markdown."""
    lines = [f"# {page.title}", "", page.lead, ""]
    lines += [*(f"- {what}: {answer}" for what, answer in page.facts), ""]
    lines += [*(f"- {sentence}" for sentence in (*page.leakage, *page.warnings)), ""]
    for section in page.sections:
        if section.tables:
            tables = _without_repeats(section.tables)
            lines += [f"## {section.heading}", "", *(markdown(table) for table in tables)]
    return "\n".join(lines)


def _without_repeats(shown: Sequence[Table]) -> tuple[Table, ...]:
    """Leave out of each table the notes that one above it in its section has."""
    said: set[str] = set()
    kept = []
    for table in shown:
        kept.append(replace(table, notes=tuple(note for note in table.notes if note not in said)))
        said.update(table.notes)
    return tuple(kept)


def _fill(template: Path, title: str, **values: Any) -> str:
    """Fill in a template of sections; no mark-up of a site's or a file's name becomes its own."""
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["table"] = _table
    return html_page(title, NOTE, environment.get_template(template.name).render(values))


def _table(table: Table) -> Markup:
    return Markup(table_html(table))
