"""``xsite synth``: synthetic hospitals as ordinary site folders."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from common.console.progress import make_listener
from common.console.text import say
from simulations.synth import hospital_names, write_hospitals


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
    with closing(make_listener()) as listener:
        names = hospital_names(sites)
        write_hospitals(folder.expanduser().absolute(), names, patients, seed, size, listener)
    console = Console()
    say(console, f"{len(names)} hospitals in {folder}: {', '.join(names)}")
    say(console, f"Train on them: xsite train pooled --data {folder}")
