"""``xsite train``: one run, federated, pooled or single-site."""

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from common.config.schema import Config
from common.console.progress import ProgressListener, make_listener
from common.console.text import number, say
from common.errors import ConfigError
from common.formatting.tables import Table, plain_table, print_table
from common.runs.result import read_result, runs_base
from common.tasks.figures import AUC_BOUNDS, FIGURES
from server.run_folder import run_folder_name
from simulations.commands import ResumeHint, options
from simulations.report.terminal import fitted
from simulations.runtime.placement import place

Training = Callable[[Config, Path, ProgressListener], Path]


@options.of_a_run()
def federated(
    context: typer.Context,
    asked: options.CliOptions,
    cpus_per_site: Annotated[
        int | None,
        typer.Option(metavar="N", help="CPUs that one site takes. [default: a fair share]"),
    ] = None,
    gpus_per_site: Annotated[
        float | None,
        typer.Option(metavar="X", help="GPUs, or a share of one, that a site takes, such as 0.5."),
    ] = None,
    ray_address: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="A Ray cluster to use. [default: none]")
    ] = "",
    backend: options.BackendName = "ray",
) -> None:
    """Train every site on its own images alone; only shared tensors and prototypes travel.

    All sites are simulated on this machine, each in a process of its own or, with
    --backend in-process, in turn in this one: the same weights, bit for bit. Hospitals that are
    really apart run Flower's SuperLink and SuperNodes instead: see README.md.
    """

    def training(config: Config, base: Path, listener: ProgressListener) -> Path:
        from simulations.federated import backend_named, train_federated

        chosen = backend_named(backend)
        if not chosen.apart and (cpus_per_site, gpus_per_site, ray_address) != (None, None, ""):
            raise ConfigError(
                "--cpus-per-site, --gpus-per-site and --ray-address are Ray's: leave them out "
                f"with --backend {backend}, or choose --backend ray."
            )
        if (1 if cpus_per_site is None else cpus_per_site) < 1 or (gpus_per_site or 0) < 0:
            raise ConfigError("--cpus-per-site must be 1 or more, --gpus-per-site 0 or more.")
        placement = place(
            config,
            cpus_per_site=cpus_per_site,
            gpus_per_site=gpus_per_site,
            ray_address=ray_address,
        )
        return train_federated(config, base, listener, placement, chosen)

    run_training(context, "federated", asked, training)


@options.of_a_run()
def pooled(context: typer.Context, asked: options.CliOptions) -> None:
    """Train one network on the images of all sites: the reference for federated training.

    Ctrl-C stops after the step under way; --resume goes on as if nothing had happened.
    """
    from simulations.local import train_pooled

    run_training(context, "pooled", asked, train_pooled)


@options.of_a_run()
def single(context: typer.Context, asked: options.CliOptions) -> None:
    """Train a network for every site on its own images, with as many steps as the others get.

    Ctrl-C stops after the step under way; --resume goes on as if nothing had happened.
    """
    from simulations.local import train_single

    run_training(context, "single", asked, train_single)


def run_training(
    context: typer.Context,
    mode: str,
    asked: options.CliOptions,
    training: Training,
    command: str = "",
) -> Path:
    """Train, print what came out, and return the run's folder.

    ``command`` is the one that goes on with an interrupted run, if it is not that of the mode.
    """
    config = options.gather_config(asked, mode)
    base = runs_base(config, Path("runs"))
    # Named here, so that the sentence that ends an interrupted run can name it.
    config = config.changed(run_name=run_folder_name(config, mode, base))
    if asked.resume or not (base / config.run_name).exists():
        trail = context.ensure_object(ResumeHint)
        trail.run, trail.command = base / config.run_name, command or f"xsite train {mode}"

    with closing(make_listener()) as listener:
        run = training(config, base, listener)
    print_result(Console(), run)
    return run


KEPT = ("Acc", "AUC", "95 %")
"""Columns of a run's figures that have their place on the narrowest screen."""


def print_result(console: Console, run: Path) -> None:
    """Print a completed run's figures on its test images, and where its files are.

    Parameters
    ----------
    console : Console
        Where to print.
    run : Path
        The run's folder.

    Raises
    ------
    CheckpointError
        If the folder holds no result.
    """
    result = read_result(run)
    last = _figures("Test images, weights of the last step", result.get("metrics", {}))
    print_table(console, fitted(last, KEPT, console.width))
    best = result.get("best") or {}
    if best:
        chosen = _figures("Test images, weights that validation chose", best)
        print_table(console, fitted(chosen, KEPT, console.width))
    say(console, f"Run folder: {run}")


def _figures(title: str, metrics: Mapping[str, Any]) -> Table:
    tests = {site: subsets.get("test", {}) for site, subsets in metrics.items()}
    columns = {"Site": list(tests), "n": [str(test.get("images", "")) for test in tests.values()]}
    for figure in FIGURES:
        values = [test.get(figure.name) for test in tests.values()]
        # A figure of another number of classes has no column; a run's result does not tell its
        # number.
        if not figure.share or (figure.classes and values.count(None) == len(values)):
            continue
        columns[figure.short] = [number(value) for value in values]
        if figure.name == "auc":
            bounds = [[test.get(bound) for bound in AUC_BOUNDS] for test in tests.values()]
            columns["95 %"] = [
                "–" if low is None else f"{number(low, 2)}–{number(high, 2)}"
                for low, high in bounds
            ]
    return plain_table(title, list(columns), zip(*columns.values(), strict=True))
