"""A study's report from its cells alone: nothing is trained, and it may be half finished."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.console.progress import ProgressListener
from common.errors import CheckpointError
from common.formatting.numbers import duration, size
from simulations.report.page import Section
from simulations.report.records import read_record, with_chosen_weights
from simulations.report.results import StudyResults
from simulations.report.sections import write_report
from simulations.study.analyses import run_analyses
from simulations.study.cells import Cell, read_cell
from simulations.study.run import Study
from simulations.study.sessions import read_sessions


def publish(study: Study, listener: ProgressListener) -> tuple[Path, StudyResults]:
    """Write the report of the cells that are done; what costs computing is left out of comparisons.

    Parameters
    ----------
    study : Study
        As :func:`simulations.study.run.open_study` returns it.
    listener : ProgressListener
        Told what is being computed.

    Returns
    -------
    Path
        The page.
    StudyResults
        The figures of the cells that are done.

    Raises
    ------
    RunError
        If it cannot be written.
    """
    done: dict[Cell, Mapping[str, Any]] = {}
    missing: dict[str, str] = {}
    for cell, key in study.keys.items():
        record, reason = None, ""
        try:
            record = read_cell(study.path(cell), key)
        except CheckpointError as error:
            reason = str(error)
        if record is not None:
            done[cell] = record
        elif cell in study.asked or (study.path(cell) / "config.toml").exists():
            missing[cell.name] = study.failures.get(cell, reason)
    main = {(cell.method.name, cell.fold, cell.seed): cell for cell in done if not cell.without}
    runs = with_chosen_weights([read_record(study.path(cell)) for cell in main.values()])
    records = dict(zip(main, runs, strict=True))
    cells = {key: done[cell] for key, cell in main.items()}
    results = StudyResults(study.plan, records, missing, cells)
    sections: list[Section] = []
    values: dict[str, Any] = {}
    if not study.plan.comparison:
        left_out = [cell for cell in done if cell.without]
        sections, values = run_analyses(study, results, left_out, listener)
    facts = _took(study.folder)
    return write_report(results, study.folder, sections, values, facts), results


def _took(folder: Path) -> list[tuple[str, str]]:
    """Return how long computing took in all, and the memory that all cells took at once."""
    held = read_sessions(folder)
    if not held:
        return []
    seconds = sum((one.ended - one.began).total_seconds() for one in held)
    slots = max(one.slots for one in held)
    memory = size(max(one.peak_memory_bytes for one in held))
    sessions = "one session" if len(held) == 1 else f"{len(held)} sessions"
    return [
        ("Computing time", f"{duration(seconds)} in {sessions}, up to {slots} cells at once"),
        ("Memory", f"{memory} at the most, all cells together"),
    ]
