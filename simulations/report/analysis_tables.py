"""Tables beside a study's figures: unseen hospitals, lesions looked at, what clusters."""

from collections.abc import Mapping, Sequence

import numpy as np

from clients.adapt.adapt import ADAPTATIONS, LABELS
from common.formatting.tables import Group, Row, Table
from simulations.explain.activation import TITLES
from simulations.explain.activation_maps import LesionShare, Method
from simulations.explain.projections import ProjectionMap
from simulations.report.numbers import decimal, percent
from simulations.report.records import Pair
from simulations.report.results import StudyResults
from simulations.report.tables import summary_cell

UnseenKey = tuple[str, str, str]
"""Method, site that it was trained without, adaptation."""


def unseen_table(
    results: StudyResults, aucs: Mapping[UnseenKey, Mapping[Pair, float]]
) -> Table | None:
    """Return the AUC at sites that training did not see, by what stands in for their DSBN.

    Parameters
    ----------
    results : StudyResults
        For the figures of the same methods with the site in training.
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

    def cells(by_site: Sequence[Mapping[Pair, float]]) -> list[str]:
        common = set.intersection(*map(set, by_site)) if by_site else set()
        mean = {pair: float(np.mean([values[pair] for values in by_site])) for pair in common}
        return [summary_cell(results.over_seeds(values)) for values in (*by_site, mean)]

    groups = []
    for method in results.plan.unseen:
        rows = [
            Row(LABELS[kind], cells([aucs.get((method.name, site, kind), {}) for site in sites]))
            for kind in ADAPTATIONS
        ]
        if method in results.plan.methods:
            trained = cells([results.values(method.name, site, "auc") for site in sites])
            rows.append(Row("For comparison: trained there", trained))
        groups.append(Group(f"{method.label}, trained at the other sites", rows))
    return Table(
        "AUC at a hospital that training did not see, in percent",
        ("What stands in for its normalisation", *sites, "mean"),
        groups,
        (
            "The unseen site's training images, without their labels, are adapted to; its test "
            "images are classified. Mean over folds, ± deviation over seeds.",
        ),
    )


def lesion_tables(
    shares: Sequence[tuple[str, str, Mapping[str, Mapping[Method, LesionShare]]]],
) -> list[Table]:
    """Return how much of the activation lies in the lesions of synthetic hospitals.

    Parameters
    ----------
    shares : sequence of (str, str, mapping)
        A row's head, its mode, and by site and class-activation method what was measured.

    Returns
    -------
    list of Table
        One of each method; none where nothing was measured.
    """
    if not shares:
        return []
    columns = (
        *("Network", "Lesions' share of the lungs, %"),
        *("In the lungs", "Whole image over lungs", "Whole image"),
    )
    note = (
        "Maps of the positive class on the positive test images, as a multiple of what an even map "
        "has. In the lungs: the lesions' share of the activation within the lungs, over their "
        "share of the lungs' area. Whole image over lungs: their share of all activation, over "
        "the same; an even map is far below 1. Whole image: over their share of the image."
    )
    tables = []
    sites = shares[0][2]
    methods = list(next(iter(sites.values())))
    for method in methods:
        groups = [
            Group(
                site,
                [Row(head, _lesion_cells(one[site][method]), mode) for head, mode, one in shares],
            )
            for site in sites
        ]
        caption = f"{TITLES[method]}: activation mass inside the lesions"
        tables.append(Table(caption, columns, groups, [note] if method == methods[-1] else ()))
    return tables


def _lesion_cells(share: LesionShare) -> list[str]:
    gains = (share.gain_in_lungs, share.gain, share.gain_in_image)
    return [percent(share.area), *map(decimal, gains)]


def silhouette_table(maps: Sequence[tuple[str, str, ProjectionMap]]) -> Table | None:
    """Return whether disease or hospital clusters, before training and after.

    Parameters
    ----------
    maps : sequence of (str, str, ProjectionMap)
        A row's head, its mode, and its map.
    """
    if not maps:
        return None
    figures = [(head, mode, shown.clustering.values()) for head, mode, shown in maps]
    rows = [
        Row(head, [decimal(one) for at in found for one in (at.by_class, at.by_site)], mode)
        for head, mode, found in figures
    ]
    moments = [f"{what}, {when}" for when in ("before", "after") for what in ("class", "site")]
    return Table(
        "Does the disease cluster, or the hospital?",
        ("Method", *moments),
        [Group("", rows)],
        (
            "Silhouette coefficients of the test images' projections (cosine distances, −1 to 1), "
            "before training and after. By class: above 0 where the disease clusters. By site: "
            "near 0 where hospitals cannot be told apart.",
        ),
    )
