"""A federated run under way: what is launched, on which backend, and followed to its end."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from common.config.schema import Config, Scalar
from common.console.progress import ProgressListener
from common.runs.result import read_result
from simulations.runtime.following import RunWatch, Tail, copy_output, last_error
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


def in_the_run(run: Path, site: str) -> Path:
    """Return where a site's own folder in a run is, unless the site is elsewhere."""
    return run / "sites" / site


@dataclass(frozen=True)
class Backend:
    """What carries a federation out, and where it puts things.

    ``name``: what starts, for a sentence; ``execute``: runs it to its end and takes everything
    down; ``own``: a site's own folder in a run, by the run's folder and the site's name;
    ``apart``: whether every site has processes of its own, which see no other GPU than its own.
    """

    name: str
    execute: Callable[[RunSpec], LinkRunState]
    own: Callable[[Path, str], Path] = in_the_run
    apart: bool = True


def follow_to_the_end(
    spec: RunSpec, link: SuperLink, bundle: bytes, check: Callable[[], None] | None = None
) -> LinkRunState:
    """Submit a run, and again where its server's process is killed: it goes on where it was.

    Parameters
    ----------
    spec : RunSpec
        The run.
    link : SuperLink
        A SuperLink of a deployment.
    bundle : bytes
        The app.
    check : callable, optional
        As of :func:`follow`.
    """
    for left in reversed(range(MOST_SUBMISSIONS)):
        outcome = follow(spec, link, bundle, {}, check)
        if not left or not _was_killed(spec.run, outcome):
            break
        spec.listener.message("the server's process was killed; going on from its last checkpoint")
        spec = replace(spec, config=spec.config.changed(resume=True))
    return outcome


def follow(
    spec: RunSpec,
    link: SuperLink,
    bundle: bytes,
    federation: Mapping[str, Scalar],
    check: Callable[[], None] | None = None,
) -> LinkRunState:
    """Submit a run, and tell of its progress and copy its log until it has ended.

    Parameters
    ----------
    spec : RunSpec
        The run.
    link : SuperLink
        Who is asked for its state.
    bundle, federation
        As of :meth:`simulations.runtime.superlink.SuperLink.submit`.
    check : callable, optional
        Called now and then; what it raises ends the run.
    """
    log = spec.folder / "server.log"
    run_id = link.submit(bundle, spec.config.to_run_config(), federation)
    answered, started, latest = True, time.time(), math.inf
    try:
        with (
            log.open("w", buffering=1, encoding="utf-8") as file,
            followed(spec, log, spec.placement.at_once),
        ):
            copying = threading.Thread(target=link.copy_log, args=(run_id, file.write), daemon=True)
            copying.start()
            while (state := link.state(run_id)).status != "finished" and time.monotonic() < latest:
                if answered and state.status == UNREACHABLE:
                    spec.listener.message("Flower's SuperLink does not answer; waiting for it")
                answered = state.status != UNREACHABLE
                if check is not None:
                    check()
                for _ in range(POLLS_BETWEEN_QUESTIONS):
                    time.sleep(POLL_SECONDS)
                    if result_written(spec.run, started):
                        latest = min(latest, time.monotonic() + FAREWELL_SECONDS)
                        break
            copying.join(timeout=5.0)
    finally:
        with undisturbed():
            link.stop(run_id)
    return replace(state, error=last_error(log))


@contextmanager
def followed(spec: RunSpec, log: Path, at_once: int) -> Iterator[None]:
    """Tell of progress and copy the server's output from a thread, for the length of a block.

    Parameters
    ----------
    spec : RunSpec
        The run.
    log : Path
        File that takes the server's output.
    at_once : int
        How many sites train at a time.
    """
    ended = threading.Event()
    output = Tail(log)
    watch = RunWatch(spec.run, spec.sites, spec.listener, at_once)

    def tell() -> None:
        while not ended.wait(POLL_SECONDS):
            watch.update()
            copy_output(output, spec.run)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        with undisturbed():
            ended.set()
            thread.join()
            copy_output(output, spec.run)
            watch.update()


def _was_killed(run: Path, outcome: LinkRunState) -> bool:
    """Say whether the server's process ended without having said that the run is over.

    Killed, it leaves the run as running; stopped, as it is when the SuperExec that started it is
    killed, it calls it interrupted. Who stops a run through Flower wants it to stay so.
    """
    begun = (run / "config.toml").exists()
    status = read_result(run).get("status") if begun else None
    wanted = outcome.outcome in ("completed", "stopped")
    return not wanted and status in ("running", "interrupted")


def result_written(run: Path, since: float) -> bool:
    """Say whether the server has written since then that the run completed or failed."""
    file = run / "result.json"
    if not file.exists() or file.stat().st_mtime < since:
        return False
    return read_result(run).get("status") in ("completed", "failed")
