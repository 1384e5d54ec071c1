"""The figures of a report for other programs, as JSON and as CSV (one row a run and site)."""

import csv
import io
import math
from dataclasses import asdict
from typing import Any

from common.tasks.figures import SUBSET_KEYS
from simulations.report.records import RunRecord
from simulations.report.results import SPECIFICITY, StudyResults
from simulations.report.significance import auc_intervals, hold_against_reference

COLUMNS = ("run", "method", "fold", "seed", "site", *SUBSET_KEYS, "seconds")


def values_of(results: StudyResults) -> dict[str, Any]:
    """Return what the report's JSON holds: shares in [0, 1]; what is undefined is NaN."""
    names = [method.name for method in results.plan.methods]
    metrics = [figure.name for figure in results.figures]
    figures = [
        {"method": name, "site": place, "metric": metric}
        | asdict(results.summary(name, place, metric))
        for name in names
        for place in results.places
        for metric in (*metrics, SPECIFICITY)
    ]
    figures += [
        {"method": name, "site": site, "metric": results.calibration_error}
        | asdict(results.calibration(name, site))
        for name in names
        for site in results.sites
    ]
    return {
        "methods": {method.name: method.label for method in results.plan.methods},
        "reference": results.plan.reference,
        "folds": results.plan.folds,
        "seeds": results.plan.seeds,
        "cells": [
            {
                "folder": run.path.name,
                "method": method,
                "fold": fold,
                "seed": seed,
                "weights": run.weights,
                "config_digest": run.config.digest(),
                "seconds": results.cells[method, fold, seed]["seconds"],
            }
            for (method, fold, seed), run in results.records.items()
        ],
        "missing": results.missing,
        "figures": figures,
        "differences_to_reference": [
            {"method": method.name, "site": place, "metric": metric}
            | asdict(results.difference(method.name, place, metric))
            for method in results.others
            for place in results.places
            for metric in metrics
        ],
        "auc_against_reference": {
            place: {
                name: asdict(test) for name, test in hold_against_reference(results, place).items()
            }
            for place in results.places
        },
        "auc_intervals": {
            site: {name: asdict(auc_intervals(results, name, site)) for name in names}
            for site in results.sites
        },
    }


def to_csv(results: StudyResults) -> str:
    """Return a row for each cell and site, with its figures on the test images."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for key, run in results.records.items():
        for site in results.sites:
            writer.writerow([run.name, *key, site, *_figures(run, site)])
    return text.getvalue()


def _figures(run: RunRecord, site: str) -> list[float | int | str]:
    values = [run.figure(site, name) for name in SUBSET_KEYS]
    whole = [
        int(v) if name == "images" and math.isfinite(v) else v
        for name, v in zip(SUBSET_KEYS, values, strict=True)
    ]
    return ["" if not math.isfinite(value) else value for value in (*whole, run.seconds)]
