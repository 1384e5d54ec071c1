import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from common.runs.predictions import PredictionsTable
from simulations.report.calibration import reliability, specificity_at
from simulations.report.significance import placements


def of_two(positive: ArrayLike) -> NDArray[np.float64]:
    """Return probabilities of two classes, of which the second has these."""
    scores = np.asarray(positive, dtype=np.float64)
    return np.stack([1 - scores, scores], axis=1)


def test_the_calibration_error_by_hand() -> None:
    # Bin 0.2-0.3: predicted 0.25, one of two positive. Bin 0.9-1: predicted 0.95, both positive.
    labels = np.array([0, 1, 1, 1])
    found = reliability(labels, of_two([0.25, 0.25, 0.9, 1.0]))
    np.testing.assert_allclose(found.predicted, [0.25, 0.95])
    np.testing.assert_allclose(found.observed, [0.5, 1.0])
    assert found.images.tolist() == [2, 2]
    assert found.error == pytest.approx((2 * 0.25 + 2 * 0.05) / 4)


def test_predictions_that_hold_what_they_promise_have_a_small_error() -> None:
    generator = np.random.default_rng(0)
    scores = generator.random(20_000)
    labels = (generator.random(20_000) < scores).astype(np.int64)
    assert reliability(labels, of_two(scores)).error < 0.02
    assert reliability(labels, of_two(scores**3)).error > 0.15


def test_the_specificity_is_that_of_the_highest_threshold_that_reaches_the_sensitivity() -> None:
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0])
    # All four positives only at 0.3, above which two negatives lie.
    assert specificity_at(labels, np.array([0.9, 0.8, 0.7, 0.3, 0.6, 0.4, 0.2, 0.1])) == 0.5
    # Nineteen of twenty are enough: the last one lies below all negatives.
    labels = np.repeat([1, 0], [20, 4])
    scores = np.concatenate([[0.1], np.linspace(0.5, 0.9, 19), [0.2, 0.3, 0.4, 0.6]])
    assert specificity_at(labels, scores) == 0.75


def test_without_both_classes_there_is_no_specificity() -> None:
    assert math.isnan(specificity_at(np.array([1, 1]), np.array([0.1, 0.2])))


def test_of_several_classes_the_decision_is_held_against_what_came_true() -> None:
    # Decided with 0.5 rightly and wrongly, with 0.75 rightly: errors of 0 and of 0.25.
    probabilities = np.array([[0.5, 0.3, 0.2], [0.1, 0.5, 0.4], [0.05, 0.2, 0.75]])
    found = reliability(np.array([0, 2, 2]), probabilities)
    np.testing.assert_allclose(found.predicted, [0.5, 0.75])
    assert found.images.tolist() == [2, 1]
    np.testing.assert_allclose(found.observed, [0.5, 1.0])
    assert found.error == pytest.approx((2 * 0 + 1 * 0.25) / 3)


def test_of_two_classes_the_positive_one_is() -> None:
    found = reliability(np.array([0, 1]), np.array([[0.9, 0.1], [0.55, 0.45]]))
    np.testing.assert_allclose(found.predicted, [0.1, 0.45])
    assert found.observed.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("figure", [specificity_at, placements])
def test_figures_of_a_positive_class_refuse_a_third(figure: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match="Expected labels of 0 and 1"):
        figure(np.array([0, 1, 2]), np.array([0.1, 0.5, 0.9]))
    with pytest.raises(ValueError, match="Expected labels of 0 and 1"):
        reliability(np.array([0, 1, 2]), of_two([0.1, 0.5, 0.9]))


def test_of_three_classes_none_is_positive() -> None:
    two = PredictionsTable(("a",), np.array([1]), np.array([[0.2, 0.8]]), ("no", "yes"))
    assert two.positive.tolist() == [0.8]
    three = PredictionsTable(("a",), np.array([1]), np.array([[0.2, 0.7, 0.1]]), ("x", "y", "z"))
    with pytest.raises(ValueError, match="Of 3 classes none is the positive one"):
        _ = three.positive
