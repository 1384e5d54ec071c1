"""A run over a consortium that stands: submitted at the coordinator, and followed to its end."""

from contextlib import ExitStack
from pathlib import Path

from server.deployment.consortium import Consortium
from simulations.runtime.backends import Backend, RunOutcome, RunSpec, follow_to_the_end
from simulations.runtime.bundle import make_bundle
from simulations.runtime.superlink import SuperLink


def runs_of(consortium: Consortium) -> Path:
    """Return the folder of all runs, on the coordinator's machine."""
    return Path(consortium.state_dir) / "runs"


def backend_of(consortium: Consortium) -> Backend:
    """Return the consortium as what carries a run out; nothing is started or taken down."""
    address = f"127.0.0.1:{consortium.superlink_port}"
    authority = Path(consortium.folder) / "ca.crt"
    link = SuperLink(None, address, None, authority, kept=True)

    def execute(spec: RunSpec, held: ExitStack) -> RunOutcome:
        return follow_to_the_end(spec, link, make_bundle(spec.folder / "app", painter=False), held)

    # The hospitals' own folders are at the hospitals; there is nothing at these places.
    return Backend(
        f"the consortium {consortium.name}", lambda run, site: run / "sites" / site, execute
    )
