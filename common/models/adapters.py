"""Residual adapters: a small convolution of every site's own after, or beside, each shared one.

Series: S.-A. Rebuffi, H. Bilen and A. Vedaldi, *Learning multiple visual domains with residual
adapters*, NeurIPS 2017. Parallel: the same authors, *Efficient parametrization of multi-domain
deep neural networks*, CVPR 2018. As there, an adapter is a 1×1 convolution, stands at every
convolution larger than 1×1, and goes with a batch normalisation of the site's own.

It starts at zero, not with small random numbers: an adapted network begins as the plain one.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from common.models.per_site import PerSite, SiteRouting, replace_modules

Kind = Literal["series", "parallel"]


class Adapter(nn.Conv2d):
    """A 1×1 convolution without bias that starts at zero; it reads every ``step``-th place."""

    def __init__(self, inputs: int, outputs: int, step: tuple[int, int] = (1, 1)) -> None:
        super().__init__(inputs, outputs, 1, bias=False)
        self.step = step

    def forward(self, features: Tensor) -> Tensor:
        """Convolve, shape (batch, in, h, w) → (batch, out, h', w')."""
        # The convolution's own stride corrupts memory in PyTorch 2.15 on the CPU, for channels
        # last and fewer than eight of them, as a stem's three.
        return super().forward(features[..., :: self.step[0], :: self.step[1]])

    def reset_parameters(self) -> None:
        """Set the weights to zero."""
        nn.init.zeros_(self.weight)


class AdaptedConvolution(nn.Conv2d):
    """A shared convolution with an adapter for every site.

    Its shared tensors keep their names, so that weights of the plain network fit.

    Parameters
    ----------
    convolution : Conv2d
        What the sites share; its parameters are taken over.
    sites : sequence of str
        Names of the sites.
    routing : SiteRouting
        The network's.
    kind : {'series', 'parallel'}
        With f the convolution and a the site's adapter: f(x) + a(f(x)), or f(x) + a(x).
    """

    def __init__(
        self, convolution: nn.Conv2d, sites: Sequence[str], routing: SiteRouting, kind: Kind
    ) -> None:
        nn.Module.__init__(self)
        # All that the shared convolution is, its parameters included.
        vars(self).update(vars(convolution))
        inputs, outputs = convolution.in_channels, convolution.out_channels
        self.kind = kind
        self.adapters = PerSite(
            {
                site: Adapter(outputs, outputs)
                if kind == "series"
                else Adapter(inputs, outputs, (self.stride[0], self.stride[1]))
                for site in sites
            },
            routing,
        )

    def forward(self, features: Tensor) -> Tensor:
        """Convolve and adapt, shape (batch, in, h, w) → (batch, out, h', w')."""
        shared = super().forward(features)
        adapted: Tensor = self.adapters(shared if self.kind == "series" else features)
        return shared + adapted


def adapt(module: nn.Module, sites: Sequence[str], routing: SiteRouting, kind: Kind) -> None:
    """Give every convolution below a module that is larger than 1×1 its adapters.

    Parameters
    ----------
    module : Module
        Changed in place. A convolution in two places gets one set of adapters.
    sites : sequence of str
        Names of the sites.
    routing : SiteRouting
        The network's.
    kind : {'series', 'parallel'}
        Where an adapter stands.
    """

    def adapted(part: nn.Module) -> nn.Module:
        if isinstance(part, nn.Conv2d) and max(part.kernel_size) > 1:
            return AdaptedConvolution(part, sites, routing, kind)
        return part

    replace_modules(module, adapted)
