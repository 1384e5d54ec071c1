"""FedRDN: a training image is normalised by the greys of a site that is drawn at random.

Y. Yan, H. Fu, Y. Li, J. Xie, J. Ma, G. Yang and L. Zhu, *A simple data augmentation for feature
distribution skewed federated learning*, CVPR 2025 (arXiv 2306.09363). A site tells, channel by
channel, μ: the mean over its training images of an image's mean, and σ: that of an image's standard
deviation. In training every image becomes (x − μⱼ) / σⱼ, with a site j of the federation drawn anew
each time; in evaluation it is the site's own μ and σ.

Here the statistics ride with each round's reply, where they are the same every time, and come with
the next round's weights; in the first there are the site's own alone. They are of the images as
evaluation prepares them, and computed anew from the training images rather than stored.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.config.schema import Config
from common.data.augment import prepare
from common.learning.evaluation import EVALUATION_BATCH
from common.learning.local_site import ImageChange, TrainingSite
from common.methods.algorithm import Algorithm
from common.methods.method import SHARED, ArrayForms, Arrays, Averaged, Local, Outcome, Variant
from common.models.sharing import Layout
from common.randomness import torch_generator

STATISTICS = "statistics"
"""What travels: of a site, shape (2, 3); of all, (sites, 2, 3), with 0 of one that told none."""
LEAST = 0.01
"""Smallest σ, less than one of 256 greys: blank images have none."""


class FedRDN(Algorithm):
    """Normalise training images by the statistics of sites drawn at random."""

    name = "fedrdn"
    own = "images by its own mean and deviation (FedRDN)"
    changes_images = True
    variants = (Variant("fedrdn", "FedRDN", "federated", SHARED | {"algorithm": "fedrdn"}),)

    def images(self, config: Config, site: TrainingSite, parts: Arrays) -> ImageChange:
        """Normalise by a drawn site's statistics at a step, by the site's own in evaluation."""
        own = channel_statistics(site, config)[None]
        told = parts.get(STATISTICS, own)
        told = told[told[:, 1].all(axis=1)]

        def normalised(images: Tensor, step: int | None) -> Tensor:
            if step is None:
                return normalise(images, own)
            generator = torch_generator(config.seed, site.name, step, self.name)
            drawn = torch.randint(len(told), (len(images),), generator=generator)
            return normalise(images, told[drawn.numpy()])

        return normalised

    def after_round(self, local: Local) -> Outcome:
        """Tell the site's statistics."""
        (site,) = local.sites
        return Outcome({STATISTICS: channel_statistics(site, local.config)})

    def forms(self, config: Config, layout: Layout) -> ArrayForms:
        """Return the statistics' type and shape."""
        return {STATISTICS: ("float64", (2, 3))}

    def broadcast(self, config: Config, memory: Arrays) -> Arrays:
        """Send all sites' statistics, once there are any."""
        return memory

    def broadcast_forms(self, config: Config, layout: Layout) -> ArrayForms:
        """Return their type and shape."""
        return {STATISTICS: ("float64", (len(config.site_names), 2, 3))}

    def combine(self, averaged: Averaged) -> tuple[NDArray[Any], Arrays]:
        """Return the average, and every site's statistics as it last told them."""
        names = averaged.config.site_names
        told = averaged.memory.get(STATISTICS, np.zeros((len(names), 2, 3))).copy()
        for site, parts in averaged.replies.items():
            told[names.index(site)] = parts[STATISTICS]
        return averaged.shared, {STATISTICS: told}


@torch.no_grad()
def channel_statistics(site: TrainingSite, config: Config) -> NDArray[np.float64]:
    """Return the mean over a site's training images of each one's mean and standard deviation.

    Parameters
    ----------
    site : TrainingSite
        Its images are read as :func:`common.data.augment.prepare` makes them.
    config : Config
        The size of images.

    Returns
    -------
    ndarray of float64, shape (2, 3)
        Means and deviations of the channels; a deviation is not below :data:`LEAST`.
    """
    total = torch.zeros((2, 3), dtype=torch.float64)
    for start in range(0, len(site.train), EVALUATION_BATCH):
        raw, _ = site.batch(site.train[start : start + EVALUATION_BATCH])
        images = prepare(raw, config.image_size).double()
        deviations, means = torch.std_mean(images, dim=(2, 3), correction=0)
        total += torch.stack([means.sum(dim=0), deviations.sum(dim=0)]).cpu()
    statistics: NDArray[np.float64] = (total / len(site.train)).numpy()
    statistics[1] = np.maximum(statistics[1], LEAST)
    return statistics


def normalise(images: Tensor, statistics: NDArray[np.float64]) -> Tensor:
    """Return (x − μ) / σ.

    Parameters
    ----------
    images : Tensor, shape (batch, 3, height, width)
    statistics : ndarray, shape (batch, 2, 3) or (1, 2, 3)
        μ and σ of every image, or of all.
    """
    mean, deviation = torch.from_numpy(statistics).to(images)[..., None, None].unbind(dim=1)
    return (images - mean) / deviation
