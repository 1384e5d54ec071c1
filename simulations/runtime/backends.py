"""A federated run under way: what is launched, on which backend, and followed to its end."""

import math
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from common.config.schema import Config
from common.console.progress import ProgressListener
from common.files import alone_in
from common.runs.result import read_result
from simulations.runtime.following import OutputCopy, RunWatch
from simulations.runtime.placement import Placement
from simulations.runtime.processes import undisturbed
from simulations.runtime.superlink import UNREACHABLE, LinkRunState, SuperLink

POLL_SECONDS = 0.5
# Asking the SuperLink, and looking for new processes, takes tens of milliseconds of a processor
# that the sites compute on; reading files takes none to speak of.
POLLS_BETWEEN_QUESTIONS = 4
# A run whose result is written has this long to end by itself.
FAREWELL_SECONDS = 60.0
MOST_SUBMISSIONS = 5


@dataclass(frozen=True)
class RunSpec:
    """A run to be.

    ``placement``: its place; ``folder``: a private one; ``run``: the run's; ``sites``: the sites'
    own, in the configuration's order; ``listener``: who is told.
    """

    config: Config
    placement: Placement
    folder: Path
    run: Path
    sites: tuple[Path, ...]
    listener: ProgressListener


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended: what Flower says, and the last exception in the server's output."""

    state: LinkRunState
    error: str


@dataclass(frozen=True)
class Backend:
    """What carries a federation out, and where it puts things.

    ``name``: what starts, for a sentence; ``own``: a site's own folder in a run, by the run's
    folder and the site's name; ``execute``: runs it to its end and takes everything down;
    ``apart``: whether every site has processes of its own, which see no other GPU than its own.
    """

    name: str
    own: Callable[[Path, str], Path]
    execute: Callable[[RunSpec, ExitStack], RunOutcome]
    apart: bool = True


def follow_to_the_end(
    spec: RunSpec,
    link: SuperLink,
    bundle: bytes,
    held: ExitStack,
    check: Callable[[], None] | None = None,
) -> RunOutcome:
    """Submit a run, and again where its server's process is killed: it goes on where it was.

    Parameters
    ----------
    spec : RunSpec
        The run.
    link : SuperLink
        A SuperLink of a deployment.
    bundle : bytes
        The app.
    held, check
        As of :func:`follow`.
    """
    for left in reversed(range(MOST_SUBMISSIONS)):
        run_id = link.submit(bundle, spec.config.to_run_config(), {})
        try:
            outcome = follow(spec, link, run_id, held, check)
        finally:
            with undisturbed():
                link.stop(run_id)
        if not left or not _was_killed(spec.run, outcome):
            break
        spec.listener.message("the server's process was killed; going on from its last checkpoint")
        spec = replace(spec, config=spec.config.changed(resume=True))
    return outcome


def follow(
    spec: RunSpec,
    link: SuperLink,
    run_id: int,
    held: ExitStack,
    check: Callable[[], None] | None = None,
) -> RunOutcome:
    """Tell the report and copy the log until the run has ended.

    Parameters
    ----------
    spec : RunSpec
        The run.
    link : SuperLink
        Who is asked for its state.
    run_id : int
        Flower's number of it.
    held : ExitStack
        Takes the run's lock, once there is a folder to lock.
    check : callable, optional
        Called now and then; what it raises ends the run.
    """
    output = spec.folder / "server.log"
    copy = OutputCopy(output, spec.run)
    watch = RunWatch(spec.run, spec.sites, spec.listener, spec.placement.at_once)
    unlocked, answered = not spec.config.resume, True
    started, latest = time.time(), math.inf
    with output.open("w", buffering=1) as file:
        copying = threading.Thread(target=link.copy_log, args=(run_id, file.write), daemon=True)
        copying.start()
        try:
            while (state := link.state(run_id)).status != "finished" and time.monotonic() < latest:
                if answered and state.status == UNREACHABLE:
                    spec.listener.message("Flower's SuperLink does not answer; waiting for it")
                answered = state.status != UNREACHABLE
                if check is not None:
                    check()
                for _ in range(POLLS_BETWEEN_QUESTIONS):
                    if unlocked and (spec.run / "config.toml").exists():
                        held.enter_context(alone_in(spec.run))
                        unlocked = False
                    time.sleep(POLL_SECONDS)
                    watch.update()
                    copy.update()
                    if result_written(spec.run, started):
                        latest = min(latest, time.monotonic() + FAREWELL_SECONDS)
                        break
            copying.join(timeout=5.0)
        finally:
            copy.update()
    watch.update()
    return RunOutcome(state, copy.last_error())


def _was_killed(run: Path, outcome: RunOutcome) -> bool:
    """Say whether the server's process ended without having said that the run is over.

    Killed, it leaves the run as running; stopped, as it is when the SuperExec that started it is
    killed, it calls it interrupted. Who stops a run through Flower wants it to stay so.
    """
    begun = (run / "config.toml").exists()
    status = read_result(run).get("status") if begun else None
    wanted = outcome.state.outcome in ("completed", "stopped")
    return not wanted and status in ("running", "interrupted")


def result_written(run: Path, since: float) -> bool:
    """Say whether the server has written since then that the run completed or failed."""
    file = run / "result.json"
    if not file.exists() or file.stat().st_mtime < since:
        return False
    return read_result(run).get("status") in ("completed", "failed")
