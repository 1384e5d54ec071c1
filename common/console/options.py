"""Options that commands of several roles take."""

from pathlib import Path
from typing import Annotated

import typer

from common.errors import RunError

ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="TOML file of keys and values.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="One key, over the file's; repeatable. See xsite config."
    ),
]
RunsFolder = Annotated[
    Path | None, typer.Option("--runs", metavar="DIR", help="Folder of all runs. [default: runs]")
]
Device = Annotated[
    str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:1. [default: auto]")
]


def find_run(named: str, base: Path) -> Path:
    """Return the folder of a run.

    Parameters
    ----------
    named : str
        Its folder, or its name below ``base``.
    base : Path
        The folder of all runs.

    Raises
    ------
    RunError
        If there is neither.
    """
    for path in (Path(named).expanduser(), base / named):
        if (path / "config.toml").is_file():
            return path.absolute()
    raise RunError(f"There is no run '{named}', neither as a folder nor by that name in {base}.")
