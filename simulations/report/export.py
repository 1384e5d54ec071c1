"""The figures of a report for other programs, as JSON and as CSV (one row a run and site)."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.files import write_atomic, write_json
from common.tasks.figures import SUBSET_KEYS
from simulations.report.records import RunRecord, with_chosen_weights
from simulations.report.statistics import compare_records
from simulations.report.tables import seconds_of

COLUMNS = (
    "run",
    "mode",
    "fold",
    "seed",
    "site",
    "status",
    *SUBSET_KEYS,
    "seconds",
)


def write_tables(records: Sequence[RunRecord], folder: Path) -> None:
    """Write ``comparison.json`` and ``comparison.csv``.

    Parameters
    ----------
    records : sequence of RunRecord
        Runs, finished or not. Figures are shares in [0, 1]; what is undefined is null, or empty.
    folder : Path
        Where they go.

    Raises
    ------
    RunError
        If they cannot be written.
    """
    records = with_chosen_weights(records)
    write_json(folder / "comparison.json", comparison_values(records))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for record in records:
        for site in record.config.site_names:
            writer.writerow(_csv_row(record, site))
    write_atomic(folder / "comparison.csv", text.getvalue().encode())


def comparison_values(records: Sequence[RunRecord]) -> dict[str, Any]:
    """Return what ``comparison.json`` holds."""
    comparison = compare_records(records)
    return {
        "runs": [
            {
                "run": record.name,
                "mode": record.mode,
                "fold": record.config.fold,
                "seed": record.config.seed,
                "status": record.status,
                "weights": record.weights,
                "config_digest": record.config.digest(),
            }
            for record in records
        ],
        "summaries": _by_key(comparison.summaries),
        "differences_to_pooled": _by_key(comparison.differences),
    }


def _by_key(values: Mapping[tuple[str, str, str], Any]) -> list[dict[str, Any]]:
    return [
        {"site": site, "mode": mode, "metric": metric}
        | {name: _or_null(item) for name, item in asdict(value).items()}
        for (site, mode, metric), value in values.items()
    ]


def _or_null(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv_row(record: RunRecord, site: str) -> list[Any]:
    about = [record.name, record.mode, *record.pair, site, record.status]
    figures: list[float] = [
        record.figure(site, name) if record.completed else math.nan for name in SUBSET_KEYS
    ]
    images = SUBSET_KEYS.index("images")
    if math.isfinite(figures[images]):
        figures[images] = int(figures[images])
    return about + ["" if _or_null(v) is None else v for v in (*figures, seconds_of(record))]
