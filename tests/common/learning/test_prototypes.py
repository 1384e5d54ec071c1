from dataclasses import replace

import numpy as np
import pytest
import torch

from common.config.schema import Config
from common.device import Device
from common.learning.prototypes import (
    Prototypes,
    RemotePrototypes,
    make_prototypes,
    remote_prototypes,
)
from common.randomness import torch_generator

CPU = Device(torch.device("cpu"), torch.float64)


def test_a_prototype_is_mean_and_deviation_of_normalised_projections() -> None:
    # Directions (1, 0) and (0, 1) weigh alike, however long: on each axis 1 and 0.
    projections = np.array([[5.0, 0.0], [0.0, 0.1], [-3.0, 0.0]])
    made = make_prototypes("a", projections, np.array([1, 1, 0]), 1)
    assert made.site == "a"
    np.testing.assert_array_equal(made.classes, [0, 1])
    np.testing.assert_array_equal(made.counts, [1, 2])
    np.testing.assert_allclose(made.vectors, [[[-1, 0], [0, 0]], [[0.5, 0.5], [0.5, 0.5]]])
    assert made.vectors.dtype == np.float32
    assert made.classes.dtype == made.counts.dtype == np.int64


def test_factors_are_the_directions_of_largest_spread_and_deviations_the_rest() -> None:
    projections = np.random.default_rng(0).normal(1, [1, 0.5, 0.2, 0.1], (40, 4))
    unit = projections / np.linalg.norm(projections, axis=1, keepdims=True)
    expected = np.cov(unit.T, bias=True)
    of_one_class = np.zeros(40, np.int64)
    for rank in (0, 1, 4, 6):
        made = make_prototypes("a", projections, of_one_class, 1, rank)
        assert made.vectors.shape == (1, 2 + rank, 4)
        mean, deviation, factors = made.vectors[0][0], made.vectors[0][1], made.vectors[0][2:]
        np.testing.assert_allclose(mean, unit.mean(axis=0), rtol=1e-6)
        diagonal = (deviation**2) + (factors**2).sum(axis=0)
        np.testing.assert_allclose(diagonal, np.diag(expected), rtol=1e-5)
        assert np.linalg.norm(made.vectors) == pytest.approx(1, abs=1e-6)
        assert made.fault(4, rank) is None
        if rank == 1:
            values, vectors = np.linalg.eigh(expected)
            np.testing.assert_allclose(
                np.abs(factors[0]), np.abs(vectors[:, -1]) * values[-1] ** 0.5, rtol=1e-5
            )
        if rank >= 4:
            np.testing.assert_allclose(factors.T @ factors, expected, atol=1e-7)


@pytest.mark.parametrize("min_count, classes", [(2, [1, 2]), (3, [1]), (4, [])])
def test_too_few_images_send_nothing(min_count: int, classes: list[int]) -> None:
    labels = np.array([0, 1, 1, 1, 2, 2])
    made = make_prototypes("a", np.eye(6), labels, min_count)
    assert made.classes.tolist() == classes
    assert made.vectors.shape == (len(classes), 2, 6)
    assert made.counts.shape == (len(classes),)


def test_a_mean_without_direction_sends_nothing() -> None:
    # Opposite, or zero as a ReLU can leave a projection: zeros are never sent.
    projections = np.array([[1.0, 0.0], [-2.0, 0.0], [0.0, 0.0], [0.0, 3.0]])
    made = make_prototypes("a", projections, np.array([0, 0, 1, 2]), 1)
    assert made.classes.tolist() == [2]


def test_an_image_that_comes_twice_is_one_image_behind_a_prototype() -> None:
    images = np.array([7, 7, 9])
    made = make_prototypes("a", np.eye(3), np.zeros(3, np.int64), 2, images=images)
    assert made.counts.tolist() == [2]
    none = make_prototypes("a", np.eye(3), np.zeros(3, np.int64), 3, images=images)
    assert none.counts.tolist() == []


def prototypes(site: str, classes: list[int]) -> Prototypes:
    vectors = np.full((len(classes), 2, 2), {"a": 1, "b": 2, "c": 3}[site], dtype=np.float32)
    return Prototypes(site, np.array(classes, dtype=np.int64), vectors, np.array(classes) + 5)


def test_a_site_meets_the_others_alone_each_as_often_as_in_a_pooled_batch() -> None:
    everyone = [prototypes("a", [0, 1]), prototypes("b", [1]), prototypes("c", [0, 1])]
    counts = {"a": [10, 30], "b": [1, 3], "c": [20, 20]}
    found = remote_prototypes("a", everyone, counts, Config(), CPU)
    assert found is not None
    assert found.labels.tolist() == [1, 0, 1]
    assert found.vectors[:, 0, 0].tolist() == [2, 3, 3]
    assert found.sites == 2
    # b: 16 · 3/4 = 12; c: 16 · 1/2 = 8 of each.
    assert found.multiplicity.tolist() == [12, 8, 8]
    assert found.vectors.dtype == found.multiplicity.dtype == torch.float64


def test_nobody_else_means_no_constants() -> None:
    assert remote_prototypes("a", [prototypes("a", [0])], {"a": [1, 1]}, Config(), CPU) is None
    assert remote_prototypes("a", [prototypes("b", [])], {"b": [1, 1]}, Config(), CPU) is None
    assert remote_prototypes("a", [], {}, Config(), CPU) is None


def test_an_averaged_prototype_is_that_of_all_sites_images_together() -> None:
    generator = np.random.default_rng(1)
    unit, names = (
        generator.normal(0.3, 1, (30, 3)),
        np.array(list("aaaaabbbbbbbbcccccaaaaaabbbccc")),
    )
    labels = np.repeat([0, 1], [18, 12])
    everyone = [
        make_prototypes(name, unit[names == name], labels[names == name], 1) for name in "abc"
    ]
    together = make_prototypes("all", unit, labels, 1)
    counts = {"a": [10, 30], "b": [1, 3], "c": [20, 20]}
    found = remote_prototypes("a", everyone, counts, Config(prototypes="average"), CPU)
    assert found is not None
    assert found.labels.tolist() == [0, 1]
    np.testing.assert_allclose(found.vectors, together.vectors, atol=1e-6)
    # As many images as the joint batch holds of the others: b 16 · 1/4, 16 · 3/4, c 8 of each.
    assert found.multiplicity.tolist() == [4 + 8, 12 + 8]


def test_without_multiplicity_every_prototype_counts_once() -> None:
    everyone = [prototypes("a", [0, 1]), prototypes("b", [1]), prototypes("c", [0, 1])]
    counts = {"a": [10, 30], "b": [1, 3], "c": [20, 20]}
    for average, expected in (("site", [1, 1, 1]), ("average", [1, 1])):
        config = Config(prototypes=average, prototype_multiplicity=False)
        found = remote_prototypes("a", everyone, counts, config, CPU)
        assert found is not None and found.multiplicity.tolist() == expected


def test_draws_have_mean_and_covariance_of_the_prototype_and_length_1() -> None:
    # Far from the origin, so that bringing a draw back to the sphere leaves its other two axes.
    mean, deviation, factor = [100.0, 0, 0], [0.0, 0.3, 0.4], [0.0, 1.0, -0.5]
    vectors = torch.tensor([[mean, deviation, factor], [[0, -1, 0], [0] * 3, [0] * 3]]).double()
    counts = torch.tensor([6.0, 2.0]).double()
    remote = RemotePrototypes(vectors, torch.tensor([1, 0]), counts, 1)
    drawn = remote.draw(40_000, torch_generator(0, "draws"))
    assert drawn.labels.tolist() == [1] * 40_000 + [0] * 40_000
    np.testing.assert_allclose(drawn.multiplicity[[0, -1]], [6 / 40_000, 2 / 40_000])
    np.testing.assert_allclose(drawn.vectors.norm(dim=1), 1, rtol=1e-12)
    around = drawn.vectors[:40_000, 1:].numpy() * 100
    expected = np.diag([0.09, 0.16]) + np.outer([1, -0.5], [1, -0.5])
    np.testing.assert_allclose(np.cov(around.T), expected, atol=0.03)
    np.testing.assert_allclose(around.mean(axis=0), 0, atol=0.03)
    assert drawn.vectors[40_000:].unique(dim=0).tolist() == [[0, -1, 0]]
    again = remote.draw(40_000, torch_generator(0, "draws"))
    assert torch.equal(drawn.vectors, again.vectors)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"vectors": np.ones((1, 2), np.float32)}, "have shapes"),
        ({"vectors": np.full((1, 3, 2), 6**-0.5, np.float32)}, "expected (n,), (n, 2, 2) and (n,)"),
        ({"vectors": np.array([[[0.6, 0.8], [0.1, 0.4]]], np.float32)}, "not of length 1"),
        ({"vectors": np.array([[[np.nan, 0.8], [0.6, 0]]], np.float32)}, "not of length 1"),
        ({"vectors": np.array([[[0, 0.8], [-0.6, 0]]], np.float32)}, "a deviation"),
        ({}, None),
    ],
)
def test_what_no_prototypes_can_be_is_said(change: dict[str, np.ndarray], said: str | None) -> None:
    vectors = np.array([[[0, 0.8], [0.6, 0]]], np.float32)
    sound = Prototypes("a", np.array([1]), vectors, np.array([4]))
    found = replace(sound, **change).fault(2, 0)  # type: ignore[arg-type]
    assert found is None if said is None else found is not None and said in found
