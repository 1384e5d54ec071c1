"""What a prototype tells of the images behind it: inverted, and held against candidates.

A prototype is the mean of projections. The attacker has the released network, and here the
hospital's own normalisation too, which favours it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clients.egress.noise import noised
from clients.egress.policy import make_policy
from common.config.schema import Config
from common.exchange.messages import RoundReply
from common.formatting.numbers import decimal, percent
from common.formatting.tables import Table, plain_table
from common.learning.evaluation import in_mode, predict
from common.learning.prototypes import Prototypes, make_prototypes
from common.models.network import Network
from common.models.sharing import Layout
from common.randomness import numpy_generator
from simulations.evidence.attacks.inversion import descend, total_variation
from simulations.evidence.attacks.membership import Target
from simulations.evidence.attacks.pictures import load_images, psnr
from simulations.evidence.attacks.scores import auc

SMOOTH = 3.0
NOISES = (0.0, 0.05)
COUNTS = (1, 4, 16)


@dataclass(frozen=True)
class SentPrototypes:
    """A prototype as it leaves a hospital, and what is behind it.

    Attributes
    ----------
    vector : ndarray of float32, shape (size,)
        What is sent.
    behind : ndarray of int64
        The images behind it, training images of one class.
    others : ndarray of int64
        As many test images of that class.
    """

    vector: NDArray[np.float32]
    behind: NDArray[np.int64]
    others: NDArray[np.int64]


def send(
    network: Network, target: Target, config: Config, images: int, noise: float, number: int
) -> SentPrototypes:
    """Make a prototype as a hospital with a policy does.

    Parameters
    ----------
    network : Network
        With the hospital's own normalisation.
    target : Target
        The hospital.
    config : Config
        The run's.
    images : int
        Behind the prototype; the class has as many on either side of the split.
    noise : float
        The policy's ``prototype-noise``.
    number : int
        Which of several; classes take turns, and each has images of its own.

    Returns
    -------
    SentPrototypes
        What leaves, and what is behind it.
    """
    generator = numpy_generator(config.seed, "attack", "prototype", number)
    labels, label = target.data.labels, number % len(target.data.classes)
    behind, others = (
        generator.permutation(part[labels[part] == label])[:images]
        for part in (target.split.train, target.split.test)
    )
    _, projections = predict(network, target.training, behind, config, target.device)
    made = make_prototypes(
        target.training.name, torch.from_numpy(projections), torch.from_numpy(labels[behind]), 1
    )
    return SentPrototypes(_noisy(made, noise).vectors[0], behind, others)


def _noisy(prototypes: Prototypes, noise: float) -> Prototypes:
    """Let a site's policy add its noise to prototypes."""
    policy = make_policy({"prototype-noise": noise, "min-prototype-images": 1}, "of the attack")
    nothing = Layout((), (), "float32", 0)
    weights = np.empty(0, np.float32)
    reply = RoundReply("attack", 1, prototypes.site, "", {}, 1, nothing, weights, prototypes)
    left = noised(reply, weights, policy)
    assert isinstance(left, RoundReply)
    return left.prototypes


def invert_prototypes(
    network: Network, vectors: Tensor, size: int, steps: int, seed: int
) -> Tensor:
    """Seek images whose projections are given vectors.

    Parameters
    ----------
    network : Network
        Of one site, whose running statistics normalise.
    vectors : Tensor, shape (n, projection_size)
        Prototypes.
    size : int
        Height and width of the images.
    steps : int
        Of the search.
    seed : int
        Of the noise that it starts from.

    Returns
    -------
    Tensor, shape (n, 1, size, size)
    """
    site = network.sites[0]

    def loss(images: Tensor) -> Tensor:
        output = network(images.expand(-1, 3, -1, -1), [(site, len(images))])
        alike = F.cosine_similarity(output.projection, vectors)
        return len(vectors) * ((1 - alike).mean() + SMOOTH * total_variation(images))

    with in_mode(network, training=False):
        return descend(loss, (len(vectors), 1, size, size), steps, seed, rate=0.1)


def candidate_auc(network: Network, target: Target, config: Config, sent: SentPrototypes) -> float:
    """Return how well the cosine to a prototype tells the images behind it from others."""
    both = np.concatenate([sent.behind, sent.others])
    _, projections = predict(network, target.training, both, config, target.device)
    unit = projections / np.maximum(np.linalg.norm(projections, axis=1, keepdims=True), 1e-12)
    cosines = np.asarray(unit @ sent.vector, dtype=np.float64)
    return auc(cosines[: len(sent.behind)], cosines[len(sent.behind) :])


def run_prototypes(
    network: Network,
    target: Target,
    config: Config,
    attempts: int,
    steps: int,
    progress: Callable[[int, int], None],
) -> Table:
    """Attack prototypes of one image and of several, with noise and without."""
    everything = min(
        int(min(np.bincount(target.data.labels[part], minlength=len(target.data.classes))))
        for part in (target.split.train, target.split.test)
    )
    rows: list[tuple[str, ...]] = []
    plan = [(count, noise) for count in _counts(everything) for noise in NOISES]
    for done, (count, noise) in enumerate(plan):
        sent = [send(network, target, config, count, noise, n) for n in range(attempts)]
        vectors = torch.from_numpy(np.stack([one.vector for one in sent]))
        found = invert_prototypes(network, vectors, config.image_size, steps, done)
        rows.append((str(count), f"{noise:g}", *_figures(network, target, config, sent, found)))
        progress(done + 1, len(plan))
    headings = (
        "Images behind it",
        "Noise",
        "PSNR, nearest behind",
        "PSNR, nearest other",
        "Nearer to one behind",
        "AUC of candidates",
    )
    return plain_table(TITLE.format(attempts=attempts), headings, rows)


def _counts(everything: int) -> Iterable[int]:
    return (*(count for count in COUNTS if count < everything), everything)


def _figures(
    network: Network, target: Target, config: Config, sent: Sequence[SentPrototypes], found: Tensor
) -> tuple[str, ...]:
    nearest = []
    for one, image in zip(sent, found, strict=True):
        shown = [
            load_images(target.data, part, config.image_size) for part in (one.behind, one.others)
        ]
        nearest.append([float(psnr(image[None], images).max()) for images in shown])
    behind, others = zip(*nearest, strict=True)
    closer = mean(float(a > b) for a, b in nearest)
    told = mean(candidate_auc(network, target, config, one) for one in sent)
    return decimal(mean(behind)), decimal(mean(others)), percent(closer), percent(told)


TITLE = (
    "Prototypes: PSNR in decibels of the inverted image with the nearest image behind the "
    "prototype and with the nearest of as many test images of its class; in percent, how often the "
    "first is nearer (50: chance), and the AUC of telling images behind a prototype from those "
    "others by their cosine to it; means of {attempts} prototypes."
)
