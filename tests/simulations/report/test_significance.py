"""Tests between methods against SciPy, and against numbers worked out by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from simulations.report.significance import (
    auc_difference,
    auc_intervals,
    hold_against_reference,
    holm,
)
from simulations.report.statistics import ALL_SITES
from tests.simulations.report.cells import fabricate_study

PAIRS = [(fold, seed) for seed in (0, 1) for fold in range(4)]


def test_holm_by_hand() -> None:
    # Sorted: 0.01 × 3, 0.03 × 2, 0.04 × 1; the last is raised to the one before.
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": math.nan})
    assert found["a"] == pytest.approx(0.03)
    assert found["b"] == found["c"] == pytest.approx(0.06)
    assert math.isnan(found["d"])


def test_holm_never_exceeds_one() -> None:
    assert holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 1.0}


def test_both_tests_are_scipy_s_on_the_same_pairs(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    xsite = {pair: tuple(0.8 + 0.05 * generator.random(2)) for pair in PAIRS}
    joint = {pair: tuple(0.77 + 0.05 * generator.random(2)) for pair in PAIRS}
    fedavg = {pair: tuple(0.7 + 0.05 * generator.random(2)) for pair in PAIRS}
    aucs = {"joint": joint, "fedavg": fedavg, "xsite": xsite}
    results = fabricate_study(tmp_path, aucs, "xsite")
    found = hold_against_reference(results, "site-a")
    assert list(found) == ["joint", "fedavg"]
    ours = [joint[pair][0] for pair in sorted(PAIRS)]
    theirs = [xsite[pair][0] for pair in sorted(PAIRS)]
    assert found["joint"].difference.n == 8
    assert found["joint"].difference.p == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    signed = stats.wilcoxon(np.array(ours) - np.array(theirs))
    assert found["joint"].wilcoxon == pytest.approx(signed.pvalue)
    # Two methods are held against the reference, and FedAvg's p is the smaller one.
    assert found["fedavg"].t_holm == pytest.approx(2 * found["fedavg"].difference.p)
    assert found["joint"].t_holm == pytest.approx(
        max(found["joint"].difference.p, found["fedavg"].t_holm)
    )
    assert hold_against_reference(results, ALL_SITES)["joint"].difference.mean == pytest.approx(
        np.mean([np.mean(joint[pair]) - np.mean(xsite[pair]) for pair in PAIRS])
    )


def test_the_same_predictions_differ_by_nothing(tmp_path: Path) -> None:
    cells = {(0, 0): (0.8, 0.9), (1, 0): (0.7, 0.9)}
    results = fabricate_study(tmp_path, {"joint": cells, "xsite": cells}, "xsite")
    assert auc_difference(results, "joint", "xsite", "site-a").value == 0


def test_the_difference_over_images_is_that_of_the_predictions(tmp_path: Path) -> None:
    aucs = {"joint": {(0, 0): (0.6, 0.9)}, "xsite": {(0, 0): (0.9, 0.9)}}
    results = fabricate_study(tmp_path, aucs, "xsite")
    found = auc_difference(results, "joint", "xsite", "site-a")
    values = [auc_intervals(results, name, "site-a").delong.value for name in ("joint", "xsite")]
    assert found.value == pytest.approx(values[0] - values[1])
    assert found.low < found.value < found.high < 0
    assert found.p < 0.05


def test_bootstrap_and_delong_agree_on_how_sure_an_auc_is(tmp_path: Path) -> None:
    cells = {(0, 0): (0.7, 0.9), (0, 1): (0.7, 0.9), (1, 0): (0.7, 0.9), (1, 1): (0.7, 0.9)}
    results = fabricate_study(tmp_path, {"joint": cells}, "joint")
    found = auc_intervals(results, "joint", "site-a")
    assert found.images == 80  # 40 a fold, however many seeds saw them
    low, high = found.bootstrap
    assert low < found.delong.value < high
    width = found.delong.high - found.delong.low
    assert high - low == pytest.approx(width, rel=0.15)
    # Seeds that say the same bring no new images: the interval is that of one seed.
    alone = fabricate_study(
        tmp_path / "alone", {"joint": {k: v for k, v in cells.items() if k[1] == 0}}, "joint"
    )
    one = auc_intervals(alone, "joint", "site-a")
    assert one.delong.high - one.delong.low == pytest.approx(width)
