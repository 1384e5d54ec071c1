"""``xsite study``, ``compare`` and ``demo``: methods or modes × folds × seeds, and a report."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from common.config.load import parse_override
from common.console.options import Device, RunsFolder, Settings
from common.console.progress import make_listener
from common.console.text import say
from common.errors import ConfigError
from common.runs.result import runs_base
from simulations.commands import options


def study(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="TOML file of the study.")],
    set_: Settings = None,
    data: options.DataFolder = None,
    runs: RunsFolder = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the study's folder. [default: the file's]")
    ] = None,
    device: Device = None,
    methods: Annotated[
        str | None, typer.Option(metavar="A,B", help="Methods, instead of the file's.")
    ] = None,
    folds: Annotated[
        str | None, typer.Option(metavar="0,1", help="Folds, instead of the file's.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="0,1", help="Seeds, instead of the file's.")
    ] = None,
    jobs: Annotated[
        int, typer.Option(metavar="N", help="Cells at once. [default: what the machine allows]")
    ] = 0,
    backend: options.BackendName = "",
    listener: Annotated[
        bool, typer.Option("--report", help="Write the report of what there is; train nothing.")
    ] = False,
) -> None:
    """Train methods on folds with seeds, one cell a run, and write tables, tests and pictures.

    Cells that are done are not repeated: the same command goes on with a study that was stopped
    or killed, and computes only what a change of the file has added.
    """
    from simulations.study import plan, progress, publish, run

    read = plan.read_file(file)
    values = dict(read.run) | dict(parse_override(text) for text in set_ or ())
    values |= {} if data is None else {"data": str(data)}
    values |= {} if device is None else {"device": device}
    planned = plan.plan_study(
        read,
        str(file),
        options.complete(values),
        options.words(methods),
        () if folds is None else options.numbers("--folds", folds),
        () if seeds is None else options.numbers("--seeds", seeds),
    )
    if backend:
        from simulations.federated import backend_named

        backend_named(backend)
        planned = replace(planned, backend=backend)
    if jobs < 0:
        raise ConfigError("--jobs is 1 or more.")

    folder = (runs or Path("runs")).expanduser().absolute() / (name or file.stem)
    told = make_listener()
    opened = run.open_study(planned, folder, told)
    if not listener:
        try:
            run.run_study(opened, jobs, progress.StudyProgress())
        except KeyboardInterrupt:
            advice = (
                "The same command goes on with the study; with --report it writes what there is."
            )
            say(Console(), advice)
            raise
    page, _ = publish.publish(opened, told)
    say(Console(), f"Report: {page}")
    run.refuse_failures(opened)


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
