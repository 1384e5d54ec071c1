"""``xsite deploy``: what a consortium needs to start, and a rehearsal on one machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.console import options
from common.console.options import PlainCommand

if TYPE_CHECKING:
    from common.config.schema import Config
    from common.console.progress import ProgressListener

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Go from simulation to hospitals: certificates, keys, scripts and checklists.",
)


@app.command("init", cls=PlainCommand, short_help="Make a folder for every role.")
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
    from rich.console import Console

    from common.console.tables import say
    from server.deployment.consortium import read_consortium
    from server.deployment.folders import COORDINATOR, write_folders

    plan = read_consortium(consortium)
    folder = write_folders(plan, (output or Path(plan.name)).expanduser().absolute())
    console = Console()
    for role in (COORDINATOR, *plan.site_names):
        say(console, f"{folder / role}: begin with its CHECKLIST.md")


@app.command("up", cls=PlainCommand, short_help="Run a real deployment on this machine.")
@options.of_a_run()
def up(
    context: typer.Context,
    local: Annotated[
        bool, typer.Option("--local", help="On this machine, on its loopback: the only way yet.")
    ] = False,
    *,
    asked: options.CliOptions,
) -> None:
    """Train federated over real servers, with TLS and authenticated sites, on this machine.

    The coordinator's server and a node for every site start, a run goes over them, and all of it is
    taken down again, on Ctrl-C too. The weights are those of xsite train federated, bit for bit.
    """
    from rich.console import Console

    from common.console.tables import say
    from common.errors import ConfigError
    from common.runs.result import read_result
    from simulations.commands.train import run_training

    if not local:
        raise ConfigError(
            "Say --local to run a deployment on this machine. At real hospitals each starts its "
            "own part: xsite deploy init makes what they need."
        )

    def training(config: Config, base: Path, listener: ProgressListener) -> Path:
        from simulations.federated import train_federated
        from simulations.rehearsal import DEPLOYMENT

        return train_federated(config, base, listener, backend=DEPLOYMENT)

    run = run_training(context, "federated", asked, training, "xsite deploy up --local")
    for part, digest in read_result(run)["weights_digest"].items():
        say(Console(), f"Weights ({part}): {digest}")
    say(Console(), f"Hospitals' folders and ledgers: {run}-hospitals")


@app.command("run", cls=PlainCommand, short_help="Run a configuration over the consortium.")
@options.of_a_run("data", "site_folders", "runs", "device")
def run(
    context: typer.Context,
    consortium: Annotated[
        Path, typer.Argument(metavar="TOML", help="The one of xsite deploy init.")
    ],
    asked: options.CliOptions,
) -> None:
    """Train federated over a consortium that stands; give this on the coordinator's machine.

    The hospitals' nodes need not be there yet: the run says whom it waits for. If the server's
    process is killed, the run goes on from its last checkpoint. Ctrl-C stops the run; --resume goes
    on with it.
    """
    from server.deployment.consortium import read_consortium
    from simulations.commands.train import run_training
    from simulations.runtime.consortium import backend_of, runs_of

    plan = read_consortium(consortium)
    asked = replace(
        asked,
        # Every hospital names its own folder, and the coordinator none.
        settings=["data=", *(asked.settings or ())],
        sites=asked.sites or ",".join(plan.site_names),
        runs=runs_of(plan),
    )

    def training(config: Config, base: Path, listener: ProgressListener) -> Path:
        from simulations.federated import train_federated

        return train_federated(config, base, listener, backend=backend_of(plan))

    run_training(context, "federated", asked, training, f"xsite deploy run {consortium}")
