"""Ditto: beside the shared model every site trains one of its own, pulled to the shared one.

T. Li, S. Hu, A. Beirami and V. Smith, *Ditto: fair and robust federated learning through
personalization*, ICML 2021, algorithm 1. The sites train w as in federated averaging, and after a
round's steps each takes as many on its own model v, over the same images, of its loss +
λ/2 · ‖v − w_received‖². v begins as what the site receives in its first round. It never leaves the
site, and the site's figures, predictions and files are v's.
"""

import copy
from typing import Any

import torch
from numpy.typing import NDArray
from pydantic import Field

from common.config.schema import Config
from common.config.toml_model import TomlModel
from common.learning.loop import train
from common.learning.objective import Term
from common.learning.optimiser import load_moments, make_optimizer, moments_of
from common.methods.algorithm import Algorithm, read_options
from common.methods.fedprox import squared_distance
from common.methods.method import SHARED, Local, Outcome, Variant
from common.models.network import Network
from common.models.sharing import load_private, pack, private_state, unpack
from common.tensor_files import below

WEIGHTS, PRIVATE, MOMENT = "weights", "private/", "moment/"


class DittoOptions(TomlModel):
    """Ditto's options."""

    weight: float = Field(0.1, ge=0)
    """λ: the larger, the nearer a site's own model stays to the shared one."""


class Ditto(Algorithm):
    """Train a model of the site's own beside the shared one, and report of that."""

    name = "ditto"
    options = DittoOptions
    variants = (Variant("ditto", "Ditto", "federated", SHARED | {"algorithm": "ditto"}),)

    def evaluated(self, local: Local) -> Network:
        """Return the site's own model, once there is one."""
        return _remembered(copy.deepcopy(local.network), local) if local.memory else local.network

    def after_round(self, local: Local) -> Outcome:
        """Take the round's steps on the site's own model, and remember it."""
        assert local.received is not None
        config, own = local.config, copy.deepcopy(local.network)
        # The term holds on to the weights as they are now.
        unpack(own, local.received)
        pull = squared_distance(own)
        if local.memory:
            _remembered(own, local)
        optimizer = make_optimizer(own, config)
        if config.optimizer_state != "reset":
            load_moments(optimizer, _tensors(local, MOMENT))
        train(
            own,
            optimizer,
            local.sites,
            config,
            local.steps,
            local.total_steps,
            terms=[Term.constant(self.name, pull, read_options(DittoOptions, config).weight / 2)],
        )
        kept = {f"{PRIVATE}{name}": tensor for name, tensor in private_state(own).items()}
        if config.optimizer_state != "reset":
            kept |= {f"{MOMENT}{name}": tensor for name, tensor in moments_of(optimizer).items()}
        arrays: dict[str, NDArray[Any]] = {name: tensor.numpy() for name, tensor in kept.items()}
        return Outcome(memory={WEIGHTS: pack(own)} | arrays)

    def describe(self, config: Config) -> tuple[str, str]:
        """Say that it adds nothing, and name the model."""
        weight = read_options(DittoOptions, config).weight / 2
        return "", (
            "a model of each site's own, trained on cross entropy + "
            f"{weight:g} × squared distance from the received weights (Ditto)"
        )


def _remembered(network: Network, local: Local) -> Network:
    """Fill a network with the model that a site remembers, and return it."""
    unpack(network, local.memory[WEIGHTS])
    load_private(network, _tensors(local, PRIVATE))
    return network


def _tensors(local: Local, prefix: str) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in below(prefix, local.memory).items()}
