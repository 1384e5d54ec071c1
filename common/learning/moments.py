"""Adam's moments of the shared parameters, which sites average beside the weights.

With ``optimizer-state = "average"`` Adam goes on at every site from the same state, as it does in
pooled training. An average round for round keeps what Adam's own arithmetic keeps: of gradients g,

    m = (1 − β₁) Σ β₁ⁱ g₋ᵢ,    v = (1 − β₂) Σ β₂ⁱ g₋ᵢ²,    |m| ≤ 7.27 √v

by Cauchy and Schwarz, with 7.27 = (1 − β₁) / √((1 − β₂)(1 − β₁²/β₂)). A mean of such pairs is one,
since the mean of √v is at most √ of the mean. So no honest moments take a step further than 7.27
learning rates, and others are refused. The moments of private parameters are no part of this.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from common.learning.optimiser import BETAS, moments_of
from common.models.network import Network
from common.models.sharing import Layout, private_names, shared_layout

FIRST, SECOND, STEPS = "exp_avg", "exp_avg_sq", "step"
"""Keys, as Adam's state has them: m and v, each of shape (layout.size,); and of every tensor of the
layout the steps behind them, shape (tensors,), 0 where it has no moments."""
FURTHEST = (1 - BETAS[0]) / math.sqrt((1 - BETAS[1]) * (1 - BETAS[0] ** 2 / BETAS[1]))
"""Largest |m| / √v."""
ROUNDING, TINY = 1.001, 1e-18
"""By what factor float32 may exceed it; and up to which |m| it says nothing, since v is 0 then."""
PIECE = 2**20
"""Values that are looked at at a time."""


def moment_forms(layout: Layout) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return type and shape of the arrays that hold a network's shared moments, by key."""
    flat = layout.dtype, (layout.size,)
    return {FIRST: flat, SECOND: flat, STEPS: ("float32", (len(layout.names),))}


def pack_moments(network: Network, optimizer: Optimizer) -> dict[str, NDArray[Any]]:
    """Return the moments of the shared parameters, in the order of the layout.

    A tensor that has none, since it is a running statistic or has had no gradient yet, has zeros.
    """
    layout, state, places = shared_layout(network), moments_of(optimizer), _places(network)

    def part(name: str, shape: tuple[int, ...], key: str) -> Tensor:
        nothing = torch.zeros(shape, dtype=getattr(torch, layout.dtype))
        return state.get(f"{places.get(name)}/{key}", nothing).reshape(-1)

    tensors = list(zip(layout.names, layout.shapes, strict=True))
    packed = {k: torch.cat([part(*tensor, k) for tensor in tensors]) for k in (FIRST, SECOND)}
    steps = torch.cat([part(name, (), STEPS) for name in layout.names]).float()
    return {key: values.numpy() for key, values in (packed | {STEPS: steps}).items()}


def unpack_moments(network: Network, moments: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """Return what :func:`pack_moments` packed, as :func:`~common.learning.optimiser.moments_of`."""
    if not moments:
        return {}
    layout, places = shared_layout(network), _places(network)
    sizes = [math.prod(shape) for shape in layout.shapes]
    first, second = (
        torch.split(torch.from_numpy(moments[key].copy()), sizes) for key in (FIRST, SECOND)
    )
    state: dict[str, Tensor] = {}
    for number, (name, shape) in enumerate(zip(layout.names, layout.shapes, strict=True)):
        if moments[STEPS][number] and name in places:
            held = {FIRST: first[number].view(shape), SECOND: second[number].view(shape)}
            held[STEPS] = torch.tensor(moments[STEPS][number])
            state |= {f"{places[name]}/{key}": tensor for key, tensor in held.items()}
    return state


def private_moments(network: Network, moments: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return those of :func:`~common.learning.optimiser.moments_of` that are of private ones."""
    places = _places(network)
    private = {str(places[name]) for name in private_names(network) if name in places}
    return {name: held for name, held in moments.items() if name.partition("/")[0] in private}


def moments_fault(moments: Mapping[str, NDArray[Any]], most_steps: float = math.inf) -> str | None:
    """Say what Adam's moments cannot be, None if there is nothing.

    Parameters
    ----------
    moments : mapping of str to ndarray
        Of the forms of :func:`moment_forms`.
    most_steps : float
        Steps that can be behind them.
    """
    first, second, steps = (moments[key] for key in (FIRST, SECOND, STEPS))
    if not ((steps >= 0) & (steps <= most_steps)).all():
        return f"moments after {steps.min():g} to {steps.max():g} steps, of {most_steps:g}"
    for start in range(0, second.size, PIECE):
        m, v = first[start : start + PIECE], second[start : start + PIECE]
        if not (v >= 0).all():
            return "second moments below 0"
        # Of what is not finite no comparison is true, or it is infinite on the left.
        if not (np.abs(m) <= ROUNDING * FURTHEST * np.sqrt(v) + TINY).all() or np.isinf(v).any():
            return f"first moments of more than {FURTHEST:.2f} roots of the second"
    return None


def _places(network: Network) -> dict[str, int]:
    """Return the place of every parameter in the optimizer's state, by each of its names."""
    places = {id(parameter): place for place, parameter in enumerate(network.parameters())}
    named = network.named_parameters(remove_duplicate=False)
    return {name: places[id(parameter)] for name, parameter in named}
