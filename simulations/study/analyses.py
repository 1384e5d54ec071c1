"""What a study's report shows beside its figures, computed from the weights of its cells."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clients.adapt.adapt import ADAPTATIONS, adapt_to_site, load_trained, predict_met
from clients.adapt.reliability import judge_trust, trained_predictions
from common.config.schema import Config
from common.console.progress import ProgressListener
from common.data.cache import SiteData
from common.data.open import site_root
from common.device import Device, choose_device, limited_threads
from common.errors import CheckpointError, XsiteError
from common.files import read_object, write_json
from common.learning.local_site import LocalSite
from common.tasks.figures import measure
from simulations.explain.activation import activation_examples, draw_examples, measure_lesions
from simulations.explain.activation_maps import LesionShare, Method
from simulations.explain.masks import has_masks
from simulations.explain.projections import ProjectionMap, When, draw_projections, projection_map
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
    plan, folder = study.plan, study.folder / FOLDER
    first = (plan.folds[0], plan.seeds[0])
    shown = [
        (method.label, method.mode, results.records[method.name, *first])
        for method in plan.methods
        if (method.name, *first) in results.records
    ]
    with limited_threads(plan.config):
        aucs = _unseen(study, left_out, listener)
        maps = _projections(study, shown, listener)
        lesions = lesion_tables(_lesions(study, shown, listener) if results.binary else ())
        sections = [
            Section("The unseen hospital", [unseen_table(results, aucs)]),
            Section("What the networks see", [*lesions, silhouette_table(maps)]),
        ]
        sections = [one for one in sections if one.shown]
        if maps:
            sections.append(_projection_section(maps, folder))
        if record := results.records.get((plan.reference, *first)):
            sections.append(_activation_section(study, record, folder, listener))
    keys = ("method", "without", "adaptation", "fold", "seed", "auc")
    unseen = [
        dict(zip(keys, (*key, *pair, auc), strict=True))
        for key, by_pair in aucs.items()
        for pair, auc in by_pair.items()
    ]
    return sections, {"unseen": unseen}


def _unseen(
    study: Study, left_out: Sequence[Cell], listener: ProgressListener
) -> dict[UnseenKey, dict[Pair, float]]:
    """Return the AUC at sites left out, by method, site and adaptation, then by fold and seed."""
    aucs: dict[UnseenKey, dict[Pair, float]] = {}
    for cell in left_out:
        path = study.path(cell) / UNSEEN
        try:
            figures = read_object(path)
        except CheckpointError:
            listener.message(f"{cell.without} meets {cell}")
            data, config = study.sites[cell.without], study.plan.config_of(cell)
            figures = evaluate_unseen(path.parent, data, config, choose_device(config))
            write_json(path, figures)
        for adaptation in ADAPTATIONS:
            key = (cell.method.name, cell.without, adaptation)
            auc = figures[adaptation]["auc"]
            aucs.setdefault(key, {})[cell.fold, cell.seed] = math.nan if auc is None else auc
    return aucs


def evaluate_unseen(
    run: Path, data: SiteData, config: Config, device: Device
) -> dict[str, dict[str, float]]:
    """Let a completed run's network meet a held-out site whose labels are known.

    It adapts to the images of the site's training part, without their labels, and classifies the
    images of its test part.

    Parameters
    ----------
    run : Path
        As for :func:`load_trained`.
    data : SiteData
        A site that is none of the run's, decoded with the run's settings.
    config : Config
        Which of the site's images are for what: ``split``, ``folds``, ``fold``. All else is the
        run's.
    device : Device
        Where to compute.

    Returns
    -------
    dict
        Adaptation → what :func:`common.tasks.figures.measure` says; ``"distances"`` → distance by
        trained site; ``"trust"`` → the figures of :class:`~clients.adapt.reliability.Reliability`.
        What is undefined is NaN.

    Raises
    ------
    RunError, CheckpointError, SiteError
        As :func:`load_trained`, :func:`adapt_to_site` and :func:`common.data.folds.split_site`.
    """
    network, own = load_trained(run)
    site = LocalSite.of(data, config, device)
    test = site.split.test
    with limited_threads(own):
        met = adapt_to_site(network.to(device.device), site, own)
        said = {name: predict_met(one, site, test, own) for name, one in met.networks.items()}
    trust = judge_trust(said, met.distances, trained_predictions(run, own.site_names))
    figures = {name: measure(data.labels[test], one) for name, one in said.items()}
    return figures | {"distances": dict(met.distances.to), "trust": trust.as_dict()}


def _lesions(
    study: Study, shown: Sequence[tuple[str, str, RunRecord]], listener: ProgressListener
) -> Sequence[tuple[str, str, Mapping[str, Mapping[Method, LesionShare]]]]:
    """Measure each method's activation in the lesions, of hospitals whose lesions are known."""
    roots = {name: site_root(study.plan.config, name) for name in study.sites}
    if not shown or not all(has_masks(root) for root in roots.values()):
        return []
    head, mode, record = shown[-1]
    networks: list[tuple[str, str, RunRecord, When]] = [
        (f"{head}, before training", mode, record, "before"),
        *((head, mode, record, "after") for head, mode, record in shown),
    ]
    measured = []
    for head, mode, record, when in networks:
        if when == "after":
            listener.message(f"Measuring how much of what it looks at is lesion: {head}")
        by_site = {
            name: measure_lesions(record, data, roots[name], when)
            for name, data in study.sites.items()
        }
        measured.append((head, mode, by_site))
    return measured


def _projections(
    study: Study, shown: Sequence[tuple[str, str, RunRecord]], listener: ProgressListener
) -> list[tuple[str, str, ProjectionMap]]:
    """Map the projections of the methods whose sites share a space and train for it."""
    maps = []
    for label, mode, record in shown:
        if mode != "single" and record.config.alpha and record.config.share != "prototypes":
            listener.message(f"Mapping the projections before and after training: {label}")
            maps.append((label, mode, projection_map(record, list(study.sites.values()))))
    return maps


def _projection_section(maps: list[tuple[str, str, ProjectionMap]], folder: Path) -> Section:
    pictures = []
    for number, (label, _, shown) in enumerate(maps):
        png = save_figure(draw_projections(shown), folder, f"projections-{number}")
        pictures.append(photographed(png, label, f"Map of the projections: {label}"))
    return Section(
        "Maps of the projections",
        pictures=pictures,
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
        png = save_figure(draw_examples(examples, name), folder, f"activation-{name}")
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
    return Section("What the network looks at", pictures=pictures, wide=True, note=caption)
