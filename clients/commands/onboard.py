"""``xsite onboard``: a run's network at a hospital that it has never seen, without labels."""

from contextlib import closing
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from clients.commands.predict import NOT_A_DEVICE
from common.config.sites import parse_site
from common.console import options
from common.console.options import find_run
from common.console.progress import StepCounter, make_listener
from common.console.text import number, say
from common.errors import ConfigError, RunError
from common.formatting.tables import plain_table, print_table
from common.tasks.figures import tabled

if TYPE_CHECKING:
    from clients.onboarding import Onboarded


def onboard(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name or folder of a completed run.")],
    site: Annotated[
        str,
        typer.Option("--site", metavar="NAME=DIR", help="A name for the new site, and its images."),
    ],
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="With --site NAME: the folder that holds NAME."),
    ] = None,
    adaptation: Annotated[
        Literal["re-estimated", "averaged", "nearest"],
        typer.Option("--adaptation", help="What the site keeps."),
    ] = "re-estimated",
    evaluate: Annotated[
        bool,
        typer.Option("--evaluate", help="Measure, with the class folders' names as labels."),
    ] = False,
    runs: options.RunsFolder = None,
    device: options.Device = None,
) -> None:
    """Take in a hospital that a pooled or federated run has never seen and that has no labels.

    Its normalisation is estimated from its images, and held against three simpler choices. It
    needs some hundred images, of patients as they come: not of one class alone. They are PNG,
    JPEG, BMP, TIFF or DICOM at any depth; no label is read, unless --evaluate asks for figures.

    The site's normalisation, its predictions and the figures go to onboarded/NAME in the run's
    folder, and xsite predict RUN --site NAME uses them from then on.
    """
    from clients.onboarding import onboard as take_in

    found_run = find_run(run, runs or Path("runs"))
    name, folder = _name_and_folder(site, data)
    with closing(make_listener()) as listener:
        counter = StepCounter(listener, f"reading the images of {name}")
        found = take_in(found_run, name, folder, adaptation, evaluate, device or "auto", counter)
    console = Console()
    _print_table(console, found)
    for sentence in found.advice:
        say(console, f"- {sentence}")
    say(console, f"Kept for {name}: '{found.adaptation}', in {found.folder}")
    say(console, f"Use it: xsite predict {run} --site {name} PATH...")
    say(console, NOT_A_DEVICE)
    complaints = Console(stderr=True)
    for file, reason in found.failures:
        say(complaints, f"{file}: {reason}", "red")
    if found.failures:
        raise typer.Exit(1)


def _name_and_folder(site: str, data: Path | None) -> tuple[str, Path]:

    entry = parse_site(site)
    if bool(entry.folder) == (data is not None):
        raise ConfigError(
            f"--site is '{site}'; give --site name=folder, or --site name with --data and the "
            "folder that holds it."
        )
    folder = (data / entry.name if data else Path(entry.folder)).expanduser().absolute()
    if not folder.is_dir():
        raise RunError(f"There is no folder {folder} of images for the site '{entry.name}'.")
    return entry.name, folder


def _print_table(console: Console, found: "Onboarded") -> None:
    from clients.adapt.adapt import LABELS

    headings = ["Normalisation", *(f"Called {label}" for label in found.classes), "Confidence"]
    measured = tabled(len(found.classes)) if found.figures else ()
    rows = []
    for adaptation, share in found.shares.items():
        row = [LABELS[adaptation], *(f"{part:.1%}" for part in share)]
        row.append(f"{found.probabilities[adaptation].max(axis=1).mean():.3f}")
        values = [found.figures[adaptation][figure.name] for figure in measured]
        rows.append([*row, *(number(None if isnan(value) else value) for value in values)])
    print_table(
        console,
        plain_table(
            f"{len(found.files)} images, {found.images} of them adapted to",
            [*headings, *(figure.short for figure in measured)],
            rows,
        ),
    )
