"""Moments of the shared parameters: packed and unpacked, told from the private ones, and judged."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Adam, Optimizer

from common.learning.moments import (
    FURTHEST,
    moment_forms,
    moments_fault,
    pack_moments,
    private_moments,
    unpack_moments,
)
from common.learning.optimiser import BETAS, load_moments, make_optimizer, moments_of
from common.models.network import Network
from common.models.sharing import private_names, shared_layout
from tests.common.small_training import config, network

NO_GRADIENT = "projection.0.weight"


def step(made: Network, optimizer: Optimizer, seed: int) -> None:
    """Take a step along gradients of chance; one shared tensor has none."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in made.named_parameters():
        if name != NO_GRADIENT:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


def trained() -> tuple[Network, Optimizer]:
    """Return a network, of which some tensors lie in memory by channels, after three steps."""
    made = network("a").to(memory_format=torch.channels_last)
    optimizer = make_optimizer(made, config())
    for seed in range(3):
        step(made, optimizer, seed)
    return made, optimizer


def test_shared_moments_lie_as_the_shared_tensors_do_with_the_steps_behind_them() -> None:
    made, optimizer = trained()
    layout, moments = shared_layout(made), pack_moments(made, optimizer)
    assert {k: (str(a.dtype), a.shape) for k, a in moments.items()} == moment_forms(layout)
    ends = np.cumsum([int(np.prod(shape)) for shape in layout.shapes])[:-1]
    states = {name: optimizer.state[p] for name, p in made.named_parameters()}
    for key in ("exp_avg", "exp_avg_sq"):
        for name, part in zip(layout.names, np.split(moments[key], ends), strict=True):
            expected = states[name].get(key, torch.zeros(part.size)).reshape(-1).numpy()
            assert np.array_equal(part, expected), name
    steps = dict(zip(layout.names, moments["step"].tolist(), strict=True))
    assert steps.pop(NO_GRADIENT) == 0
    assert set(steps.values()) == {3}


def test_shared_and_private_moments_are_all_of_them_and_adam_goes_on_bit_for_bit() -> None:
    made, optimizer = trained()
    everything = {name: tensor.clone() for name, tensor in moments_of(optimizer).items()}
    shared = unpack_moments(made, pack_moments(made, optimizer))
    private = private_moments(made, everything)
    assert not shared.keys() & private.keys()
    assert shared.keys() | private.keys() == everything.keys()
    assert len(private) == 3 * sum(
        "num_" not in n and "running" not in n for n in private_names(made)
    )
    other = network("a").to(memory_format=torch.channels_last)
    other.load_state_dict(made.state_dict())
    fresh = make_optimizer(other, config())
    load_moments(fresh, shared | private)
    step(made, optimizer, 3)
    step(other, fresh, 3)
    for found, expected in zip(other.parameters(), made.parameters(), strict=True):
        assert torch.equal(found, expected)


def test_no_gradients_take_adam_further_than_the_bound_and_some_take_it_there() -> None:
    """By Cauchy and Schwarz, m² ≤ 7.27² v, with equality where gᵢ grows by β₂ / β₁ at each step."""
    assert pytest.approx(7.27, abs=0.005) == FURTHEST
    weight = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = Adam([weight], betas=BETAS)
    generator = torch.Generator().manual_seed(0)
    for place in range(120):
        chance = float(torch.randn((), generator=generator))
        growing = (BETAS[1] / BETAS[0]) ** place
        weight.grad = torch.tensor([growing, chance, 1.0], dtype=torch.float64)
        optimizer.step()
        moments = arrays(optimizer.state[weight])
        assert moments_fault(moments) is None
    ratios = np.abs(moments["exp_avg"]) / np.sqrt(moments["exp_avg_sq"])
    assert ratios[0] == pytest.approx(FURTHEST, rel=1e-4)
    assert ratios[1:].max() < FURTHEST / 2
    moments["exp_avg"][0] *= 1.01
    assert moments_fault(moments) == "first moments of more than 7.27 roots of the second"


def arrays(state: dict[str, Tensor]) -> dict[str, NDArray[Any]]:
    return {key: np.atleast_1d(value.numpy()).copy() for key, value in state.items()}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("exp_avg_sq", -1e-30, "second moments below 0"),
        ("exp_avg_sq", np.nan, "second moments below 0"),
        ("exp_avg_sq", 0.0, "first moments of more than 7.27 roots"),
        ("exp_avg_sq", np.inf, "first moments of more than 7.27 roots"),
        ("exp_avg", np.nan, "first moments of more than 7.27 roots"),
        ("exp_avg", -np.inf, "first moments of more than 7.27 roots"),
        ("step", -1.0, "moments after -1 to 3 steps, of 5"),
        ("step", 6.0, "moments after 3 to 6 steps, of 5"),
        ("step", np.nan, "moments after nan to nan steps"),
    ],
)
def test_what_adam_cannot_have_is_named(key: str, value: float, said: str) -> None:
    moments = {
        "exp_avg": np.array([0.1, -0.2], np.float32),
        "exp_avg_sq": np.array([0.01, 0.02], np.float32),
        "step": np.array([3.0, 3.0], np.float32),
    }
    assert moments_fault(moments, 5) is None
    moments[key][1] = value
    assert (moments_fault(moments, 5) or "").startswith(said)


def test_squares_that_underflow_are_no_fault() -> None:
    weight = torch.nn.Parameter(torch.zeros(60))
    optimizer = Adam([weight])
    weight.grad = torch.logspace(-44, 15, 60)
    optimizer.step()
    moments = arrays(optimizer.state[weight])
    assert (moments["exp_avg_sq"] == 0).any() and moments["exp_avg"].all()
    assert moments_fault(moments) is None
