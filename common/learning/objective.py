"""What is optimised: cross entropy, and the terms that a method adds to it.

The contrastive term is the supervised NT-Xent of arXiv 2009.07652, section III-C. Pooled, its
pairs are those of the joint batch. Federated, vectors that are drawn from the other sites'
prototypes stand for the images that the joint batch would hold of them, as anchors and as others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from common.config.schema import Config
from common.data.folder import CLASS
from common.device import at_least_float32
from common.learning.prototypes import Constants, RemotePrototypes
from common.models.network import Output
from common.models.per_site import SiteSlices
from common.randomness import torch_generator
from common.tasks.task import task_of

CONTRASTIVE = "contrastive"
"""Name of the term that is reported beside the cross entropy."""


class Batch(NamedTuple):
    """What a term may look at."""

    images: Tensor
    """Shape (batch, 3, height, width). As the network got them."""
    targets: Mapping[str, Tensor]
    """Each of shape (batch, …). What is to be learnt of each."""
    site_slices: SiteSlices
    """Whose they are."""
    output: Output
    """What the network says of them."""
    step: int = 0
    """Counted from 0 over the whole run."""
    indices: Tensor | None = None
    """Shape (batch,), on the CPU. Which of its site's images each is."""

    @property
    def labels(self) -> Tensor:
        """Classes, shape (batch,)."""
        return self.targets[CLASS]


@dataclass(frozen=True)
class Term:
    """What a method adds to the loss of a batch."""

    name: str
    """Of the term."""
    value: Callable[[Batch], Tensor]
    """The batch's value, shape (), not weighted."""
    weight: Callable[[int], float]
    """Its weight at a step, which is counted from 0 over the whole run; 0 leaves it out."""

    @classmethod
    def constant(cls, name: str, value: Callable[[Batch], Tensor], weight: float = 1.0) -> "Term":
        """Return a term of the same weight at every step."""
        return cls(name, value, lambda step: weight)


@dataclass(frozen=True)
class Loss:
    """The objective of one batch, on the device."""

    total: Tensor
    """Shape (). Cross entropy and every term times its weight; what is differentiated."""
    cross_entropy: Tensor
    """Shape (). Detached: the task's loss, of classes alone their cross entropy, mean over the
    batch."""
    contrastive: Tensor
    """Shape (). Detached mean over the ordered positive pairs; 0 where the term is off."""


def contrastive(
    projections: Tensor,
    labels: Tensor,
    temperature: float,
    denominator: Literal["nt-xent", "eq4"] = "nt-xent",
    constants: Constants | None = None,
    anchors: bool = True,
    within: bool = True,
) -> Tensor:
    """Mean over ordered positive pairs (i, p) of −log(e⁺ / D), with e = exp(cos / τ).

    D sums the anchor's negatives (equation 4 as printed, ``eq4``) or the positive and the
    negatives (``nt-xent``, what the authors' code computes). Negatives are the images and
    constants of other classes; others of the anchor's class are never in D, nor is the anchor
    itself. A constant of multiplicity m counts as m images: in m times as many pairs, and m times
    among the negatives. It receives no gradient.

    Where the constants are the projections that the joint batch holds of the other sites, this is
    the joint batch's term, and its gradient that of the joint term with respect to ``projections``.

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
    constants : Constants, optional
        What stands for the other sites' images.
    anchors : bool
        Whether constants are anchors too: their pairs hold the batch's images as negatives, and as
        positives once more.
    within : bool
        Whether pairs of two images of the batch count.

    Returns
    -------
    Tensor, shape ()
        In float32 at least. Without a positive pair it is 0 with zero gradient. An anchor without
        negatives contributes 0 to each of its pairs under ``nt-xent`` (D is the positive alone)
        and is left out under ``eq4`` (its D is empty).
    """
    vectors = F.normalize(at_least_float32(projections), dim=1)
    classes, own = labels, len(labels)
    work = vectors.dtype
    weights = torch.ones(own, dtype=work, device=labels.device)
    if constants is not None:
        others = F.normalize(constants.vectors.detach().to(work), dim=1)
        vectors = torch.cat([vectors, others])
        classes = torch.cat([labels, constants.labels])
        weights = torch.cat([weights, constants.multiplicity.detach().to(work)])
    rows = len(vectors) if anchors else own
    # Automatic mixed precision would round the cosines to bfloat16, and 1/τ magnifies that.
    with torch.autocast(labels.device.type, enabled=False):
        similarity = vectors[:rows] @ vectors.T / temperature
    alike = classes[:rows, None] == classes[None, :]
    negatives = _log_sum(similarity, weights * ~alike)
    positives = weights[:rows, None] * weights * alike
    # None is a positive of itself.
    positives.fill_diagonal_(0)
    if not within:
        positives[:own, :own] = 0
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


def contrastive_term(
    config: Config,
    total_steps: int,
    site: str = "",
    remote: RemotePrototypes | None = None,
) -> Term:
    """Return the contrastive term of a training.

    The pooled loss is a mean over the images of n sites, a site's one over its own. So where the
    other sites' prototypes are met, the term has n times its weight, or the average of the sites'
    gradients would hold an n-th of it.

    Parameters
    ----------
    config : Config
        Temperature, denominator, how the prototypes are met, and as ``contrastive-warmup`` the
        share of all steps in which its weight rises to α on a straight line.
    total_steps : int
        Steps of the whole run.
    site : str
        Who draws.
    remote : RemotePrototypes, optional
        The other sites' prototypes.
    """
    count, alpha = (
        config.prototype_draws,
        config.alpha * (1 if remote is None else 1 + remote.sites),
    )

    def met(step: int) -> Constants | None:
        if remote is None:
            return None
        if not count:
            return remote.means()
        return remote.draw(count, torch_generator(config.seed, site, step, "prototypes"))

    def value(batch: Batch) -> Tensor:
        return contrastive(
            batch.output.projection,
            batch.labels,
            config.temperature,
            config.denominator,
            met(batch.step),
            config.prototype_anchors,
            config.contrastive_within or remote is None,
        )

    def weight(step: int) -> float:
        rising = config.contrastive_warmup * total_steps
        return alpha * min(1.0, (step + 1) / rising) if rising else alpha

    return Term(CONTRASTIVE, value, weight)


def objective(batch: Batch, config: Config, terms: Sequence[Term], step: int) -> Loss:
    """Return the task's loss + the weighted terms of one batch.

    Parameters
    ----------
    batch : Batch
        The whole (joint) batch, and what the network says of it.
    config : Config
        Which task.
    terms : sequence of Term
        In the order in which they are computed.
    step : int
        Counted from 0 over the whole run.
    """
    cross_entropy = task_of(config).loss(batch.output.heads, batch.targets)
    weights = [(term, term.weight(step)) for term in terms]
    values = [(term.name, weight, term.value(batch)) for term, weight in weights if weight]
    total, reported = cross_entropy, torch.zeros_like(cross_entropy)
    # First what is reported by itself, so that the sum is rounded alike whoever adds more.
    for name, weight, value in sorted(values, key=lambda one: one[0] != CONTRASTIVE):
        total = total + weight * value
        if name == CONTRASTIVE:
            reported = value
    return Loss(total, cross_entropy.detach(), reported.detach())
