"""A network without normalisation: convolutions of standardised weights in its place.

Scaled weight standardisation of A. Brock, S. De and S. L. Smith, *Characterizing signal propagation
to close the performance gap in unnormalized ResNets*, ICLR 2021. Where each weight w of an output
channel, of N altogether with mean μ and variance σ², is replaced by g · (w − μ) / √(Nσ²), a
convolution keeps the variance of its input and adds no mean to it, whatever w is. So nothing has to
be estimated of a batch, and no running statistic tells of a site. What BatchNorm learnt, gain g and
bias, every convolution has itself.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.models.per_site import replace_modules

LEAST = 1e-4
"""Least Nσ² that is divided by: equal weights are no reason for infinite ones."""


class StandardisedConvolution(nn.Conv2d):
    """A convolution of standardised weights, with a gain for every output channel.

    Parameters
    ----------
    convolution : Conv2d
        Its parameters are taken over by their names; one without bias gets one, of 0.
    """

    gain: nn.Parameter
    """Shape (out,). From 1."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        nn.Module.__init__(self)
        # All that the convolution is, its parameters included.
        vars(self).update(vars(convolution))
        self.gain = nn.Parameter(torch.ones(self.out_channels))
        if self.bias is None:
            self.bias = nn.Parameter(torch.zeros(self.out_channels))

    def standardised(self) -> Tensor:
        """Return the weights that convolve, shape (out, in / groups, height, width)."""
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), correction=0, keepdim=True)
        squares = (variance * self.weight[0].numel()).clamp_min(LEAST)
        return (self.weight - mean) * squares.rsqrt() * self.gain[:, None, None, None]

    def forward(self, features: Tensor) -> Tensor:
        """Convolve, shape (batch, in, h, w) → (batch, out, h', w')."""
        convolved: Tensor = self._conv_forward(features, self.standardised(), self.bias)
        return convolved

    def reset_parameters(self) -> None:
        """Draw weights and bias as a plain convolution does, and set the gain to 1."""
        super().reset_parameters()
        nn.init.ones_(self.gain)


def convert(module: nn.Module) -> nn.Module:
    """Take every BatchNorm out of a module, and standardise the weights of every convolution.

    Both are known by their types (``_BatchNorm``, ``Conv2d``), however deeply nested.

    Parameters
    ----------
    module : Module
        Changed in place, unless it is itself one of the two.

    Returns
    -------
    Module
        ``module``, or its replacement where it is itself one of the two.
    """

    def without(part: nn.Module) -> nn.Module:
        if isinstance(part, _BatchNorm):
            return nn.Identity()
        return StandardisedConvolution(part) if isinstance(part, nn.Conv2d) else part

    return replace_modules(module, without)
