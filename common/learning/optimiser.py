"""The optimizer, its state, how its learning rate goes over a run, and what clips its gradients."""

import math
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from common.config.sections import TrainingKeys
from common.errors import StoreError
from common.models.network import Network

BETAS = (0.9, 0.999)
"""β₁ and β₂ of Adam, PyTorch's."""
LEAST_NORM = 1e-3
"""Norm that a unit's weights have at least, for adaptive clipping: those of 0 can be trained."""


def make_optimizer(network: Network, config: TrainingKeys) -> Optimizer:
    """Make an optimizer over all of a network's parameters, private ones included.

    Parameters
    ----------
    network : Network
        On the device on which it will be trained.
    config : TrainingKeys
        Adam, with weight decay added to the gradient as in the released code, or plain SGD.
    """
    parameters = list(network.parameters())
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=config.learning_rate, weight_decay=config.weight_decay
        )
    return torch.optim.Adam(
        parameters,
        lr=config.learning_rate,
        betas=BETAS,
        weight_decay=config.weight_decay,
        fused=True,
    )


def learning_rate(config: TrainingKeys, step: int, total_steps: int) -> float:
    """Return the learning rate of a step: half a cosine from ``learning-rate`` to 0, or constant.

    Parameters
    ----------
    config : TrainingKeys
        ``learning-rate`` and ``schedule``.
    step : int
        Counted from 0 over the whole run.
    total_steps : int
        Steps of the whole run.
    """
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * (1 + math.cos(math.pi * step / total_steps)) / 2


def clip_gradients(network: Network, config: TrainingKeys) -> None:
    """Clip the gradients of a step in place: unit by unit by ``clip-ratio``, all by ``clip-norm``.

    Unit by unit is the adaptive gradient clipping of A. Brock, S. De, S. L. Smith and K. Simonyan,
    *High-performance large-scale image recognition without normalization*, ICML 2021, equation 3.
    With W the weights of a unit and G their gradient, G becomes λ · max(‖W‖, 10⁻³) / ‖G‖ · G where
    that is shorter. A unit is a row of a matrix, or a filter; a bias or a gain is one as a whole.
    As there, the last layer of a head is left out.

    Parameters
    ----------
    network : Network
        After the backward pass.
    config : TrainingKeys
        ``clip-ratio``, λ, and ``clip-norm``; 0 does nothing.
    """
    if config.clip_ratio:
        last = {id(parameter) for parameter in _last_parameters(network)}
        for parameter in network.parameters():
            if parameter.grad is not None and id(parameter) not in last:
                longest = config.clip_ratio * _unit_norms(parameter.detach()).clamp_min(LEAST_NORM)
                parameter.grad.mul_((longest / _unit_norms(parameter.grad)).clamp_max(1))
    if config.clip_norm:
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)


def _unit_norms(values: Tensor) -> Tensor:
    """Return the norms of units, to be broadcast over them: shape (units, 1, …), or (1,)."""
    within = tuple(range(1, values.ndim)) or None
    norms: Tensor = torch.linalg.vector_norm(values, dim=within, keepdim=True)
    return norms


def _last_parameters(network: Network) -> list[nn.Parameter]:
    """Return the parameters of the layer in which each head ends."""
    found = []
    for head in (network.head, *network.others.values()):
        own = [list(layer.parameters(recurse=False)) for layer in head.modules()]
        found += next((parameters for parameters in reversed(own) if parameters), [])
    return found


def moments_of(optimizer: Optimizer) -> dict[str, Tensor]:
    """Return an optimizer's state.

    Returns
    -------
    dict of str to Tensor
        On the CPU: where the optimizer is there too, its own tensors and not copies. Named
        ``<parameter's index>/<key>``; empty for an optimizer without state.
    """
    return {
        f"{index}/{key}": torch.as_tensor(value).detach().cpu()
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
        if value is not None
    }


def load_moments(optimizer: Optimizer, moments: Mapping[str, Tensor]) -> None:
    """Give an optimizer the state that :func:`moments_of` returned.

    Parameters
    ----------
    optimizer : Optimizer
        Fresh, over the same parameters in the same order; changed in place.
    moments : mapping of str to Tensor
        The state.

    Raises
    ------
    StoreError
        If the state belongs to other parameters, or is damaged.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: defaultdict[int, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in moments.items():
        number, _, key = name.partition("/")
        index = int(number) if number.isdecimal() else len(parameters)
        if index >= len(parameters) or tensor.shape not in ((), parameters[index].shape):
            raise StoreError(
                f"The stored optimizer state '{name}' of shape {tuple(tensor.shape)} belongs to "
                "another network or optimizer."
            )
        if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
            raise StoreError(
                f"The stored optimizer state '{name}' is damaged: not finite decimals."
            )
        like = parameters[index].detach()
        if tensor.shape == like.shape and tensor.stride() != like.stride():
            # Fused optimizers walk through memory, so moments need their parameter's strides.
            tensor = torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)
        state[index][key] = tensor
    if len({frozenset(held) for held in state.values()}) > 1:
        raise StoreError("The stored optimizer state is damaged: it lacks a part of some tensors.")
    optimizer.load_state_dict(optimizer.state_dict() | {"state": dict(state)})
