"""A run's network at one of its sites, before its first step and after its last."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from common.config.schema import Config
from common.data.augment import prepare
from common.data.cache import SiteData
from common.data.folds import split_site
from common.device import choose_device
from common.learning.evaluation import estimate_statistics
from common.learning.loop import training_site
from common.models.network import Network, build_network
from common.runs.weights import load_run_network
from simulations.report.records import RunRecord

When = Literal["before", "after"]


def network_of(record: RunRecord, data: SiteData, when: When) -> Network:
    """Return the network of a run at a site, on the run's device.

    Before training: the weights that every run of the configuration starts from, pooled,
    single-site or federated, since they depend on neither its sites nor its mode. The running
    statistics that a new network is given belong to no image, so the site's own are estimated on
    its training images, as a federated site does when weights arrive.

    Parameters
    ----------
    record : RunRecord
        The run; for its network after training, a completed one.
    data : SiteData
        The site.
    when : {'before', 'after'}
        Which network.

    Raises
    ------
    RunError, CheckpointError
        If the run has no such network.
    """
    if when == "after":
        network, config = load_run_network(record.path, data.name, record.weights)
        return network.to(choose_device(config).device)
    config = record.config
    device = choose_device(config)
    network = build_network(config, [data.name]).to(device.device)
    site = training_site(data, split_site(data, config), device)
    estimate_statistics(network, site, config, device)
    return network


def network_images(data: SiteData, indices: NDArray[np.int64], config: Config) -> torch.Tensor:
    """Return images as the network sees them in evaluation, (n, 3, size, size), on the CPU."""
    return prepare(torch.from_numpy(np.array(data.images[indices])), config.image_size)
