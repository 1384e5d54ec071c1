"""Tables beside a study's figures: unseen hospitals, lesions looked at, what clusters."""

from collections.abc import Mapping, Sequence

import numpy as np

from common.explain import LesionShare, Method
from common.report import numbers
from common.report.records import Pair
from common.report.study.activation import TITLES
from common.report.study.projections import ProjectionMap
from common.report.study.results import StudyResults
from common.report.tables import Cell, Group, Row, Table, summary_cell
from common.unseen.meeting import ADAPTATIONS, LABELS

UnseenKey = tuple[str, str, str]
"""Method, site that it was trained without, adaptation."""


def unseen_table(
    results: StudyResults,
    labels: Mapping[str, str],
    aucs: Mapping[UnseenKey, Mapping[Pair, float]],
) -> Table | None:
    """Return the AUC at sites that training did not see, by what stands in for their DSBN.

    Parameters
    ----------
    results : StudyResults
        For the figures of the same methods with the site in training.
    labels : mapping of str to str
        How tables call the methods.
    aucs : mapping of UnseenKey to mapping of Pair to float
        By fold and seed.

    Returns
    -------
    Table or None
        None where nothing was left out.
    """
    if not aucs:
        return None
    sites = results.sites
    groups = []
    for method, label in labels.items():
        rows = []
        for adaptation in ADAPTATIONS:
            values = [aucs.get((method, site, adaptation), {}) for site in sites]
            cells = [_over_seeds(results, value) for value in values]
            rows.append(Row(LABELS[adaptation], (*cells, _over_seeds(results, _mean(values)))))
        if any(one.name == method for one in results.methods):
            seen = [results.values(method, site, "auc") for site in sites]
            cells = [_over_seeds(results, value) for value in seen]
            rows.append(
                Row("For comparison: trained there", (*cells, _over_seeds(results, _mean(seen))))
            )
        groups.append(Group(f"{label}, trained at the other sites", tuple(rows)))
    return Table(
        "AUC at a hospital that training did not see, in percent",
        ("What stands in for its normalisation", *sites, "mean"),
        tuple(groups),
        (
            "The unseen site's training images, without their labels, are adapted to; its test "
            "images are classified. Mean over folds, ± deviation over seeds.",
        ),
    )


def lesion_table(
    shares: Sequence[tuple[str, str, Mapping[str, Mapping[Method, LesionShare]]]],
) -> Table | None:
    """Return how much of the activation lies in the lesions of synthetic hospitals.

    Parameters
    ----------
    shares : sequence of (str, str, mapping)
        A row's head, its mode, and by site and class-activation method what was measured.

    Returns
    -------
    Table or None
        None where nothing was measured.
    """
    if not shares:
        return None
    sites = list(shares[0][2])
    groups = []
    for site in sites:
        rows = []
        for head, mode, by_site in shares:
            measured = list(by_site[site].values())
            gains = [
                Cell(numbers.decimal(gain))
                for share in measured
                for gain in (share.gain, share.gain_in_lungs, share.gain_in_image)
            ]
            area = Cell(numbers.percent(float(np.mean(measured[0].area))))
            rows.append(Row(head, (area, *gains), mode))
        groups.append(Group(site, tuple(rows)))
    columns = [
        f"{TITLES[method]}: {what}"
        for method in next(iter(shares[0][2].values()))
        for what in ("image / lungs", "lungs / lungs", "image / image")
    ]
    return Table(
        "Activation mass inside the lesions, as a multiple of the lesions' share of the area",
        ("Network", "Lesions' share of the lungs, %", *columns),
        tuple(groups),
        (
            "Maps of the positive class on the positive test images. Image / lungs: mass of the "
            "whole image's activation, held against the lesions' share of the lungs; a map that is "
            "even everywhere is far below 1. Lungs / lungs: within the lungs alone; image / "
            "image: held against the share of the image; 1 of an even map in both.",
        ),
    )


def silhouette_table(maps: Sequence[tuple[str, str, ProjectionMap]]) -> Table | None:
    """Return whether disease or hospital clusters, before training and after.

    Parameters
    ----------
    maps : sequence of (str, str, ProjectionMap)
        A row's head, its mode, and its map.
    """
    if not maps:
        return None
    rows = [
        Row(
            head,
            tuple(
                Cell(numbers.decimal(value))
                for found in shown.clustering.values()
                for value in (found.by_class, found.by_site)
            ),
            mode,
        )
        for head, mode, shown in maps
    ]
    return Table(
        "Does the disease cluster, or the hospital?",
        (
            "Method",
            *(f"{what}, {when}" for when in ("before", "after") for what in ("class", "site")),
        ),
        (Group("", tuple(rows)),),
        (
            "Silhouette coefficients of the test images' projections (cosine distances, −1 to 1), "
            "before training and after. By class: above 0 where the disease clusters. By site: "
            "near 0 where hospitals cannot be told apart.",
        ),
    )


def _over_seeds(results: StudyResults, values: Mapping[Pair, float]) -> Cell:
    return summary_cell(results.over_seeds(values))


def _mean(values: Sequence[Mapping[Pair, float]]) -> dict[Pair, float]:
    common = set.intersection(*(set(value) for value in values)) if values else set()
    return {pair: float(np.mean([value[pair] for value in values])) for pair in common}
