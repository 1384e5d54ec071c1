"""Distances between sites, against numbers worked out by hand."""

import math

import pytest
import torch
from torch import nn

from clients.adapt.distance import Distances, divergence, site_distances
from common.models.dsbn import convert
from common.models.per_site import SiteRouting


def norm(mean: list[float], variance: list[float]) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(len(mean), eps=0.0)
    made.running_mean, made.running_var = torch.tensor(mean), torch.tensor(variance)
    return made


def test_divergence_by_hand() -> None:
    # Equal variances 4, means 6 apart: d²/v = 9. Equal means, variances 1 and 4: 1/8 + 4/2 − 1.
    found = divergence(
        norm([0.0, 1.0, 5.0], [4.0, 1.0, 2.0]), norm([6.0, 1.0, 5.0], [4.0, 4.0, 2.0])
    )
    torch.testing.assert_close(found, torch.tensor([9.0, 1.125, 0.0]).double())


def test_divergence_is_that_of_torch_both_ways() -> None:
    one, other = norm([0.3, -1.0], [0.5, 2.0]), norm([0.1, 2.0], [1.5, 0.2])
    p, q = (
        torch.distributions.Normal(n.running_mean.double(), n.running_var.double().sqrt())
        for n in (one, other)
    )
    expected = torch.distributions.kl_divergence(p, q) + torch.distributions.kl_divergence(q, p)
    torch.testing.assert_close(divergence(one, other), expected)
    torch.testing.assert_close(divergence(other, one), expected)


def test_every_layer_weighs_alike_however_wide() -> None:
    backbone = nn.Sequential(nn.BatchNorm2d(1, eps=0.0), nn.BatchNorm2d(4, eps=0.0))
    convert(backbone, ["a", "b", "new"], SiteRouting())
    backbone[0].sites[
        "new"
    ].running_mean += 2.0  # 4 in the first layer, 0 in the second: 2 on average
    backbone[1].sites["b"].running_mean += torch.tensor(
        [0.0, 0.0, 0.0, 4.0]
    )  # 16 / 4 in the second
    found = site_distances(backbone, "new")
    assert found.to == pytest.approx({"a": 2.0, "b": 4.0})
    assert found.among == pytest.approx({("a", "b"): 2.0})
    assert found.nearest == "a"


def test_an_outlier_is_farther_from_its_nearest_than_any_other_from_its_own() -> None:
    # On a line: a at 0, b at 1, c at 5. c is the loneliest, 4 from b.
    among = {("a", "b"): 1.0, ("a", "c"): 5.0, ("b", "c"): 4.0}
    near = Distances({"a": 9.0, "b": 8.0, "c": 3.9}, among)
    assert near.nearest == "c" and near.usual == 4.0 and not near.is_far
    assert Distances({"a": 9.5, "b": 8.5, "c": 4.5}, among).is_far
    alone = Distances({"a": 100.0}, {})
    assert math.isnan(alone.usual) and not alone.is_far
