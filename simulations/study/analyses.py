"""What a study's report shows beside its figures, computed from the weights of its cells."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clients.adapt.adapt import ADAPTATIONS
from common.console.progress import ProgressListener
from common.data.open import site_root
from common.device import choose_device, limited_threads
from common.errors import CheckpointError, XsiteError
from common.files import read_json, write_json
from simulations.explain.activation import activation_examples, draw_examples, measure_lesions
from simulations.explain.activation_maps import LesionShare, Method
from simulations.explain.masks import has_masks
from simulations.explain.projections import ProjectionMap, draw_projections, projection_map
from simulations.report.analysis_tables import (
    UnseenKey,
    lesion_tables,
    silhouette_table,
    unseen_table,
)
from simulations.report.page import Section
from simulations.report.pictures import FOLDER, photographed, save_figure
from simulations.report.records import Pair, RunRecord
from simulations.report.results import StudyResults
from simulations.report.unseen import evaluate_unseen
from simulations.study.cells import Cell
from simulations.study.run import Study

UNSEEN = "unseen.json"


def run_analyses(
    study: Study, results: StudyResults, left_out: Sequence[Cell], listener: ProgressListener
) -> tuple[list[Section], dict[str, Any]]:
    """Compute what a study shows beside its figures.

    Parameters
    ----------
    study : Study
        With its sites open.
    results : StudyResults
        Its cells that are done and saw all sites.
    left_out : sequence of Cell
        Its cells that are done and were trained without a site.
    listener : ProgressListener
        Told what is being computed.

    Returns
    -------
    list of Section
        Without whatever no cell is there for.
    dict
        What the report's JSON holds of it.

    Raises
    ------
    RunError
        If a picture cannot be written.
    """
    with limited_threads(study.plan.config):
        return _look(study, results, left_out, listener)


def _look(
    study: Study, results: StudyResults, left_out: Sequence[Cell], listener: ProgressListener
) -> tuple[list[Section], dict[str, Any]]:
    folder = study.folder / FOLDER
    shown = _shown(study, results)
    sections = []
    aucs = _unseen(study, left_out, listener)
    labels = {method.name: method.label for method in study.plan.unseen}
    if table := unseen_table(results, labels, aucs):
        sections.append(Section("The unseen hospital", [table]))
    maps = _projections(study, shown, listener)
    lesions = lesion_tables(_lesions(study, shown, listener) if results.binary else ())
    seen = Section("What the networks see", [*lesions, silhouette_table(maps)])
    if seen.shown:
        sections.append(seen)
    if maps:
        sections.append(_projection_section(maps, folder))
    first = (results.plan.reference, study.plan.folds[0], study.plan.seeds[0])
    if first in results.records:
        sections.append(_activation_section(study, results.records[first], folder, listener))
    return sections, {"unseen": _plain(aucs)}


def _shown(study: Study, results: StudyResults) -> list[tuple[str, str, RunRecord]]:
    """Return label, mode and record of each method's cell of the first fold and seed."""
    first = (study.plan.folds[0], study.plan.seeds[0])
    return [
        (method.label, method.mode, results.records[method.name, *first])
        for method in study.plan.methods
        if (method.name, *first) in results.records
    ]


def _unseen(
    study: Study, left_out: Sequence[Cell], listener: ProgressListener
) -> dict[UnseenKey, dict[Pair, float]]:
    """Return the AUC at sites left out, by method, site and adaptation, then by fold and seed."""
    aucs: dict[UnseenKey, dict[Pair, float]] = {}
    for cell in left_out:
        figures = _visited(study, cell, listener)
        for adaptation in ADAPTATIONS:
            key = (cell.method.name, cell.without, adaptation)
            value = figures[adaptation]["auc"]
            found = math.nan if value is None else float(value)
            aucs.setdefault(key, {})[cell.fold, cell.seed] = found
    return aucs


def _visited(
    study: Study, cell: Cell, listener: ProgressListener
) -> Mapping[str, Mapping[str, Any]]:
    """Let a cell's network meet the site that it was trained without, once."""
    path = study.path(cell) / UNSEEN
    try:
        held: Mapping[str, Mapping[str, Any]] = read_json(path)
        return held
    except CheckpointError:
        listener.message(f"{cell.without} meets {cell}")
    config = study.plan.config_of(cell)
    figures = evaluate_unseen(
        study.path(cell), study.sites[cell.without], config, choose_device(config)
    )
    write_json(path, figures)
    return figures


def _lesions(
    study: Study, shown: list[tuple[str, str, RunRecord]], listener: ProgressListener
) -> list[tuple[str, str, Mapping[str, Mapping[Method, LesionShare]]]]:
    """Measure each method's activation in the lesions, of hospitals whose lesions are known."""
    roots = {name: site_root(study.plan.config, name) for name in study.sites}
    if not shown or not all(has_masks(root) for root in roots.values()):
        return []
    measured: list[tuple[str, str, Mapping[str, Mapping[Method, LesionShare]]]] = []
    untrained = {
        name: measure_lesions(shown[-1][2], data, roots[name], "before")
        for name, data in study.sites.items()
    }
    measured.append((f"{shown[-1][0]}, before training", shown[-1][1], untrained))
    for label, mode, record in shown:
        listener.message(f"Measuring how much of what it looks at is lesion: {label}")
        by_site = {
            name: measure_lesions(record, data, roots[name]) for name, data in study.sites.items()
        }
        measured.append((label, mode, by_site))
    return measured


def _projections(
    study: Study, shown: list[tuple[str, str, RunRecord]], listener: ProgressListener
) -> list[tuple[str, str, ProjectionMap]]:
    """Map the projections of the methods whose sites share a space and train for it."""
    fit = [
        one
        for one in shown
        if one[2].mode != "single" and one[2].config.alpha and one[2].config.share != "prototypes"
    ]
    maps = []
    for label, mode, record in fit:
        listener.message(f"Mapping the projections before and after training: {label}")
        maps.append((label, mode, projection_map(record, list(study.sites.values()))))
    return maps


def _projection_section(maps: list[tuple[str, str, ProjectionMap]], folder: Path) -> Section:
    pictures = []
    for number, (label, _, shown) in enumerate(maps):
        png, _ = save_figure(draw_projections(shown), folder, f"projections-{number}")
        pictures.append(photographed(png, label, f"Map of the projections: {label}"))
    return Section(
        "Maps of the projections",
        pictures=tuple(pictures),
        wide=True,
        note="Test images in the plane (PCA, then t-SNE), of the first fold and seed. Neighbours "
        "are alike; distances between clusters mean nothing.",
    )


def _activation_section(
    study: Study, record: RunRecord, folder: Path, listener: ProgressListener
) -> Section:
    """Draw what the reference looked at; patients' images stay out of the page."""
    pictures, real = [], []
    for name, data in study.sites.items():
        listener.message(f"Drawing what the network looks at in images of {name}")
        root = site_root(study.plan.config, name)
        try:
            examples = activation_examples(record, data, root)
        except XsiteError as error:
            listener.message(f"No activation maps for {name}: {error}")
            continue
        png, _ = save_figure(draw_examples(examples, name), folder, f"activation-{name}")
        if study.plan.config.site_folder(name) is None:
            pictures.append(photographed(png, name, f"Activation maps at {name}"))
        else:
            real.append(png.name)
    caption = (
        "Grad-CAM, Grad-CAM++ and HiResCAM of the class decided for, on the reference's surest "
        "right and wrong decisions of the first fold and seed (wrong ones in red)."
    )
    if pictures:
        caption += " Blue outlines: lesions."
    if real:
        caption += (
            f" Patients' images are not in this page; they lie beside it in {FOLDER}: "
            f"{', '.join(real)}."
        )
    return Section("What the network looks at", pictures=tuple(pictures), wide=True, note=caption)


def _plain(aucs: Mapping[UnseenKey, Mapping[Pair, float]]) -> list[dict[str, Any]]:
    return [
        {
            "method": method,
            "without": site,
            "adaptation": adaptation,
            "fold": fold,
            "seed": seed,
            "auc": value,
        }
        for (method, site, adaptation), values in aucs.items()
        for (fold, seed), value in values.items()
    ]
