"""The report of a study: its page, its tables as Markdown, its figures as JSON and CSV."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.files import write_atomic, write_json
from common.tasks.figures import SUBSET_KEYS
from simulations.report import figures, provenance, summary, tables
from simulations.report.curves import curve_sections
from simulations.report.page import Section, to_html, to_markdown
from simulations.report.records import RunRecord
from simulations.report.results import SPECIFICITY, StudyResults
from simulations.report.significance import auc_intervals, hold_against_reference
from simulations.report.site_images import images_section, told_images

NO_REFERENCE = "Pooled training was not run, so there is nothing to hold the other modes against."


def write_report(
    results: StudyResults,
    folder: Path,
    sections: Sequence[Section] = (),
    values: Mapping[str, Any] | None = None,
    facts: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write a report and its figures.

    Parameters
    ----------
    results : StudyResults
        What is reported, finished or not.
    folder : Path
        Where it goes: ``study.html``, ``study.md``, ``study.json``, ``study.csv`` and ``pictures``;
        of a comparison ``report.html``, and the others as ``comparison``.
    sections : sequence of Section
        What stands behind the curves.
    values : mapping, optional
        What the JSON file holds of that.
    facts : sequence of (str, str)
        Of the study as a whole, such as how long it took.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    RunError
        If something cannot be written.
    """
    comparison = results.plan.comparison
    name = "comparison" if comparison else "study"
    page = make_page(results, folder, sections, facts)
    write_json(folder / f"{name}.json", values_of(results) | dict(values or {}))
    write_atomic(folder / f"{name}.csv", to_csv(results).encode())
    write_atomic(folder / f"{name}.md", to_markdown(page).encode())
    path = folder / ("report.html" if comparison else "study.html")
    write_atomic(path, to_html(page).encode())
    return path


def make_page(
    results: StudyResults,
    folder: Path,
    sections: Sequence[Section] = (),
    facts: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Return what the page's template asks for; parameters as for :func:`write_report`."""
    records = list(results.records.values())
    curves = curve_sections(results, folder)
    comparison = results.plan.comparison
    own = _of_comparison(results, curves) if comparison else [*_of_study(results), *curves]
    behind = [*sections, *_traced(results, folder)]
    return {
        "title": results.plan.title,
        "lead": summary.lead(results),
        "cards": summary.cards(results) if comparison else (),
        "leaks": summary.leaks(records),
        "leakage": summary.leakage_sentences(records),
        "warnings": summary.warnings(results),
        "facts": [*summary.facts(results), *facts],
        "sections": [*(one for one in own if one.shown or one.pictures or one.folded), *behind],
    }


def _of_study(results: StudyResults) -> list[Section]:
    tests = [tables.tests_table(results, place) for place in reversed(results.places)]
    intervals = [tables.intervals_table(results, site) for site in results.sites]
    return [
        Section("Figures", [tables.paper_table(results)]),
        Section("Expected orders", [tables.orders_table(results)]),
        Section("Tests", tests if results.others else ()),
        Section("Intervals and calibration", intervals),
        Section("Cost", [provenance.costs_table(results)]),
    ]


def _of_comparison(results: StudyResults, curves: Sequence[Section]) -> list[Section]:
    sites, records = results.sites, list(results.records.values())
    differences = tables.differences_table(results)
    traffic = provenance.traffic_tables(records)
    several = len({run.pair for run in records}) > 1
    low = figures.lowest_auc(records, sites, curves=False)
    start = figures.lowest_auc(records, sites, curves=True)
    return [
        Section(
            "Figures by site and mode",
            [tables.metrics_table(results), differences],
            note="" if differences else NO_REFERENCE,
        ),
        Section(
            "AUC by site",
            pictures=[figures.runs_picture(results, site, low) for site in sites],
            note="A dot is a run, the bar the mean of the runs."
            if several
            else "The mark is the run, the line its 95 % bootstrap interval over the test images.",
        ),
        *curves,
        Section(
            "Learning curves",
            pictures=[figures.learning_picture(results, site, start) for site in sites],
            note="AUC on the test images, about once an epoch. For looking at: nothing was chosen "
            f"by it.{' Thin: single runs; thick: their mean.' if several else ''}",
        ),
        Section("Budget", [provenance.budget_table(results)]),
        Section("What travelled", traffic[:1], folded=traffic[1:]),
        Section(
            "Shared and private tensors",
            folded=provenance.tensor_tables(records),
            text="Shared tensors are averaged by the server; private ones never leave their site.",
        ),
    ]


def _traced(results: StudyResults, folder: Path) -> list[Section]:
    """Return what the figures are made of."""
    records = list(results.records.values())
    leakage = provenance.leakage_table(records)
    config = [provenance.config_table([run.config for run in records])] if records else []
    return [
        *([images] if (images := images_section(results, folder)) else []),
        *([Section("Patients and folds", [leakage])] if leakage else []),
        Section(
            "Cells",
            folded=[provenance.cells_table(results)],
            text="Every figure above is made of these; each folder holds a run's configuration, "
            "figures, weights and predictions.",
        ),
        Section(
            "Configuration and environment",
            folded=[*config, provenance.environment_table(records)],
        ),
    ]


def values_of(results: StudyResults) -> dict[str, Any]:
    """Return what the report's JSON holds: shares in [0, 1]; what is undefined is NaN."""
    names = [method.name for method in results.plan.methods]
    told = told_images(list(results.records.values()))
    metrics = [figure.name for figure in results.figures]
    # Of more than two classes it is another figure.
    calibration = "calibration error" if results.binary else "calibration error of the decision"
    figures = [
        {"method": name, "site": place, "metric": metric}
        | asdict(results.summary(name, place, metric))
        for name in names
        for place in results.places
        for metric in (*metrics, SPECIFICITY)
    ]
    figures += [
        {"method": name, "site": site, "metric": calibration}
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
        "site_images": told and {"run": told.run.name, "sites": told.sites},
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
    writer.writerow(["run", "method", "fold", "seed", "site", *SUBSET_KEYS, "seconds"])
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
