"""Membership inference: whether an image was in the training of a released network.

What a federation releases is ``shared.safetensors``. A hospital's own normalisation stays there; so
the attack is made as somebody who has the shared weights alone, as another hospital of the run, and
as one who got hold of the hospital's normalisation too. Members are the hospital's training
images, the others its test images, of other patients.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from common.config.schema import Config
from common.formatting.tables import Table, plain_table
from common.learning.evaluation import estimate_statistics, predict
from common.learning.local_site import LocalSite, open_site
from common.learning.loop import train
from common.learning.objective import contrastive_term
from common.learning.optimiser import make_optimizer
from common.models.network import Network, build_network
from common.models.sharing import load_shared, pack, unpack
from common.randomness import numpy_generator
from common.runs.result import read_result, read_run_config
from common.runs.weights import load_run_network
from server.schedule import make_plan
from simulations.report.numbers import percent

Scores = NDArray[np.float64]
LEVEL = 0.95
DRAWS = 500
FALSE_ALARMS = (0.01, 0.05)

OWN, ESTIMATED, ANOTHERS = "the hospital's own", "estimated", "another hospital's"
IN_THE_FILE = "in the file"


class Target(LocalSite):
    """The hospital whose images are asked about.

    The images of its training part are the members, those of its test part the others.
    """

    @property
    def candidates(self) -> NDArray[np.int64]:
        """The images that the attacker asks about, members and others mixed."""
        return np.sort(np.concatenate([self.split.train, self.split.test]))

    @property
    def members(self) -> NDArray[np.bool_]:
        """Which of the candidates were trained on."""
        return np.isin(self.candidates, self.split.train)

    @property
    def patients(self) -> NDArray[np.str_]:
        """Whose images the candidates are."""
        return np.array([str(self.data.patients[index]) for index in self.candidates])


def estimated(network: Network, target: Target, config: Config) -> Network:
    """Return a network with its normalisation estimated on the candidates."""
    site = replace(target, name=network.sites[0], train=target.candidates)
    estimate_statistics(network, site, config)
    return network


def networks(run: Path, target: Target, other: str) -> dict[str, Network]:
    """Return the released network as every attacker has it, by what it is normalised with.

    Who has the file alone takes the initial affine parameters: nothing that is released tells the
    hospital's.
    """
    own, config = load_run_network(run, target.name)
    if config.normalisation == "shared":
        return {IN_THE_FILE: own}
    bare = build_network(config, [target.name])
    load_shared(run / "shared.safetensors", bare)
    return {
        ESTIMATED: estimated(bare, target, config),
        ANOTHERS: estimated(load_run_network(run, other)[0], target, config),
        OWN: own,
    }


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
    site = replace(target, name=network.sites[0])
    probabilities, _ = predict(network, site, target.candidates, config)
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
    """Networks of the attacker's own, each trained on half of the candidates' patients."""

    trained_on: NDArray[np.bool_]
    """Shape (shadows, candidates). Which candidates each was trained on."""
    confidences: Mapping[str, Scores]
    """Shape (shadows, candidates). What each says of every candidate, by what it is normalised
    with."""


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
        Number of shadows, even: a pair of them shares the patients, half for each.
    progress : callable
        Told (done, count).
    """
    generator = numpy_generator(config.seed, "attack", "shadows")
    names = np.unique(target.patients)
    half: list[NDArray[np.bool_]] = []
    for _ in range(count // 2):
        first = np.isin(target.patients, generator.permutation(names)[: len(names) // 2])
        half += [first, ~first]
    told: dict[str, list[Scores]] = {OWN: [], ESTIMATED: []}
    for number, chosen in enumerate(half):
        site = replace(target, train=target.candidates[chosen])
        network = build_network(config, [site.name])
        steps = make_plan(config, [len(target.split.train)]).total_steps
        optimizer = make_optimizer(network, config)
        terms = [contrastive_term(config, steps)]
        train(network, optimizer, [site], config, range(steps), steps, terms)
        estimate_statistics(network, site, config)
        told[OWN].append(confidence(network, target, config))
        bare = build_network(config, [site.name])
        unpack(bare, pack(network))
        told[ESTIMATED].append(confidence(estimated(bare, target, config), target, config))
        progress(number + 1, count)
    return Shadows(np.stack(half), {view: np.stack(rows) for view, rows in told.items()})


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


def auc(members: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Return the chance that a member's score is above another's (a tie counts half)."""
    labels = np.repeat([1, 0], [len(members), len(others)])
    return float(roc_auc_score(labels, np.concatenate([members, others])))


def found_at(rate: float, members: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Return the share of members above a threshold that at most so many of the others exceed."""
    falling = np.sort(others)[::-1]
    threshold = falling[min(int(rate * len(others)), len(others) - 1)]
    return float((members > threshold).mean())


def success(
    scores: NDArray[np.float64],
    members: NDArray[np.bool_],
    patients: NDArray[np.str_],
    seed: int,
    draws: int = DRAWS,
) -> NDArray[np.float64]:
    """Return an attack's figures with bootstrap intervals.

    Parameters
    ----------
    scores : ndarray of float64, shape (n,)
        The higher, the more the attack takes the image for a member.
    members : ndarray of bool, shape (n,)
        Whether it was trained on.
    patients : ndarray of str, shape (n,)
        Whose image it is.
    seed : int
        Of the resampling.
    draws : int
        Resamples. Patients are resampled and not images: the slices of one are much alike.

    Returns
    -------
    ndarray of float64, shape (3, 3)
        The AUC (0.5: nothing), and the members found where 1 % or 5 % of the others are taken for
        members too; of each its value and the bounds of its 95 % interval.
    """

    def figures(found: NDArray[np.float64], others: NDArray[np.float64]) -> list[float]:
        return [auc(found, others), *(found_at(rate, found, others) for rate in FALSE_ALARMS)]

    generator = numpy_generator(seed, "attack", "bootstrap")
    sides = [
        [scores[side & (patients == name)] for name in np.unique(patients[side])]
        for side in (members, ~members)
    ]
    drawn = []
    for _ in range(draws):
        choices = [generator.integers(len(side), size=len(side)) for side in sides]
        pair = [
            np.concatenate([side[i] for i in chosen])
            for side, chosen in zip(sides, choices, strict=True)
        ]
        drawn.append(figures(*pair))
    bounds = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return np.column_stack([figures(scores[members], scores[~members]), *bounds])


def run_membership(
    released: Mapping[str, Path], shadows: int, progress: Callable[[int, int], None]
) -> Table:
    """Attack released networks.

    Parameters
    ----------
    released : mapping of str to Path
        How each was trained, and its run's folder. The first one is attacked with shadow networks
        too.
    shadows : int
        Number of shadows.
    progress : callable
        Told (done, total) shadows.
    """
    rows: list[tuple[str, ...]] = []
    best: dict[str, tuple[float, str]] = {}

    def add(title: str, known: str, attack: str, network_auc: str, scores: Scores) -> None:
        found = success(scores, target.members, target.patients, config.seed)
        figures = (f"{percent(v)} [{percent(low)}, {percent(high)}]" for v, low, high in found)
        rows.append((title, known, attack, network_auc, *figures))
        if network_auc:
            best[known] = max(best.get(known, (0.0, "")), (found[0, 0], title))

    first = next(iter(released.values()))
    config = read_run_config(first)
    victim, other = config.site_names[:2]
    target = Target.of(open_site(config, victim), config)
    trained = train_shadows(target, config, shadows, progress)
    for title, run in released.items():
        # What the network is good for.
        network_auc = percent(read_result(run)["metrics"][victim]["test"]["auc"])
        for known, network in networks(run, target, other).items():
            said = confidence(network, target, config)
            add(title, known, "threshold", network_auc, threshold_attack(said, target))
            if run == first and known in trained.confidences:
                scores = likelihood_attack(said, trained, known)
                add(title, known, "shadows", network_auc, scores)
    # Before any training a network can know of no member.
    untrained = estimated(build_network(config, [victim]), target, config)
    control = threshold_attack(confidence(untrained, target, config), target)
    add("untrained (control)", ESTIMATED, "threshold", "", control)
    highest = "; ".join(
        f"{percent(auc)} where it is {known} ({title})" for known, (auc, title) in best.items()
    )
    split = target.split
    return plain_table(
        f"Members ({len(split.train)} training images) against others ({len(split.test)} test "
        "images of other patients); in percent, with 95 % bootstrap intervals over patients.",
        (
            "Released after",
            "Normalisation",
            "Attack",
            "AUC of the network",
            "AUC of the attack",
            "Found at 1 %",
            "Found at 5 %",
        ),
        rows,
        [f"The highest AUC of any attack, by the normalisation: {highest}."],
    )
