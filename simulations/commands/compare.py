"""``xsite compare`` and ``xsite demo``: all modes on the same folds, and a report."""

from pathlib import Path
from typing import Annotated

import typer

from common.console.options import RunsFolder
from common.console.progress import make_listener
from common.runs.result import runs_base
from simulations.commands import options


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
    from simulations.study import presets, progress

    chosen = options.gather_config(asked)
    wanted = options.numbers("--seeds", seeds), options.numbers("--folds", folds)
    base = runs_base(chosen, Path("runs"))
    presets.compare(
        chosen, base, *wanted, options.words(modes), make_listener(), progress.StudyProgress()
    )


def demo(
    runs: RunsFolder = None,
    name: options.RunName = None,
) -> None:
    """Compare the three modes on two synthetic hospitals: a few minutes, no data needed."""
    from simulations.study.presets import demonstrate

    demonstrate(runs, name)
