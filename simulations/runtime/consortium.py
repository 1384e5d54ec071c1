"""A run over a consortium that stands: submitted at the coordinator, and followed to its end."""

from contextlib import ExitStack
from pathlib import Path

from server.deployment.consortium import Consortium
from simulations.runtime.backends import Ending, Ground, Launch, follow_to_the_end
from simulations.runtime.bundle import make_bundle
from simulations.runtime.superlink import SuperLink


def runs_of(consortium: Consortium) -> Path:
    """Return the folder of all runs, on the coordinator's machine."""
    return Path(consortium.state_dir) / "runs"


def ground_of(consortium: Consortium) -> Ground:
    """Return the consortium as what carries a run out; nothing is started or taken down."""
    address = f"127.0.0.1:{consortium.superlink_port}"
    authority = Path(consortium.folder) / "ca.crt"
    link = SuperLink(None, address, None, authority, kept=True)

    def carry_out(launch: Launch, held: ExitStack) -> Ending:
        return follow_to_the_end(launch, link, make_bundle(launch.folder / "app"), held)

    # The hospitals' own folders are at the hospitals; there is nothing at these places.
    return Ground(
        f"the consortium {consortium.name}", lambda run, site: run / "sites" / site, carry_out
    )
