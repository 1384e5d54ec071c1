"""Federated training is pooled training where it must be, and single-site training where it is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from common.config.schema import Config
from common.device import choose_device, limited_threads
from common.learning.local_site import LocalSite, TrainingSite, open_site
from common.learning.loop import train
from common.learning.optimiser import make_optimizer
from common.methods.method import Local
from common.methods.registry import methods_of
from common.models.network import Network, build_network
from common.models.sharing import private_names, shared_names
from common.tensor_files import load_tensors
from server.schedule import steps_per_epoch
from tests.federation.hospitals import NAMES, federate, run_of, tiny_config


def open_sites(config: Config) -> list[TrainingSite]:
    return [LocalSite.of(open_site(config, name), config) for name in config.site_names]


def train_together(config: Config, private_factor: float = 1.0) -> Network:
    """Train one network on all sites' images, its private gradients multiplied."""
    sites = open_sites(config)
    network = build_network(config, config.site_names)
    private = set(private_names(network))
    for name, parameter in network.named_parameters():
        if name in private:
            parameter.register_hook(lambda gradient: gradient * private_factor)
    total = config.epochs * steps_per_epoch((len(s.train) for s in sites), config.batch_size)
    device = choose_device(config)
    local = Local(config, network, device, total, range(total), sites)
    with limited_threads(config):
        train(
            network,
            make_optimizer(network, config),
            sites,
            config,
            range(total),
            total,
            terms=methods_of(config).terms(local),
        )
    return network


def federated_tensors(config: Config) -> dict[str, Tensor]:
    """Return the shared tensors and all sites' private ones at the end of a federation."""
    federate(config)
    tensors, _ = load_tensors(run_of(config) / "shared.safetensors")
    for site in config.site_names:
        own, _ = load_tensors(run_of(config) / "sites" / site / "private.safetensors")
        tensors |= own
    return tensors


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp_min(1e-12))


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_two_sites_stepping_together_are_pooled_training(tmp_path: Path, schedule: str) -> None:
    """One local step of plain SGD a round, on equal batches, without the contrastive term.

    A site's step moves its shared weights by −lr·gᵢ; the average of two moves by −lr·(g₁ + g₂)/2,
    which is the step of the mean over the pooled batch. A site's private weights move by −lr·pᵢ,
    but by −lr·pᵢ/2 in the pooled batch, in whose mean the site has half the weight: hence 2.
    """
    config = tiny_config(
        tmp_path,
        precision="float64",
        optimizer="sgd",
        learning_rate=0.05,
        weight_decay=0.0,
        clip_norm=0.0,
        alpha=0.0,
        local_steps=1,
        epochs=2,
        schedule=schedule,
    )
    federated = federated_tensors(config)
    pooled = train_together(config, private_factor=2.0)
    state = pooled.state_dict()
    affine = [n for n in private_names(pooled) if n.endswith(("weight", "bias"))]
    for name in (*shared_names(pooled), *affine):
        assert distance(federated[name], state[name]) < 1e-6, name
    start = build_network(config, config.site_names).state_dict()
    moved = [distance(state[name], start[name]) for name in shared_names(pooled)]
    assert np.median(moved) > 1e-3
    unscaled = train_together(config).state_dict()
    assert max(distance(unscaled[name], state[name]) for name in affine) > 1e-4


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"local_steps": 2, "validation_fraction": 0.3},
        {"optimizer": "sgd", "precision": "bfloat16"},
        {"optimizer_state": "average", "local_steps": 2, "alpha": 0.0},
    ],
)
def test_one_site_alone_is_single_site_training_bit_for_bit(
    tmp_path: Path, changes: dict[str, int | float | str]
) -> None:
    config = tiny_config(tmp_path, NAMES[:1], **changes)
    federated = federated_tensors(config)
    single = train_together(config).state_dict()
    assert set(federated) == set(single)
    for name, tensor in single.items():
        assert torch.equal(federated[name], tensor), name


def test_one_site_of_two_is_not_single_site_training(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    both = federated_tensors(config)
    alone = train_together(tiny_config(tmp_path, NAMES[:1])).state_dict()
    assert not all(torch.equal(both[name], alone[name]) for name in alone)
