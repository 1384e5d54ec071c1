"""Domain-specific batch normalisation: one BatchNorm per site at every place of a network.

Sites share every convolution; each keeps its own affine parameters and running statistics
(DSBN: Chang et al., CVPR 2019; section III-B of arXiv 2009.07652). Any network that holds
BatchNorm can be converted, by module type and never by name.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.errors import RunError

Segments = Sequence[tuple[str, int]]


class SiteRouting:
    """Which images of the present batch belong to which site; one per network.

    Attributes
    ----------
    segments : tuple of (str, int)
        Sites with their number of images, in the batch's order. ``Network.forward`` sets it.
    """

    def __init__(self) -> None:
        self.segments: tuple[tuple[str, int], ...] = ()


class _SiteModules(nn.ModuleDict):
    """A ModuleDict in which a site may be called 'train', 'values' or any other method's name."""

    def __setitem__(self, key: str, module: nn.Module) -> None:
        self._modules[key] = module


class DomainBatchNorm(nn.Module):
    """One BatchNorm per site; each image passes through its own site's.

    Parameters
    ----------
    norm : BatchNorm1d, BatchNorm2d or BatchNorm3d
        What every site starts from: affine parameters, running statistics, momentum.
    sites : sequence of str
        Names of the sites.
    routing : SiteRouting
        Shared with the network's other normalisations.

    Attributes
    ----------
    sites : ModuleDict
        A BatchNorm of its own for every site name.
    """

    private = True
    """No tensor below this module leaves its site; see :mod:`common.sharing`."""

    def __init__(self, norm: _BatchNorm, sites: Sequence[str], routing: SiteRouting) -> None:
        super().__init__()
        self.routing = routing
        self.sites = _SiteModules({site: copy.deepcopy(norm) for site in sites})

    def forward(self, features: Tensor) -> Tensor:
        """Normalise each segment of the batch with its site's statistics.

        Parameters
        ----------
        features : Tensor, shape (batch, channels, …)
            In the order of ``routing.segments``.

        Returns
        -------
        Tensor
            Of the same shape; a batch of one site is neither split nor copied.

        Raises
        ------
        RunError
            If the segments do not add up to the batch or name an unknown site.
        """
        segments = self.routing.segments
        check_segments(segments, tuple(self.sites), len(features))
        if len(segments) == 1:
            normalised: Tensor = self.sites[segments[0][0]](features)
            return normalised
        parts = torch.split(features, [images for _, images in segments])
        return torch.cat(
            [self.sites[site](part) for (site, _), part in zip(segments, parts, strict=True)]
        )


def check_segments(segments: Segments, sites: Sequence[str], images: int) -> None:
    """Check that segments name known sites and cover the batch.

    Parameters
    ----------
    segments : sequence of (str, int)
        Sites with their number of images.
    sites : sequence of str
        Sites that the network knows.
    images : int
        Size of the batch.

    Raises
    ------
    RunError
        Saying which site is unknown, or how many images the segments leave over.
    """
    if sum(count for _, count in segments) != images or any(count < 1 for _, count in segments):
        raise RunError(
            f"The batch holds {images} images, but its segments are {list(segments)}; "
            "every segment needs an image, and together they must cover the batch."
        )
    for site, _ in segments:
        if site not in sites:
            raise RunError(
                f"The network has no normalisation for site '{site}'; "
                f"it knows {', '.join(sites) or 'no site'}."
            )


def convert(module: nn.Module, sites: Sequence[str], routing: SiteRouting) -> nn.Module:
    """Replace every BatchNorm in ``module``, however deeply nested, by a DomainBatchNorm.

    A BatchNorm is known by its type (``_BatchNorm``, so BatchNorm1d to 3d and SyncBatchNorm,
    which becomes BatchNorm2d). Every site starts from a copy of its parameters and statistics.
    One that is used in two places stays one.

    Parameters
    ----------
    module : Module
        Changed in place, unless it is itself a BatchNorm.
    sites : sequence of str
        Names of the sites.
    routing : SiteRouting
        Where the converted modules will read the batch's segments.

    Returns
    -------
    Module
        ``module``, or its replacement where it is itself a BatchNorm.
    """
    return _convert(module, sites, routing, {})


def _convert(
    module: nn.Module, sites: Sequence[str], routing: SiteRouting, done: dict[int, nn.Module]
) -> nn.Module:
    if id(module) not in done:
        if isinstance(module, _BatchNorm):
            done[id(module)] = DomainBatchNorm(_unsynchronised(module), sites, routing)
        else:
            done[id(module)] = module
            if not isinstance(module, DomainBatchNorm):
                for name, child in module._modules.items():
                    if child is not None:
                        module._modules[name] = _convert(child, sites, routing, done)
    return done[id(module)]


def _unsynchronised(norm: _BatchNorm) -> _BatchNorm:
    """Return SyncBatchNorm as BatchNorm2d (a site never averages over another's images)."""
    if not isinstance(norm, nn.SyncBatchNorm):
        return norm
    plain = nn.BatchNorm2d(
        norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
    )
    plain.load_state_dict(norm.state_dict())
    return plain.train(norm.training)


def drop_counters(module: nn.Module) -> None:
    """Take ``num_batches_tracked`` from every BatchNorm that all sites share.

    It is an integer that no average makes sense of, and with a fixed momentum nothing reads it.

    Parameters
    ----------
    module : Module
        Changed in place; a DomainBatchNorm keeps its counters.
    """
    for child in module.children():
        if isinstance(child, _BatchNorm):
            child.num_batches_tracked = None
        elif not isinstance(child, DomainBatchNorm):
            drop_counters(child)


def add_site(module: nn.Module, site: str, like: str | None = None) -> None:
    """Give a further site its own BatchNorm at every place.

    Parameters
    ----------
    module : Module
        A converted network, changed in place.
    site : str
        The new site's name.
    like : str, optional
        A known site whose parameters and statistics are copied; without it the new ones are
        those of an untrained BatchNorm.

    Raises
    ------
    RunError
        If ``site`` is known already or ``like`` is not known.
    """
    places = [child for child in module.modules() if isinstance(child, DomainBatchNorm)]
    for place in places:
        known = tuple(place.sites)
        if site in known:
            raise RunError(f"The network has a normalisation for site '{site}' already.")
        if like is not None and like not in known:
            raise RunError(f"No site is called '{like}'; the network knows {', '.join(known)}.")
    for place in places:
        norm = copy.deepcopy(place.sites[like or next(iter(place.sites))])
        if like is None and isinstance(norm, _BatchNorm):
            norm.reset_parameters()
        place.sites[site] = norm
