"""The optimizer, and how its learning rate and the contrastive weight go over a run."""

import math

import torch
from torch.optim import Optimizer

from common.config.schema import Config
from common.models.network import Network


def make_optimizer(network: Network, config: Config) -> Optimizer:
    """Make an optimizer over all of a network's parameters, private ones included.

    Parameters
    ----------
    network : Network
        On the device on which it will be trained.
    config : Config
        Adam, with weight decay added to the gradient as in the released code, or plain SGD.

    Returns
    -------
    Optimizer
    """
    parameters = list(network.parameters())
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=config.learning_rate, weight_decay=config.weight_decay
        )
    return torch.optim.Adam(
        parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )


def learning_rate(config: Config, step: int, total_steps: int) -> float:
    """Return the learning rate of a step: half a cosine from ``learning-rate`` to 0, or constant.

    Parameters
    ----------
    config : Config
        ``learning-rate`` and ``schedule``.
    step : int
        Counted from 0 over the whole run.
    total_steps : int
        Steps of the whole run.
    """
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * (1 + math.cos(math.pi * step / total_steps)) / 2


def contrastive_weight(config: Config, step: int, total_steps: int) -> float:
    """Return the contrastive term's weight at a step: α, or on a straight line up to it.

    Parameters
    ----------
    config : Config
        ``alpha``, and as ``contrastive-warmup`` the share of all steps in which it rises.
    step : int
        Counted from 0 over the whole run.
    total_steps : int
        Steps of the whole run.
    """
    rising = config.contrastive_warmup * total_steps
    return config.alpha * min(1.0, (step + 1) / rising) if rising else config.alpha
