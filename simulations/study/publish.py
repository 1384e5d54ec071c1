"""A study's report from its cells alone: nothing is trained, and it may be half finished."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.console.progress import ProgressListener
from common.formatting.numbers import duration, size
from simulations.report.records import RunRecord, read_record, with_chosen_weights
from simulations.report.results import Key, StudyResults
from simulations.report.sections import Extras, write_report
from simulations.study.analyses import run_analyses
from simulations.study.cells import Cell, read_cell, state_of
from simulations.study.run import Study
from simulations.study.sessions import read_sessions


def publish(study: Study, listener: ProgressListener) -> Path:
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

    Raises
    ------
    RunError
        If it cannot be written.
    """
    done, missing = _done_cells(study)
    results = _results(study, done, missing)
    extras = Extras()
    if not study.plan.comparison:
        left_out = [cell for cell in done if cell.without]
        extras = run_analyses(study, results, left_out, listener)
    return write_report(results, study.folder, replace(extras, facts=_took(study.folder)))


def read_results(study: Study) -> StudyResults:
    """Return the figures of the cells that are done."""
    return _results(study, *_done_cells(study))


def _done_cells(study: Study) -> tuple[dict[Cell, Mapping[str, Any]], dict[str, str]]:
    """Return the records of the cells that are done and whole, and the others by name."""
    done: dict[Cell, Mapping[str, Any]] = {}
    missing: dict[str, str] = {}
    for cell in study.cells:
        state, reason = state_of(study.path(cell), study.keys[cell])
        if state == "done":
            done[cell] = read_cell(study.path(cell))
        elif cell in study.asked or state != "missing":
            missing[cell.name] = study.failures.get(cell, reason)
    return done, missing


def _results(
    study: Study, done: Mapping[Cell, Mapping[str, Any]], missing: Mapping[str, str]
) -> StudyResults:
    plan = study.plan
    main = {_key(cell): cell for cell in done if not cell.without}
    records: dict[Key, RunRecord] = dict(
        zip(
            main,
            with_chosen_weights([read_record(study.path(cell)) for cell in main.values()]),
            strict=True,
        )
    )
    seconds = {key: done[cell]["seconds"] for key, cell in main.items()}
    return StudyResults(
        title=plan.title,
        methods=plan.methods,
        folds=plan.folds,
        seeds=plan.seeds,
        reference=plan.reference,
        orders=plan.orders,
        records=records,
        missing=missing,
        seconds={key: value for key, value in seconds.items() if value},
        memory={key: done[cell]["peak_memory_bytes"] for key, cell in main.items()},
        comparison=plan.comparison,
    )


def _key(cell: Cell) -> Key:
    return cell.method.name, cell.fold, cell.seed


def _took(folder: Path) -> list[tuple[str, str]]:
    """Return how long computing took in all, and the memory that all cells took at once."""
    found = read_sessions(folder)
    if found is None:
        return []
    sessions = "one session" if found.count == 1 else f"{found.count} sessions"
    return [
        (
            "Computing time",
            f"{duration(found.seconds)} in {sessions}, up to {found.slots} cells at once",
        ),
        ("Memory", f"{size(found.memory)} at the most, all cells together"),
    ]
