"""DeLong's variance against a computation pair by pair."""

import math
from itertools import product

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from simulations.report.calibration import check_binary
from simulations.report.significance import estimate, placements


def by_pairs(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the components as DeLong, DeLong and Clarke-Pearson define them, eq. 4 and 5."""
    positives, negatives = scores[labels == 1], scores[labels == 0]
    wins = np.array(
        [[1.0 if p > n else 0.5 if p == n else 0.0 for n in negatives] for p in positives]
    )
    return wins.mean(axis=1), wins.mean(axis=0)


def drawn(seed: int, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = (generator.random(n) < 0.4).astype(np.int64)
    # Few distinct values, so that there are ties within and between the classes.
    return labels, np.round(generator.random(n) * 0.6 + labels * 0.3, 1)


def variance(labels: np.ndarray, values: np.ndarray) -> float:
    """Return DeLong's variance of an AUC over images, eq. 5 to 7."""
    classes = (values[labels == 1], values[labels == 0])
    return float(sum(held.var(ddof=1) / len(held) for held in classes))


@pytest.mark.parametrize("seed", range(3))
def test_placement_values_are_those_of_all_pairs(seed: int) -> None:
    labels, scores = drawn(seed)
    found = placements(labels, scores)
    positive, negative = by_pairs(labels, scores)
    np.testing.assert_allclose(found[labels == 1], positive, atol=1e-12)
    np.testing.assert_allclose(found[labels == 0], negative, atol=1e-12)
    told = estimate([(labels, found)])
    assert told.value == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    expected = positive.var(ddof=1) / len(positive) + negative.var(ddof=1) / len(negative)
    half = 1.959963984540054 * math.sqrt(expected)
    assert told.high - told.value == pytest.approx(half, rel=1e-12)


def test_a_small_example_by_hand() -> None:
    # Positives 3 and 1, negatives 2 and 0: three of four pairs are won.
    labels = np.array([1, 1, 0, 0])
    found = placements(labels, np.array([3.0, 1.0, 2.0, 0.0]))
    assert found.tolist() == [1.0, 0.5, 0.5, 1.0]
    # Sample variance of both is 1/8, over two images each: 1/16 + 1/16.
    told = estimate([(labels, found)])
    assert told.value == 0.75
    half = 1.959963984540054 * math.sqrt(1 / 8)
    assert (told.low, told.high) == (pytest.approx(0.75 - half), pytest.approx(0.75 + half))


def test_one_class_has_no_auc() -> None:
    with pytest.raises(ValueError, match="needs images of both classes"):
        placements(np.array([1, 1]), np.array([0.2, 0.4]))


def test_a_single_image_of_a_class_has_no_interval() -> None:
    labels = np.array([1, 0, 0])
    told = estimate([(labels, placements(labels, np.array([0.5, 0.4, 0.6])))])
    assert told.value == 0.5
    assert math.isnan(told.low)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(7)
    # The difference of two normals a deviation apart is above 0 with probability Φ(1 / √2).
    truth = 0.5 * (1 + math.erf(1 / 2))
    held = 0
    for _ in range(300):
        scores = np.concatenate([generator.normal(1, 1, 40), generator.normal(0, 1, 60)])
        labels = np.repeat([1, 0], [40, 60])
        told = estimate([(labels, placements(labels, scores))])
        held += told.low <= truth <= told.high
    # Binomial with p = 0.95: below 0.90 or above 0.99 has a chance of one in a thousand.
    assert 0.90 <= held / 300 <= 0.99


def test_a_difference_of_the_same_scores_is_exactly_none() -> None:
    labels, scores = drawn(4)
    found = placements(labels, scores)
    told = estimate([(labels, found - found)])
    assert told.value == 0
    assert math.isnan(told.p)


def test_correlated_scores_differ_more_surely_than_unrelated_ones() -> None:
    labels, scores = drawn(5, 200)
    worse = scores + 0.02 * np.random.default_rng(1).normal(size=200)
    one, other = placements(labels, scores), placements(labels, worse)
    unrelated = variance(labels, one) + variance(labels, other)
    assert variance(labels, one - other) < 0.1 * unrelated


def test_folds_share_no_image_so_their_variances_add() -> None:
    folds = [drawn(seed) for seed in range(4)]
    parts = [(labels, placements(labels, scores)) for labels, scores in folds]
    told = estimate(parts)
    deviation = math.sqrt(sum(variance(*part) for part in parts)) / 4
    assert told.value == pytest.approx(np.mean([roc_auc_score(*fold) for fold in folds]))
    assert told.high - told.value == pytest.approx(1.959963984540054 * deviation)


def test_all_pairs_are_what_the_oracle_counts() -> None:
    labels, scores = drawn(9)
    wins = [
        1.0 if p > n else 0.5 if p == n else 0.0
        for p, n in product(scores[labels == 1], scores[labels == 0])
    ]
    assert np.mean(wins) == pytest.approx(roc_auc_score(labels, scores))


def test_labels_of_more_than_two_classes_are_refused() -> None:
    check_binary(np.array([0, 1]))
    check_binary(np.zeros(0, np.int64))
    with pytest.raises(ValueError, match=r"found \[0, 1, 2\]"):
        check_binary(np.array([2, 0, 1]))
