"""The report of a study: one HTML file, its tables as Markdown, its figures as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from common.files import write_atomic, write_json
from common.formatting import numbers
from common.formatting.page import fill
from common.formatting.tables import Table, markdown
from common.runs.result import without_nan
from simulations.report import provenance
from simulations.report import summary as story
from simulations.report.page import Panels
from simulations.report.statistics import ALL_SITES, Summary
from simulations.report.study import tables
from simulations.report.study.pictures import draw_curves
from simulations.report.study.results import SPECIFICITY, StudyResults
from simulations.report.study.significance import auc_intervals, hold_against_reference
from simulations.report.tables import summary_cell

PAGE, TABLES, VALUES = "study.html", "study.md", "study.json"
BINARY_ALONE = (
    f"DeLong's tests and intervals, the {SPECIFICITY} and the activation inside the lesions are "
    "defined for two classes alone, and left out of this study of more."
)


@dataclass(frozen=True)
class Extras:
    """What a study adds to its curves and tables, if it could be made.

    Attributes
    ----------
    tables : mapping of str to tuple of Table
        By the heading of their section.
    panels : sequence of Panels
        Further drawings.
    values : mapping
        What ``study.json`` holds of them.
    facts : sequence of (str, str)
        Of the study as a whole, such as how long it took.
    """

    tables: Mapping[str, tuple[Table, ...]]
    panels: Sequence[Panels] = ()
    values: Mapping[str, Any] | None = None
    facts: Sequence[tuple[str, str]] = ()


def write_study(results: StudyResults, folder: Path, extras: Extras | None = None) -> Path:
    """Write ``study.html``, ``study.md``, ``study.json`` and ``pictures``.

    Parameters
    ----------
    results : StudyResults
        The study, finished or not.
    folder : Path
        Where they go.
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
    extras = extras or Extras({})
    sections = _sections(results) | dict(extras.tables)
    values = study_values(results) | dict(extras.values or {})
    write_json(folder / VALUES, without_nan(values))
    write_atomic(folder / TABLES, _markdown(results, sections, extras).encode())
    panels = [*draw_curves(results, folder), *extras.panels]
    write_atomic(folder / PAGE, _render(results, sections, panels, extras).encode())
    return folder / PAGE


def study_values(results: StudyResults) -> dict[str, Any]:
    """Return what ``study.json`` holds: shares in [0, 1]; what is undefined becomes null there."""
    methods = [method.name for method in results.methods]
    figures = [
        {"method": method, "site": place, "metric": metric}
        | asdict(results.cross_validated(method, place, metric))
        for method in methods
        for place in results.places
        for metric in (*(figure.name for figure in results.figures), SPECIFICITY)
    ]
    figures += [
        {"method": method, "site": site, "metric": results.calibration_error}
        | asdict(results.calibration(method, site))
        for method in methods
        for site in results.sites
    ]
    return {
        "methods": {method.name: method.label for method in results.methods},
        "reference": results.reference,
        "folds": results.folds,
        "seeds": results.seeds,
        "cells": [
            {
                "folder": run.path.name,
                "method": method,
                "fold": fold,
                "seed": seed,
                "seconds": results.seconds.get((method, fold, seed)),
            }
            for (method, fold, seed), run in results.records.items()
        ],
        "missing": results.missing,
        "figures": figures,
        "auc_against_reference": {
            place: {
                name: asdict(test) for name, test in hold_against_reference(results, place).items()
            }
            for place in results.places
        },
        "auc_intervals": {
            site: {name: asdict(auc_intervals(results, name, site)) for name in methods}
            for site in results.sites
        },
    }


def _sections(results: StudyResults) -> dict[str, tuple[Table, ...]]:
    """Return the tables by the heading of their section."""
    orders = tables.orders_table(results)
    sections = {
        "Figures": [tables.paper_table(results)],
        "Expected orders": [orders] if orders else [],
        "Tests": [tables.tests_table(results, place) for place in reversed(results.places)],
        "Intervals and calibration": [
            tables.intervals_table(results, site) for site in results.sites
        ],
        "Cost": [tables.costs_table(results)],
    }
    return {heading: _without_repeats(shown) for heading, shown in sections.items() if shown}


def _without_repeats(shown: Sequence[Table]) -> tuple[Table, ...]:
    """Leave out of each table the notes that one above it in its section has."""
    said: set[str] = set()
    kept = []
    for table in shown:
        kept.append(replace(table, notes=tuple(note for note in table.notes if note not in said)))
        said.update(table.notes)
    return tuple(kept)


def _markdown(
    results: StudyResults, sections: Mapping[str, tuple[Table, ...]], extras: Extras
) -> str:
    lines = [f"# {results.title}", "", _lead(results), "", *_bullets(_facts(results, extras)), ""]
    lines += [*_bullets([("", sentence) for sentence in _cautions(results)]), ""]
    for heading, shown in sections.items():
        lines += [f"## {heading}", "", *(markdown(table) for table in shown)]
    return "\n".join(lines)


def _bullets(told: Sequence[tuple[str, str]]) -> list[str]:
    return [f"- {what}: {answer}" if what else f"- {answer}" for what, answer in told]


def _render(
    results: StudyResults,
    sections: Mapping[str, tuple[Table, ...]],
    panels: Sequence[Panels],
    extras: Extras,
) -> str:
    records = list(results.records.values())
    return fill(
        Path(__file__).parent / "study.html",
        results.title,
        lead=_lead(results),
        facts=_facts(results, extras),
        leaks=story.leaks(records),
        leakage_sentences=story.leakage_sentences(records),
        warnings=_warnings(results),
        sections=sections,
        panels=panels,
        cells=tables.cells_table(results),
        leakage=provenance.leakage_table(records),
        config=provenance.config_table(records[0].config, _ranging(results)) if records else None,
        environment=provenance.environment_table(records),
    )


def _facts(results: StudyResults, extras: Extras) -> list[tuple[str, str]]:
    """Return what was compared, as (what, answer)."""
    wanted = len(results.methods) * len(results.folds) * len(results.seeds)
    told = [
        ("Methods", str(len(results.methods))),
        ("Cells", f"{len(results.records)} done of {wanted} (methods × folds × seeds)"),
    ]
    if not results.records:
        return [*told, *extras.facts]
    config = next(iter(results.records.values())).config
    rounds = f"{config.local_steps} steps" if config.local_steps else "one epoch"
    backbones = sorted({record.config.backbone for record in results.records.values()})
    return [
        *told,
        ("Sites", numbers.listed(results.sites)),
        (
            "Folds",
            f"{', '.join(map(str, results.folds))} of {config.folds} (counted from 0), split by "
            f"{config.split}",
        ),
        ("Seeds", ", ".join(map(str, results.seeds))),
        (
            "Network",
            f"{numbers.listed(backbones)}, width {config.width:g}, {config.image_size} pixels",
        ),
        ("Training", f"{story.training(config)}; federated: an exchange after every {rounds}"),
        ("Weights", "the last step's; nothing was chosen on test images"),
        *extras.facts,
    ]


def _lead(results: StudyResults) -> str:
    """Return the result in a sentence or two: the reference, and the best of either kind."""
    place = results.places[-1] if results.places else ""
    found = {m.name: results.cross_validated(m.name, place, "auc") for m in results.methods}
    done = {name: summary for name, summary in found.items() if summary.n}
    if results.reference not in done:
        return ""
    where = "on the mean of the sites" if place == ALL_SITES else f"at {place}"
    told = [f"{results.label(results.reference)}: AUC {_auc(done[results.reference])} {where}."]
    for federated, kind in ((False, "without an exchange"), (True, "among the federated methods")):
        rivals = [
            m.name
            for m in results.methods
            if (m.mode == "federated") == federated
            and m.name in done
            and m.name != results.reference
        ]
        if rivals:
            best = max(rivals, key=lambda name: done[name].mean)
            told.append(f"The best other {kind}: {results.label(best)}, {_auc(done[best])}.")
    return " ".join(told)


def _auc(summary: Summary) -> str:
    return f"{summary_cell(summary).text}\u00a0%"


def _ranging(results: StudyResults) -> list[str]:
    """Return the keys in which the cells differ on purpose."""
    return ["fold", "seed", *sorted({key for m in results.methods for key in m.values})]


def _cautions(results: StudyResults) -> list[str]:
    return [*story.leakage_sentences(list(results.records.values())), *_warnings(results)]


def _warnings(results: StudyResults) -> list[str]:
    """Return what keeps the figures from being taken at face value."""
    told = [] if results.binary else [BINARY_ALONE]
    if results.missing:
        count = len(results.missing)
        told.append(
            f"{count} cell{' is' if count == 1 else 's are'} not done; the figures are the others'."
        )
    prints = provenance.fingerprints(list(results.records.values()))
    if len(prints) > 1:
        told.append(
            f"The cells were computed by {len(prints)} versions of the code (see Environment)."
        )
    named = [(results.label(method), run) for (method, _, _), run in results.records.items()]
    for text in provenance.unequal_budgets(named):
        told.append(f"The methods saw different numbers of images at {text}.")
    return told
