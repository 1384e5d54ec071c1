"""The report of a study: its page, its tables as Markdown, its figures as JSON and CSV."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.files import write_atomic, write_json
from simulations.report import figures, provenance, summary, tables
from simulations.report.curves import curve_sections
from simulations.report.export import to_csv, values_of
from simulations.report.page import Page, Section, to_html, to_markdown
from simulations.report.results import StudyResults
from simulations.report.tensors import tensor_tables

NO_REFERENCE = "Pooled training was not run, so there is nothing to hold the other modes against."


@dataclass(frozen=True)
class Extras:
    """What a report shows beside its figures, if it could be made.

    Attributes
    ----------
    sections : sequence of Section
        Behind the curves.
    values : mapping
        What the JSON file holds of them.
    facts : sequence of (str, str)
        Of the study as a whole, such as how long it took.
    """

    sections: Sequence[Section] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    facts: Sequence[tuple[str, str]] = ()


def write_report(results: StudyResults, folder: Path, extras: Extras | None = None) -> Path:
    """Write a report and its figures.

    Parameters
    ----------
    results : StudyResults
        What is reported, finished or not.
    folder : Path
        Where it goes: ``study.html``, ``study.md``, ``study.json``, ``study.csv`` and ``pictures``;
        of a comparison ``report.html``, and the others as ``comparison``.
    extras : Extras, optional
        What stands beside.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    RunError
        If something cannot be written.
    """
    extras = extras or Extras()
    name = "comparison" if results.comparison else "study"
    page = make_page(results, folder, extras)
    write_json(folder / f"{name}.json", values_of(results) | dict(extras.values))
    write_atomic(folder / f"{name}.csv", to_csv(results).encode())
    write_atomic(folder / f"{name}.md", to_markdown(page).encode())
    path = folder / ("report.html" if results.comparison else "study.html")
    write_atomic(path, to_html(page).encode())
    return path


def make_page(results: StudyResults, folder: Path, extras: Extras | None = None) -> Page:
    """Return a report; parameters as for :func:`write_report`."""
    extras = extras or Extras()
    records = list(results.records.values())
    sections = [] if results.comparison else _of_study(results)
    sections += curve_sections(results, folder)
    if results.comparison:
        sections = _of_comparison(results, sections)
    return Page(
        results.title,
        summary.lead(results),
        summary.cards(results) if results.comparison else (),
        summary.leaks(records),
        summary.leakage_sentences(records),
        summary.warnings(results),
        (*summary.facts(results), *extras.facts),
        (
            *(one for one in sections if one.tables or one.pictures or one.folded),
            *extras.sections,
            *_traced(results),
        ),
    )


def _of_study(results: StudyResults) -> list[Section]:
    orders = tables.orders_table(results)
    tests = [tables.tests_table(results, place) for place in reversed(results.places)]
    intervals = [tables.intervals_table(results, site) for site in results.sites]
    return [
        Section("Figures", (tables.paper_table(results),)),
        Section("Expected orders", (orders,) if orders else ()),
        Section("Tests", (*tests,) if results.others else ()),
        Section("Intervals and calibration", (*intervals,)),
        Section("Cost", (provenance.costs_table(results),)),
    ]


def _of_comparison(results: StudyResults, curves: Sequence[Section]) -> list[Section]:
    sites, records = results.sites, list(results.records.values())
    differences = tables.differences_table(results)
    traffic = provenance.traffic_tables(records) or ()
    several = len({run.pair for run in records}) > 1
    low = figures.lowest_auc(records, sites, curves=False)
    start = figures.lowest_auc(records, sites, curves=True)
    return [
        Section(
            "Figures by site and mode",
            (tables.metrics_table(results), *([differences] if differences else [])),
            note="" if differences else NO_REFERENCE,
        ),
        Section(
            "AUC by site",
            pictures=tuple(figures.runs_picture(results, site, low) for site in sites),
            note="A dot is a run, the bar the mean of the runs."
            if several
            else "The mark is the run, the line its 95 % bootstrap interval over the test images.",
        ),
        *curves,
        Section(
            "Learning curves",
            pictures=tuple(figures.learning_picture(results, site, start) for site in sites),
            note="AUC on the test images, about once an epoch. For looking at: nothing was chosen "
            f"by it.{' Thin: single runs; thick: their mean.' if several else ''}",
        ),
        Section("Budget", (provenance.budget_table(results),)),
        Section("What travelled", (*traffic[:1],), folded=(*traffic[1:],)),
        Section(
            "Shared and private tensors",
            folded=tensor_tables(records) or (),
            text="Shared tensors are averaged by the server; private ones never leave their site.",
        ),
    ]


def _traced(results: StudyResults) -> list[Section]:
    """Return what the figures are made of."""
    records = list(results.records.values())
    leakage = provenance.leakage_table(records)
    config = [provenance.config_table([run.config for run in records])] if records else []
    return [
        *([Section("Patients and folds", (leakage,))] if leakage else []),
        Section(
            "Cells",
            folded=(provenance.cells_table(results),),
            text="Every figure above is made of these; each folder holds a run's configuration, "
            "figures, weights and predictions.",
        ),
        Section(
            "Configuration and environment",
            folded=(*config, provenance.environment_table(records)),
        ),
    ]
