"""What a prototype tells of the images behind it: inverted, and held against candidates.

A prototype is mean and spread of what training saw last: projections of augmented images, each
batch normalised by itself. The attacker has the released network, and here the hospital's own
normalisation too, which favours it.
"""

from collections.abc import Callable
from dataclasses import replace
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
from common.learning.latest import LatestEmbeddings, prototypes_of
from common.learning.local_site import open_site
from common.learning.prototypes import Prototypes, make_prototypes
from common.models.network import Network
from common.models.sharing import Layout
from common.randomness import numpy_generator
from common.runs.result import read_run_config
from common.runs.weights import load_run_network
from simulations.evidence.attacks.inversion import descend, load_images, psnr, total_variation
from simulations.evidence.attacks.membership import Target, auc
from simulations.evidence.fidelity import training_batches
from simulations.report.numbers import decimal, percent

SMOOTH = 3.0
NOISES = (0.0, 0.05)
COUNTS = (1, 4, 16, 64, 256)
OTHER_CLASSES = 48
"""Images of other classes at the hospital, at least: with few of one class, that class is rare."""
SOUGHT = 8
"""Images that are sought together where their spread is to be a prototype's."""
LEAST_VARIANCE = 1e-2
"""Added along every axis: a prototype of few images has no spread in most directions."""


class MadePrototype(NamedTuple):
    """A prototype of one class, and the images that it is held against."""

    prototype: Prototypes
    """Without noise."""
    behind: NDArray[np.int64]
    """The images behind it."""
    others: NDArray[np.int64]
    """Test images of that class, as many if there are."""
    reference: NDArray[np.int64]
    """Further test images of that class: the attacker's, who knows that they are not behind it."""


def make(
    network: Network, target: Target, config: Config, images: int, number: int, trained: bool = True
) -> MadePrototype | None:
    """Make a prototype as a hospital does that has few images of a class.

    Parameters
    ----------
    network : Network
        With the hospital's own normalisation; left as it is.
    target : Target
        The hospital.
    config : Config
        The run's.
    images : int
        Behind the prototype.
    number : int
        Which of several; classes take turns, and each has images of its own.
    trained : bool
        Whether the images behind it are training images. If not, they are test images as the
        others are: then what tells them apart is the prototype, and not the network.

    Returns
    -------
    MadePrototype or None
        None where there are too few test images.
    """
    generator = numpy_generator(config.seed, "attack", "prototype", number)
    labels, label = target.data.labels, number % len(target.data.classes)
    train, test = target.split.train, target.split.test
    unknown = generator.permutation(test[labels[test] == label])
    reference, unknown = np.split(unknown, [-(-len(unknown) // 4)])
    if trained:
        known = generator.permutation(train[labels[train] == label])
    else:
        train, known, unknown = test, unknown, unknown[images:]
        if len(unknown) < images:
            return None
    behind, others = known[:images], unknown[:images]
    rest = generator.permutation(train[labels[train] != label])[: max(images, OTHER_CLASSES)]
    site = replace(target, train=np.sort(np.concatenate([behind, rest])))
    # Every image is seen once at least.
    steps = -(-max(config.prototype_images, len(site.train)) // config.batch_size)
    config = config.changed(prototype_images=steps * config.batch_size, min_prototype_count=1)
    latest = LatestEmbeddings(config, {})
    with torch.no_grad(), in_mode(network, training=True):
        for batch in training_batches(network, site, config, range(steps)):
            latest.add(batch)
    made = prototypes_of(target.name, latest.arrays(), network, config)
    return MadePrototype(made.chosen(made.classes == label), behind, others, reference)


def send(made: MadePrototype, noise: float) -> NDArray[np.float64]:
    """Return a prototype, shape (2 + rank, size), as a policy of that ``prototype-noise`` lets it.

    Parameters
    ----------
    made : MadePrototype
        What the hospital made.
    noise : float
        Standard deviation.
    """
    policy = make_policy({"prototype-noise": noise, "min-prototype-images": 1}, "of the attack")
    weights, nothing = np.empty(0, np.float32), Layout((), (), "float32", 0)
    own = made.prototype
    reply = noised(
        RoundReply("attack", 1, own.site, "", {}, 1, nothing, weights, own), weights, policy
    )
    assert isinstance(reply, RoundReply)
    return np.asarray(reply.prototypes.vectors[0], np.float64)


def log_likelihood(
    unit: NDArray[np.float64], prototype: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return log N(x; mean, Σ) but for a constant, Σ = diag(deviation² + least) + Σ factor factorᵀ.

    Parameters
    ----------
    unit : ndarray, shape (n, size)
        Projections of length 1.
    prototype : ndarray, shape (2 + rank, size)
        Mean, deviations and factors.

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    centre, deviation, factors = prototype[0], prototype[1], prototype[2:]
    covariance = np.diag(deviation**2 + LEAST_VARIANCE) + factors.T @ factors
    root = np.linalg.cholesky(covariance)
    distances = (np.linalg.solve(root, (unit - centre).T) ** 2).sum(axis=0)
    return np.asarray(-distances / 2 - np.log(np.diag(root)).sum())


def candidate_aucs(
    network: Network,
    target: Target,
    config: Config,
    made: MadePrototype,
    sent: NDArray[np.float64],
) -> tuple[float, float]:
    """Return how well a prototype tells the images behind it from the others.

    Parameters
    ----------
    network, target, config
        As of :func:`make`.
    made : MadePrototype
        Which images.
    sent : ndarray, shape (2 + rank, size)
        As the attacker has it.

    Returns
    -------
    float, float
        AUC of the cosine to the mean; and of the likelihood under the prototype over that under
        mean and spread of the attacker's own images.
    """
    groups = (made.behind, made.others, made.reference)
    _, found = predict(network, target, np.concatenate(groups), config)
    unit = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    *asked, reference = np.split(unit.astype(np.float64), np.cumsum([len(g) for g in groups[:2]]))
    same = np.zeros(len(reference), np.int64)
    usual = make_prototypes("attacker", reference, same, 1, config.prototype_rank).vectors[0]

    def ratio(unit: NDArray[np.float64]) -> NDArray[np.float64]:
        return log_likelihood(unit, sent) - log_likelihood(unit, usual.astype(np.float64))

    behind, others = asked
    return auc(behind @ sent[0], others @ sent[0]), auc(ratio(behind), ratio(others))


def invert(
    network: Network, prototypes: Tensor, together: int, size: int, steps: int, seed: int
) -> Tensor:
    """Seek images whose projections have a prototype's mean, and its spread where they are several.

    Parameters
    ----------
    network : Network
        Of which the first site's normalisation is used.
    prototypes : Tensor, shape (n, 2 + rank, projection_size)
        As they were sent.
    together : int
        Images sought of each; of one alone the direction is sought that the mean has.
    size : int
        Height and width of the images.
    steps : int
        Steps of the search.
    seed : int
        Of the noise that it starts from.

    Returns
    -------
    Tensor, shape (n, together, 1, size, size)
    """
    site, count = network.sites[0], len(prototypes)
    means, deviations, factors = prototypes[:, 0], prototypes[:, 1], prototypes[:, 2:]
    covariances = torch.diag_embed(deviations**2) + factors.mT @ factors

    def apart(projections: Tensor) -> Tensor:
        """Return how far off projections (n, together, projection_size) are, shape (n,)."""
        if together == 1:
            return 1 - F.cosine_similarity(projections[:, 0], means)
        unit = F.normalize(projections, dim=2)
        middle = unit.mean(dim=1)
        away = unit - middle[:, None]
        spread = away.mT @ away / together - covariances
        far: Tensor = torch.linalg.norm(middle - means, dim=1) + torch.linalg.matrix_norm(spread)
        return far

    def loss(images: Tensor) -> Tensor:
        output = network(images.expand(-1, 3, -1, -1), [(site, len(images))])
        far = apart(output.projection.reshape(count, together, -1))
        return len(images) * (far.mean() + SMOOTH * total_variation(images))

    with in_mode(network, training=False):
        found = descend(loss, (count * together, 1, size, size), steps, seed, rate=0.1)
    return found.reshape(count, together, *found.shape[1:])


def alike(found: Tensor, target: Target, indices: NDArray[np.int64]) -> float:
    """Return the mean PSNR of found images (n, 1, size, size) with the nearest of a hospital's."""
    return float(psnr(found, load_images(target.data, indices, found.shape[-1])).max(axis=1).mean())


def run_prototypes(
    run: Path, asked: int, sought: int, steps: int, progress: Callable[[int, int], None]
) -> Table:
    """Attack prototypes of one image and of several, with noise and without.

    Parameters
    ----------
    run : Path
        A federation's folder; its first hospital is attacked.
    asked : int
        Prototypes of every kind that candidates are held against.
    sought : int
        How many of them are inverted.
    steps : int
        Of every search.
    progress : callable
        Told (done, total) kinds.
    """
    site = read_run_config(run).site_names[0]
    network, config = load_run_network(run, site)
    target = Target.of(open_site(config, site), config)
    classes = len(target.data.classes)
    most = int(np.bincount(target.data.labels[target.split.train], minlength=classes).min())
    counts = [count for count in COUNTS if count <= most]
    rows: list[tuple[str, ...]] = []
    for done, count in enumerate(counts):
        known, strangers = (
            [
                one
                for number in range(asked)
                if (one := make(network, target, config, count, number, trained)) is not None
            ]
            for trained in (True, False)
        )
        for noise in NOISES:
            figures = []
            sent = [send(one, noise) for one in known]
            vectors = torch.from_numpy(np.stack(sent[:sought])).float()
            for together in (1, SOUGHT):
                found = invert(network, vectors, together, config.image_size, steps, done)
                for part in ("behind", "others"):
                    pairs = zip(found, known, strict=False)
                    near = [
                        alike(images, target, getattr(one, part)[: len(one.others)])
                        for images, one in pairs
                    ]
                    figures.append(decimal(mean(near)))
            aucs = [
                candidate_aucs(network, target, config, one, vector)
                for one, vector in zip(known, sent, strict=True)
            ]
            figures += [percent(mean(column)) for column in zip(*aucs, strict=True)]
            alone = [
                candidate_aucs(network, target, config, one, send(one, noise))[1]
                for one in strangers
            ]
            figures.append(percent(mean(alone)) if alone else "")
            rows.append((str(count), f"{noise:g}", *figures))
        progress(done + 1, len(counts))
    return plain_table(
        f"Prototypes: PSNR in decibels, means of {sought}; AUC in percent, means of {asked}.",
        (
            "Images behind it",
            "Noise",
            "By the mean: nearest behind",
            "nearest other",
            "By mean and spread: nearest behind",
            "nearest other",
            "AUC of the cosine",
            "AUC of the likelihood",
            "Of images not trained on",
        ),
        rows,
    )
