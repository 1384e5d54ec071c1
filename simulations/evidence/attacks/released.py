"""Membership inference on released networks: several ways to train, to know and to ask."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config.schema import Config
from common.formatting.numbers import percent
from common.formatting.tables import plain_table
from common.models.network import Network
from common.runs.result import read_result
from simulations.evidence.attacks.findings import Findings
from simulations.evidence.attacks.membership import (
    Scores,
    Shadows,
    Target,
    confidence,
    likelihood_attack,
    settings,
    threshold_attack,
    train_shadows,
    untrained_like,
    with_anothers_normalisation,
    with_own_normalisation,
    without_normalisation,
)
from simulations.evidence.attacks.scores import IntervalEstimate, Success, success
from simulations.evidence.attacks.sizes import AttackSize
from simulations.evidence.federation import federate, small_config

OWN, ESTIMATED, ANOTHERS = "the hospital's own", "estimated", "another hospital's"
IN_THE_FILE = "in the file"


@dataclass(frozen=True)
class ReleasedWeights:
    """A network that was trained and released.

    Attributes
    ----------
    title : str
        How it was trained, for the table.
    config : Config
        Its configuration.
    run : Path
        Its run's folder.
    """

    title: str
    config: Config
    run: Path

    def auc(self, site: str) -> float:
        """Return its AUC on a hospital's test images: what it is good for."""
        return float(read_result(self.run)["metrics"][site]["test"]["auc"])


def ways_to_train(size: AttackSize) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return key → title and settings of what is released: defences off, and on."""
    many = f"{size.many} epochs"
    return {
        "many": (many, {"epochs": size.many}),
        "shared": (
            f"{many}, shared normalisation",
            {"epochs": size.many, "normalisation": "shared"},
        ),
        "decay": (f"{many}, weight decay 0.01", {"epochs": size.many, "weight_decay": 0.01}),
        "few": (f"{size.few} epochs", {"epochs": size.few}),
    }


def release_run(
    way: str,
    folder: Path,
    sites: Mapping[str, Path],
    size: AttackSize,
    seed: int,
    tell: Callable[[str], None],
) -> ReleasedWeights:
    """Train a network to be released.

    Parameters
    ----------
    way : str
        A key of :func:`ways_to_train`.
    folder : Path
        Of all files; a run that is complete there is not trained again.
    sites : mapping of str to Path
        The hospitals.
    size : AttackSize
        Epochs.
    seed : int
        Of the run.
    tell : callable
        Told what is being trained.
    """
    title, values = ways_to_train(size)[way]
    tell(f"federation to be released: {title}")
    config = small_config(folder, sites, seed, run_name=f"released-{way}", **settings(**values))
    run = federate(config)
    assert run is not None
    return ReleasedWeights(title, config, run)


def networks(made: ReleasedWeights, target: Target, other: str) -> dict[str, Network]:
    """Return the released network as every attacker has it, by what it is normalised with."""
    own = with_own_normalisation(made.run, target)
    if made.config.normalisation == "shared":
        return {IN_THE_FILE: own}
    return {
        ESTIMATED: without_normalisation(made.run, target, made.config),
        ANOTHERS: with_anothers_normalisation(made.run, other, target, made.config),
        OWN: own,
    }


def run_membership(
    made: list[ReleasedWeights], size: AttackSize, progress: Callable[[int, int], None]
) -> Findings:
    """Attack released networks.

    Parameters
    ----------
    made : list of ReleasedWeights
        The first one is attacked with shadow networks too.
    size : AttackSize
        Number of shadows.
    progress : callable
        Told (done, total) shadows.
    """
    config = made[0].config
    victim, other = config.site_names[:2]
    target = Target.open(config, victim)
    shadows = train_shadows(target, config, size.shadows, progress)
    rows: list[tuple[str, ...]] = []
    best: dict[str, tuple[float, str]] = {}
    for one in made:
        attacked = shadows if one is made[0] else None
        for known, network in networks(one, target, other).items():
            said = confidence(network, target, one.config)
            for attack, scores in _attacks(said, target, known, attacked):
                found = success(target.scored(scores), config.seed)
                about = (one.title, known, attack, percent(one.auc(victim)))
                rows.append((*about, *_figures(found)))
                best[known] = max(best.get(known, (0.0, "")), (found.auc.value, one.title))
    control = threshold_attack(confidence(untrained_like(target, config), target, config), target)
    figures = _figures(success(target.scored(control), config.seed))
    rows.append(("untrained (control)", ESTIMATED, "threshold", "", *figures))
    members, others = len(target.split.train), len(target.split.test)
    title = (
        f"Members ({members} training images) against others ({others} test images of other "
        "patients); in percent, with 95 % bootstrap intervals over patients. An AUC of 50 is "
        "chance; so is finding 1 % and 5 % of the members where as many of the others are "
        "mistaken for some."
    )
    return Findings(
        "Membership inference", _about(size), (plain_table(title, HEADINGS, rows),), _means(best)
    )


def _attacks(
    said: Scores, target: Target, known: str, shadows: Shadows | None
) -> list[tuple[str, Scores]]:
    views = {OWN: "own", ESTIMATED: "estimated"}
    told = [("threshold", threshold_attack(said, target))]
    if shadows is not None and known in views:
        told.append(("shadows", likelihood_attack(said, shadows, views[known])))
    return told


def _means(best: Mapping[str, tuple[float, str]]) -> tuple[str, ...]:
    told = (f"{percent(auc)} where it is {known} ({title})" for known, (auc, title) in best.items())
    return (
        f"The highest AUC of any attack, by the normalisation: {'; '.join(told)}. "
        "Where these are close, keeping the normalisation at the hospital hides little of who was "
        "in the training.",
    )


def _figures(found: Success) -> tuple[str, ...]:
    return tuple(_figure(one) for one in (found.auc, found.at_1, found.at_5))


def _figure(figure: IntervalEstimate) -> str:
    return f"{percent(figure.value)} [{percent(figure.low)}, {percent(figure.high)}]"


HEADINGS = (
    "Released after",
    "Normalisation",
    "Attack",
    "AUC of the network",
    "AUC of the attack",
    "Found at 1 %",
    "Found at 5 %",
)


def _about(size: AttackSize) -> tuple[str, ...]:
    return (
        "The attacker has `shared.safetensors`, an image and its label, and asks whether the image "
        "was in the training of one of the two hospitals. With private normalisation (`dsbn`), the "
        "released file lacks that hospital's batch normalisation. So the attacker estimates it on "
        "the images that it asks about; or is the other hospital and has its own; or has got hold "
        "of that hospital's. Under shared normalisation it is in the file.",
        "*Threshold*: the log odds of the true class, by each class's median and spread over the "
        f"images asked about. *Shadows*: {size.shadows} networks of the attacker's own, each "
        "trained on half of the patients asked about, with the run's length and settings; the "
        "score is the likelihood ratio of Carlini et al. (S&P 2022).",
    )
