"""SCAFFOLD: control variates take the sites' differences out of their local steps.

S. P. Karimireddy, S. Kale, M. Mohri, S. J. Reddi, S. U. Stich and A. T. Suresh, *SCAFFOLD:
stochastic controlled averaging for federated learning*, ICML 2020, algorithm 1, option II, at
global rate 1. With x what the sites received, yᵢ a site's weights after its K steps, S the sites
that answered out of N, and c and cᵢ the control variates of the server and of a site::

    a local step    y ← y − η(gᵢ(y) − cᵢ + c)
    after it        cᵢ ← cᵢ − c + (x − yᵢ) / Kη
    at the server   c ← c + |S|/N · mean over S of the changes of cᵢ

from c = cᵢ = 0, where Kη is the sum of the learning rates of the round's steps. The correction is
the gradient of ⟨c − cᵢ, y⟩, and so a term of the loss. The mean change is −c + (x − x̄) / Kη, with
x̄ the sites' average, which the server has: no control variate leaves a site.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.config.schema import Config
from common.errors import ConfigError
from common.learning.objective import Batch, Term
from common.learning.optimiser import learning_rate
from common.methods.algorithm import Algorithm
from common.methods.method import SHARED, ArrayForms, Arrays, Averaged, Local, Outcome, Variant
from common.models.network import Network
from common.models.sharing import Layout, parameter_mask, shared_layout

NOTHING = np.zeros((), np.float32)
"""What a control variate is before there is one; it leaves the type of others as it is."""


class Scaffold(Algorithm):
    """Correct each local gradient by the difference of two control variates."""

    name = "scaffold"
    adds = "⟨c − cᵢ, weights⟩ of the control variates (SCAFFOLD)"
    own = "a control variate of each site's own"
    variants = (
        Variant(
            "scaffold",
            "SCAFFOLD",
            "federated",
            SHARED | {"algorithm": "scaffold", "optimizer": "sgd", "learning-rate": 0.01},
        ),
    )

    def check(self, config: Config) -> None:
        """Refuse optimizers of which a round's change is no sum of gradients."""
        super().check(config)
        if config.optimizer != "sgd":
            raise ConfigError(
                f"algorithm = 'scaffold' corrects gradients, which optimizer = '{config.optimizer}'"
                " scales: set optimizer = 'sgd', and a learning-rate for it."
            )

    def terms(self, local: Local) -> Sequence[Term]:
        """Return ⟨c − cᵢ, y⟩, once there is one of the two."""
        difference = local.parts.get("c", NOTHING) - local.memory.get("c", NOTHING)
        if not difference.any():
            return []
        return [Term.constant(self.name, inner_product(local.network, difference), 1.0)]

    def after_round(self, local: Local) -> Outcome:
        """Remember the site's control variate."""
        assert local.received is not None and local.trained is not None
        mean = mean_gradient(
            local.config,
            local.received - local.trained,
            parameter_mask(local.network),
            local.steps,
            local.total_steps,
        )
        before = local.memory.get("c", NOTHING) - local.parts.get("c", NOTHING)
        return Outcome(memory={"c": before + mean})

    def broadcast(self, config: Config, memory: Arrays) -> Arrays:
        """Send the server's control variate, once there is one."""
        return memory

    def broadcast_forms(self, config: Config, layout: Layout) -> ArrayForms:
        """Return the control variate's type and shape."""
        return {"c": (layout.dtype, (layout.size,))}

    def combine(self, averaged: Averaged) -> tuple[NDArray[Any], Arrays]:
        """Return the average, and the server's control variate."""
        mean = mean_gradient(
            averaged.config,
            averaged.received - averaged.shared,
            averaged.parameters,
            averaged.steps,
            averaged.total_steps,
        )
        c = averaged.memory.get("c", NOTHING)
        share = len(averaged.replies) / len(averaged.config.site_names)
        return averaged.shared, {"c": c + share * (mean - c)}


def inner_product(network: Network, factors: NDArray[Any]) -> Callable[[Batch], Tensor]:
    """Return the inner product of a network's shared parameters with factors, shape ().

    Parameters
    ----------
    network : Network
        In training.
    factors : ndarray, shape (layout.size,)
        In the order of the layout; those of running statistics are not used.
    """
    layout, parameters = shared_layout(network), dict(network.named_parameters())
    device = next(network.parameters()).device
    values = torch.from_numpy(factors).to(device)
    parts = torch.split(values, [int(np.prod(shape)) for shape in layout.shapes])
    pairs = [
        (parameters[name], part.view(shape))
        for name, shape, part in zip(layout.names, layout.shapes, parts, strict=True)
        if name in parameters
    ]

    def value(batch: Batch) -> Tensor:
        return torch.stack([(parameter * part).sum() for parameter, part in pairs]).sum()

    return value


def mean_gradient(
    config: Config,
    change: NDArray[Any],
    trained: NDArray[np.bool_],
    steps: range,
    total_steps: int,
) -> NDArray[Any]:
    """Return (x − y) / Kη: the mean of the gradients along which a round went.

    Parameters
    ----------
    config : Config
        Learning rate and schedule.
    change : ndarray, shape (layout.size,)
        x − y.
    trained : ndarray of bool, shape (layout.size,)
        Elsewhere lie running statistics, and 0 is returned.
    steps : range
        Those of the round.
    total_steps : int
        Steps of the whole run.
    """
    rates = sum(learning_rate(config, step, total_steps) for step in steps)
    return np.where(trained, change / rates, 0).astype(change.dtype)
