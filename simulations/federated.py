"""Federated training simulated on one machine: Flower's SuperLink, Ray, a process per site.

Everything that a run starts is private to it and gone when it ends, however it ends: the
SuperLink, its ports, Flower's folders, the Ray cluster and its sockets.
"""

import math
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from common.config import Config
from common.errors import RunError, XsiteError
from common.results import differing_keys, read_result
from common.runs import RunFolder, read_run_config, refuse_taken
from simulations.bundle import build_bundle, write_app
from simulations.following import SERVER_OUTPUT, OutputCopy, RunWatch, what_sites_say
from simulations.guard import alone_in
from simulations.placement import Placement, bytecode_folder, child_environment, place
from simulations.processes import ProcessTree, terminable, undisturbed
from simulations.progress import Report
from simulations.settle import settle
from simulations.superlink import RunState, SuperLink, start_superlink, wait_until_ready

POLL_SECONDS = 0.5
# Asking the SuperLink, and looking for new processes, takes tens of milliseconds of a processor
# that the sites compute on; reading files takes none to speak of.
POLLS_BETWEEN_QUESTIONS = 4
# A path of a Unix socket has 107 bytes, of which Ray's own part takes 66.
LONGEST_FOLDER = 40
# A run whose result is written has this long to end by itself.
FAREWELL_SECONDS = 60.0
# What Flower says, a minute later, of a run whose process is gone.
NO_HEARTBEAT = "No heartbeat received from the task"


@dataclass(frozen=True)
class Launch:
    """A run to be: its configuration, its place, a private folder, the run's own, who is told."""

    config: Config
    placement: Placement
    folder: Path
    run: Path
    report: Report


@dataclass(frozen=True)
class Ending:
    """How a run ended: what Flower says, and the last exception in the server's output."""

    state: RunState
    error: str


def train_federated(
    config: Config,
    base: Path,
    report: Report,
    placement: Placement | None = None,
) -> Path:
    """Train one network across the sites, none of which shows its images to another.

    Parameters
    ----------
    config : Config
        The configuration; ``resume`` goes on with the run ``run-name`` bit for bit.
    base : Path
        The folder of all runs.
    report : Report
        Told of progress.
    placement : Placement, optional
        Threads, CPUs and GPUs of the sites; without it the machine is dealt out evenly.

    Returns
    -------
    Path
        The run's folder.

    Raises
    ------
    RunError
        If the run cannot start, fails or does not complete: the server's own reason.
    KeyboardInterrupt
        If it was stopped; the run can be resumed from the last round that ended.
    """
    refuse_taken(config, base)
    config = settle(config, base, placement)
    placement = placement or place(config)
    run = Path(config.runs_dir) / config.run_name
    with ExitStack() as held:
        before = _open_again(run, config, held) if config.resume else {}
        if before.get("status") == "completed":
            report.message(f"The run {run} is complete already.")
            return run
        report.message(f"{run}: starting Flower and Ray for {len(config.site_names)} sites")
        folder = held.enter_context(_private_folder(config))
        held.enter_context(terminable())
        try:
            ending = _simulate(Launch(config, placement, folder, run, report), held)
        except KeyboardInterrupt:
            _note_end(run, before, "interrupted", "stopped by hand")
            begun = (run / "config.toml").exists()
            advice = f"Go on with it: --resume {run.name}" if begun else "It had not begun."
            raise KeyboardInterrupt(f"Stopped. {advice}") from None
        except RunError as error:
            _note_end(run, before, "failed", str(error))
            raise
        finally:
            report.close()
        return _conclude(run, before, ending)


def _open_again(run: Path, config: Config, held: ExitStack) -> dict[str, Any]:
    """Hold the folder of a run that is resumed and return its result so far.

    Raises
    ------
    RunError
        If the run is not this configuration's; the server would say so half a minute later.
    """
    held.enter_context(alone_in(run))
    result = read_result(run)
    if result.get("mode") != "federated":
        raise RunError(f"The run {run} is {result.get('mode')} training, not federated.")
    if differing := differing_keys(read_run_config(run), config):
        raise RunError(
            f"Cannot go on with the run {run}: its configuration differs in "
            f"{'; '.join(differing)}. Resume without changing these, or start a new run."
        )
    return result


def _simulate(launch: Launch, held: ExitStack) -> Ending:
    """Run the app to its end, follow it, and take everything down."""
    environment = child_environment(launch.folder, launch.config, launch.placement)
    with _superlink(launch.folder, environment) as (link, tree):
        # The SuperLink takes seconds to start, in which the bundle is made.
        write_app(launch.folder / "app")
        bundle = build_bundle(launch.folder / "app")
        wait_until_ready(link)
        federation = launch.placement.federation_config(len(launch.config.site_names))
        run_id = link.submit(bundle, launch.config.to_run_config(), federation)
        try:
            return _follow(launch, link, run_id, tree, held)
        finally:
            with undisturbed():
                link.stop(run_id)


def _follow(
    launch: Launch, link: SuperLink, run_id: int, tree: ProcessTree, held: ExitStack
) -> Ending:
    """Tell the report and copy the log until the run has ended."""
    output = launch.folder / "server.log"
    copy = OutputCopy(output, launch.run)
    watch = RunWatch(launch.run, launch.config.site_names, launch.report)
    unlocked = not launch.config.resume
    started, latest = time.time(), math.inf
    with output.open("w", buffering=1) as file:
        copying = threading.Thread(target=link.copy_log, args=(run_id, file.write), daemon=True)
        copying.start()
        try:
            while (state := link.state(run_id)).status != "finished" and time.monotonic() < latest:
                tree.update()
                for _ in range(POLLS_BETWEEN_QUESTIONS):
                    if unlocked and (launch.run / "config.toml").exists():
                        held.enter_context(alone_in(launch.run))
                        unlocked = False
                    time.sleep(POLL_SECONDS)
                    watch.update()
                    copy.update()
                    if _result_written(launch.run, started):
                        latest = min(latest, time.monotonic() + FAREWELL_SECONDS)
                        break
            copying.join(timeout=5.0)
        finally:
            copy.update()
    watch.update()
    return Ending(state, copy.last_error())


def _result_written(run: Path, since: float) -> bool:
    """Say whether the server has written since then that the run completed or failed."""
    file = run / "result.json"
    if not file.exists() or file.stat().st_mtime < since:
        return False
    return read_result(run).get("status") in ("completed", "failed")


@contextmanager
def _superlink(
    folder: Path, environment: dict[str, str]
) -> Iterator[tuple[SuperLink, ProcessTree]]:
    """Start a SuperLink, and leave no process of it or of its run behind."""
    with undisturbed():
        link = start_superlink(folder, environment)
        tree = ProcessTree(link.process)
    try:
        yield link, tree
    finally:
        with undisturbed():
            tree.take_down()


@contextmanager
def _private_folder(config: Config) -> Iterator[Path]:
    """Make a folder for one run's Flower and Ray, with a path short enough for their sockets."""
    usual = tempfile.gettempdir()
    short = usual if len(usual) <= LONGEST_FOLDER - len("/xsite-12345678") else "/tmp"
    folder = Path(tempfile.mkdtemp(prefix="xsite-", dir=short)).resolve()
    try:
        yield folder
    finally:
        with undisturbed():
            # The run's copy of the code was compiled under its own path.
            compiled = bytecode_folder(config) / folder.relative_to("/")
            for used in (folder, compiled):
                shutil.rmtree(used, ignore_errors=True)


def _conclude(run: Path, before: dict[str, Any], ending: Ending) -> Path:
    """Return the folder of a run that completed.

    Flower calls runs completed that are not, so the run's own result decides.

    Raises
    ------
    RunError
        With the server's reason.
    """
    result = read_result(run) if (run / "config.toml").exists() else {}
    fresh = result if result != before else {}
    if fresh.get("status") == "completed":
        return run
    details = ending.state.details.removeprefix("Simulation failed with exception: ")
    if details == NO_HEARTBEAT:
        details = "its process ended without a word, as one does that is killed for want of memory."
    vague = details in ("", "An error was encountered. Ending simulation.")
    reason = fresh.get("reason") or (ending.error if vague and ending.error else details)
    if not reason:
        outcome = ending.state.outcome or "nothing"
        reason = f"Flower says '{outcome}', but the server wrote no result."
    _note_end(run, before, "failed", reason)
    parts = [f"The federated run '{run.name}' failed: {reason}", what_sites_say(run, reason)]
    parts += [f"Its logs: {run / 'log.txt'} and {SERVER_OUTPUT}"] if result else []
    raise RunError(" ".join(part for part in parts if part))


def _note_end(
    run: Path, before: dict[str, Any], status: Literal["failed", "interrupted"], reason: str
) -> None:
    """Write into a run's folder how it ended, where the server could not."""
    # The disk may be what failed; the error that matters is the one under way.
    with undisturbed(), suppress(XsiteError):
        if not (run / "config.toml").exists():
            return
        result = read_result(run)
        # What a server writes that is being stopped is a consequence.
        stopped = status == "interrupted" and result.get("status") != "completed"
        if stopped or result.get("status") == "running" or result == before:
            RunFolder(run, read_run_config(run)).fail(status, reason)
