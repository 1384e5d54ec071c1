"""The fault matrix: every process of a deployment, killed at every moment of a round.

Each cell is a real deployment on this machine (``xsite deploy up --local``) of two synthetic
hospitals over three rounds. In the second round everything is held at the moment, the process gets
``kill -9``, and the rest goes on. What is killed is started again, as systemd would. Then the
weights are compared, to the bit, with those of a run that nobody disturbed.

    python -m simulations.evidence faults

Some three minutes a cell, of which Flower takes one to notice; several go at once.
"""

import json
import os
import re
import shutil
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import Popen
from typing import Annotated

import psutil
import typer
from jinja2 import Template
from rich.console import Console
from safetensors.torch import save

from clients.flower_host.prefork import CLIENT, STANDBY
from common.errors import RunError
from common.formatting.tables import Group, Row, Table, plain_table, print_table
from common.tensor_files import load_tensors
from server.run_folder import describe_environment
from simulations.report.markdown import markdown
from simulations.runtime.processes import last_lines, program_line, start, terminable

SITE = "hospital-a"
COORDINATOR = "coordinator"
HOOK = Path(__file__).parent / "hook"
PAGE = Path(__file__).parent / "page.md"
OTHER = "hospital-b"
CONFIG = Path(__file__).parent / "deployment.toml"
LONGEST_SECONDS = 900.0
UNDISTURBED = "undisturbed"


@dataclass(frozen=True)
class Process:
    """A process, by the program that it runs and whose it is."""

    name: str
    program: str
    role: str


@dataclass(frozen=True)
class FaultMoment:
    """A moment of the second round, as a call of a function: before it, or ``after`` it.

    ``call``: which call of it; the join request counts where the function serves it too.
    ``answering``: whether the site's ClientApp is there.
    """

    name: str
    role: str
    module: str
    function: str
    call: int
    after: bool = False
    answering: bool = True


PROCESSES = (
    Process("ServerApp", "flwr-serverapp", COORDINATOR),
    Process("SuperLink", "flower-superlink", COORDINATOR),
    Process("SuperExec", "flower-superexec", COORDINATOR),
    Process("SuperNode", "flower-supernode", SITE),
    Process("SuperNode's SuperExec", "flower-superexec", SITE),
    Process("what stands by for ClientApps", STANDBY, SITE),
    Process("ClientApp", CLIENT, SITE),
)
MOMENTS = (
    FaultMoment("before training", SITE, "clients.round", "train", 2),
    # The third of the second round's four steps.
    FaultMoment("mid-epoch", SITE, "common.learning.loop", "_joint_batch", 7),
    FaultMoment("after private write", SITE, "clients.store", "PrivateStore.save", 2, after=True),
    FaultMoment("before send", SITE, "clients.app", "release", 3, after=True),
    FaultMoment(
        "after send",
        *(SITE, "flwr.supernode.start_client_internal", "_push_messages", 3),
        after=True,
        answering=False,
    ),
    FaultMoment("mid-aggregation", COORDINATOR, "server.state", "aggregate", 2, answering=False),
    FaultMoment(
        "mid-checkpoint",
        COORDINATOR,
        "common.tensor_files",
        "save_file",
        2,
        after=True,
        answering=False,
    ),
)


@dataclass(frozen=True)
class FaultOutcome:
    """What became of a run: who was killed when, how it ended, in how many seconds."""

    process: str
    moment: str
    told: str
    seconds: float
    equal: bool | None


def run_cell(
    folder: Path,
    process: Process | None,
    moment: FaultMoment | None,
    reference: Path | None,
    stop: threading.Event,
) -> FaultOutcome:
    """Run a deployment and kill a process in it.

    Parameters
    ----------
    folder : Path
        For this run alone.
    process, moment : Process and FaultMoment, optional
        Whom to kill when; None: nobody.
    reference : Path, optional
        Folder of the run that nobody disturbed.
    stop : Event
        Set where nobody wants to know any more.
    """
    folder.mkdir(parents=True)
    names = (process.name if process else "nobody", moment.name if moment else "")
    if process and moment and process.name == "ClientApp" and not moment.answering:
        return FaultOutcome(*names, "no ClientApp runs at this moment", 0.0, None)
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
        return FaultOutcome(*names, "the process was not there", seconds, False)
    if ended != 0:
        how = "was still running" if ended is None else f"ended with {ended}"
        return FaultOutcome(*names, f"{how}. {last_lines(folder / 'output.txt')}", seconds, False)
    equal = None if reference is None else _outcome_of(run) == _outcome_of(reference)
    return FaultOutcome(*names, _tell(run, folder / "output.txt"), seconds, equal)


@contextmanager
def _deployment(folder: Path, moment: FaultMoment | None) -> Iterator[Popen[bytes]]:
    """Start the command, and leave nothing of it behind."""
    environment = os.environ | {"FLWR_TELEMETRY_ENABLED": "0", "XSITE_HOME": str(folder / "home")}
    if moment is not None:
        fault = asdict(moment) | {"name": moment.function, "folder": str(folder)}
        path = [str(HOOK), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment |= {"XSITE_FAULT": json.dumps(fault), "PYTHONPATH": os.pathsep.join(path)}
    program = Path(sysconfig.get_path("scripts")) / "xsite"
    command = [str(program), "deploy", "up", "--local", "--config", str(CONFIG)]
    # Names count as bytes exchanged, and so do not differ.
    command += ["--runs", str(folder / "runs"), "--name", UNDISTURBED]
    process = start(command, folder, environment, folder / "output.txt")
    try:
        yield process
    finally:
        # It takes down what it started.
        with suppress(ProcessLookupError):
            process.terminate()
        process.wait(timeout=120)


def _kill(root: int, process: Process) -> bool:
    """Kill what runs a program for a role in a deployment, at once; say whether it was there."""
    found, descendants = [], list[psutil.Process]()
    with suppress(psutil.Error):
        descendants = psutil.Process(root).children(recursive=True)
    for one in descendants:
        with suppress(psutil.Error):
            words = [Path(word).name for word in program_line(one).split()]
            role = Path(one.environ().get("XSITE_STATE", "")).name
            if process.program in words and role == process.role:
                one.kill()
                found.append(one)
    psutil.wait_procs(found, timeout=10)
    return bool(found)


def _outcome_of(run: Path) -> list[bytes]:
    """Return all weights and predictions of a run."""
    hospitals = run.parent / f"{run.name}-hospitals"
    own = [hospitals / site / run.name / "sites" / site for site in (SITE, OTHER)]
    weights = [run / "shared.safetensors", *(folder / "private.safetensors" for folder in own)]
    predictions = [(folder / "predictions.csv").read_bytes() for folder in own]
    return [*(save(load_tensors(path)[0]) for path in weights), *predictions]


def _tell(run: Path, output: Path) -> str:
    """Say what happened, from the run's log and what the command printed."""
    log, printed = (
        (run / "log.txt").read_text(encoding="utf-8"),
        output.read_text(encoding="utf-8", errors="replace"),
    )
    told = [f"{site} was away" for site in re.findall(r"waiting: (\S+) is away", log)]
    told += [f"{sites} asked again" for sites in re.findall(r"waiting: asking (.+) again", log)]
    told += [f"left out: {site}" for site in re.findall(r"(\S+) LEFT OUT", log)]
    if "the server's process was killed" in printed:
        begun = re.findall(r"going on after round (\d+)", log)
        told.append(f"resumed after round {', '.join(begun) or '0'}")
    return "; ".join(told) or "went on as if nothing had happened"


def fault_rows(cells: Sequence[FaultOutcome]) -> list[tuple[str, ...]]:
    """Return the table's rows."""
    weights = {True: "equal", False: "NOT EQUAL", None: "-"}
    return [
        (cell.process, cell.moment, cell.told, f"{cell.seconds:.0f}", weights[cell.equal])
        for cell in cells
    ]


def faults_page(cells: Sequence[FaultOutcome], at_once: int) -> str:
    """Return the matrix as a page of Markdown."""
    rows = fault_rows(cells)
    groups = (
        Group(f"{name} killed", tuple(Row(row[1], row[2:]) for row in rows if row[0] == name))
        for name in dict.fromkeys(row[0] for row in rows)
    )
    table = Table(
        "What happened when a process was killed",
        ("At which moment of round 2", "What happened", "Seconds", "Weights"),
        tuple(groups),
    )
    page = Template(PAGE.read_text(encoding="utf-8"), keep_trailing_newline=True)
    cores = describe_environment()["cores"]
    return str(page.render(table=markdown(table, level=1), cores=cores, at_once=at_once))


def run_cells(
    pairs: Sequence[tuple[Process, FaultMoment]], base: Path, at_once: int, console: Console
) -> list[FaultOutcome]:
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
                told = " | ".join(fault_rows([job.result()])[0])
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
        Path | None, typer.Option(help="Write the table as a page of Markdown.")
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
        output.write_text(faults_page(cells, at_once), encoding="utf-8")
    columns = ("Killed", "Moment of round 2", "What happened", "Seconds", "Weights")
    title = f"{COORDINATOR} and two hospitals, killed with -9"
    print_table(console, plain_table(title, columns, fault_rows(cells)))
    raise typer.Exit(int(any(cell.equal is False for cell in cells)))
