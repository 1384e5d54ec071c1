"""``xsite config``, ``xsite methods`` and ``xsite version``."""

import platform
from importlib import metadata
from typing import Annotated

import tomli_w
import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from common.config.load import describe
from common.config.toml_model import key_of
from common.errors import ConfigError


def config(
    word: Annotated[
        str, typer.Argument(metavar="[WORD]", help="Only keys that mention this word.")
    ] = "",
) -> None:
    """List every configuration key with its default and what it means.

    A TOML file (--config), the command line (--set) and flwr run (--run-config) take these keys.
    """
    console = Console()
    found = 0
    for key, default, meaning in describe():
        text = " ".join(meaning.split())
        if word.lower() not in f"{key} {text}".lower():
            continue
        found += 1
        value = f'"{default}"' if isinstance(default, str) else str(default)
        shown = value.lower() if isinstance(default, bool) else value
        console.print(Text.assemble((key, "bold"), f" = {shown}"))
        console.print(Padding(Text(text), (0, 0, 0, 4)))
    if not found:
        raise ConfigError(f"No configuration key mentions '{word}'; `xsite config` lists them all.")


def methods() -> None:
    """List the methods that xsite is compared with: how each is asked for, and what it sets."""
    # Methods come with what they add to the loss, and so with PyTorch.
    from simulations.comparison import ALGORITHMS, METHODS

    console = Console()
    for method in METHODS.values():
        console.print(Text.assemble((method.name, "bold"), f"  {method.label} ({method.mode})"))
        told = ", ".join(tomli_w.dumps(dict(method.settings)).splitlines())
        console.print(Padding(Text(told or "the defaults"), (0, 0, 0, 4)))
        if (name := method.settings.get("algorithm")) is None:
            continue
        for option, field in ALGORITHMS[str(name)].options.model_fields.items():
            text = f"option {key_of(option)} = {field.default}: {field.description}"
            console.print(Padding(Text(" ".join(text.split())), (0, 0, 0, 4)))


def version() -> None:
    """Print the version of xsite and of what it computes with."""
    for package in ("xsite", "torch", "flwr"):
        typer.echo(f"{package} {metadata.version(package)}")
    typer.echo(f"python {platform.python_version()}")
