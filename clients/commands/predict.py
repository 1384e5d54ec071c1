"""``xsite predict``: what a run's network says about images."""

from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from common.console import options
from common.console.options import find_run
from common.console.progress import StepCounter, make_listener
from common.console.text import say
from common.formatting.tables import plain_table, print_table

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

    console, complaints = Console(), Console(stderr=True)
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
            (str(file), *(f"{value:.3f}" for value in row), decision)
            for file, row, decision in zip(
                found.files, found.probabilities, found.decisions, strict=True
            )
        ]
        print_table(console, plain_table("", ("File", *found.classes, "Predicted"), rows))
    say(console, NOT_A_DEVICE)
    for file, reason in found.failures:
        say(complaints, f"{file}: {reason}", "red")
    if found.failures:
        raise typer.Exit(1)
