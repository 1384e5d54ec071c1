"""Convolutions of standardised weights: by hand, by NumPy, and in whole networks."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.errors import ConfigError
from common.methods.registry import methods_of
from common.models.network import build_network
from common.models.sharing import private_names, shared_layout
from common.models.standardised import StandardisedConvolution, convert
from tests.common.models.test_adapters import batch, small
from tests.common.small_training import normal


def test_weights_by_hand() -> None:
    """Of 1, 2, 3 and 6 the mean is 3 and Nσ² is 14, so with gain 2: 2 · (−2, −1, 0, 3) / √14."""
    plain = nn.Conv2d(1, 1, 2)
    plain.weight.data = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    made = StandardisedConvolution(plain)
    made.gain.data.fill_(2.0)
    expected = 2 * torch.tensor([-2.0, -1.0, 0.0, 3.0]) / 14**0.5
    torch.testing.assert_close(made.standardised().flatten(), expected)


@pytest.mark.parametrize("kept", [True, False])
def test_it_convolves_with_weights_by_numpy(kept: bool) -> None:
    plain = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=kept).double()
    weights = plain.weight.detach().numpy().copy()
    made = StandardisedConvolution(plain).double()
    gain, bias = 1 + 0.1 * normal(6), normal(6, seed=1)
    made.gain.data = torch.from_numpy(gain)
    assert made.bias is not None
    if not kept:
        assert not made.bias.any()
        made.bias.data = torch.from_numpy(bias)
    mean = weights.mean(axis=(1, 2, 3), keepdims=True)
    spread = weights.std(axis=(1, 2, 3), keepdims=True) * np.sqrt(2 * 3 * 3)
    expected = torch.from_numpy(gain[:, None, None, None] * (weights - mean) / spread)
    images = torch.from_numpy(normal(2, 4, 7, 7, seed=2))
    convolved = F.conv2d(images, expected, made.bias, stride=2, padding=1, groups=2)
    torch.testing.assert_close(made(images), convolved, rtol=1e-12, atol=1e-12)


def test_neither_size_nor_mean_of_the_weights_matters() -> None:
    made = StandardisedConvolution(nn.Conv2d(3, 5, 3)).double()
    before = made.standardised()
    made.weight.data = 7 * made.weight.data - 3
    torch.testing.assert_close(made.standardised(), before, rtol=1e-10, atol=1e-12)
    made.weight.data.fill_(0.5)
    assert not made.standardised().any()


BACKBONES: list[dict[str, Any]] = [
    {},
    {"backbone": "covidnet-original"},
    {"backbone": "torchvision:resnet18:layer2", "width": 1.0},
]


@pytest.mark.parametrize("values", BACKBONES, ids=lambda values: values.get("backbone", "covidnet"))
def test_a_network_normalises_nothing_and_shares_everything(values: dict[str, Any]) -> None:
    made = build_network(small(normalisation="none", **values), ["a", "b"])
    plain = build_network(small(normalisation="shared", **values), ["a", "b"])
    assert not [part for part in made.modules() if isinstance(part, _BatchNorm)]
    kinds = {type(part) for part in made.modules() if isinstance(part, nn.Conv2d)}
    assert kinds == {StandardisedConvolution}
    assert private_names(made) == () and not list(made.buffers())
    # Weights keep their names and what they begin with.
    weights = {f"{n}.weight" for n, part in plain.named_modules() if isinstance(part, nn.Conv2d)}
    assert weights <= set(shared_layout(made).names)
    state = plain.state_dict()
    assert all(torch.equal(made.state_dict()[name], state[name]) for name in weights)


def test_an_image_s_outputs_depend_on_nothing_but_the_image() -> None:
    made = build_network(small(normalisation="none"), ["a", "b"])
    together = made(batch(3), [("a", 2), ("b", 1)]).logits
    alone = made.for_site("a")(batch(3)[2:]).logits
    torch.testing.assert_close(together[2:], alone, rtol=1e-4, atol=1e-6)
    assert together.std() > 0.001


def test_every_tensor_is_trained() -> None:
    made = build_network(small(normalisation="none"), ["a"])
    output = made(batch(4), [("a", 4)])
    total: Tensor = output.logits.square().sum() + output.projection.square().sum()
    total.backward()  # type: ignore[no-untyped-call]
    assert [n for n, p in made.named_parameters() if p.grad is None] == []


def test_a_convolution_in_two_places_stays_one() -> None:
    convolution = nn.Conv2d(3, 3, 1)
    made = convert(nn.Sequential(convolution, nn.BatchNorm2d(3), convolution))
    assert isinstance(made, nn.Sequential)
    assert made[0] is made[2] and isinstance(made[1], nn.Identity)


def test_adapters_are_refused() -> None:
    with pytest.raises(ConfigError, match="standardises their weights: leave one of the two out"):
        methods_of(small(normalisation="none", adapters="series"))
