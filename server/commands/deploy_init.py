"""``xsite deploy init``: what a consortium needs to start."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from common.console.text import say
from server.deployment.consortium import read_consortium
from server.deployment.folders import COORDINATOR, write_folders


def init(
    consortium: Annotated[
        Path, typer.Argument(metavar="TOML", help="Who takes part: configs/consortium.toml.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="DIR", help="A new folder. [default: ./<name>]"),
    ] = None,
) -> None:
    """Make certificates, keys, start scripts, systemd units and a checklist for every role.

    One folder is the coordinator's, the others are the hospitals'. There are private keys in them,
    which their owner alone can read; each CHECKLIST.md says what to do with its folder.
    """
    plan = read_consortium(consortium)
    folder = write_folders(plan, (output or Path(plan.name)).expanduser().absolute())
    console = Console()
    for role in (COORDINATOR, *plan.site_names):
        say(console, f"{folder / role}: begin with its CHECKLIST.md")
