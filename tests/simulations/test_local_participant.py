"""A round that was stopped goes on where it was; what belongs to something else does not."""

from pathlib import Path

import pytest
import torch

from clients.store import Owner, PrivateStore, open_store
from common.config.schema import Config
from common.errors import StoreError
from common.learning.loop import TrainSummary
from common.learning.optimiser import make_optimizer, moments_of
from common.models.network import Network, build_network
from simulations.local_participant import join_summaries, load_unfinished, save_unfinished

CONFIG = Config(image_size=32, width=0.05, projection_hidden=16, projection_size=4)
DONE = TrainSummary(2, 16, 1.5, 0.5, 0.25, 0.125, True, 6)


def step(network: Network) -> torch.optim.Optimizer:
    """Take one optimizer step on gradients of ones."""
    optimizer = make_optimizer(network, CONFIG)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


def test_the_means_of_two_parts_are_those_of_all_their_steps() -> None:
    """(2 · 0.5 + 6 · 1.5) / 8 = 1.25; the contrastive term (2 · 0.125 + 6 · 0.625) / 8 = 0.5."""
    then = TrainSummary(6, 48, 2.0, 1.5, 1.25, 0.625, False, 12)
    assert join_summaries(DONE, then) == TrainSummary(8, 64, 3.5, 1.25, 1.0, 0.5, False, 12)
    nothing = TrainSummary(0, 0, 0.0, 0.0, 0.0, 0.0, True, 6)
    third = TrainSummary(3, 24, 1.0, 0.1, 0.1, 0.0, False, 9)
    assert join_summaries(nothing, third) == third
    assert join_summaries(nothing, nothing) == nothing


def kept(folder: Path, config: str = "digest") -> PrivateStore:
    return open_store(folder / "unfinished", Owner("pooled", "run", config))


def test_weights_private_tensors_and_moments_are_those_of_the_moment(tmp_path: Path) -> None:
    network = build_network(CONFIG, ["a", "b"])
    optimizer = step(network)
    save_unfinished(kept(tmp_path), 2, network, optimizer, DONE)
    other = build_network(CONFIG, ["a", "b"])
    fresh = make_optimizer(other, CONFIG)
    assert load_unfinished(kept(tmp_path), 2, range(4, 8), other, fresh) == DONE
    expected, found = network.state_dict(), other.state_dict()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    assert moments_of(fresh).keys() == moments_of(optimizer).keys()
    assert all(torch.equal(t, moments_of(fresh)[n]) for n, t in moments_of(optimizer).items())


@pytest.mark.parametrize("number", [1, 2, 3])
def test_another_round_begins_at_its_start(tmp_path: Path, number: int) -> None:
    network = build_network(CONFIG, ["a"])
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    steps = range(8, 12)
    optimizer = make_optimizer(network, CONFIG)
    assert load_unfinished(kept(tmp_path), number, steps, network, optimizer).next_step == 8
    other = build_network(CONFIG, ["a"])
    save_unfinished(kept(tmp_path), 2, other, step(other), DONE)
    found = load_unfinished(kept(tmp_path), number, steps, network, optimizer)
    assert (found.steps, found.next_step) == (0, 8)
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())


def test_another_configuration_s_is_refused(tmp_path: Path) -> None:
    network = build_network(CONFIG, ["a"])
    save_unfinished(kept(tmp_path, "one"), 2, network, step(network), DONE)
    with pytest.raises(StoreError, match="of configuration 'one…', not of 'two…'"):
        kept(tmp_path, "two")
