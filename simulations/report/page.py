"""One HTML file of a comparison: inlined styles and drawings, nothing fetched from anywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from common.files import write_atomic
from common.formatting.page import fill
from simulations.report import figures, provenance, tables, tensors
from simulations.report import summary as story
from simulations.report.records import RunRecord, sites_of, with_chosen_weights
from simulations.report.statistics import Comparison, compare_records


@dataclass(frozen=True)
class Panel:
    """A figure of one site."""

    site: str
    svg: Markup


@dataclass(frozen=True)
class Panels:
    """Figures that show the same of every site; wide ones get a line each."""

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    wide: bool = False


def write_report(
    records: Sequence[RunRecord], path: Path, title: str, pending: Mapping[str, str] | None = None
) -> Path:
    """Write the report of runs.

    Parameters
    ----------
    records : sequence of RunRecord
        Runs, finished or not; the figures are those of the finished ones.
    path : Path
        The HTML file to write.
    title : str
        Heading of the page.
    pending : mapping of str to str, optional
        Runs without a folder: by name, why they failed, or '' if they have not begun.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    RunError
        If it cannot be written.
    """
    write_atomic(path, render(records, title, pending).encode())
    return path


def render(
    records: Sequence[RunRecord], title: str, pending: Mapping[str, str] | None = None
) -> str:
    """Return the page of :func:`write_report`."""
    pending = pending or {}
    records = with_chosen_weights(records)
    comparison = compare_records(records)
    ranging = [
        key for key in ("fold", "seed") if len({getattr(r.config, key) for r in records}) > 1
    ]
    return fill(
        Path(__file__).parent / "page.html",
        title,
        headline=story.headline(comparison),
        facts=story.facts(records, pending),
        leakage_sentences=story.leakage_sentences(records),
        leaks=story.leaks(records),
        warnings=story.warnings(records, pending),
        metrics=tables.metrics_table(comparison),
        differences=tables.differences_table(comparison),
        figures=draw(records, comparison),
        budget=provenance.budget_table(records),
        traffic=provenance.traffic_tables(records),
        tensors=tensors.tensor_tables(records),
        leakage=provenance.leakage_table(records),
        runs=tables.runs_table(records, pending),
        config=provenance.config_table(records[0].config, ranging) if records else None,
        environment=provenance.environment_table(records),
    )


def draw(records: Sequence[RunRecord], comparison: Comparison) -> list[Panels]:
    """Return the drawings of every site, without those that have nothing to show."""
    sites = sites_of(records)
    low = figures.lowest_auc(records, sites, curves=False)
    start = figures.lowest_auc(records, sites, curves=True)
    modes = comparison.modes
    several = any(summary.n > 1 for summary in comparison.summaries.values())
    drawn: list[tuple[str, str, str, Sequence[str | None]]] = [
        (
            "auc",
            "AUC by site",
            "A dot is a run, the bar the mean of the runs."
            if several
            else "The mark is the run, the line its 95 % bootstrap interval over the test images.",
            [
                figures.runs_panel(records, comparison, s, low, f"auc-{i}")
                for i, s in enumerate(sites)
            ],
        ),
        (
            "roc",
            "ROC curves",
            "On the test images; the dotted diagonal is chance."
            + (" The runs of a mode are averaged at equal false positive rate." if several else "")
            + ("" if comparison.binary else f" {figures.CURVES_OVER_CLASSES}"),
            [figures.roc_panel(records, comparison, s, f"roc-{i}") for i, s in enumerate(sites)],
        ),
        (
            "learning",
            "Learning curves",
            "AUC on the test images, about once an epoch. For looking at: nothing was chosen by it."
            + (" Thin: single runs; thick: their mean." if several else ""),
            [
                figures.learning_panel(records, modes, s, start, f"learning-{i}")
                for i, s in enumerate(sites)
            ],
        ),
    ]
    return [
        Panels(name, title, caption, tuple(_panels(sites, svgs)))
        for name, title, caption, svgs in drawn
        if any(svgs) and any(record.completed or name == "learning" for record in records)
    ]


def _panels(sites: Sequence[str], svgs: Sequence[str | None]) -> list[Panel]:
    return [Panel(s, Markup(svg)) for s, svg in zip(sites, svgs, strict=True) if svg is not None]
