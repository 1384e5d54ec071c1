"""Tables beside a study's figures: unseen hospitals, lesions looked at, what clusters."""

from collections.abc import Mapping, Sequence

import numpy as np

from clients.adapt.adapt import ADAPTATIONS, LABELS
from common.formatting import numbers
from common.formatting.tables import Group, Row, Table
from simulations.explain.activation import TITLES
from simulations.explain.activation_maps import LesionShare, Method
from simulations.explain.projections import ProjectionMap
from simulations.report.records import Pair
from simulations.report.results import StudyResults
from simulations.report.tables import summary_cell

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
        if any(one.name == method for one in results.plan.methods):
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


def lesion_tables(
    shares: Sequence[tuple[str, str, Mapping[str, Mapping[Method, LesionShare]]]],
) -> tuple[Table, ...]:
    """Return how much of the activation lies in the lesions of synthetic hospitals.

    Parameters
    ----------
    shares : sequence of (str, str, mapping)
        A row's head, its mode, and by site and class-activation method what was measured.

    Returns
    -------
    tuple of Table
        One of each method; none where nothing was measured.
    """
    if not shares:
        return ()
    by_site = shares[0][2]
    methods = list(next(iter(by_site.values())))
    return tuple(_lesion_table(shares, method, method == methods[-1]) for method in methods)


def _lesion_table(
    shares: Sequence[tuple[str, str, Mapping[str, Mapping[Method, LesionShare]]]],
    method: Method,
    last: bool,
) -> Table:
    groups = []
    for site in shares[0][2]:
        rows = []
        for head, mode, by_site in shares:
            found = by_site[site][method]
            gains = (found.gain_in_lungs, found.gain, found.gain_in_image)
            area = numbers.percent(float(np.mean(found.area)))
            rows.append(Row(head, (area, *map(numbers.decimal, gains)), mode))
        groups.append(Group(site, tuple(rows)))
    note = (
        "Maps of the positive class on the positive test images, as a multiple of what an even map "
        "has. In the lungs: the lesions' share of the activation within the lungs, over their "
        "share of the lungs' area. Whole image over lungs: their share of all activation, over "
        "the same; an even map is far below 1. Whole image: over their share of the image."
    )
    return Table(
        f"{TITLES[method]}: activation mass inside the lesions",
        (
            "Network",
            "Lesions' share of the lungs, %",
            "In the lungs",
            "Whole image over lungs",
            "Whole image",
        ),
        tuple(groups),
        (note,) if last else (),
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
                numbers.decimal(value)
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


def _over_seeds(results: StudyResults, values: Mapping[Pair, float]) -> str:
    return summary_cell(results.over_seeds(values))


def _mean(values: Sequence[Mapping[Pair, float]]) -> dict[Pair, float]:
    common = set.intersection(*(set(value) for value in values)) if values else set()
    return {pair: float(np.mean([value[pair] for value in values])) for pair in common}
