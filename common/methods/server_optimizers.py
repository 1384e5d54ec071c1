"""FedAvgM, FedAdam, FedYogi: the server takes an optimizer's step along the sites' mean change.

T.-M. H. Hsu, H. Qi and M. Brown, *Measuring the effects of non-identical data distribution for
federated visual classification*, 2019 (arXiv 1909.06335): FedAvgM. S. J. Reddi, Z. Charles,
M. Zaheer, Z. Garrett, K. Rush, J. Konečný, S. Kumar and H. B. McMahan, *Adaptive federated
optimization*, ICLR 2021, algorithm 2: FedAdam and FedYogi. With x what the sites received, Δ their
average − x, and m and v the server's memory, every value of a trained tensor::

    FedAvgM    m ← β₁m + Δ                                               x ← x + ηm
    FedAdam    m ← β₁m + (1 − β₁)Δ    v ← β₂v + (1 − β₂)Δ²               x ← x + ηm / (√v + τ)
    FedYogi    m ← β₁m + (1 − β₁)Δ    v ← v − (1 − β₂)Δ² sign(v − Δ²)    x ← x + ηm / (√v + τ)

from m = 0 and v = τ². Running statistics, where sites share them, are averaged. η = 1 makes
FedAvgM's first step FedAvg's.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config.schema import Config
from common.methods.method import SHARED, Arrays, Averaged, Method, Variant

FIRST, SECOND = 0.9, 0.99
"""β₁ and β₂, as in both papers' experiments."""


class ServerOptimizer(Method):
    """Step along the mean change instead of taking it."""

    name = "server-optimizer"
    key = "server_optimizer"
    federated = True
    variants = (
        Variant("fedavgm", "FedAvgM", "federated", SHARED | {"server-optimizer": "fedavgm"}),
        Variant(
            "fedadam",
            "FedAdam",
            "federated",
            SHARED | {"server-optimizer": "fedadam", "server-rate": 0.01},
        ),
        Variant(
            "fedyogi",
            "FedYogi",
            "federated",
            SHARED | {"server-optimizer": "fedyogi", "server-rate": 0.01},
        ),
    )

    def active(self, config: Config) -> bool:
        """Say whether the server has an optimizer."""
        return config.server_optimizer != "none"

    def combine(self, averaged: Averaged) -> tuple[NDArray[Any], Arrays]:
        """Return the next weights, and the moments of the trained ones."""
        config, trained = averaged.config, averaged.parameters
        received, shared = averaged.received[trained], averaged.shared.copy()
        step, moments = step_of(
            config.server_optimizer, shared[trained] - received, averaged.memory, config.server_tau
        )
        shared[trained] = received + config.server_rate * step
        return shared, moments


def step_of(
    optimizer: str, change: NDArray[Any], memory: Arrays, tau: float
) -> tuple[NDArray[Any], Arrays]:
    """Return an optimizer's step at rate 1, and its moments after it.

    Parameters
    ----------
    optimizer : {"fedavgm", "fedadam", "fedyogi"}
        Which.
    change : ndarray, shape (values,)
        Δ.
    memory : mapping of str to ndarray
        ``m`` and ``v`` after the step before, each of shape (values,); empty at the first.
    tau : float
        τ.

    Returns
    -------
    step : ndarray, shape (values,)
        Of the type of ``change``, as the moments are.
    moments : mapping of str to ndarray
        ``m``, and ``v`` where the optimizer has one.
    """
    m = memory.get("m", np.zeros_like(change))
    if optimizer == "fedavgm":
        m = FIRST * m + change
        return m, {"m": m}
    m = FIRST * m + (1 - FIRST) * change
    v, square = memory.get("v", np.full_like(change, tau**2)), np.square(change)
    if optimizer == "fedadam":
        v = SECOND * v + (1 - SECOND) * square
    else:
        v = v - (1 - SECOND) * square * np.sign(v - square)
    return m / (np.sqrt(v) + tau), {"m": m, "v": v}
