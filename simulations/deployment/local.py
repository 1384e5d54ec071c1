"""A real deployment on one machine: SuperLink, SuperExec and a SuperNode per site, over TLS.

What starts are the scripts that ``xsite deploy init`` makes, with keys of this one run. All of it
listens on the loopback and is gone when the run ends, however it ends. What stays::

    <base>/<run>/                the coordinator's: the run's folder, as in a simulation
    <base>/<run>-hospitals/<site>/   the hospital's state-dir, with its ledger
"""

import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from common.config import Config
from common.errors import RunError
from simulations.bundle import build_bundle, write_app
from simulations.deployment.consortium import Consortium, make_consortium
from simulations.deployment.folders import COORDINATOR, write_folders
from simulations.launch import Ending, Ground, Launch, follow
from simulations.placement import child_environment
from simulations.processes import ProcessTree, last_lines, start, undisturbed
from simulations.superlink import SuperLink, free_port, wait_until_ready


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


def _carry_out(launch: Launch, held: ExitStack) -> Ending:
    """Start everything, run the app to its end, and take everything down."""
    plan = plan_consortium(launch.config, launch.run)
    scripts = write_folders(plan, launch.folder / "consortium")
    environment = child_environment(launch.folder, launch.config, launch.placement)
    # Of nobody else's run: the sites here are not the ones of the coordinator's machine.
    environment |= {"XSITE_SUPERLINK": f"127.0.0.1:{plan.superlink_port}", "XSITE_DATA": ""}
    trees: list[ProcessTree] = []
    nodes: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}
    with _taken_down(trees):

        def begin(role: str, script: str) -> "tuple[subprocess.Popen[bytes], Path]":
            log = launch.folder / f"{role}-{script}.log"
            own = environment | {"XSITE_STATE": str(_state(launch.run, role))}
            with undisturbed():
                process = start([str(scripts / role / script)], launch.folder, own, log)
                trees.append(ProcessTree(process))
            return process, log

        process, log = begin(COORDINATOR, "superlink.sh")
        address = f"127.0.0.1:{plan.superlink_port}"
        link = SuperLink(process, address, log, scripts / COORDINATOR / "ca.crt")
        write_app(launch.folder / "app")
        bundle = build_bundle(launch.folder / "app")
        wait_until_ready(link)
        nodes[COORDINATOR] = begin(COORDINATOR, "superexec.sh")
        for site in plan.site_names:
            link.register(site, (scripts / site / "key.pub").read_bytes())
            nodes[site] = begin(site, "supernode.sh")

        def check() -> None:
            for role, (process, log) in nodes.items():
                if process.poll() is not None:
                    raise RunError(f"{role}'s process ended during the run. {last_lines(log)}")

        run_id = link.submit(bundle, launch.config.to_run_config(), {})
        try:
            return follow(launch, link, run_id, trees, held, check)
        finally:
            with undisturbed():
                link.stop(run_id)


@contextmanager
def _taken_down(trees: list[ProcessTree]) -> Iterator[None]:
    """Leave no process of the block behind."""
    try:
        yield
    finally:
        with undisturbed():
            for tree in reversed(trees):
                tree.take_down()


DEPLOYMENT = Ground("Flower over TLS", own_folder, _carry_out)
