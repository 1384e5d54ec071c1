"""``xsite check-site``: what a hospital can learn of its own folder before it joins.

Nothing leaves the machine.
"""

import re
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from clients.commands.check_page import render
from clients.site_check import SiteCheck, check_folder
from common.config.load import load_config, parse_override
from common.config.schema import Config
from common.console import options
from common.console.progress import make_listener
from common.console.text import say
from common.data.open import home_folder
from common.errors import ConfigError, RunError
from common.files import write_atomic
from common.formatting.tables import plain_table, print_table


def check_site(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The site's folder.")],
    name: Annotated[
        str | None, typer.Option("--name", help="The site's name. [default: the folder's]")
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--page",
            metavar="HTML",
            help="Write the page here. [default: checks/NAME.html in xsite's home]",
        ),
    ] = None,
    no_page: Annotated[bool, typer.Option("--no-page", help="Write no page.")] = False,
    config: options.ConfigFile = None,
    set_: options.Settings = None,
) -> None:
    """Say whether a site's folder is fit for training: exit code 0 if it is, 1 if not.

    The folder holds one folder a class (the key 'classes' names them) and, for folds that keep a
    patient together, metadata.csv with the columns file_name and patient_id.

    A page shows the images as the network gets them, odd ones first. It holds patients' images, so
    only you may read it, and it must not leave the hospital.
    """
    place = folder.expanduser().absolute()
    # Any folder can be looked at, also one whose name could not be a site's.
    site = name or re.sub(r"[^a-z0-9_-]+", "-", place.name.lower()).strip("-_") or "site"
    if "," in str(place):
        raise ConfigError(f"The folder {place} has a comma in its name; rename it or link to it.")
    asked = dict(parse_override(text) for text in set_ or ()) | {"sites": f"{site}={place}"}
    settings = load_config(config, asked)
    with closing(make_listener()) as listener:
        found = check_folder(site, place, settings, listener)
    console = Console()
    _print_check(console, site, place, found)
    if not no_page:
        _write_page(console, page, site, found, settings)
    say(console, "Fit for training: yes" if found.fit else "Fit for training: no")
    if not found.fit:
        raise typer.Exit(1)


def _write_page(
    console: Console, asked: Path | None, site: str, found: SiteCheck, config: Config
) -> None:
    page = asked or home_folder() / "checks" / f"{site}.html"
    try:
        write_atomic(page, render(site, found, config).encode(), mode=0o600)
    except RunError as error:
        # A site can be checked where nothing may be written.
        if asked is not None:
            raise
        say(console, f"No page: {error}")
    else:
        say(console, f"Page: {page}, for this hospital's eyes only")


def _print_check(console: Console, name: str, root: Path, check: SiteCheck) -> None:
    """Print what was found in a site's folder, and whether it is fit for training."""
    say(console, f"Site '{name}': {root}")
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for row in check.facts.items():
        facts.add_row(*row)
    console.print(facts, markup=False, highlight=False)
    if check.folds:
        folds = [(str(n), str(train), str(test)) for n, (train, test) in enumerate(check.folds)]
        print_table(console, plain_table("", ("Fold", "Training images", "Test images"), folds))
    if check.leakage:
        say(console, check.leakage)
    for warning in check.warnings:
        say(console, f"Warning: {warning}")
    for problem in check.problems:
        say(console, f"Problem: {problem}", "red")
