"""What a prototype tells of the images behind it: inverted, and held against candidates.

A prototype is the mean of projections. The attacker has the released network, and here the
hospital's own normalisation too, which favours it.
"""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clients.egress.noise import noised
from clients.egress.policy import make_policy
from common.config.schema import Config
from common.exchange.messages import RoundReply
from common.formatting.tables import Table, plain_table
from common.learning.evaluation import in_mode, predict
from common.learning.local_site import open_site
from common.learning.prototypes import make_prototypes
from common.models.network import Network
from common.models.sharing import Layout
from common.randomness import numpy_generator
from common.runs.result import read_run_config
from common.runs.weights import load_run_network
from simulations.evidence.attacks.inversion import descend, load_images, psnr, total_variation
from simulations.evidence.attacks.membership import Target, auc
from simulations.report.numbers import decimal, percent

SMOOTH = 3.0
NOISES = (0.0, 0.05)
COUNTS = (1, 4, 16)


class SentPrototype(NamedTuple):
    """A prototype as it leaves a hospital, and what is behind it."""

    vector: NDArray[np.float32]
    """Shape (size,). What is sent."""
    behind: NDArray[np.int64]
    """The images behind it, training images of one class."""
    others: NDArray[np.int64]
    """As many test images of that class."""


def send(
    network: Network, target: Target, config: Config, images: int, noise: float, number: int
) -> SentPrototype:
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
    """
    generator = numpy_generator(config.seed, "attack", "prototype", number)
    labels, label = target.data.labels, number % len(target.data.classes)
    behind, others = (
        generator.permutation(part[labels[part] == label])[:images]
        for part in (target.split.train, target.split.test)
    )
    _, projections = predict(network, target, behind, config)
    name = target.name
    made = make_prototypes(name, projections, labels[behind], 1)
    policy = make_policy({"prototype-noise": noise, "min-prototype-images": 1}, "of the attack")
    weights = np.empty(0, np.float32)
    nothing = Layout((), (), "float32", 0)
    reply = noised(
        RoundReply("attack", 1, name, "", {}, 1, nothing, weights, made), weights, policy
    )
    assert isinstance(reply, RoundReply)
    return SentPrototype(reply.prototypes.vectors[0, 0], behind, others)


def _invert(network: Network, vectors: Tensor, size: int, steps: int, seed: int) -> Tensor:
    """Seek images (n, 1, size, size) whose projections are vectors (n, projection_size)."""
    site = network.sites[0]

    def loss(images: Tensor) -> Tensor:
        output = network(images.expand(-1, 3, -1, -1), [(site, len(images))])
        alike = F.cosine_similarity(output.projection, vectors)
        return len(vectors) * ((1 - alike).mean() + SMOOTH * total_variation(images))

    with in_mode(network, training=False):
        return descend(loss, (len(vectors), 1, size, size), steps, seed, rate=0.1)


def candidate_auc(network: Network, target: Target, config: Config, sent: SentPrototype) -> float:
    """Return how well the cosine to a prototype tells the images behind it from others."""
    both = np.concatenate([sent.behind, sent.others])
    _, projections = predict(network, target, both, config)
    unit = projections / np.maximum(np.linalg.norm(projections, axis=1, keepdims=True), 1e-12)
    cosines = np.asarray(unit @ sent.vector, dtype=np.float64)
    return auc(cosines[: len(sent.behind)], cosines[len(sent.behind) :])


def run_prototypes(
    run: Path, attempts: int, steps: int, progress: Callable[[int, int], None]
) -> Table:
    """Attack prototypes of one image and of several, with noise and without.

    Parameters
    ----------
    run : Path
        A federation's folder; its first hospital is attacked.
    attempts : int
        Prototypes of every kind.
    steps : int
        Of every search.
    progress : callable
        Told (done, total) kinds.
    """
    site = read_run_config(run).site_names[0]
    network, config = load_run_network(run, site)
    target = Target.of(open_site(config, site), config)
    labels, size = target.data.labels, config.image_size
    everything = min(
        int(np.bincount(labels[part], minlength=len(target.data.classes)).min())
        for part in (target.split.train, target.split.test)
    )
    counts = (*(count for count in COUNTS if count < everything), everything)
    rows: list[tuple[str, ...]] = []
    for done, (count, noise) in enumerate(product(counts, NOISES)):
        sent = [send(network, target, config, count, noise, n) for n in range(attempts)]
        vectors = torch.from_numpy(np.stack([one.vector for one in sent]))
        found = _invert(network, vectors, size, steps, done)
        behind, others = (
            [
                float(psnr(image[None], load_images(target.data, indices, size)).max())
                for image, indices in zip(found, parts, strict=True)
            ]
            for parts in ([one.behind for one in sent], [one.others for one in sent])
        )
        closer = mean(float(a > b) for a, b in zip(behind, others, strict=True))
        told = mean(candidate_auc(network, target, config, one) for one in sent)
        figures = (decimal(mean(behind)), decimal(mean(others)), percent(closer), percent(told))
        rows.append((str(count), f"{noise:g}", *figures))
        progress(done + 1, len(counts) * len(NOISES))
    return plain_table(
        f"Prototypes: PSNR in decibels, and shares in percent; means of {attempts}.",
        (
            "Images behind it",
            "Noise",
            "PSNR, nearest behind",
            "PSNR, nearest other",
            "Nearer to one behind",
            "AUC of candidates",
        ),
        rows,
    )
