from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from common.errors import StoreError
from common.learning.optimiser import clip_gradients, load_moments, make_optimizer, moments_of
from common.tensor_files import load_tensors, save_tensors
from tests.common.small_training import config, network, normal


def module() -> nn.Sequential:
    """Return weights of which one lies in memory by channels, as on a GPU."""
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(3, 2))
    return made.to(memory_format=torch.channels_last)


def step(made: nn.Module, optimizer: Optimizer, seed: int) -> None:
    images = torch.from_numpy(normal(4, 2, 2, 2, seed=seed)).float()
    optimizer.zero_grad()
    made(images).square().sum().backward()
    optimizer.step()


OPTIMIZERS: dict[str, Callable[[nn.Module], Optimizer]] = {
    "adam": lambda made: Adam(made.parameters(), lr=0.1, weight_decay=0.1),
    "fused": lambda made: Adam(made.parameters(), lr=0.1, fused=True),
    "momentum": lambda made: SGD(made.parameters(), lr=0.1, momentum=0.9),
    "sgd": lambda made: SGD(made.parameters(), lr=0.1),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_training_goes_on_bit_for_bit_with_a_fresh_optimizer(kind: str) -> None:
    make = OPTIMIZERS[kind]
    straight, cut = module(), module()
    optimizer = make(straight)
    for seed in range(4):
        step(straight, optimizer, seed)

    before = make(cut)
    step(cut, before, 0)
    step(cut, before, 1)
    after = make(cut)
    load_moments(after, moments_of(before))
    step(cut, after, 2)
    step(cut, after, 3)
    for found, expected in zip(cut.parameters(), straight.parameters(), strict=True):
        assert torch.equal(found, expected)


def test_moments_are_named_by_parameter() -> None:
    made = module()
    optimizer = OPTIMIZERS["fused"](made)
    step(made, optimizer, 0)
    held = moments_of(optimizer)
    assert set(held) == {f"{k}/{n}" for k in range(4) for n in ("step", "exp_avg", "exp_avg_sq")}


def test_training_on_leaves_the_file_that_the_moments_came_from(tmp_path: Path) -> None:
    """A file is read by mapping it into memory, and moments are written in place."""
    made, path = module(), tmp_path / "moments.safetensors"
    before = OPTIMIZERS["fused"](made)
    step(made, before, 0)
    save_tensors(path, moments_of(before))
    held = path.read_bytes()
    after = OPTIMIZERS["fused"](made)
    load_moments(after, load_tensors(path)[0])
    step(made, after, 1)
    assert path.read_bytes() == held


def test_an_optimizer_without_state_has_no_moments() -> None:
    made = module()
    assert moments_of(OPTIMIZERS["fused"](made)) == {}
    optimizer = OPTIMIZERS["sgd"](made)
    step(made, optimizer, 0)
    assert moments_of(optimizer) == {}
    load_moments(optimizer, {})


def test_a_moment_lies_in_memory_as_its_parameter_does() -> None:
    """Fused Adam walks through memory: another order would give moments to other weights."""
    made = module()
    optimizer = OPTIMIZERS["fused"](made)
    step(made, optimizer, 0)
    stored = {name: tensor.contiguous() for name, tensor in moments_of(optimizer).items()}
    weight = next(made.parameters())
    assert stored["0/exp_avg"].stride() != weight.stride()
    fresh = OPTIMIZERS["fused"](made)
    load_moments(fresh, stored)
    found = fresh.state[weight]["exp_avg"]
    assert found.stride() == weight.stride()
    assert torch.equal(found, stored["0/exp_avg"])


def test_the_learning_rate_is_the_new_optimizer_s() -> None:
    made = module()
    old = OPTIMIZERS["adam"](made)
    step(made, old, 0)
    new = Adam(made.parameters(), lr=0.5)
    load_moments(new, moments_of(old))
    assert new.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("4/exp_avg", torch.zeros(2)),
        ("-1/exp_avg", torch.zeros(2)),
        ("0/exp_avg", torch.zeros(3, 2, 2, 1)),
        ("0/exp_avg", torch.zeros(24)),
        ("1/exp_avg", torch.zeros(4)),
        ("bias/exp_avg", torch.zeros(3)),
    ],
)
def test_moments_of_other_parameters_are_refused(name: str, tensor: Tensor) -> None:
    optimizer = OPTIMIZERS["adam"](module())
    with pytest.raises(StoreError, match=rf"'{name}' of shape .* belongs to another network"):
        load_moments(optimizer, {name: tensor})
    assert not optimizer.state


def test_the_private_parameters_moments_are_among_them() -> None:
    """They are the site's own: all parameters, shared and private, are one optimizer's."""
    made = network("north")
    optimizer = make_optimizer(made, config())
    for parameter in made.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    held = moments_of(optimizer)
    shapes = [tuple(held[f"{k}/exp_avg"].shape) for k in range(len(list(made.parameters())))]
    assert shapes == [tuple(parameter.shape) for parameter in made.parameters()]


def test_gradients_are_clipped_unit_by_unit_but_for_the_last_layer() -> None:
    """By NumPy: rows of a matrix and filters each by themselves, a bias as a whole."""
    made = network("a", dtype=torch.float64)
    for number, parameter in enumerate(made.parameters()):
        size = 10.0 ** (number % 3 - 2)
        parameter.grad = torch.from_numpy(size * normal(*parameter.shape, seed=number))
    made.backbone[0].bias.data.fill_(0.0)
    made.projection[0].weight.grad = None
    before = {n: p.grad.numpy().copy() for n, p in made.named_parameters() if p.grad is not None}
    clip_gradients(made, config(clip_ratio=0.1, clip_norm=0.0))
    shortened = dict.fromkeys(before, 0)
    for name, gradient in before.items():
        weights, found = made.get_parameter(name).detach().numpy(), made.get_parameter(name).grad
        rows = [...] if weights.ndim == 1 else list(range(len(weights)))
        expected = gradient.copy()
        for row in rows if not name.startswith("head.") else []:
            most = 0.1 * max(np.sqrt((weights[row] ** 2).sum()), 1e-3)
            norm = np.sqrt((gradient[row] ** 2).sum())
            if norm > most:
                expected[row] *= most / norm
                shortened[name] += 1
        assert found is not None
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, err_msg=name)
    assert 0 < sum(shortened.values()) < sum(len(one) for one in before.values())
    np.testing.assert_array_equal(made.head.weight.grad, before["head.weight"])


def test_both_limits_hold_where_both_are_set() -> None:
    made = network("a", dtype=torch.float64)
    for number, parameter in enumerate(made.parameters()):
        parameter.grad = torch.from_numpy(normal(*parameter.shape, seed=number))
    clip_gradients(made, config(clip_ratio=0.1, clip_norm=0.05))
    gradients = [parameter.grad.flatten() for parameter in made.parameters()]
    assert float(torch.cat(gradients).norm()) == pytest.approx(0.05, rel=1e-4)
