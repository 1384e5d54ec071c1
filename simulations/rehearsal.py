"""A real deployment on one machine: SuperLink, SuperExec and a SuperNode per site, over TLS.

What starts are the scripts that ``xsite deploy init`` makes, with keys of this one run. A process
that is killed is started again, as systemd would at a hospital. All of it listens on the loopback
and is gone when the run ends, however it ends. What stays::

    <base>/<run>/                the coordinator's: the run's folder, as in a simulation
    <base>/<run>-hospitals/<site>/   the hospital's state-dir, with its ledger
"""

import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from common.config.schema import Config
from server.deployment.consortium import Consortium, make_consortium
from server.deployment.folders import (
    COORDINATOR,
    NODE_PAUSE,
    SERVER_PAUSE,
    write_folders,
)
from simulations.runtime.backends import Backend, RunOutcome, RunSpec, follow_to_the_end
from simulations.runtime.bundle import make_bundle
from simulations.runtime.placement import child_environment
from simulations.runtime.processes import undisturbed
from simulations.runtime.superlink import SuperLink, free_port, wait_until_ready
from simulations.runtime.supervision import SupervisedProcess

Proxy = Callable[[Consortium, Path], AbstractContextManager[object]]
"""What stands between the nodes and the SuperLink, on the consortium's port, as nginx does.

Called with the consortium and its folder, in which no script has been started yet.
"""


def own_folder(run: Path, site: str) -> Path:
    """Return a site's own folder in a run."""
    return _state(run, site) / run.name / "sites" / site


def plan_consortium(config: Config, run: Path) -> Consortium:
    """Return a consortium of a configuration's sites on this machine, on ports that are free.

    Raises
    ------
    ConfigError
        If a path cannot stand in a script, as one with a space in it.
    """
    programs = sysconfig.get_path("scripts")
    ports = [free_port() for _ in range(len(config.site_names) + 2)]
    sites = [
        {
            "name": site,
            "data-dir": str(config.site_folder(site) or ""),
            "state-dir": str(_state(run, site)),
            "programs": programs,
            "runtime-port": port,
            "approve-runs": False,
        }
        for site, port in zip(config.site_names, ports[2:], strict=True)
    ]
    values = {
        "name": "local",
        "hosts": ["127.0.0.1"],
        "port": ports[0],
        "superlink-port": ports[1],
        "programs": programs,
        "state-dir": str(_state(run, COORDINATOR)),
        "site": sites,
    }
    return make_consortium(values, "the local deployment")


def _state(run: Path, site: str) -> Path:
    return run.parent / f"{run.name}-hospitals" / site


@dataclass(frozen=True)
class LocalDeployment:
    """A deployment that runs: its SuperLink, and what starts killed processes again."""

    link: SuperLink
    units: list[SupervisedProcess]

    def keep(self) -> None:
        """Start again what was killed; called every now and then."""
        for unit in self.units:
            unit.keep()


@contextmanager
def standing(
    plan: Consortium,
    scripts: Path,
    folder: Path,
    environment: Mapping[str, str],
    proxy: Proxy | None = None,
) -> Iterator[LocalDeployment]:
    """Start a consortium on this machine, and leave no process of it behind.

    Parameters
    ----------
    plan : Consortium
        As :func:`plan_consortium` makes it.
    scripts : Path
        What :func:`server.deployment.folders.write_folders` made of it.
    folder : Path
        A private folder, for logs.
    environment : mapping
        All environment variables of every process.
    proxy : callable, optional
        Without it the nodes talk to the SuperLink itself.
    """
    units: list[SupervisedProcess] = []
    reached = f"127.0.0.1:{plan.port if proxy else plan.superlink_port}"
    states = {COORDINATOR: plan.state_dir} | {site.name: site.state_dir for site in plan.site}

    def begin(role: str, script: str, pause: float) -> SupervisedProcess:
        # Of nobody else's run: the sites here are not the ones of the coordinator's machine.
        own = {"XSITE_STATE": states[role], "XSITE_SUPERLINK": reached, "XSITE_DATA": ""}
        log = folder / f"{role}-{script}.log"
        started = SupervisedProcess(
            role, scripts / role / script, folder, {**environment, **own}, log, pause
        )
        units.append(started)
        return started

    stood_between = proxy(plan, scripts) if proxy else nullcontext()
    try:
        server = begin(COORDINATOR, "superlink.sh", SERVER_PAUSE)
        authority = scripts / COORDINATOR / "ca.crt"
        address = f"127.0.0.1:{plan.superlink_port}"
        link = SuperLink(server.process, address, server.log, authority, kept=True)
        wait_until_ready(link)
        begin(COORDINATOR, "superexec.sh", SERVER_PAUSE)
        with stood_between:
            for site in plan.site_names:
                link.register(site, (scripts / site / "key.pub").read_bytes())
                begin(site, "supernode.sh", NODE_PAUSE)
            yield LocalDeployment(link, units)
    finally:
        with undisturbed():
            for unit in reversed(units):
                unit.take_down()


def deployment(proxy: Proxy | None = None) -> Backend:
    """Return a real deployment as what carries a federation out.

    Parameters
    ----------
    proxy : callable, optional
        As of :func:`standing`.
    """

    def execute(spec: RunSpec) -> RunOutcome:
        plan = plan_consortium(spec.config, spec.run)
        scripts = write_folders(plan, spec.folder / "consortium")
        environment = child_environment(spec.folder, spec.config, spec.placement)
        bundle = make_bundle(spec.folder / "app")
        with standing(plan, scripts, spec.folder, environment, proxy) as deployed:
            return follow_to_the_end(spec, deployed.link, bundle, deployed.keep)

    return Backend("Flower over TLS", execute, own_folder)


DEPLOYMENT = deployment()
