"""``xsite check-site`` and ``xsite synth``: the folders that hold a site's images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from common.console import options
from common.console.options import PlainCommand


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("check-site", cls=PlainCommand, short_help="Say whether a site's folder is fit.")(
        check_site
    )
    app.command("synth", cls=PlainCommand, short_help="Write synthetic hospitals.")(synth)


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
    from rich.console import Console

    from clients.site_check import check_site as check
    from common.console.tables import print_check

    place = folder.expanduser().absolute()
    # Any folder can be looked at, also one whose name could not be a site's.
    site = name or re.sub(r"[^a-z0-9_-]+", "-", place.name.lower()).strip("-_") or "site"
    asked = options.CliOptions(config, set_, site_folders=[f"{site}={place}"])
    found = check(site, place, options.gather_config(asked))
    print_check(Console(), found)
    if not found.fit:
        raise typer.Exit(1)


def synth(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    sites: Annotated[
        str, typer.Option("--sites", metavar="N|A,B", help="How many hospitals, or their names.")
    ] = "2",
    patients: Annotated[
        int, typer.Option("--patients", metavar="N", help="Patients at each hospital, 8 or more.")
    ] = 64,
    seed: Annotated[
        int, typer.Option("--seed", metavar="S", help="Seed of everything random.")
    ] = 0,
    size: Annotated[
        int, typer.Option("--size", metavar="N", help="Height and width, 64 to 1024 pixels.")
    ] = 256,
) -> None:
    """Write synthetic hospitals: ordinary site folders of chest slices that resemble CT.

    Each hospital has a look of its own (window, noise, sharpness, share of COVID-19). Results on
    these images say nothing about patients.
    """
    from rich.console import Console

    from common.console.progress import make_listener
    from common.console.tables import say
    from simulations.synth import hospital_names, write_hospitals

    listener = make_listener()
    try:
        names = hospital_names(sites)
        write_hospitals(folder.expanduser().absolute(), names, patients, seed, size, listener)
    finally:
        listener.close()
    console = Console()
    say(console, f"{len(names)} hospitals in {folder}: {', '.join(names)}")
    say(console, f"Train on them: xsite train pooled --data {folder}")
