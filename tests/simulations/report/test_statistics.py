"""Statistics of a comparison against numbers derived by hand."""

import math
from pathlib import Path

import pytest

from simulations.report.statistics import (
    ALL_SITES,
    NO_PAIR,
    NO_SPREAD,
    ONE_PAIR,
    paired_difference,
    summarise,
)
from tests.simulations.report.cells import comparison_of
from tests.simulations.report.fabricated_runs import fabricate_run


def test_a_summary_has_the_sample_standard_deviation() -> None:
    # Mean 4; squared deviations 4 + 0 + 4 over n − 1 = 2.
    summary = summarise([2.0, 4.0, 6.0])
    assert (summary.n, summary.mean, summary.sd) == (3, 4.0, 2.0)


def test_one_value_has_no_deviation_and_undefined_ones_do_not_count() -> None:
    summary = summarise([math.nan, 0.75])
    assert (summary.n, summary.mean) == (1, 0.75)
    assert math.isnan(summary.sd)
    assert summarise([math.nan]).n == 0


def test_the_paired_t_test_by_hand() -> None:
    # Differences 1, 2, 3: mean 2, sd 1, standard error 1/√3, so t = 2√3 with 2 degrees of
    # freedom, where Student's distribution is F(t) = ½ + t / (2√(2 + t²)): p = 1 − t/√(2 + t²).
    # Its 97.5 % quantile solves 0.95 = q/√(2 + q²): q² = 1.805/0.0975.
    reference = {(0, 0): 1.0, (1, 0): 5.0, (0, 1): 2.0, (9, 9): 100.0}
    values = {(0, 0): 2.0, (1, 0): 7.0, (0, 1): 5.0, (8, 8): -100.0}
    found = paired_difference(values, reference)
    t, q = 2 * math.sqrt(3), math.sqrt(1.805 / 0.0975)
    assert (found.n, found.mean) == (3, 2.0)
    assert found.t == pytest.approx(t, rel=1e-12)
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-9)
    assert found.low == pytest.approx(2 - q / math.sqrt(3), rel=1e-9)
    assert found.high == pytest.approx(2 + q / math.sqrt(3), rel=1e-9)
    assert found.reason == ""


def test_where_there_is_no_test_the_reason_is_told() -> None:
    one = paired_difference({(0, 0): 0.9}, {(0, 0): 0.8, (1, 0): 0.7})
    assert (one.n, one.reason) == (1, ONE_PAIR)
    assert one.mean == pytest.approx(0.1)
    assert math.isnan(one.p)
    assert paired_difference({(0, 0): 0.9}, {(1, 0): 0.7}).reason == NO_PAIR
    # 0.3 − 0.1 and 0.6 − 0.4 are equal, though not bit by bit.
    level = paired_difference({(0, 0): 0.3, (1, 0): 0.6}, {(0, 0): 0.1, (1, 0): 0.4})
    assert (level.n, level.reason) == (2, NO_SPREAD)
    assert math.isnan(level.t)


def test_an_undefined_figure_is_no_pair() -> None:
    found = paired_difference({(0, 0): math.nan, (1, 0): 0.5}, {(0, 0): 0.5, (1, 0): 0.25})
    assert (found.n, found.mean, found.reason) == (1, 0.25, ONE_PAIR)


def test_runs_are_summarised_by_site_and_over_the_sites(tmp_path: Path) -> None:
    runs = [
        fabricate_run(tmp_path, "pooled", {"a": 0.90, "b": 0.80}, fold=0),
        fabricate_run(tmp_path, "pooled", {"a": 0.94, "b": 0.84}, fold=1),
        fabricate_run(tmp_path, "federated", {"a": 0.89, "b": 0.78}, fold=0),
        fabricate_run(tmp_path, "federated", {"a": 0.92, "b": 0.83}, fold=1),
        fabricate_run(tmp_path, "single", {"a": 0.70, "b": 0.60}, fold=1),
        fabricate_run(tmp_path, "single", {"a": 0.10, "b": 0.10}, fold=0, status="failed"),
    ]
    found = comparison_of(runs)
    assert found.places == ("a", "b", ALL_SITES)
    assert [method.name for method in found.plan.methods] == ["pooled", "federated", "single"]
    pooled = found.summary("pooled", "a", "auc")
    # Deviation of two values: their distance / √2.
    assert (pooled.n, pooled.mean) == (2, pytest.approx(0.92))
    assert pooled.sd == pytest.approx(0.04 / math.sqrt(2))
    assert math.isnan(pooled.low)
    # By run: (0.89 + 0.78)/2 = 0.835 and (0.92 + 0.83)/2 = 0.875.
    everywhere = found.summary("federated", ALL_SITES, "auc")
    assert everywhere.mean == pytest.approx(0.855)
    assert everywhere.sd == pytest.approx(0.04 / math.sqrt(2))
    # Differences at b: −0.02 and −0.01.
    assert found.difference("federated", "b", "auc").mean == pytest.approx(-0.015)
    # The failed run does not count: one run, its interval, one pair.
    single = found.summary("single", "a", "auc")
    assert (single.n, single.mean) == (1, 0.7)
    assert (single.low, single.high) == (pytest.approx(0.66), pytest.approx(0.73))
    assert found.difference("single", "a", "auc").n == 1
    assert [method.name for method in found.others] == ["federated", "single"]


def test_without_pooled_training_there_is_no_difference(tmp_path: Path) -> None:
    run = fabricate_run(tmp_path, "federated", {"a": 0.9})
    found = comparison_of([run])
    assert found.places == ("a",)
    assert found.others == ()
