"""The frame of every page: one HTML file with its style inlined, nothing fetched from anywhere."""

from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

HERE = Path(__file__).parent


def fill(template: Path, title: str, **values: Any) -> str:
    """Return a page.

    Parameters
    ----------
    template : Path
        A template that extends ``frame.html``.
    title : str
        The page's heading.
    **values
        What the template shows. Text in it is text: no mark-up of a site's or a file's name
        becomes the page's.
    """
    environment = Environment(
        loader=ChoiceLoader([FileSystemLoader(template.parent), FileSystemLoader(HERE)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(
        title=title,
        style=Markup((HERE / "page.css").read_text()),
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        **values,
    )
