"""MS-Net: each site's own auxiliary branch, and what it knows handed on to the shared one.

Q. Liu, Q. Dou, L. Yu and P. A. Heng, *MS-Net: multi-site network for improving prostate
segmentation with heterogeneous MRI data*, IEEE TMI 2020. There the branches are decoders and what
is handed on is the shape of a segmentation; here they are classification heads behind the shared
backbone, and what is handed on is their class probabilities. Both branches learn from the labels,
the shared one also from the site's own; a prediction is the shared one's.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from common.device import at_least_float32
from common.models.per_site import untrained


def branches(head: nn.Module, sites: Sequence[str], seed: int) -> dict[str, nn.Module]:
    """Make every site's branch: a head of the shared one's shape with initial weights of its own.

    Parameters
    ----------
    head : Module
        The shared head, its normalisation not yet converted.
    sites : sequence of str
        Names of the sites; a site's initial weights depend on its name and the seed alone.
    seed : int
        The run's.
    """
    return {site: untrained(head, seed, site, "auxiliary branch") for site in sites}


def transfer(shared: Tensor, own: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of the sites' own branches + divergence of the shared branch from them.

    Parameters
    ----------
    shared : Tensor, shape (batch, classes)
        Logits of the shared branch.
    own : Tensor, shape (batch, classes)
        Logits of each image's site's branch. The divergence gives it no gradient.
    labels : Tensor, shape (batch,)
        Classes.

    Returns
    -------
    Tensor, shape ()
        CE(own) + mean KL(own ‖ shared).
    """
    shared, own = at_least_float32(shared), at_least_float32(own)
    taught = F.kl_div(
        F.log_softmax(shared, dim=1),
        F.log_softmax(own.detach(), dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return F.cross_entropy(own, labels) + taught
