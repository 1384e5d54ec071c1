import math
import time

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score

from common.randomness import numpy_generator
from common.tasks.figures import (
    FIGURES,
    NAMES,
    auc_interval,
    measure,
    resampled_aucs,
    tabled,
)

Labels = NDArray[np.int64]


def two(positive: list[float]) -> NDArray[np.float64]:
    return np.stack([1 - np.array(positive), np.array(positive)], axis=1)


def scored(images: int, digits: int = 9, shift: float = 1.0) -> tuple[Labels, NDArray[np.float64]]:
    generator = np.random.default_rng(images)
    labels = (generator.random(images) < 0.4).astype(np.int64)
    scores = 1 / (1 + np.exp(-generator.standard_normal(images) - shift * labels))
    return labels, two(np.round(scores, digits).tolist())


def test_numbers_by_hand() -> None:
    # Decided 1 1 0 0 1: two true positives, one false, one missed, one true negative.
    found = measure(np.array([1, 1, 1, 0, 0]), two([0.9, 0.6, 0.2, 0.3, 0.7]))
    assert found["accuracy"] == 3 / 5
    assert (
        found["sensitivity"] == found["precision"] == found["f1"] == pytest.approx(2 / 3, rel=1e-15)
    )
    # Of 3 · 2 pairs the positive is above in (.9, .3) (.9, .7) (.6, .3).
    assert found["auc"] == pytest.approx(3 / 6, rel=1e-15)
    logs = [math.log(p) for p in (0.9, 0.6, 0.2, 0.7, 0.3)]
    assert found["loss"] == pytest.approx(-sum(logs) / 5, rel=1e-12)
    assert found["images"] == 5
    assert list(found) == [
        "accuracy",
        "f1",
        "sensitivity",
        "precision",
        "specificity",
        "auc",
        "loss",
        "images",
    ]


def test_specificity_is_of_the_negatives_and_of_two_classes_alone() -> None:
    # Of five negatives three are decided so.
    found = measure(np.array([0, 0, 0, 0, 0, 1]), two([0.1, 0.2, 0.3, 0.7, 0.9, 0.4]))
    assert found["specificity"] == 3 / 5 and found["sensitivity"] == 0
    assert math.isnan(measure(np.array([1, 1]), two([0.1, 0.9]))["specificity"])
    assert math.isnan(measure(np.array([0, 1, 2]), np.eye(3))["specificity"])
    assert "specificity" in {figure.name for figure in tabled(2)}
    assert "specificity" not in {figure.name for figure in tabled(3)}


def test_every_figure_is_an_entry_with_a_name_of_its_own_and_stays_in_its_range() -> None:
    labels, probabilities = scored(50)
    found = measure(labels, probabilities)
    assert len(set(NAMES)) == len(FIGURES) == len(found) - 1
    for figure in FIGURES:
        assert figure.low <= found[figure.name] <= figure.high
        # What a perfect network has is the best end of the range.
        perfect = measure(labels, two((labels * 1.0).tolist()))[figure.name]
        assert perfect == pytest.approx(figure.high if figure.name != "loss" else figure.low)


def test_what_is_undefined_is_nan_and_warns_nobody(recwarn: pytest.WarningsRecorder) -> None:
    negative = measure(np.array([0, 0]), two([0.1, 0.2]))
    assert negative["accuracy"] == 1
    assert all(
        math.isnan(value)
        for value in (
            negative["auc"],
            negative["sensitivity"],
            negative["precision"],
            negative["f1"],
        )
    )
    missed = measure(np.array([0, 1]), two([0.1, 0.2]))
    assert math.isnan(missed["precision"])
    assert (missed["sensitivity"], missed["f1"], missed["auc"]) == (0, 0, 1)
    nothing = measure(np.zeros(0, np.int64), np.zeros((0, 2)))
    assert (
        nothing["images"] == 0 and math.isnan(nothing["accuracy"]) and math.isnan(nothing["loss"])
    )
    assert not [w for w in recwarn if "sklearn" in str(w.filename)]


def test_more_than_two_classes_are_averaged() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(3), 50)
    labels = generator.integers(0, 3, 50)
    found = measure(labels, probabilities)
    decided = probabilities.argmax(1)
    assert found["f1"] == pytest.approx(f1_score(labels, decided, average="macro"))
    assert found["precision"] == pytest.approx(precision_score(labels, decided, average="macro"))
    assert found["sensitivity"] == pytest.approx(recall_score(labels, decided, average="macro"))
    each = [roc_auc_score(labels == k, probabilities[:, k]) for k in range(3)]
    assert found["auc"] == pytest.approx(np.mean(each))
    partly = measure(labels[labels > 0], probabilities[labels > 0])
    assert math.isnan(partly["auc"]) and math.isfinite(partly["f1"])


@pytest.mark.parametrize("digits", [9, 1])
def test_counts_give_the_auc_of_scikit_learn_ties_and_all(digits: int) -> None:
    labels, probabilities = scored(80, digits)
    values, places = np.unique(probabilities[:, 1], return_inverse=True)
    negative, positive = (
        np.bincount(places[labels == k], minlength=len(values))[None] for k in (0, 1)
    )
    expected = roc_auc_score(labels, probabilities[:, 1])
    assert resampled_aucs(np.stack([negative, positive]), values[:, None])[0] == pytest.approx(
        expected, rel=1e-13
    )


def test_the_interval_is_the_bootstraps() -> None:
    labels, probabilities = scored(60)
    positive, negative = (probabilities[labels == k, 1] for k in (1, 0))
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    assert wins.mean() == pytest.approx(roc_auc_score(labels, probabilities[:, 1]))
    generator = numpy_generator(5, "another")
    aucs = [
        wins[generator.integers(0, len(positive), len(positive))][
            :, generator.integers(0, len(negative), len(negative))
        ].mean()
        for _ in range(4000)
    ]
    expected = np.quantile(aucs, [0.05, 0.95])
    found = auc_interval(labels, probabilities, 0, draws=4000, level=0.9)
    np.testing.assert_allclose(found, expected, atol=0.01)
    assert found == auc_interval(labels, probabilities, 0, draws=4000, level=0.9)
    assert found != auc_interval(labels, probabilities, 1, draws=4000, level=0.9)
    backwards = auc_interval(labels[::-1], probabilities[::-1], 0, draws=4000, level=0.9)
    assert found == backwards, "the order of the images must not matter"


def test_the_interval_where_there_is_nothing_to_resample() -> None:
    assert auc_interval(np.array([0, 0, 1, 1]), two([0.1, 0.2, 0.7, 0.9]), 0) == (1, 1)
    for labels, probabilities in [
        (np.array([0, 0]), two([0.1, 0.2])),
        (np.zeros(0, np.int64), two([])),
        (np.array([0, 1, 1]), np.eye(3)),
    ]:
        assert all(map(math.isnan, auc_interval(labels, probabilities, 0)))


def test_a_thousand_draws_over_six_hundred_images_take_less_than_a_second() -> None:
    labels, probabilities = scored(600)
    started = time.process_time()
    low, high = auc_interval(labels, probabilities, 0)
    assert time.process_time() - started < 1
    assert 0.03 < high - low < 0.12
    assert low < roc_auc_score(labels, probabilities[:, 1]) < high


def test_the_interval_of_several_classes_is_that_of_the_mean_of_one_against_the_rest() -> None:
    generator = np.random.default_rng(4)
    labels = np.repeat([0, 1, 2], [30, 20, 10])
    # One decimal: many scores are equal.
    probabilities = (generator.dirichlet(np.ones(3), 60) + np.eye(3)[labels]).round(1) / 2
    each = [np.flatnonzero(labels == label) for label in range(3)]
    aucs = []
    for _ in range(600):
        drawn = np.concatenate([generator.choice(places, len(places)) for places in each])
        aucs.append(
            np.mean([roc_auc_score(labels[drawn] == k, probabilities[drawn, k]) for k in range(3)])
        )
    found = auc_interval(labels, probabilities, 0, draws=4000, level=0.9)
    np.testing.assert_allclose(found, np.quantile(aucs, [0.05, 0.95]), atol=0.01)
    order = generator.permutation(60)
    assert found == auc_interval(labels[order], probabilities[order], 0, draws=4000, level=0.9)


def test_a_resample_has_the_auc_of_its_images() -> None:
    # Image k is of class k. Class 0: 0.6 is above 0.3 and level with 0.6, 1.5 of 2 pairs; with the
    # second image twice, 2.5 of 3. Class 1: 0.6 is above 0.3 and 0.1. Class 2: 0.3 above 0.1 twice.
    scores = np.array([[0.6, 0.3, 0.1], [0.3, 0.6, 0.1], [0.6, 0.1, 0.3]])
    counts = np.eye(3, dtype=np.int64)
    twice = counts * np.array([1, 2, 1])
    found = resampled_aucs(np.stack([counts, twice], axis=1), scores)
    np.testing.assert_allclose(found, [(1.5 / 2 + 1 + 1) / 3, (2.5 / 3 + 1 + 1) / 3])


def test_figures_of_four_images_and_their_interval() -> None:
    labels = np.array([0, 0, 1, 1])
    positive = np.array([0.1, 0.6, 0.4, 0.9])
    probabilities = np.stack([1 - positive, positive], axis=1)
    told = measure(labels, probabilities)
    # Right are 0.1 and 0.9; pairs in the right order: (0.1, 0.4), (0.1, 0.9), (0.6, 0.9) of 4.
    assert told["accuracy"] == 0.5 and told["auc"] == 0.75 and told["images"] == 4
    low, high = auc_interval(labels, probabilities, seed=0)
    assert 0 <= low <= 0.75 <= high <= 1
