"""Membership inference: whether an image was in the training of a released network.

What a federation releases is ``shared.safetensors``. A hospital's own normalisation stays there; so
the attack is made as somebody who has the shared weights alone, as another hospital of the run, and
as one who got hold of the hospital's normalisation too. Members are the hospital's training
images, the others its test images, of other patients.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config.schema import Config
from common.learning.evaluation import estimate_statistics, predict
from common.learning.local_site import LocalSite
from common.learning.loop import make_optimizer, train
from common.learning.objective import contrastive_term
from common.learning.schedule import make_plan
from common.models.network import Network, build_network
from common.models.sharing import pack, unpack
from common.randomness import numpy_generator
from common.runs.weights import load_run_network, load_shared
from simulations.evidence.attacks.scores import Scored

Scores = NDArray[np.float64]


class Target(LocalSite):
    """The hospital whose images are asked about.

    The images of its training part are the members, those of its test part the others.
    """

    @property
    def candidates(self) -> NDArray[np.int64]:
        """The images that the attacker asks about, members and others mixed."""
        return np.sort(np.concatenate([self.split.train, self.split.test]))

    def scored(self, scores: Scores) -> Scored:
        """Return scores of the candidates with the truth about them."""
        members = np.isin(self.candidates, self.split.train)
        patients = tuple(str(self.data.patients[index]) for index in self.candidates)
        return Scored(scores, members, patients)


def with_own_normalisation(run: Path, target: Target) -> Network:
    """Return the released network with the hospital's own normalisation."""
    return load_run_network(run, target.training.name)[0]


def without_normalisation(run: Path, target: Target, config: Config) -> Network:
    """Return the released network with a normalisation estimated on the candidates.

    Its affine parameters are the initial ones: nothing that is released tells the hospital's.
    """
    network = build_network(config, [target.training.name])
    load_shared(run / "shared.safetensors", network)
    return _estimated(network, target, config)


def with_anothers_normalisation(run: Path, other: str, target: Target, config: Config) -> Network:
    """Return the network as another hospital of the run has it, estimated on the candidates."""
    network = load_run_network(run, other)[0]
    return _estimated(
        network, replace(target, training=replace(target.training, name=other)), config
    )


def _estimated(network: Network, target: Target, config: Config) -> Network:
    estimate_statistics(
        network, replace(target.training, train=target.candidates), config, target.device
    )
    return network


def confidence(network: Network, target: Target, config: Config) -> Scores:
    """Return the log odds of the true class of every candidate.

    Parameters
    ----------
    network : Network
        It knows one site, whatever its name.
    target : Target
        Whose images.
    config : Config
        Image size.
    """
    site = replace(target.training, name=network.sites[0])
    probabilities, _ = predict(network, site, target.candidates, config, target.device)
    labels = target.data.labels[target.candidates]
    rows = np.arange(len(labels))
    true = probabilities[rows, labels]
    others = probabilities.copy()
    others[rows, labels] = 0.0
    smallest = np.finfo(np.float64).tiny
    return np.asarray(
        np.log(np.maximum(true, smallest)) - np.log(np.maximum(others.sum(axis=1), smallest))
    )


def threshold_attack(confidences: Scores, target: Target) -> Scores:
    """Return scores for one threshold a class: confidences by the class's median and spread.

    The attacker takes both from the candidates; it need not know which of them are members.
    """
    labels = target.data.labels[target.candidates]
    scores = np.empty_like(confidences)
    for label in np.unique(labels):
        own = confidences[labels == label]
        low, middle, high = np.quantile(own, [0.25, 0.5, 0.75])
        scores[labels == label] = (own - middle) / max(high - low, 1e-12)
    return scores


@dataclass(frozen=True)
class Shadows:
    """Networks of the attacker's own, each trained on half of the candidates' patients.

    Attributes
    ----------
    trained_on : ndarray of bool, shape (shadows, candidates)
        Which candidates each was trained on.
    confidences : mapping of str to ndarray of float64, shape (shadows, candidates)
        What each says of every candidate, by what it is normalised with.
    """

    trained_on: NDArray[np.bool_]
    confidences: Mapping[str, Scores]


def train_shadows(
    target: Target, config: Config, count: int, progress: Callable[[int, int], None]
) -> Shadows:
    """Train shadow networks at one site, with the run's steps, schedule and augmentation.

    Parameters
    ----------
    target : Target
        Whose candidates are known.
    config : Config
        The run's, which no coordinator keeps secret.
    count : int
        Number of shadows, even: a patient is in the training of half of them.
    progress : callable
        Told (done, count).
    """
    half = _halves(target, count, config.seed)
    told: dict[str, list[Scores]] = {"own": [], "estimated": []}
    for number, chosen in enumerate(half):
        site = replace(target.training, train=target.candidates[chosen])
        network = build_network(config, [site.name])
        steps = make_plan(config, [len(target.split.train)]).total_steps
        optimizer = make_optimizer(network, config)
        terms = [contrastive_term(config, steps)]
        train(network, optimizer, [site], config, target.device, range(steps), steps, terms)
        estimate_statistics(network, site, config, target.device)
        told["own"].append(confidence(network, target, config))
        bare = build_network(config, [site.name])
        unpack(bare, pack(network))
        told["estimated"].append(confidence(_estimated(bare, target, config), target, config))
        progress(number + 1, count)
    return Shadows(half, {view: np.stack(rows) for view, rows in told.items()})


def _halves(target: Target, count: int, seed: int) -> NDArray[np.bool_]:
    """Return which candidates each shadow is trained on; a pair of shadows shares the patients."""
    generator = numpy_generator(seed, "attack", "shadows")
    patients = np.array([str(target.data.patients[index]) for index in target.candidates])
    names = np.unique(patients)
    rows = []
    for _ in range(count // 2):
        first = np.isin(patients, generator.permutation(names)[: len(names) // 2])
        rows += [first, ~first]
    return np.stack(rows)


def likelihood_attack(confidences: Scores, shadows: Shadows, view: str) -> Scores:
    """Return log likelihood ratios: trained on the image or not, by what the shadows say of it.

    Carlini et al., *Membership Inference Attacks From First Principles* (S&P 2022), with the one
    variance for all images that they advise where shadows are few.
    """
    said, inside = shadows.confidences[view], shadows.trained_on
    within = np.where(inside, said, np.nan)
    without = np.where(inside, np.nan, said)
    ratios = np.zeros_like(confidences)
    for rows, sign in ((within, 1.0), (without, -1.0)):
        centre = np.nanmean(rows, axis=0)
        spread = max(float(np.nanstd(rows - centre)), 1e-6)
        ratios += sign * (-0.5 * ((confidences - centre) / spread) ** 2 - np.log(spread))
    return ratios


def untrained_like(target: Target, config: Config) -> Network:
    """Return the network before any training, the control: it can know of no member."""
    return _estimated(build_network(config, [target.training.name]), target, config)


def settings(**values: Any) -> dict[str, Any]:
    """Return what the attacked runs have in common: as many members as others."""
    return {"folds": 2, "local_steps": 32, **values}
