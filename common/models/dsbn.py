"""Domain-specific batch normalisation: one BatchNorm per site at every place of a network.

Sites share every convolution; each keeps its own affine parameters and running statistics
(DSBN: Chang et al., CVPR 2019; section III-B of arXiv 2009.07652). Any network that holds
BatchNorm can be converted, by module type and never by name.
"""

import copy
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.models.per_site import PerSite, SiteRouting, replace_modules


class DomainBatchNorm(PerSite):
    """One BatchNorm per site; each image is normalised by its own site's."""


def convert(module: nn.Module, sites: Sequence[str], routing: SiteRouting) -> nn.Module:
    """Replace every BatchNorm in ``module``, however deeply nested, by a DomainBatchNorm.

    A BatchNorm is known by its type (``_BatchNorm``, so BatchNorm1d to 3d). Every site starts from
    a copy of its parameters and statistics. One that is used in two places stays one.

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

    def by_site(part: nn.Module) -> nn.Module:
        if not isinstance(part, _BatchNorm):
            return part
        norms = {site: copy.deepcopy(part) for site in sites}
        for own in norms.values():
            if own.running_mean is not None and own.num_batches_tracked is None:
                # drop_counters took it away; an estimate of the statistics counts its batches.
                own.num_batches_tracked = torch.tensor(0, device=own.running_mean.device)
        return DomainBatchNorm(norms, routing)

    return replace_modules(module, by_site)


def drop_counters(module: nn.Module) -> None:
    """Take ``num_batches_tracked`` from every BatchNorm that all sites share.

    It is an integer that no average makes sense of, and with a fixed momentum nothing reads it.

    Parameters
    ----------
    module : Module
        Changed in place; what every site has of its own keeps its counters.
    """

    def without_counter(part: nn.Module) -> nn.Module:
        if isinstance(part, _BatchNorm):
            part.num_batches_tracked = None
        return part

    replace_modules(module, without_counter)
