"""``xsite predict`` and ``onboard``: a network on images, and at a hospital without labels."""

from collections.abc import Sequence
from contextlib import closing
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

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

NOT_A_DEVICE = "Not a medical device: for research, not for diagnosis or treatment."


def predict(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name or folder of a run.")],
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Images, or folders of them.")
    ],
    site: Annotated[
        str, typer.Option("--site", help="Site whose scanner made them (its normalisation).")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="CSV", help="Write a table to this file.")
    ] = None,
    weights: Annotated[
        Literal["final", "best"],
        typer.Option("--weights", help="Of the last step, or best by validation."),
    ] = "final",
    runs: options.RunsFolder = None,
    device: options.Device = None,
) -> None:
    """Classify images with a run's network.

    Images are PNG, JPEG, BMP, TIFF or DICOM; a folder stands for the images in it. They are
    decoded as the run decoded its own. An image that cannot be read is named, the others are
    classified all the same, and the command ends with an error.
    """
    from clients.prediction import find_images, predict_images, write_table

    console = Console()
    folder = find_run(run, runs or Path("runs"))
    files = find_images(paths)
    with closing(make_listener()) as listener:
        counter = StepCounter(listener, f"Classifying {len(files)} images")
        found = predict_images(folder, site, files, weights, device or "auto", counter)
    if output is not None:
        of_files = zip(((file,) for file in found.files), found.probabilities, strict=True)
        write_table(output, ["file"], found.classes, of_files)
        say(console, f"{len(found.files)} predictions in {output}")
    else:
        rows = [
            (str(file), *(f"{value:.3f}" for value in row), found.classes[row.argmax()])
            for file, row in zip(found.files, found.probabilities, strict=True)
        ]
        print_table(console, plain_table("", ("File", *found.classes, "Predicted"), rows))
    _end(console, found.failures)


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
    _end(console, found.failures)


def _end(console: Console, failures: Sequence[tuple[Path, str]]) -> None:
    """Name each image that could not be read, and end with an error if there is one."""
    say(console, NOT_A_DEVICE)
    for file, reason in failures:
        say(Console(stderr=True), f"{file}: {reason}", "red")
    if failures:
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
