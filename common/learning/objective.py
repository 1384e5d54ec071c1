"""What is optimised: cross entropy + α · contrastive term.

The contrastive term is the supervised NT-Xent of arXiv 2009.07652, section III-C. Pooled, its
pairs are those of the joint batch. Federated, an anchor is an image of the batch, and the other
sites' prototypes stand for the images that the joint batch would hold of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from common.config.schema import Config
from common.data.folder import CLASS
from common.device import at_least_float32
from common.learning.prototypes import RemotePrototypes
from common.methods import fedproto
from common.models import ms_net
from common.models.network import Output
from common.tasks.task import task_of


@dataclass(frozen=True)
class Loss:
    """The objective of one batch, on the device.

    Attributes
    ----------
    total : Tensor, shape ()
        ``cross_entropy + weight · contrastive``; what is differentiated.
    cross_entropy : Tensor, shape ()
        Detached: the task's loss, of classes alone their cross entropy, mean over the batch.
    contrastive : Tensor, shape ()
        Detached mean over the ordered positive pairs; 0 where the term is off.

    What a compared method adds (:mod:`common.methods`) is in the total alone.
    """

    total: Tensor
    cross_entropy: Tensor
    contrastive: Tensor


def contrastive(
    projections: Tensor,
    labels: Tensor,
    temperature: float,
    denominator: Literal["nt-xent", "eq4"] = "nt-xent",
    constants: RemotePrototypes | None = None,
) -> Tensor:
    """Mean over ordered positive pairs (i, p) of −log(e⁺ / D), with e = exp(cos / τ).

    D sums the anchor's negatives (equation 4 as printed, ``eq4``) or the positive and the
    negatives (``nt-xent``, what the authors' code computes). Negatives are the images and
    prototypes of other classes; other images of the anchor's class are never in D, nor is the
    anchor itself. A prototype of multiplicity m counts as m images: as m positive pairs, and m
    times among the negatives. Prototypes are constants and receive no gradient.

    Parameters
    ----------
    projections : Tensor, shape (batch, size)
        Of the batch's images, not normalised.
    labels : Tensor, shape (batch,)
        Their classes.
    temperature : float
        τ, positive.
    denominator : {'nt-xent', 'eq4'}
        What a pair is held against.
    constants : RemotePrototypes, optional
        Prototypes of the other sites.

    Returns
    -------
    Tensor, shape ()
        In float32 at least. Without a positive pair it is 0 with zero gradient. An anchor without
        negatives contributes 0 to each of its pairs under ``nt-xent`` (D is the positive alone)
        and is left out under ``eq4`` (its D is empty).
    """
    anchors = F.normalize(at_least_float32(projections), dim=1)
    work = anchors.dtype
    others, other_labels = anchors, labels
    weights = torch.ones(len(labels), dtype=work, device=labels.device)
    if constants is not None:
        vectors = F.normalize(constants.vectors.detach().to(work), dim=1)
        others = torch.cat([others, vectors])
        other_labels = torch.cat([labels, constants.labels])
        weights = torch.cat([weights, constants.multiplicity.detach().to(work)])
    # Automatic mixed precision would round the cosines to bfloat16, and 1/τ magnifies that.
    with torch.autocast(labels.device.type, enabled=False):
        similarity = anchors @ others.T / temperature
    alike = labels[:, None] == other_labels[None, :]
    negatives = _log_sum(similarity, weights * ~alike)
    positives = weights * alike
    # An image is no positive of itself. The diagonal lies in the block of the local images.
    positives.fill_diagonal_(0)
    if denominator == "nt-xent":
        # −log(e⁺ / (e⁺ + Σ e⁻)) = −log σ(s⁺ − log Σ e⁻): exact however far apart the two are.
        pairs = -F.logsigmoid(similarity - negatives[:, None])
    else:
        pairs = negatives[:, None] - similarity
        positives = positives * (weights * ~alike).any(dim=1, keepdim=True)
    total = positives.sum()
    return (pairs * positives).sum() / torch.where(total > 0, total, 1)


def _log_sum(logits: Tensor, weights: Tensor) -> Tensor:
    """Return log Σ w·exp(logit) of each row; very small, and finite, where every w is 0.

    Finite, so that a row without negatives has a zero gradient and not NaN.
    """
    lowest = torch.finfo(logits.dtype).min / 4
    weighted = (logits + weights.log()).masked_fill(weights == 0, lowest)
    return torch.logsumexp(weighted, dim=1)


def objective(
    output: Output,
    targets: Mapping[str, Tensor],
    config: Config,
    weight: float,
    constants: RemotePrototypes | None = None,
    terms: Sequence[Tensor] = (),
) -> Loss:
    """Return the task's loss + weight · contrastive for one batch, and what a method adds.

    Parameters
    ----------
    output : Output
        Of the network, for the whole (joint) batch.
    targets : mapping of str to Tensor, each of shape (batch, …)
        What is to be learnt of each image; its class is what the contrastive term compares.
    config : Config
        Task, temperature and denominator.
    weight : float
        The contrastive term's weight at this step; 0 leaves it out.
    constants : RemotePrototypes, optional
        The other sites' prototypes.
    terms : sequence of Tensor, shape ()
        What is added as it is.
    """
    labels = targets[CLASS]
    cross_entropy = task_of(config).loss(output.heads, targets)
    total, term = cross_entropy, torch.zeros_like(cross_entropy)
    if weight:
        term = contrastive(
            output.projection, labels, config.temperature, config.denominator, constants
        )
        total = total + weight * term
    if output.auxiliary is not None:
        total = total + ms_net.transfer(output.logits, output.auxiliary, labels)
    if config.prototype_pull and constants is not None:
        total = total + config.prototype_pull * fedproto.pull(output.projection, labels, constants)
    for further in terms:
        total = total + further
    return Loss(total, cross_entropy.detach(), term.detach())
