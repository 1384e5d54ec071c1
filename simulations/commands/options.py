"""Options of training, and the configuration that they add up to."""

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from common.config.load import load_config, make_config, parse_override
from common.config.schema import Config, Scalar
from common.config.sections import SYNTHETIC
from common.config.sites import parse_site
from common.console.options import (
    ConfigFile,
    Device,
    RunsFolder,
    Settings,
    find_run,
)
from common.errors import ConfigError
from common.runs.result import read_run_config
from simulations.runtime.placement import with_absolute_paths

DataFolder = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Folder that holds one folder a site. Without --sites, all of them take part.",
    ),
]
RunName = Annotated[
    str | None, typer.Option("--name", help="Name of the run's folder. [default: mode and time]")
]
BackendName = Annotated[
    str, typer.Option("--backend", metavar="NAME", help="What runs the sites: ray or in-process.")
]


@dataclass(frozen=True)
class CliOptions:
    """What a person asked for on the command line, before it is a configuration."""

    file: ConfigFile = None
    settings: Settings = None
    data: DataFolder = None
    sites: Annotated[
        str | None, typer.Option("--sites", metavar="A,B", help="Sites by name, in order.")
    ] = None
    site_folders: Annotated[
        list[str] | None,
        typer.Option("--site", metavar="NAME=DIR", help="A site and its folder; repeatable."),
    ] = None
    runs: RunsFolder = None
    name: RunName = None
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="RUN", help="Go on with this run, by its name or folder."),
    ] = None
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="S", help="Seed of everything random.")
    ] = None
    epochs: Annotated[
        int | None, typer.Option("--epochs", metavar="N", help="Passes over the images.")
    ] = None
    device: Device = None
    method: Annotated[
        str | None,
        typer.Option("--method", help="A method of the comparison, as fedprox. See xsite methods."),
    ] = None


def of_a_run(*without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of a run in place of its parameter ``asked``.

    Parameters
    ----------
    *without : str
        Attributes of :class:`CliOptions` that this command has no option for.

    Returns
    -------
    callable
        A decorator. What is given on the command line reaches the command as one ``CliOptions``.
    """
    shared = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(CliOptions).parameters.items()
        if name not in without
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command).parameters.values():
            own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
            parameters += shared if parameter.name == "asked" else own

        @functools.wraps(command)
        def wrapper(**given: Any) -> None:
            asked = {parameter.name: given.pop(parameter.name) for parameter in shared}
            command(asked=CliOptions(**asked), **given)

        # What Typer makes options of.
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {each.name: each.annotation for each in parameters}
        return wrapper

    return decorate


def gather_config(asked: CliOptions, mode: str = "") -> Config:
    """Make a configuration of a file, a method, ``--set`` and the options, the later winning.

    Parameters
    ----------
    asked : CliOptions
        With ``resume``, the resumed run's own configuration is the ground of it all.
    mode : str
        The training mode of the command, which a method must be made for.

    Returns
    -------
    Config
        Its paths absolute, its sites named.

    Raises
    ------
    ConfigError
        If a value is wrong, or values contradict each other.
    RunError
        If there is no run to resume.
    """
    values: dict[str, Scalar] = {}
    if asked.file is not None:
        file = load_config(asked.file)
        values |= file.model_dump(by_alias=True, include=file.model_fields_set)
    if asked.method is not None:
        values |= _from_method(asked.method, mode)
    values |= dict(parse_override(text) for text in asked.settings or ())
    values |= _from_options(asked)
    if asked.resume is None:
        return load_config(None, complete(values))
    base = Path(str(values.get("runs-dir") or "runs")).expanduser()
    run = find_run(asked.resume, base)
    told = with_absolute_paths(values)
    if not told.get("data", "given"):
        del told["data"]
    here = {"run-name": run.name, "runs-dir": str(run.parent), "resume": True}
    return make_config(read_run_config(run).to_run_config() | told | here)


def _from_method(name: str, mode: str) -> dict[str, Scalar]:
    # Methods come with what they add to the loss, and so with PyTorch.
    from simulations.comparison import find_method, values_of

    method = find_method(name)
    if method.mode != mode:
        raise ConfigError(
            f"The method '{name}' is for {method.mode} training: "
            f"xsite train {method.mode} --method {name}."
        )
    return values_of(method)


def _from_options(asked: CliOptions) -> dict[str, Scalar]:
    values: dict[str, Scalar] = {}
    if asked.sites is not None and asked.site_folders:
        raise ConfigError("Give either --sites or --site name=folder, not both.")
    if asked.site_folders:
        values["sites"] = ",".join(_site_entry(text) for text in asked.site_folders)
    if asked.resume is not None and asked.name is not None:
        raise ConfigError("Give either --resume or --name: a resumed run keeps its name.")
    options: dict[str, Scalar | Path | None] = {
        "sites": asked.sites,
        "data": asked.data,
        "runs-dir": asked.runs,
        "run-name": asked.name,
        "seed": asked.seed,
        "epochs": asked.epochs,
        "device": asked.device,
    }
    given = {key: value for key, value in options.items() if value is not None}
    return values | {k: str(v) if isinstance(v, Path) else v for k, v in given.items()}


def _site_entry(text: str) -> str:
    site = parse_site(text)
    if not site.name or not site.folder:
        raise ConfigError(f"--site '{text}' is not name=folder, for example a=/data/hospital-a.")
    if "," in text:
        raise ConfigError(
            f"The folder {site.folder} has a comma in its name; rename it or link to it."
        )
    return str(site)


def complete(values: dict[str, Scalar]) -> dict[str, Scalar]:
    """Return values with all paths absolute, and a data folder's sub-folders as sites if none are.

    Raises
    ------
    ConfigError
        If the data folder cannot be read, or holds no site.
    """
    data = str(values.get("data", SYNTHETIC)) or os.environ.get("XSITE_DATA", "")
    if not values.get("sites") and data not in ("", SYNTHETIC):
        folder = Path(data).expanduser()
        try:
            names = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] not in "._")
        except OSError as error:
            raise ConfigError(f"Cannot read the data folder {folder}: {error.strerror}.") from error
        if not names:
            raise ConfigError(
                f"The data folder {folder} holds no folders; it needs one for each site."
            )
        values = values | {"sites": ",".join(names)}
    return with_absolute_paths(values)


def words(text: str | None) -> tuple[str, ...]:
    """Read ``a,b,c``; none where there is no text."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Read ``0,1,2``.

    Raises
    ------
    ConfigError
        If it is anything else.
    """
    parts = words(text)
    if not parts or not all(part.isdigit() for part in parts):
        raise ConfigError(f"{option} is '{text}'; expected whole numbers like 0,1,2.")
    return tuple(dict.fromkeys(int(part) for part in parts))
