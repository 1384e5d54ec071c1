"""A further term of a site's objective, as some methods add one to each step."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from common.models.network import Output
from common.models.per_site import SiteSlices


class Batch(NamedTuple):
    """What a term may look at.

    Attributes
    ----------
    images : Tensor, shape (batch, 3, height, width)
        As the network got them.
    targets : mapping of str to Tensor, each of shape (batch, …)
        What is to be learnt of each.
    site_slices : sequence of (str, int)
        Whose they are.
    output : Output
        What the network says of them.
    """

    images: Tensor
    targets: Mapping[str, Tensor]
    site_slices: SiteSlices
    output: Output


Term = Callable[[Batch], Tensor]
"""Returns what is added to the loss of a batch, shape (), already weighted."""
