"""Tables beside a study's figures."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from simulations.explain.activation_maps import LesionShare
from simulations.explain.projections import Clustering, ProjectionMap
from simulations.report.analysis_tables import lesion_tables, silhouette_table, unseen_table
from tests.simulations.report.cells import fabricate_study


def test_unseen_sites_beside_what_training_there_gives(tmp_path: Path) -> None:
    cells = {(0, 0): (0.9, 0.8), (1, 0): (0.7, 0.8)}
    results = fabricate_study(tmp_path, {"sepnorm": cells}, "sepnorm")
    results = replace(results, plan=replace(results.plan, unseen=results.plan.methods))
    aucs = {
        ("sepnorm", "site-a", "re-estimated"): {(0, 0): 0.7, (1, 0): 0.6},
        ("sepnorm", "site-b", "re-estimated"): {(0, 0): 0.55, (1, 0): 0.65},
        # A fold of this one is missing, so it has no mean over the folds.
        ("sepnorm", "site-a", "averaged"): {(0, 0): 0.5},
    }
    table = unseen_table(results, aucs)
    assert table is not None
    rows = {row.head: list(row.cells) for row in table.groups[0].rows}
    assert rows["Re-estimated on its images"] == ["65.0", "60.0", "62.5"]
    assert rows["Averaged over the sites"] == ["–", "–", "–"]
    assert rows["For comparison: trained there"] == ["80.0", "80.0", "80.0"]
    assert unseen_table(results, {}) is None


def share(mass: float) -> LesionShare:
    return LesionShare(0.1, mass / 0.1, 2 * mass / 0.1, mass / 0.02)


def test_lesions_are_told_by_site_network_and_method() -> None:
    by_site = {"site-a": {"grad-cam": share(0.3), "grad-cam++": share(0.05)}}
    tables = lesion_tables([("xsite", "federated", by_site)])  # type: ignore[list-item]
    assert tables[0].caption == "Grad-CAM: activation mass inside the lesions"
    told = [list(table.groups[0].rows[0].cells) for table in tables]
    assert told == [["10.0", "6.00", "3.00", "15.00"], ["10.0", "1.00", "0.50", "2.50"]]
    assert lesion_tables([]) == []


def test_what_clusters_is_told_before_and_after() -> None:
    found = {"before": Clustering(0.011, -0.004), "after": Clustering(0.5, float("nan"))}
    shown = ProjectionMap(("a",), ("x", "y"), np.zeros(1), np.zeros(1), {}, found)  # type: ignore[arg-type]
    table = silhouette_table([("xsite", "federated", shown)])
    assert table is not None
    assert list(table.groups[0].rows[0].cells) == ["0.01", "0.00", "0.50", "–"]
