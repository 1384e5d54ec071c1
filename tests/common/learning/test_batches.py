"""Batches: one endless shuffling, or one of each class, dealt out in turn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config.schema import Config
from common.learning.batches import batch_indices, images_in_batch


@given(
    n=st.integers(1, 50), batch=st.integers(1, 40), step=st.integers(0, 20), seed=st.integers(0, 9)
)
@settings(max_examples=60, deadline=None)
def test_batches_are_the_slices_of_one_endless_shuffling(
    n: int, batch: int, step: int, seed: int
) -> None:
    indices = np.arange(n, dtype=np.int64) * 3
    endless = np.concatenate([batch_indices(indices, batch, s, seed, "a") for s in range(step + 1)])
    assert np.array_equal(endless[-batch:], batch_indices(indices, batch, step, seed, "a"))
    for start in range(0, len(endless) - n + 1, n):
        assert sorted(endless[start : start + n]) == indices.tolist()


def test_sites_and_seeds_are_shuffled_differently() -> None:
    indices = np.arange(100)
    first = batch_indices(indices, 50, 0, 0, "a").tolist()
    assert first != batch_indices(indices, 50, 0, 0, "b").tolist()
    assert first != batch_indices(indices, 50, 0, 1, "a").tolist()


@pytest.mark.parametrize(
    ("classes", "batch", "held"),
    [
        (2, 4, [[2, 2], [2, 2], [2, 2]]),
        # Places go to classes 0 1 0 1 0 | 1 0 1 0 1 | …
        (2, 5, [[3, 2], [2, 3], [3, 2]]),
        (3, 4, [[2, 1, 1], [1, 2, 1], [1, 1, 2]]),
        (3, 2, [[1, 1, 0], [1, 0, 1], [0, 1, 1]]),
    ],
)
def test_a_balanced_batch_holds_its_classes_in_turn(
    classes: int, batch: int, held: list[list[int]]
) -> None:
    labels = np.repeat(np.arange(classes), [9, 2, 3][:classes])
    indices = np.arange(len(labels)) * 3
    for step, expected in enumerate(held):
        chosen = batch_indices(indices, batch, step, 0, "a", labels)
        assert len(chosen) == batch
        assert np.bincount(labels[chosen // 3], minlength=classes).tolist() == expected


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=4).filter(any),
    batch=st.integers(1, 12),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_each_class_of_balanced_batches_is_an_endless_shuffling_of_its_own(
    counts: list[int], batch: int, seed: int
) -> None:
    """The classes that the site has get the same number of images, to one, after any step."""
    labels = np.repeat(np.arange(len(counts)), counts)
    indices = np.random.default_rng(seed).permutation(len(labels))
    steps = [batch_indices(indices, batch, s, seed, "a", labels[indices]) for s in range(12)]
    endless = np.concatenate(steps)
    assert all(len(one) == batch for one in steps)
    drawn = [np.sum(labels[endless] == label) for label, n in enumerate(counts) if n]
    assert max(drawn) - min(drawn) <= 1
    for label, n in enumerate(counts):
        own = endless[labels[endless] == label]
        for start in range(0, len(own) - n + 1, max(n, 1)):
            assert sorted(own[start : start + n]) == np.flatnonzero(labels == label).tolist()


def test_a_batch_of_one_class_is_not_that_of_another_or_of_all() -> None:
    indices, labels = np.arange(40), np.repeat([0, 1], 20)
    balanced = batch_indices(indices, 40, 0, 0, "a", labels)
    assert balanced[:20].tolist() != (balanced[20:] - 20).tolist()
    assert balanced.tolist() != batch_indices(indices, 40, 0, 0, "a").tolist()


def test_what_a_batch_holds_is_what_is_drawn_on_average() -> None:
    counts = [30, 10, 0]
    shuffled, balanced = Config(batch_size=16), Config(batch_size=16, batches="balanced")
    assert images_in_batch(shuffled, counts) == [12, 4, 0]
    assert images_in_batch(balanced, counts) == [8, 8, 0]
    assert images_in_batch(balanced, [5, 7, 1]) == pytest.approx([16 / 3] * 3)
    labels = np.repeat(np.arange(3), counts)
    # A batch of 16 of 40 images is a pass after five steps.
    for config, own in ((shuffled, None), (balanced, labels)):
        steps = [batch_indices(np.arange(40), 16, step, 0, "a", own) for step in range(5)]
        drawn = np.bincount(labels[np.concatenate(steps)], minlength=3) / 5
        assert drawn.tolist() == images_in_batch(config, counts)
