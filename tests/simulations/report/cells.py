"""Results of a study with figures that a test chose."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from common.methods.registry import METHODS
from simulations.report.records import read_record
from simulations.report.study.results import Order, StudyResults
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
    return StudyResults(
        title="A study",
        methods=tuple(METHODS[name] for name in aucs),
        folds=tuple(sorted({fold for fold, _ in pairs})),
        seeds=tuple(sorted({seed for _, seed in pairs})),
        reference=reference,
        orders=tuple(orders),
        records=records,
        missing=missing or {},
        seconds=dict.fromkeys(records, 60.0),
        memory=dict.fromkeys(records, 2e9),
    )
