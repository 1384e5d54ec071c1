"""MS-Net: each site's own auxiliary branch, and what it knows handed on to the shared one.

Q. Liu, Q. Dou, L. Yu and P. A. Heng, *MS-Net: multi-site network for improving prostate
segmentation with heterogeneous MRI data*, IEEE TMI 2020. There the branches are decoders and what
is handed on is the shape of a segmentation; here they are classification heads behind the shared
backbone, and what is handed on is their class probabilities. Both branches learn from the labels,
the shared one also from the site's own; a prediction is the shared one's.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from common.device import at_least_float32
from common.learning.objective import Batch, Term
from common.methods.method import PLAIN, Local, Method, Variant


class MSNet(Method):
    """Let each site's own branch learn, and hand on what it knows."""

    name = "ms-net"
    key = "auxiliary"
    adds = "the sites' own branches and what they hand on (MS-Net)"
    own = "a branch of each site's own"
    variants = (Variant("ms-net", "MS-Net", "pooled", PLAIN | {"auxiliary": True}),)

    def terms(self, local: Local) -> Sequence[Term]:
        """Return what the branches learn, and what they hand on."""

        def value(batch: Batch) -> Tensor:
            shared, own = batch.output.logits, batch.output.auxiliary
            assert own is not None
            return transfer(shared, own, batch.labels)

        return [Term.constant(self.name, value)]


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
