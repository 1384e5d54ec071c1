"""A page of figures from a template: tables, drawings and what to keep in mind."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from common.formatting.page import page, table_html
from common.formatting.tables import Table

NOTE = (
    "Not a medical device: figures of a research comparison, no basis for the diagnosis of a "
    "patient."
)


def fill(template: Path, title: str, **values: Any) -> str:
    """Return a page.

    Parameters
    ----------
    template : Path
        Of the page's sections.
    title : str
        The page's heading.
    **values
        What the template shows. Text in it is text: no mark-up of a site's or a file's name
        becomes the page's.
    """
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["table"] = _table
    return page(title, NOTE, environment.get_template(template.name).render(values))


def _table(table: Table) -> Markup:
    return Markup(table_html(table))
