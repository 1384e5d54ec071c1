"""``xsite compare`` and ``xsite demo``: all modes on the same folds, and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.console import options
from common.console.options import PlainCommand


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("compare", cls=PlainCommand, short_help="Train all modes and write a report.")(
        compare
    )
    app.command("demo", cls=PlainCommand, short_help="Compare on synthetic hospitals.")(demo)


@options.of_a_run("resume", "seed", "method")
def compare(
    asked: options.CliOptions,
    seeds: Annotated[str, typer.Option(metavar="0,1", help="Seeds; a run for each.")] = "0",
    folds: Annotated[str, typer.Option(metavar="0,1", help="Folds; a run for each.")] = "0",
    modes: Annotated[
        str, typer.Option(metavar="A,B", help="Modes to compare.")
    ] = "pooled,federated,single",
) -> None:
    """Train federated, pooled and single-site on the same folds and seeds, and write a report.

    Runs that are complete are not repeated: the same command goes on with a comparison that was
    interrupted.
    """
    chosen = options.gather_config(asked)
    wanted = numbers("--seeds", seeds), numbers("--folds", folds)
    from common.console.progress import make_listener
    from common.runs.folder import runs_base
    from simulations.study.presets import compare as run_comparison
    from simulations.study.progress import make_progress

    named = tuple(part.strip() for part in modes.split(",") if part.strip())
    base = runs_base(chosen, Path("runs"))
    run_comparison(chosen, base, *wanted, named, make_listener(), make_progress())


def demo(
    runs: options.RunsFolder = None,
    name: options.RunName = None,
) -> None:
    """Compare the three modes on two synthetic hospitals: a few minutes, no data needed."""
    from simulations.study.presets import demonstrate

    demonstrate(runs, name)


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Read ``0,1,2``.

    Raises
    ------
    ConfigError
        If it is anything else.
    """
    from common.errors import ConfigError

    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdigit() for part in parts):
        raise ConfigError(f"{option} is '{text}'; expected whole numbers like 0,1,2.")
    return tuple(dict.fromkeys(int(part) for part in parts))
