import numpy as np
import pytest
import torch

from common.config.schema import Config
from common.device import Device
from common.learning.prototypes import Prototypes, make_prototypes, remote_prototypes

CPU = Device(torch.device("cpu"), torch.float64)


def test_a_prototype_is_the_normalised_mean_of_normalised_projections() -> None:
    # Directions (1, 0) and (0, 1) weigh alike, however long: their mean points to (1, 1)/√2.
    projections = torch.tensor([[5.0, 0.0], [0.0, 0.1], [-3.0, 0.0]])
    made = make_prototypes("a", projections, torch.tensor([1, 1, 0]), 1)
    assert made.site == "a"
    np.testing.assert_array_equal(made.classes, [0, 1])
    np.testing.assert_array_equal(made.counts, [1, 2])
    np.testing.assert_allclose(made.vectors, [[-1, 0], [2**-0.5, 2**-0.5]], rtol=1e-7)
    assert made.vectors.dtype == np.float32
    assert made.classes.dtype == made.counts.dtype == np.int64


@pytest.mark.parametrize("min_count, classes", [(2, [1, 2]), (3, [1]), (4, [])])
def test_too_few_images_send_nothing(min_count: int, classes: list[int]) -> None:
    labels = torch.tensor([0, 1, 1, 1, 2, 2])
    made = make_prototypes("a", torch.eye(6), labels, min_count)
    assert made.classes.tolist() == classes
    assert made.vectors.shape == (len(classes), 6)
    assert made.counts.shape == (len(classes),)


def test_a_mean_without_direction_sends_nothing() -> None:
    # Opposite, or zero as a ReLU can leave a projection: zeros are never sent.
    projections = torch.tensor([[1.0, 0.0], [-2.0, 0.0], [0.0, 0.0], [0.0, 3.0]])
    made = make_prototypes("a", projections, torch.tensor([0, 0, 1, 2]), 1)
    assert made.classes.tolist() == [2]


def test_a_prototype_carries_no_gradient_and_stands_mixed_precision() -> None:
    projections = torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True)
    made = make_prototypes("a", projections, torch.tensor([0, 0]), 1)
    np.testing.assert_allclose(made.vectors, [[3**-0.5] * 3], rtol=1e-7)


def prototypes(site: str, classes: list[int]) -> Prototypes:
    vectors = np.full((len(classes), 2), {"a": 1, "b": 2, "c": 3}[site], dtype=np.float32)
    return Prototypes(site, np.array(classes, dtype=np.int64), vectors, np.array(classes) + 5)


def test_a_site_meets_the_others_alone_each_as_often_as_in_a_pooled_batch() -> None:
    everyone = [prototypes("a", [0, 1]), prototypes("b", [1]), prototypes("c", [0, 1])]
    counts = {"a": [10, 30], "b": [1, 3], "c": [20, 20]}
    found = remote_prototypes("a", everyone, counts, Config(), CPU)
    assert found is not None
    assert found.labels.tolist() == [1, 0, 1]
    assert found.vectors[:, 0].tolist() == [2, 3, 3]
    # b: 16 · 3/4 = 12; c: 16 · 1/2 = 8 of each.
    assert found.multiplicity.tolist() == [12, 8, 8]
    assert found.vectors.dtype == found.multiplicity.dtype == torch.float64


def test_nobody_else_means_no_constants() -> None:
    assert remote_prototypes("a", [prototypes("a", [0])], {"a": [1, 1]}, Config(), CPU) is None
    assert remote_prototypes("a", [prototypes("b", [])], {"b": [1, 1]}, Config(), CPU) is None
    assert remote_prototypes("a", [], {}, Config(), CPU) is None


def test_averaged_prototypes_weigh_every_site_by_its_images_the_own_one_too() -> None:
    # Classes 0, 1 with 5, 6 images behind each; the vectors are (1, 1), (2, 2), (3, 3).
    everyone = [prototypes("a", [0, 1]), prototypes("b", [1]), prototypes("c", [0, 1])]
    counts = {"a": [10, 30], "b": [1, 3], "c": [20, 20]}
    found = remote_prototypes("a", everyone, counts, Config(prototypes="average"), CPU)
    assert found is not None
    assert found.labels.tolist() == [0, 1]
    expected = [5 * 1 + 5 * 3, 6 * 1 + 6 * 2 + 6 * 3]
    assert found.vectors.tolist() == [[value, value] for value in expected]
    # As many images as the joint batch holds of the others.
    assert found.multiplicity.tolist() == [8, 12 + 8]


def test_without_multiplicity_every_prototype_counts_once() -> None:
    everyone = [prototypes("a", [0, 1]), prototypes("b", [1]), prototypes("c", [0, 1])]
    counts = {"a": [10, 30], "b": [1, 3], "c": [20, 20]}
    for average, expected in (("site", [1, 1, 1]), ("average", [1, 1])):
        config = Config(prototypes=average, prototype_multiplicity=False)
        found = remote_prototypes("a", everyone, counts, config, CPU)
        assert found is not None and found.multiplicity.tolist() == expected
