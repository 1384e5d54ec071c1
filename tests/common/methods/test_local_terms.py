"""FedProx and MOON: what they add to a step, and on which tensors."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from common.data.folder import CLASS
from common.learning.objective import Batch, Term
from common.methods.fedprox import FedProx
from common.methods.method import Local
from common.methods.moon import Moon
from common.models.network import Network, Output
from common.models.sharing import pack, private_names, shared_names
from tests.common import small_training

SEGMENTS = [("a", 4)]


def weighted(terms: Sequence[Term]) -> Callable[[Batch], Tensor]:
    """Return what a method's one term adds to the loss."""
    (term,) = terms
    return lambda batch: term.weight(0) * term.value(batch)


def local_of(network: Network, **settings: float) -> Local:
    return Local(small_training.config(**settings), network, small_training.CPU, 8)


def moon(network: Network, last: NDArray[Any], weight: float) -> Callable[[Batch], Tensor]:
    local = local_of(network, model_contrast=weight, model_contrast_temperature=0.5)
    return weighted(Moon().terms(replace(local, memory={"last": last})))


def batch_of(network: Network) -> Batch:
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    return Batch(images, {CLASS: torch.tensor([0, 1, 0, 1])}, SEGMENTS, network(images, SEGMENTS))


def test_fedprox_pulls_shared_parameters_back_and_no_private_one() -> None:
    network = small_training.network("a")
    empty = Batch(torch.empty(0), {}, (), Output(*[torch.empty(0)] * 3))
    term = weighted(FedProx().terms(local_of(network, proximal=0.5)))
    assert term(empty).item() == 0
    received = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            parameter.add_(0.01 * (number + 1))
    loss = term(empty)
    loss.backward()  # type: ignore[no-untyped-call]
    shared, private = set(shared_names(network)), set(private_names(network))
    moved = 0.0
    for name, parameter in network.named_parameters():
        if name in private:
            assert parameter.grad is None
        else:
            assert name in shared and parameter.grad is not None
            away = parameter.detach() - received[name]
            moved += float(away.square().sum())
            torch.testing.assert_close(parameter.grad, 0.5 * away)
    assert abs(loss.item() - 0.25 * moved) < 1e-6 * moved


def test_moon_prefers_the_received_model_to_the_last() -> None:
    received = small_training.network("a").eval()
    last = copy.deepcopy(received)
    with torch.no_grad():
        for name, parameter in last.named_parameters():
            if name in shared_names(last):
                parameter.mul_(-0.5).add_(0.1)
    term = moon(received, pack(last), 2.0)
    present = copy.deepcopy(received)
    with torch.no_grad():
        next(present.parameters()).add_(0.05)
    batch = batch_of(present)
    z = batch.output.projection
    images, site_slices = batch.images, batch.site_slices
    near = F.cosine_similarity(z, received(images, site_slices).projection) / 0.5
    far = F.cosine_similarity(z, last(images, site_slices).projection) / 0.5
    by_hand = -(near.exp() / (near.exp() + far.exp())).log().mean()
    found = term(batch)
    torch.testing.assert_close(found, 2 * by_hand, rtol=1e-5, atol=1e-6)
    before = pack(received).copy()
    found.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None for p in received.parameters())
    assert (pack(received) == before).all()
    # What was received is kept even as the network that holds it goes on.
    with torch.no_grad():
        for parameter in received.parameters():
            parameter.zero_()
    torch.testing.assert_close(term(batch_of(present)), found.detach(), rtol=1e-5, atol=1e-6)


def test_moon_leaves_running_statistics_alone() -> None:
    network = small_training.network("a").train()
    term = moon(network, pack(network), 1.0)
    batch = batch_of(network)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    first = term(batch).item()
    assert term(batch).item() == first
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
