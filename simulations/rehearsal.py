"""A real deployment on one machine: SuperLink, SuperExec and a SuperNode per site, over TLS.

What starts are the scripts that ``xsite deploy init`` makes, with keys of this one run. A process
that is killed is started again, as systemd would at a hospital. All of it listens on the loopback
and is gone when the run ends, also when the command itself is killed, on Linux. What stays::

    <base>/<run>/                the coordinator's: the run's folder, as in a simulation
    <base>/<run>-hospitals/<site>/   the hospital's state-dir, with its ledger
"""

import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from common.config.schema import Config
from common.errors import RunError
from server.deployment.consortium import Consortium, make_consortium
from server.deployment.folders import (
    COORDINATOR,
    NODE_PAUSE,
    SERVER_PAUSE,
    write_folders,
)
from simulations.runtime.backends import Backend, RunSpec, follow_to_the_end
from simulations.runtime.bundle import make_bundle
from simulations.runtime.placement import child_environment
from simulations.runtime.processes import ProcessTree, last_lines, start, undisturbed
from simulations.runtime.superlink import LinkRunState, SuperLink, free_port, wait_until_ready

SETTLED_SECONDS = 30.0
MOST_STARTS = 30
"""Of one unit in a run: who cannot keep a process alive for a whole run has to be told."""


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


@dataclass
class SupervisedProcess:
    """A process and its successors."""

    name: str
    """For a sentence."""
    script: Path
    """What starts it."""
    folder: Path
    """Where it starts."""
    environment: Mapping[str, str]
    """All its environment variables."""
    log: Path
    """Takes its output."""
    pause: float
    """Seconds between an end and the next start."""
    process: "subprocess.Popen[bytes]" = field(init=False)
    trees: list[ProcessTree] = field(default_factory=list)
    due: float | None = None
    started: float = 0.0

    def __post_init__(self) -> None:
        """Start it."""
        self._start()

    def keep(self) -> None:
        """Start it again if it has ended and its pause is over.

        Raises
        ------
        RunError
            If it ended by itself as soon as it was started first, since it would again; or if it
            was started too often.
        """
        for tree in self.trees:
            # What outlives its parent must be known to be ended.
            tree.update()
        code = self.process.poll()
        if code is None:
            return
        early = len(self.trees) == 1 and time.monotonic() - self.started < SETTLED_SECONDS
        if early and code >= 0:
            raise RunError(f"{self.name}'s process ended at once. {last_lines(self.log)}")
        if self.due is None:
            self.due = time.monotonic() + self.pause
        elif time.monotonic() >= self.due:
            if len(self.trees) == MOST_STARTS:
                raise RunError(
                    f"{self.name}'s process was started {MOST_STARTS} times, and ended again. "
                    f"{last_lines(self.log)}"
                )
            self._start()

    def take_down(self) -> None:
        """End it, with all that ever came of it."""
        for tree in self.trees:
            tree.take_down()

    def _start(self) -> None:
        with undisturbed():
            self.process = start([str(self.script)], self.folder, self.environment, self.log)
            self.trees.append(ProcessTree(self.process))
        self.due, self.started = None, time.monotonic()


@contextmanager
def standing(
    plan: Consortium, scripts: Path, folder: Path, environment: Mapping[str, str]
) -> Iterator[tuple[SuperLink, Callable[[], None]]]:
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

    Yields
    ------
    tuple of SuperLink and callable
        Its SuperLink, and what starts killed processes again, to be called every now and then.
    """
    units: list[SupervisedProcess] = []
    states = {COORDINATOR: plan.state_dir} | {site.name: site.state_dir for site in plan.site}

    def begin(role: str, script: str, pause: float) -> SupervisedProcess:
        # Of nobody else's run: the sites here are not the ones of the coordinator's machine.
        own = {"XSITE_STATE": states[role], "XSITE_SUPERLINK": reached(plan), "XSITE_DATA": ""}
        log = folder / f"{role}-{script}.log"
        started = SupervisedProcess(
            role, scripts / role / script, folder, {**environment, **own}, log, pause
        )
        units.append(started)
        return started

    def keep() -> None:
        for unit in units:
            unit.keep()

    try:
        server = begin(COORDINATOR, "superlink.sh", SERVER_PAUSE)
        authority = scripts / COORDINATOR / "ca.crt"
        address = f"127.0.0.1:{plan.superlink_port}"
        link = SuperLink(server.process, address, server.log, authority, kept=True)
        wait_until_ready(link)
        begin(COORDINATOR, "superexec.sh", SERVER_PAUSE)
        for site in plan.site_names:
            link.register(site, (scripts / site / "key.pub").read_bytes())
            begin(site, "supernode.sh", NODE_PAUSE)
        yield link, keep
    finally:
        with undisturbed():
            for unit in reversed(units):
                unit.take_down()


def reached(plan: Consortium) -> str:
    """Return where nodes reach the SuperLink: on one machine no nginx stands before it."""
    return f"127.0.0.1:{plan.superlink_port}"


def _execute(spec: RunSpec) -> LinkRunState:
    """Start everything, run the app to its end, and take everything down."""
    plan = plan_consortium(spec.config, spec.run)
    scripts = write_folders(plan, spec.folder / "consortium")
    environment = child_environment(spec.folder, spec.config, spec.placement)
    bundle = make_bundle(spec.folder / "app")
    with standing(plan, scripts, spec.folder, environment) as (link, keep):
        return follow_to_the_end(spec, link, bundle, keep)


DEPLOYMENT = Backend("Flower over TLS", _execute, own_folder)
