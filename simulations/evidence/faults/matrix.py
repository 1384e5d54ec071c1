"""The fault matrix: every process of a deployment, killed at every moment of a round.

Each cell is a real deployment on this machine (``xsite deploy up --local``) of two synthetic
hospitals over three rounds. In the second round everything is held at the moment, the process gets
``kill -9``, and the rest goes on. What is killed is started again, as systemd would. Then the
weights are compared, to the bit, with those of a run that nobody disturbed.

    python -m simulations.evidence faults

Some three minutes a cell, of which Flower takes one to notice; several go at once.
"""

import shutil
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated

import typer
from jinja2 import Template
from rich.console import Console

from common.errors import RunError
from common.formatting.tables import Group, Row, Table, plain_table, print_table
from server.run_folder import describe_environment
from simulations.evidence.faults.cell import (
    COORDINATOR,
    MOMENTS,
    PROCESSES,
    UNDISTURBED,
    FaultMoment,
    FaultOutcome,
    Process,
    run_cell,
)
from simulations.report.markdown import markdown
from simulations.runtime.processes import terminable

PAGE = Path(__file__).parent / "page.md"


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
    page = Template(PAGE.read_text(), keep_trailing_newline=True)
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
        output.write_text(faults_page(cells, at_once))
    columns = ("Killed", "Moment of round 2", "What happened", "Seconds", "Weights")
    title = f"{COORDINATOR} and two hospitals, killed with -9"
    print_table(console, plain_table(title, columns, fault_rows(cells)))
    raise typer.Exit(int(any(cell.equal is False for cell in cells)))
