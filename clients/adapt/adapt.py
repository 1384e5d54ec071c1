"""A hospital that a trained network has never seen, and that has images but no labels.

What the trained sites have of their own (DSBN, adapters) the new one lacks. It is given one of
these, and the network's shared tensors stay as they are:

- ``re-estimated``: the running statistics come from a forward pass over its own images (AdaBN:
  Y. Li et al., *Revisiting batch normalization for practical domain adaptation*, 2016); affine
  parameters, and whatever else is a site's own, are averages over the trained sites;
- ``averaged``: the running statistics are averages, too; no image is needed;
- ``nearest``: a copy of what the nearest trained site has (:mod:`clients.adapt.distance`);
- ``test-batch``: as re-estimated, but every batch to be classified is normalised by itself
  (Z. Nado et al., *Evaluating prediction-time batch normalization*, 2020).

A network whose sites share their normalisation has nothing of the kind: there ``averaged`` and
``nearest`` are the network as it is (adapters averaged, since nothing tells which site is
nearest), and the other two turn the shared statistics into the new site's.

Of what has no meaning on average: MS-Net's branches are averaged along, as no prediction reads
them. A network of which nothing is shared (``share = 'prototypes'``) is refused.
"""

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from clients.adapt.distance import Distances, site_distances
from common.config.schema import Config
from common.errors import RunError
from common.learning.evaluation import EVALUATION_BATCH, estimate_statistics, predict, site_norms
from common.learning.local_site import TrainingSite
from common.methods.registry import require_plain_images
from common.models import dsbn
from common.models.network import Network
from common.models.per_site import PerSite
from common.models.sharing import shared_names
from common.randomness import numpy_generator
from common.runs.result import read_result, read_run_config
from common.runs.weights import load_run_network

ADAPTATIONS = ("re-estimated", "averaged", "nearest", "test-batch")
"""What a new site may be given, the recommended one first."""

LABELS = {
    "re-estimated": "Re-estimated on its images",
    "averaged": "Averaged over the sites",
    "nearest": "The nearest site's",
    "test-batch": "Each batch by itself",
}
"""How a table calls them."""


@dataclass(frozen=True)
class Adaptation:
    """What a trained network makes of a new site."""

    networks: dict[str, Network]
    """By adaptation; each knows the new site. That of ``test-batch`` keeps no running
    statistics."""
    distances: Distances
    """Of the new site to the trained ones."""


def load_trained(run: Path) -> tuple[Network, Config]:
    """Make a run's network, with the sites that it was trained at.

    Parameters
    ----------
    run : Path
        The folder of a completed run: pooled, federated, or single-site of one site alone.

    Raises
    ------
    RunError
        If the folder holds no run, an unfinished one, or several networks.
    CheckpointError
        If weights are missing, as a hospital's private tensors are anywhere but there.
    """
    config, result = read_run_config(run), read_result(run)
    status, mode = result.get("status"), result.get("mode")
    if mode == "single" and len(config.site_names) > 1:
        raise RunError(
            f"The run {run} is single-site training: it holds a network for each of "
            f"{', '.join(config.site_names)} and none of them all. Take a pooled or federated run."
        )
    if config.share == "prototypes":
        raise RunError(
            f"The run {run}: its sites share no weights (share = 'prototypes'), so each has a "
            "network of its own and there is none to hand to a new site. Take a run that shares "
            "weights."
        )
    if config.normalisation == "none":
        raise RunError(
            f"The run {run} has no normalisation (normalisation = 'none'), and a new site needs "
            f"none: classify its images with xsite predict {run.name} --site "
            f"{config.site_names[0]}; the network is the same for every site."
        )
    require_plain_images(config)
    if status != "completed":
        raise RunError(
            f"The run {run} is {status}, not completed, so its weights are not final. Go on with "
            f"it first: xsite train {mode} --resume {run}."
        )
    return load_run_network(run)


def adapt_to_site(network: Network, site: TrainingSite, config: Config) -> Adaptation:
    """Give a new site every one of the adaptations.

    Parameters
    ----------
    network : Network
        Trained, on the site's device; it stays as it is, bit for bit.
    site : TrainingSite
        The new site. The images of its ``train`` part are adapted to, at most
        ``statistics-images`` of them; no label is read.
    config : Config
        The run's.

    Raises
    ------
    RunError
        If the site is one of the network's, or has fewer than two images.
    """
    if len(site.train) < 2:
        raise RunError(
            f"'{site.name}' has {len(site.train)} images to adapt to; statistics need two at least "
            "and deserve hundreds. Add images; they need no labels."
        )
    site = replace(site, targets={})
    networks = {"averaged": _averaged(network, site.name)}
    networks["re-estimated"] = _copy(networks["averaged"])
    estimate_statistics(networks["re-estimated"], site, config)
    distances = site_distances(networks["re-estimated"], site.name)
    networks["nearest"] = _copy(networks["averaged"])
    if _has_dsbn(network):
        for place in _places(networks["nearest"]):
            place.sites[site.name].load_state_dict(place.sites[distances.nearest].state_dict())
    else:
        distances = Distances(distances.to, {})
    networks["test-batch"] = _copy(networks["averaged"])
    for norm in site_norms(networks["test-batch"], site.name):
        # Without them PyTorch normalises by the batch, in eval mode too.
        norm.running_mean = norm.running_var = None
    return Adaptation({name: networks[name] for name in ADAPTATIONS}, distances)


def _places(network: Network) -> list[PerSite]:
    return [place for place in network.modules() if isinstance(place, PerSite)]


def _has_dsbn(network: Network) -> bool:
    return any(isinstance(place, dsbn.DomainBatchNorm) for place in _places(network))


def _copy(network: Network) -> Network:
    """Return a copy that holds the same shared tensors, which nothing here writes."""
    tensors = network.state_dict(keep_vars=True)
    return copy.deepcopy(
        network, {id(tensors[name]): tensors[name] for name in shared_names(network)}
    )


def _averaged(network: Network, site: str) -> Network:
    """Return a copy that knows a further site, whose own tensors are the trained sites' means."""
    met = _copy(network)
    places = _places(met)
    if not _has_dsbn(network):
        dsbn.convert(met, met.sites, met.routing)
    met.add_site(site, like=met.sites[0])
    with torch.no_grad():
        for place in places:
            trained = [own.state_dict() for name, own in place.sites.items() if name != site]
            for name, tensor in place.sites[site].state_dict().items():
                # Counters of batches are whole numbers, which an estimate sets anew.
                if tensor.is_floating_point():
                    held = torch.stack([state[name].double() for state in trained])
                    tensor.copy_(held.mean(dim=0))
    return met


def predict_met(
    network: Network, site: TrainingSite, indices: NDArray[np.int64], config: Config
) -> NDArray[np.float64]:
    """Classify a new site's images in batches that any adaptation can make do with.

    The batches are alike in size and drawn at random: files are sorted by class, and a batch that
    is normalised by itself must not be of one class.

    Parameters
    ----------
    network : Network
        One of a :class:`Adaptation`.
    site : TrainingSite
        The new site; no label is read.
    indices : ndarray of int64, shape (n,)
        Which images, n ≥ 2.
    config : Config
        Image size and seed.

    Returns
    -------
    ndarray of float64, shape (n, classes)
        Probabilities, in the order of ``indices``.
    """
    site = replace(site, targets={})
    order = numpy_generator(config.seed, site.name, "test batches").permutation(len(indices))
    probabilities = np.empty((len(indices), len(config.class_names)))
    for part in np.array_split(order, -(-len(indices) // EVALUATION_BATCH)):
        probabilities[part] = predict(network, site, indices[part], config)[0]
    return probabilities
