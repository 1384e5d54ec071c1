"""The fault matrix: every process of a deployment, killed at every moment of a round.

Each cell is a real deployment on this machine (``xsite deploy up --local``) of two synthetic
hospitals over three rounds. In the second round everything is held at the moment, the process gets
``kill -9``, and the rest goes on. What is killed is started again, as systemd would. Then the
weights are compared, to the bit, with those of a run that nobody disturbed.

    python -m simulations.faults.matrix

Some three minutes a cell, of which Flower takes one to notice; several go at once.
"""

import json
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import psutil
import torch
import typer
from rich.console import Console

from common.errors import RunError
from common.files import load_tensors
from simulations.faults.moments import COORDINATOR, MOMENTS, PROCESSES, SITE, Moment, Process
from simulations.processes import terminable
from simulations.tables import print_rows

HOOK = Path(__file__).parent / "hook"
OTHER = "hospital-b"
SETTINGS = {
    "sites": f"{SITE},{OTHER}",
    "synthetic-patients": "16",
    "image-size": "32",
    "width": "0.05",
    "batch-size": "8",
    "projection-hidden": "32",
    "projection-size": "8",
    "local-steps": "4",
    "epochs": "2",
    "min-prototype-count": "1",
    "threads": "1",
    "device": "cpu",
}
LONGEST_SECONDS = 900.0
UNDISTURBED = "undisturbed"


@dataclass(frozen=True)
class Cell:
    """What became of a run: who was killed when, how it ended, in how many seconds."""

    process: str
    moment: str
    told: str
    seconds: float
    equal: bool | None


def run_cell(
    folder: Path,
    process: Process | None,
    moment: Moment | None,
    reference: Path | None,
    stop: threading.Event,
) -> Cell:
    """Run a deployment and kill a process in it.

    Parameters
    ----------
    folder : Path
        For this run alone.
    process, moment : Process and Moment, optional
        Whom to kill when; None: nobody.
    reference : Path, optional
        Folder of the run that nobody disturbed.
    stop : Event
        Set where nobody wants to know any more.
    """
    folder.mkdir(parents=True)
    names = (process.name if process else "nobody", moment.name if moment else "")
    if process and moment and process.name == "ClientApp" and not moment.answering:
        return Cell(*names, "no ClientApp runs at this moment", 0.0, None)
    started = time.monotonic()
    deadline = started + LONGEST_SECONDS
    with _deployment(folder, moment) as deployed:

        def goes_on() -> bool:
            return deployed.poll() is None and time.monotonic() < deadline and not stop.is_set()

        found = True
        if process and moment:
            while goes_on() and not (folder / "reached").exists():
                time.sleep(0.05)
            found = _kill(deployed.pid, process)
            (folder / "go").touch()
        while goes_on():
            time.sleep(0.2)
        ended = deployed.poll()
    seconds = time.monotonic() - started
    run = folder / "runs" / UNDISTURBED
    if not found:
        return Cell(*names, "the process was not there", seconds, False)
    if ended != 0:
        how = "was still running" if ended is None else f"ended with {ended}"
        return Cell(*names, f"{how}: {_last_line(folder / 'output.txt')}", seconds, False)
    equal = None if reference is None else _equal(run, reference)
    return Cell(*names, _tell(run, folder / "output.txt"), seconds, equal)


@contextmanager
def _deployment(folder: Path, moment: Moment | None) -> Iterator["subprocess.Popen[bytes]"]:
    """Start the command, and leave nothing of it behind."""
    environment = os.environ | {"FLWR_TELEMETRY_ENABLED": "0", "XSITE_HOME": str(folder / "home")}
    if moment is not None:
        fault = asdict(moment) | {"name": moment.function, "folder": str(folder)}
        path = [str(HOOK), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment |= {"XSITE_FAULT": json.dumps(fault), "PYTHONPATH": os.pathsep.join(path)}
    settings = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    program = Path(sysconfig.get_path("scripts")) / "xsite"
    command = [str(program), "deploy", "up", "--local", *settings]
    # Names count as bytes exchanged, and so do not differ.
    command += ["--runs", str(folder / "runs"), "--name", UNDISTURBED]
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        # It takes down what it started.
        with suppress(ProcessLookupError):
            process.terminate()
        process.wait(timeout=120)


def _kill(root: int, process: Process) -> bool:
    """Kill a process of a deployment at once, and say whether it was there."""
    found = _find(root, process)
    for one in found:
        one.kill()
    psutil.wait_procs(found, timeout=10)
    return bool(found)


def _find(root: int, process: Process) -> list[psutil.Process]:
    """Return the processes of a deployment that run a program for a role."""
    found, descendants = [], list[psutil.Process]()
    with suppress(psutil.Error):
        descendants = psutil.Process(root).children(recursive=True)
    for one in descendants:
        with suppress(psutil.Error):
            words = [Path(word).name for word in one.cmdline()[:4]]
            role = Path(one.environ().get("XSITE_STATE", "")).name
            if process.program in words and role == process.role:
                found.append(one)
    return found


def _equal(run: Path, reference: Path) -> bool:
    """Say whether all weights and predictions of two runs are the same, to the bit."""
    pairs = [(run / "shared.safetensors", reference / "shared.safetensors")]
    for site in (SITE, OTHER):
        own, other = (_hospital(one, site) for one in (run, reference))
        pairs.append((own / "private.safetensors", other / "private.safetensors"))
        if (own / "predictions.csv").read_bytes() != (other / "predictions.csv").read_bytes():
            return False
    for one, other in pairs:
        found, expected = load_tensors(one)[0], load_tensors(other)[0]
        if found.keys() != expected.keys():
            return False
        if not all(torch.equal(found[name], expected[name]) for name in expected):
            return False
    return True


def _hospital(run: Path, site: str) -> Path:
    return run.parent / f"{run.name}-hospitals" / site / run.name / "sites" / site


def _tell(run: Path, output: Path) -> str:
    """Say what happened, from the run's log and what the command printed."""
    log, printed = (run / "log.txt").read_text(), output.read_text(errors="replace")
    told = [f"{site} was away" for site in re.findall(r"waiting: (\S+) is away", log)]
    told += [f"{sites} asked again" for sites in re.findall(r"waiting: asking (.+) again", log)]
    told += [f"left out: {site}" for site in re.findall(r"(\S+) LEFT OUT", log)]
    if "the server's process was killed" in printed:
        begun = re.findall(r"going on after round (\d+)", log)
        told.append(f"resumed after round {', '.join(begun) or '0'}")
    return "; ".join(told) or "went on as if nothing had happened"


def _last_line(file: Path) -> str:
    lines = [line.strip() for line in file.read_text(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "")


def rows_of(cells: Sequence[Cell]) -> list[tuple[str, ...]]:
    """Return the table's rows."""
    weights = {True: "equal", False: "NOT EQUAL", None: "-"}
    return [
        (cell.process, cell.moment, cell.told, f"{cell.seconds:.0f}", weights[cell.equal])
        for cell in cells
    ]


def run_cells(
    pairs: Sequence[tuple[Process, Moment]], base: Path, at_once: int, console: Console
) -> list[Cell]:
    """Run all cells, several at once, and print each as it ends.

    Raises
    ------
    RunError
        If the run that nobody disturbs does not complete.
    """
    stop = threading.Event()
    first = run_cell(base / "0", None, None, None, stop)
    reference = base / "0" / "runs" / UNDISTURBED
    if not (reference / "shared.safetensors").exists():
        raise RunError(f"The run that nobody disturbed did not complete: {first.told}")
    console.print(f"Undisturbed: {first.seconds:.0f} s")
    with ThreadPoolExecutor(at_once) as pool:
        jobs = [
            pool.submit(run_cell, base / str(number), process, moment, reference, stop)
            for number, (process, moment) in enumerate(pairs, start=1)
        ]
        try:
            for done, job in enumerate(as_completed(jobs), start=1):
                told = " | ".join(rows_of([job.result()])[0])
                console.print(f"{done} of {len(jobs)}: {told}", soft_wrap=True)
        finally:
            # Those under way end themselves; those that wait do not begin.
            stop.set()
            pool.shutdown(cancel_futures=True)
    return [job.result() for job in jobs]


def main(
    at_once: Annotated[int, typer.Option(help="Deployments at a time.", min=1)] = 2,
    process: Annotated[str, typer.Option(help="Kill this process alone.")] = "",
    moment: Annotated[str, typer.Option(help="At this moment alone.")] = "",
    output: Annotated[
        Path | None, typer.Option(help="Keep the table as JSON in this file.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="A new folder, in which every run is kept.")
    ] = None,
) -> None:
    """Kill every process of a deployment at every moment, and print what became of it."""
    pairs = [
        (one, when)
        for one in PROCESSES
        for when in MOMENTS
        if process in ("", one.name) and moment in ("", when.name)
    ]
    if not pairs:
        names = ", ".join([*(p.name for p in PROCESSES), *(m.name for m in MOMENTS)])
        raise typer.BadParameter(f"There are {names}.")
    console = Console()
    base = keep or Path(tempfile.mkdtemp(prefix="xsite-faults-"))
    try:
        with terminable():
            cells = run_cells(pairs, base, at_once, console)
    finally:
        if keep is None:
            shutil.rmtree(base, ignore_errors=True)
    if output is not None:
        output.write_text(json.dumps([asdict(cell) for cell in cells], indent=2) + "\n")
    columns = ("Killed", "Moment of round 2", "What happened", "Seconds", "Weights")
    print_rows(console, f"{COORDINATOR} and two hospitals, killed with -9", columns, rows_of(cells))
    raise typer.Exit(int(any(cell.equal is False for cell in cells)))


if __name__ == "__main__":
    typer.run(main)
