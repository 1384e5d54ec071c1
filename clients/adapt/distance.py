"""How far apart two sites lie, as their normalisation sees them; no label is needed.

Each channel of each layer before its normalisation is taken for a Gaussian of the site's running
mean and variance. The distance of two sites is the symmetrised Kullback-Leibler divergence of
these, KL(p‖q) + KL(q‖p), averaged over the channels of a layer and then over the layers. It is the
measure by which X. Pan, P. Luo, J. Shi and X. Tang (*Two at once*, ECCV 2018, section 3.1, after
Y. Li et al., *Revisiting batch normalization for practical domain adaptation*, 2016) compare
domains; there a channel's value is its mean over an image, here it is its value at any place.

0 is the same site; two channels of one variance whose means lie d standard deviations apart add
d². There is no upper end, and the number depends on the network: compare distances within a run.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.models.dsbn import DomainBatchNorm


@dataclass(frozen=True)
class Distances:
    """Where a new site lies among the trained ones."""

    to: Mapping[str, float]
    """Distance of the new site to every trained one."""
    among: Mapping[tuple[str, str], float]
    """Distance of every two trained sites; empty where there is one, or where they share their
    normalisation and nothing tells them apart."""

    @property
    def nearest(self) -> str:
        """The trained site nearest to the new one, the first of equals."""
        return min(self.to, key=lambda site: self.to[site])

    @property
    def usual(self) -> float:
        """How far the loneliest trained site lies from its own nearest; NaN for fewer than two."""
        nearest = [
            min(d for pair, d in self.among.items() if site in pair)
            for site in {site for pair in self.among for site in pair}
        ]
        return max(nearest, default=math.nan)

    @property
    def is_far(self) -> bool:
        """Whether the new site lies farther from its nearest than any trained site from its own."""
        return self.to[self.nearest] > self.usual


def site_distances(network: nn.Module, new: str) -> Distances:
    """Return the distances of a new site to the trained ones, and of these to each other.

    Parameters
    ----------
    network : Module
        With domain-specific normalisation that holds the new site's own running statistics.
    new : str
        The new site.
    """
    places = [place for place in network.modules() if isinstance(place, DomainBatchNorm)]
    trained = [site for site in places[0].sites if site != new]
    return Distances(
        {site: _distance(places, new, site) for site in trained},
        {(a, b): _distance(places, a, b) for a, b in combinations(trained, 2)},
    )


def _distance(places: list[DomainBatchNorm], one: str, other: str) -> float:
    layers = [divergence(place.sites[one], place.sites[other]).mean() for place in places]
    return float(torch.stack(layers).mean())


def divergence(one: nn.Module, other: nn.Module) -> Tensor:
    """Return KL(p‖q) + KL(q‖p) of two BatchNorms' running statistics, channel by channel.

    Parameters
    ----------
    one, other : BatchNorm
        Of equal width; ``eps`` is added to the variances as in normalisation.

    Returns
    -------
    Tensor of float64, shape (channels,)
        With u, v the variances and d the difference of the means:
        (u + d²) / 2v + (v + d²) / 2u − 1.
    """
    (p, u), (q, v) = _gaussian(one), _gaussian(other)
    squared = (p - q) ** 2
    return (u + squared) / (2 * v) + (v + squared) / (2 * u) - 1


def _gaussian(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return running mean and variance, of float64."""
    assert isinstance(norm, _BatchNorm)
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean.double(), norm.running_var.double() + norm.eps
