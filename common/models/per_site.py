"""Modules of which every site has its own, and the way of each image through its own site's."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from common.randomness import seeded_torch

SiteSlices = Sequence[tuple[str, int]]

_DICTS = (dict, OrderedDict)
"""Types in which a module keeps its parameters, buffers, modules and hooks."""


class SiteRouting:
    """Which images of the present batch belong to which site; one per network."""

    site_slices: tuple[tuple[str, int], ...] = ()
    """Sites with their number of images, in the batch's order. ``Network.forward`` sets it."""


class _SiteModules(nn.ModuleDict):
    """A ModuleDict in which a site may be called 'train', 'values' or any other method's name."""

    def __setitem__(self, key: str, module: nn.Module) -> None:
        self._modules[key] = module


class PerSite(nn.Module):
    """One module per site; each image passes through its own site's.

    Parameters
    ----------
    modules : mapping of str to Module
        By site; of one kind, differing in their tensors alone.
    routing : SiteRouting
        Shared with the network's other modules of this kind.
    """

    private = True
    """No tensor below this module leaves its site; see :mod:`common.models.sharing`."""
    sites: nn.ModuleDict
    """The module of every site name."""

    def __init__(self, modules: Mapping[str, nn.Module], routing: SiteRouting) -> None:
        super().__init__()
        self.routing = routing
        self.sites = _SiteModules(modules)

    def forward(self, features: Tensor) -> Tensor:
        """Pass each segment of the batch through its site's module.

        Parameters
        ----------
        features : Tensor, shape (batch, …)
            In the order of ``routing.site_slices``.

        Returns
        -------
        Tensor
            In the same order; a batch of one site is neither split nor copied.
        """
        site_slices = self.routing.site_slices
        if len(site_slices) == 1:
            whole: Tensor = self.sites[site_slices[0][0]](features)
            return whole
        parts = torch.split(features, [images for _, images in site_slices])
        return torch.cat(
            [self.sites[site](part) for (site, _), part in zip(site_slices, parts, strict=True)]
        )


def replace_modules(
    module: nn.Module,
    change: Callable[[nn.Module], nn.Module],
    done: dict[nn.Module, nn.Module] | None = None,
) -> nn.Module:
    """Put others in the place of modules, from the top down and however deeply nested.

    Parameters
    ----------
    module : Module
        What is changed and stays has its children replaced in place.
    change : callable
        Returns what shall stand where a module does: itself, or another. What that holds is changed
        too, but not what every site has of its own. A module in two places is changed once.
    done : dict, optional
        What was changed already, by what it replaces.

    Returns
    -------
    Module
        What stands in the place of ``module``.
    """
    done = {} if done is None else done
    if module not in done:
        done[module] = other = change(module)
        if not isinstance(other, PerSite):
            for name, child in other._modules.items():
                if child is not None:
                    other._modules[name] = replace_modules(child, change, done)
    return done[module]


def of_site(module: nn.Module, site: str) -> nn.Module:
    """Return a module as one site has it: its own modules stand where the choice of them was.

    Parameters
    ----------
    module : Module
        Stays as it is. Its tensors are the result's too, none is copied.
    site : str
        The site.
    """

    def twin(part: nn.Module) -> nn.Module:
        if isinstance(part, PerSite):
            part = part.sites[site]
        # A module of its own, so that its mode and its hooks are.
        other = copy.copy(part)
        vars(other).update({k: copy.copy(v) for k, v in vars(other).items() if type(v) in _DICTS})
        return other

    return replace_modules(module, twin)


def untrained(module: nn.Module, seed: int, *parts: str | int) -> nn.Module:
    """Return a copy of a module with fresh weights, drawn for ``(seed, *parts)``."""
    fresh = copy.deepcopy(module)
    with seeded_torch(seed, *parts):
        for part in fresh.modules():
            if callable(reset := getattr(part, "reset_parameters", None)):
                reset()
    return fresh
