"""``xsite deploy up`` and ``deploy run``: a federated run over real servers.

``deploy run`` is the coordinator's command, and stands here since it submits and follows a run by
the same code as a simulation, which :mod:`server` does not import.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from common.console.text import say
from common.errors import ConfigError
from common.runs.result import read_result
from server.deployment.consortium import Consortium, read_consortium
from simulations.commands import options
from simulations.commands.train import run_training
from simulations.federated import train_federated
from simulations.rehearsal import DEPLOYMENT
from simulations.runtime.backends import Backend, RunSpec, follow_to_the_end
from simulations.runtime.bundle import make_bundle
from simulations.runtime.superlink import LinkRunState, SuperLink


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
    if not local:
        raise ConfigError(
            "Say --local to run a deployment on this machine. At real hospitals each starts its "
            "own part: xsite deploy init makes what they need."
        )

    training = partial(train_federated, backend=DEPLOYMENT)
    run = run_training(context, "federated", asked, training, "xsite deploy up --local")
    for part, digest in read_result(run)["weights_digest"].items():
        say(Console(), f"Weights ({part}): {digest}")
    say(Console(), f"Hospitals' folders and ledgers: {run}-hospitals")


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
    plan = read_consortium(consortium)
    asked = replace(
        asked,
        # Every hospital names its own folder, and the coordinator none.
        settings=["data=", *(asked.settings or ())],
        sites=asked.sites or ",".join(plan.site_names),
        runs=runs_of(plan),
    )

    training = partial(train_federated, backend=backend_of(plan))
    run_training(context, "federated", asked, training, f"xsite deploy run {consortium}")


def runs_of(consortium: Consortium) -> Path:
    """Return the folder of all runs, on the coordinator's machine."""
    return Path(consortium.state_dir) / "runs"


def backend_of(consortium: Consortium) -> Backend:
    """Return the consortium as what carries a run out; nothing is started or taken down."""
    address = f"127.0.0.1:{consortium.superlink_port}"
    authority = Path(consortium.folder) / "ca.crt"
    link = SuperLink(None, address, None, authority, kept=True)

    def execute(spec: RunSpec) -> LinkRunState:
        return follow_to_the_end(spec, link, make_bundle(spec.folder / "app", painter=False))

    # The hospitals' own folders are at the hospitals; there is nothing where a simulation's are.
    return Backend(f"the consortium {consortium.name}", execute)
