"""What a network does at a site: predictions and their metrics, and its running statistics."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.config.schema import Config
from common.data.augment import prepare
from common.data.folder import CLASS
from common.errors import RunError
from common.learning.local_site import LocalSite, TrainingSite
from common.models.network import Network, projection_width
from common.models.per_site import PerSite
from common.randomness import numpy_generator
from common.runs.predictions import PredictionsTable
from common.tasks.task import task_of

EVALUATION_BATCH = 64
"""Images in a batch that is not trained on; fixed, since batches of other sizes round otherwise."""


@dataclass(frozen=True, kw_only=True)
class Predictions(PredictionsTable):
    """What a network says about some images of a site."""

    figures: Mapping[str, float]
    """How well, by the task's figures."""


@contextmanager
def in_mode(network: nn.Module, training: bool) -> Iterator[None]:
    """Put every module in a mode within a block and give each its own back."""
    before = [(module, module.training) for module in network.modules()]
    network.train(training)
    try:
        yield
    finally:
        for module, was in before:
            module.training = was


def predict(
    network: Network, site: TrainingSite, indices: NDArray[np.int64], config: Config
) -> tuple[NDArray[np.float64], NDArray[np.floating[Any]]]:
    """Return :func:`decide`'s probabilities of the classes, shape (n, classes), and projections."""
    decided, projections = decide(network, site, indices, config)
    return decided[CLASS], projections


@torch.inference_mode()
def decide(
    network: Network, site: TrainingSite, indices: NDArray[np.int64], config: Config
) -> tuple[Mapping[str, NDArray[Any]], NDArray[np.floating[Any]]]:
    """Decide on and project images of a site in eval mode; no running statistic is touched.

    Parameters
    ----------
    network : Network
        On the device.
    site : TrainingSite
        Whose images, and whose normalisation.
    indices : ndarray of int64, shape (n,)
        Which images.
    config : Config
        Task and image size.

    Returns
    -------
    decided : mapping of str to ndarray, each of shape (n, …)
        What the task makes of the outputs; of the classes, the softmax of the logits. Under
        ``variant = 'released'`` the logits are sigmoid values, as the authors' cross entropy has
        them; the order of two classes' images is the same.
    projections : ndarray of float32 (float64 if ``precision`` says so), shape (n, size)
        Not normalised.

    Raises
    ------
    RunError
        If the outputs are no longer finite: the weights are broken.
    """
    if not len(indices):
        nothing = np.empty((0, len(config.class_names)))
        return {CLASS: nothing}, np.empty((0, projection_width(config)), "f4")
    outputs, projections = [], []
    of_site = network.for_site(site.name)
    for start in range(0, len(indices), EVALUATION_BATCH):
        images = _prepared(site, indices[start : start + EVALUATION_BATCH], config)
        with site.device.autocast():
            output = of_site(images)
        outputs.append(output.heads)
        projections.append(output.projection.to(site.device.images_dtype))
    together = {name: torch.cat([said[name] for said in outputs]) for name in outputs[0]}
    decided = task_of(config).decide(together)
    if not all(np.isfinite(values).all() for values in decided.values()):
        raise RunError(
            f"The network's outputs for the images of {site.name} are no longer finite: its "
            "weights or running statistics are broken. Lower learning-rate, or set clip-norm."
        )
    return decided, torch.cat(projections).cpu().numpy()


def _prepared(site: TrainingSite, indices: NDArray[np.int64], config: Config) -> torch.Tensor:
    raw, _ = site.batch(indices)
    return site.change(prepare(raw, config.image_size), None).to(site.device.images_dtype)


def evaluate_site(network: Network, site: LocalSite, config: Config) -> dict[str, Predictions]:
    """Evaluate a network on a site's test images, and on its validation images if it has any.

    Returns
    -------
    dict of str to Predictions
        By subset, ``"test"`` and ``"validation"``.
    """
    predictions = {}
    for subset, indices in (("test", site.split.test), ("validation", site.split.validation)):
        if len(indices):
            decided, _ = decide(network, site, indices, config)
            targets = {name: held.cpu().numpy()[indices] for name, held in site.targets.items()}
            predictions[subset] = Predictions(
                files=tuple(site.data.files[index] for index in indices),
                labels=targets[CLASS],
                probabilities=decided[CLASS],
                classes=config.class_names,
                patients=tuple(site.data.patients[index] for index in indices),
                further={
                    f"{kind}/{name}": values
                    for kind, by_name in (("true", targets), ("decided", decided))
                    for name, values in by_name.items()
                    # A mask is no column of a table.
                    if name != CLASS and values.ndim <= 2
                },
                figures=task_of(config).figures(decided, targets),
            )
    return predictions


def site_norms(network: nn.Module, site: str) -> list[_BatchNorm]:
    """Return every BatchNorm that is a site's own, in the network's order."""
    return [
        norm
        for place in network.modules()
        if isinstance(place, PerSite)
        for norm in place.sites[site].modules()
        if isinstance(norm, _BatchNorm)
    ]


@torch.no_grad()
def estimate_statistics(network: Network, site: TrainingSite, config: Config) -> None:
    """Re-estimate a site's running statistics under the network's present weights.

    The statistics that a site trained belong to its own weights and not to the average that it
    receives; with them, accuracy right after averaging is at chance. One forward pass in train
    mode over un-augmented training images gives every layer the mean over the batches of that
    layer's batch mean and (unbiased) variance. Weights, and other sites' tensors, stay.

    Parameters
    ----------
    network : Network
        On the device. Only this site's own running statistics change. Without DSBN nothing does:
        statistics that all sites share were averaged with the weights.
    site : TrainingSite
        Whose images; at most ``statistics-images`` of the training part, always the same ones.
        With a single one there is no variance to estimate, and nothing changes.
    config : Config
        Image size, number of images, seed.
    """
    norms = site_norms(network, site.name)
    # In random order: files are sorted by class, and a batch of one class is not the site.
    generator = numpy_generator(config.seed, site.name, "statistics")
    chosen = generator.permutation(site.train)[: config.statistics_images]
    if not norms or len(chosen) < 2:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean over the batches
    try:
        with in_mode(network, training=False):
            for norm in norms:
                norm.train()
            # Batches alike in size, since each weighs alike.
            for indices in np.array_split(chosen, -(-len(chosen) // EVALUATION_BATCH)):
                images = _prepared(site, indices, config)
                with site.device.autocast():
                    network(images, [(site.name, len(images))])
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
