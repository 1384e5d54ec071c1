"""``xsite check-site``: whether a site's folder is fit for training."""

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from clients.site_check import check_site as check
from clients.site_check import print_check
from common.config.load import load_config, parse_override
from common.console import options
from common.errors import ConfigError


def check_site(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The site's folder.")],
    name: Annotated[
        str | None, typer.Option("--name", help="The site's name. [default: the folder's]")
    ] = None,
    config: options.ConfigFile = None,
    set_: options.Settings = None,
) -> None:
    """Say whether a site's folder is fit for training: exit code 0 if it is, 1 if not.

    The folder holds one folder a class (the key 'classes' names them) and, for folds that keep a
    patient together, metadata.csv with the columns file_name and patient_id.
    """
    place = folder.expanduser().absolute()
    # Any folder can be looked at, also one whose name could not be a site's.
    site = name or re.sub(r"[^a-z0-9_-]+", "-", place.name.lower()).strip("-_") or "site"
    if "," in str(place):
        raise ConfigError(f"The folder {place} has a comma in its name; rename it or link to it.")
    asked = dict(parse_override(text) for text in set_ or ()) | {"sites": f"{site}={place}"}
    found = check(site, place, load_config(config, asked))
    print_check(Console(), site, place, found)
    if not found.fit:
        raise typer.Exit(1)
