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

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from common.config.toml_model import TomlModel
from common.methods.algorithm import Algorithm, read_options
from common.methods.method import SHARED, Arrays, Averaged, Variant

FIRST, SECOND = 0.9, 0.99
"""β₁ and β₂, as in both papers' experiments."""


class FedAvgMOptions(TomlModel):
    """FedAvgM's options."""

    rate: float = Field(1.0, gt=0)
    """Learning rate η of the server."""


class AdaptiveOptions(TomlModel):
    """FedAdam's and FedYogi's options."""

    rate: float = Field(0.01, gt=0)
    """Learning rate η of the server."""
    tau: float = Field(0.001, gt=0)
    """τ: the larger, the less the size of a change is levelled."""


class FedAvgM(Algorithm):
    """Momentum."""

    name = "fedavgm"
    variants = (Variant("fedavgm", "FedAvgM", "federated", SHARED | {"algorithm": "fedavgm"}),)
    options: ClassVar[type[FedAvgMOptions | AdaptiveOptions]] = FedAvgMOptions

    def combine(self, averaged: Averaged) -> tuple[NDArray[Any], Arrays]:
        """Return the next weights, and the moments of the trained ones."""
        options, trained = read_options(self.options, averaged.config), averaged.parameters
        received, shared = averaged.received[trained], averaged.shared.copy()
        step, moments = self.step(shared[trained] - received, averaged.memory, options)
        shared[trained] = received + options.rate * step
        return shared, moments

    def step(
        self, change: NDArray[Any], memory: Arrays, options: Any
    ) -> tuple[NDArray[Any], Arrays]:
        """Return the step at rate 1, and the moments after it.

        Parameters
        ----------
        change : ndarray, shape (values,)
            Δ.
        memory : mapping of str to ndarray
            ``m`` and ``v`` after the step before, each of shape (values,); empty at the first.
        options : TomlModel
            Of the algorithm.

        Returns
        -------
        step : ndarray, shape (values,)
            Of the type of ``change``, as the moments are.
        moments : mapping of str to ndarray
            ``m``, and ``v`` where the algorithm has one.
        """
        m = FIRST * memory.get("m", 0) + change
        return m, {"m": m}


class FedAdam(FedAvgM):
    """Adam without its correction of the first steps."""

    name = "fedadam"
    variants = (Variant("fedadam", "FedAdam", "federated", SHARED | {"algorithm": "fedadam"}),)
    options = AdaptiveOptions

    def step(
        self, change: NDArray[Any], memory: Arrays, options: AdaptiveOptions
    ) -> tuple[NDArray[Any], Arrays]:
        """Return the step at rate 1, and the moments after it."""
        m = FIRST * memory.get("m", 0) + (1 - FIRST) * change
        v = self.second(memory.get("v", np.full_like(change, options.tau**2)), np.square(change))
        return m / (np.sqrt(v) + options.tau), {"m": m, "v": v}

    def second(self, v: NDArray[Any], square: NDArray[Any]) -> NDArray[Any]:
        """Return the second moment after a change of this square."""
        following: NDArray[Any] = SECOND * v + (1 - SECOND) * square
        return following


class FedYogi(FedAdam):
    """As FedAdam, but a small change after large ones lets the second moment fall slowly."""

    name = "fedyogi"
    variants = (Variant("fedyogi", "FedYogi", "federated", SHARED | {"algorithm": "fedyogi"}),)

    def second(self, v: NDArray[Any], square: NDArray[Any]) -> NDArray[Any]:
        """Return the second moment after a change of this square."""
        following: NDArray[Any] = v - (1 - SECOND) * square * np.sign(v - square)
        return following


SERVER_OPTIMIZERS = (FedAvgM(), FedAdam(), FedYogi())
"""In the order of a table."""
