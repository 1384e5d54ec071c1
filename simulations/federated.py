"""Federated training on a backend: Flower's SuperLink and Ray, or whatever else carries it out.

Everything that a run starts is private to it and gone when it ends: the SuperLink, its ports,
Flower's folders, the Ray cluster and its sockets. Where the command is killed with -9, on Linux its
processes end within moments, and the next run removes its folder of temporary files.
"""

import errno
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from common.config.schema import Config
from common.console.progress import ProgressListener
from common.data.open import cache_folder
from common.errors import RunError, XsiteError, refuse_unknown, require
from common.files import alone_in, free_megabytes
from common.runs.result import read_result, read_run_config
from server.checks import check_names
from server.run_folder import RunFolder, read_begun, refuse_taken
from simulations.runtime.backends import Backend, RunSpec, follow
from simulations.runtime.bundle import make_bundle
from simulations.runtime.following import SERVER_OUTPUT, what_sites_say
from simulations.runtime.placement import (
    Placement,
    child_environment,
    place,
    resolve_config,
)
from simulations.runtime.private_folder import private_folder
from simulations.runtime.processes import terminable, undisturbed
from simulations.runtime.superlink import LinkRunState, start_superlink, wait_until_ready

BACKENDS = ("ray", "in-process")
# What Flower says, a minute later, of a run whose process is gone.
NO_HEARTBEAT = "No heartbeat received from the task"
_SYSTEM_ERROR = re.compile(r"\[Errno \d+\] [^\"]+")


def train_federated(
    config: Config,
    base: Path,
    listener: ProgressListener,
    placement: Placement | None = None,
    backend: Backend | None = None,
) -> Path:
    """Train one network across the sites, none of which shows its images to another.

    Parameters
    ----------
    config : Config
        The configuration; ``resume`` goes on with the run ``run-name`` bit for bit.
    base : Path
        The folder of all runs.
    listener : ProgressListener
        Told of progress.
    placement : Placement, optional
        Threads, CPUs and GPUs of the sites; without it the machine is dealt out evenly.
    backend : Backend, optional
        Without it the sites are simulated by Flower and Ray.

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
    check_names(config)
    refuse_taken(config, base)
    backend = backend or SIMULATION
    before: dict[str, Any] = {}
    if config.resume:
        stored, before = read_begun(config, "federated", base)
        # Another number of threads would not go on with the run bit for bit.
        config = config.changed(threads=stored.threads)
        # The server would say half a minute later that another process writes the run.
        with alone_in(base / config.run_name):
            pass
    placement = placement or place(config)
    config = resolve_config(config, base, placement, backend.apart)
    run = Path(config.runs_dir) / config.run_name
    sites = tuple(backend.own(run, site) for site in config.site_names)
    if before.get("status") == "completed":
        listener.message(f"The run {run} is complete already.")
        return run
    listener.message(f"{run}: starting {backend.name} for {len(sites)} sites")
    with terminable(), private_folder(config) as folder:
        try:
            outcome = backend.execute(RunSpec(config, placement, folder, run, sites, listener))
        except KeyboardInterrupt:
            _note_end(run, before, "interrupted", "stopped by hand")
            begun = (run / "config.toml").exists()
            advice = f"Go on with it: --resume {run.name}" if begun else "It had not begun."
            raise KeyboardInterrupt(f"Stopped. {advice}") from None
        except RunError as error:
            _note_end(run, before, "failed", str(error))
            raise
        finally:
            listener.close()
        outcome = replace(outcome, details=_plain_details(outcome.details, config, folder))
        return _conclude(run, sites, before, outcome)


def _simulate(spec: RunSpec) -> LinkRunState:
    """Run the app to its end, follow it, and take everything down."""
    require("ray")
    environment = child_environment(spec.folder, spec.config, spec.placement)
    with undisturbed():
        link, tree = start_superlink(spec.folder, environment)
    try:
        # The SuperLink takes seconds to start, in which the bundle is made.
        bundle = make_bundle(spec.folder / "app")
        wait_until_ready(link)
        federation = spec.placement.federation_config(len(spec.config.site_names))
        return follow(spec, link, bundle, federation, tree.update)
    finally:
        # Of it and of its run no process stays behind.
        with undisturbed():
            tree.take_down()


def _plain_details(details: str, config: Config, folder: Path) -> str:
    """Return why Flower says that a run failed, in one line, and of a full disk which it is."""
    if "[('" in details:
        # What copying a folder raises: a list of the files that were not copied, and why not.
        details = next(iter(_SYSTEM_ERROR.findall(details)), details)
    if os.strerror(errno.ENOSPC) not in details:
        return details
    places = {
        "the folder of temporary files (TMPDIR)": folder.parent,
        "runs-dir": Path(config.runs_dir),
        "cache-dir": cache_folder(config),
    }
    free = {name: free_megabytes(place) for name, place in places.items() if place.is_dir()}
    name = min(free, key=lambda one: free[one])
    return (
        f"{os.strerror(errno.ENOSPC)}: {free[name]} MB are free in {name}, {places[name]}. Free "
        "some space or name another folder."
    )


def _conclude(
    run: Path, sites: Sequence[Path], before: dict[str, Any], outcome: LinkRunState
) -> Path:
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
    details = outcome.details.removeprefix("Simulation failed with exception: ")
    if details == NO_HEARTBEAT:
        details = "its process ended without a word, as one does that is killed for want of memory."
    vague = details in ("", "An error was encountered. Ending simulation.")
    reason = fresh.get("reason") or (outcome.error if vague and outcome.error else details)
    if not reason:
        state = outcome.outcome or "nothing"
        reason = f"Flower says '{state}', but the server wrote no result."
    _note_end(run, before, "failed", reason)
    parts = [
        f"The federated run '{run.name}' failed: {reason}",
        what_sites_say(sites, reason),
    ]
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


SIMULATION = Backend("Flower and Ray", _simulate)


def backend_named(name: str) -> Backend:
    """Return what simulates the sites.

    Parameters
    ----------
    name : str
        ``"ray"``: Flower's simulation, a process for every site. ``"in-process"``: this process,
        in which the sites take turns. The weights are the same, bit for bit.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    refuse_unknown("backend", name, BACKENDS)
    if name == "ray":
        return SIMULATION
    # Server and site are a second's import, which Ray's processes do without this one.
    from simulations.runtime.in_process import IN_PROCESS

    return IN_PROCESS
