"""Results of studies and comparisons with figures that a test chose."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from common.config.schema import Config
from simulations.comparison import METHODS
from simulations.report.records import read_record, with_chosen_weights
from simulations.report.results import StudyResults
from simulations.study.plan import Order, StudyPlan
from simulations.study.presets import MODES, comparison
from tests.simulations.report.fabricated_runs import fabricate_run

SITES = ("site-a", "site-b")


def fabricate_study(
    base: Path,
    aucs: Mapping[str, Mapping[tuple[int, int], Sequence[float]]],
    reference: str,
    orders: Sequence[Order] = (),
    missing: Mapping[str, str] | None = None,
) -> StudyResults:
    """Write a cell for each (fold, seed) of each method with the AUC of both sites."""
    records = {}
    for name, cells in aucs.items():
        for (fold, seed), values in cells.items():
            run = fabricate_run(
                base / name,
                METHODS[name].mode,
                dict(zip(SITES, values, strict=True)),
                fold,
                seed,
                result={"images_seen": dict.fromkeys(SITES, 160)},
            )
            records[name, fold, seed] = read_record(run)
    pairs = [pair for cells in aucs.values() for pair in cells]
    plan = StudyPlan(
        title="A study",
        methods=tuple(METHODS[name] for name in aucs),
        folds=tuple(sorted({fold for fold, _ in pairs})),
        seeds=tuple(sorted({seed for _, seed in pairs})),
        reference=reference,
        config=Config(),
        orders=tuple(orders),
    )
    took = {"seconds": 60.0, "peak_memory_bytes": 2_000_000_000}
    return StudyResults(plan, records, missing or {}, dict.fromkeys(records, took))


def comparison_of(
    runs: Sequence[Path], pending: Mapping[str, str] | None = None, title: str = "A title"
) -> StudyResults:
    """Return the results of a comparison of runs; those that are not completed are missing."""
    records = [read_record(run) for run in runs]
    missing = {run.name: str(run.result.get("reason", "")) for run in records if not run.completed}
    done = with_chosen_weights([run for run in records if run.completed])
    modes = [mode for mode in MODES if any(run.mode == mode for run in done)]
    plan = comparison(Config(), (0,), (0,), modes or ["pooled"])
    plan = replace(
        plan,
        title=title,
        folds=tuple(sorted({run.config.fold for run in done})),
        seeds=tuple(sorted({run.config.seed for run in done})),
    )
    found = {(run.mode, *run.pair): run for run in done}
    took = {"seconds": None, "peak_memory_bytes": 0}
    return StudyResults(plan, found, missing | dict(pending or {}), dict.fromkeys(found, took))
