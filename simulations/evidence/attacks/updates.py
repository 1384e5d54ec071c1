"""What the coordinator makes of one hospital's update: the images behind it, or not.

Small images and a small network, which favours the attacker. The site trains as a site does: with
its own normalisation, on batches that are normalised by themselves.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.config.schema import Config
from common.data.cache import SiteData
from common.data.folds import Split
from common.device import choose_device
from common.formatting.numbers import decimal
from common.formatting.tables import plain_table
from common.learning.local_site import LocalSite, training_site
from common.learning.loop import train
from common.learning.optimiser import make_optimizer
from common.models.network import Network
from common.randomness import numpy_generator
from simulations.evidence.attacks.findings import Findings
from simulations.evidence.attacks.inversion import (
    forget_normalisation,
    gradient,
    invert,
    shared_parameters,
    small_network,
)
from simulations.evidence.attacks.pictures import draw, load_images, matched, psnr
from simulations.evidence.federation import small_config

SIZE = 32
PROJECTION = 8
WARM_STEPS = 100
"""Steps that the site has trained when its normalisation is no longer the initial one."""
ROUND_STEPS, ROUND_BATCH = 16, 16
SGD_RATE = 0.01
SHOWN = 6
"""Images in a row of the picture."""

Knowledge = Literal["initial", "known", "unknown"]


@dataclass(frozen=True)
class Setting:
    """One way to make an update and to attack it.

    Attributes
    ----------
    title : str
        For the table.
    images : int
        In the batch that the attacker seeks.
    optimizer : {"sgd", "adam"}
        The site's.
    knowledge : {"initial", "known", "unknown"}
        Normalisation: nobody has trained yet, so that it is the one that everybody starts from;
        trained, and the attacker has it; trained, and the attacker takes the initial one.
    whole_round : bool
        Sixteen steps of sixteen augmented images each, and not one step.
    """

    title: str
    images: int
    optimizer: Literal["sgd", "adam"]
    knowledge: Knowledge
    whole_round: bool = False


SETTINGS = (
    Setting("1 image, one SGD step, first round", 1, "sgd", "initial"),
    Setting("1 image, one SGD step, later, its normalisation known", 1, "sgd", "known"),
    Setting("1 image, one SGD step, later, unknown", 1, "sgd", "unknown"),
    Setting("1 image, one Adam step, later, unknown", 1, "adam", "unknown"),
    Setting("4 images, one SGD step, first round", 4, "sgd", "initial"),
    Setting("4 images, one SGD step, later, known", 4, "sgd", "known"),
    Setting("4 images, one SGD step, later, unknown", 4, "sgd", "unknown"),
    Setting("a round: 16 Adam steps of 16 images, known", 16, "adam", "known", True),
    Setting("a round: 16 Adam steps of 16 images, unknown", 16, "adam", "unknown", True),
)


@dataclass(frozen=True)
class Victim:
    """A hospital that trains the small network.

    Attributes
    ----------
    config : Config
        Its configuration.
    data : SiteData
        Its images.
    split : Split
        Which of them it trains on.
    fresh, warm : Network
        Before any training, and after some.
    """

    config: Config
    data: SiteData
    split: Split
    fresh: Network
    warm: Network

    def images(self, indices: NDArray[np.int64]) -> Tensor:
        """Return some of its images."""
        return load_images(self.data, indices, SIZE)


@dataclass(frozen=True)
class Attempt:
    """What was sought and found: images (n, 1, size, size); ``quality`` is each one's PSNR."""

    true: Tensor
    found: Tensor
    quality: NDArray[np.float64]


def make_victim(folder: Path, site: str, images: Path, seed: int) -> Victim:
    """Let a hospital train the small network for a while."""
    config = small_config(
        folder, {site: images}, seed, image_size=SIZE, cache_size=0, alpha=0.0, folds=2
    )
    local = LocalSite.open(config, site)
    fresh = small_network(SIZE, len(local.data.classes), site, PROJECTION, seed)
    warm, steps = copy.deepcopy(fresh), WARM_STEPS
    optimizer = make_optimizer(warm, config)
    train(warm, optimizer, [local.training], config, local.device, range(steps), steps)
    return Victim(config, local.data, local.split, fresh, warm)


def one_step(network: Network, images: Tensor, labels: Tensor, config: Config) -> list[Tensor]:
    """Return how one optimizer step on a batch moves the shared weights: before minus after."""
    site = network.sites[0]
    after = copy.deepcopy(network).train()
    optimizer = make_optimizer(after, config)
    wanted = gradient(after, site, images, labels, graph=False)
    optimizer.zero_grad()
    for parameter, value in zip(shared_parameters(after), wanted, strict=True):
        parameter.grad = value
    if config.clip_norm:
        torch.nn.utils.clip_grad_norm_(after.parameters(), config.clip_norm)
    optimizer.step()
    return _moved(network, after)


def one_round(victim: Victim, network: Network) -> list[Tensor]:
    """Return how a round of training moves the shared weights, by the loop that sites run."""
    config = victim.config.changed(batch_size=ROUND_BATCH)
    device = choose_device(config)
    after = copy.deepcopy(network)
    own = training_site(victim.data, victim.split, device)
    steps = range(WARM_STEPS, WARM_STEPS + ROUND_STEPS)
    train(after, make_optimizer(after, config), [own], config, device, steps, 2 * steps.stop)
    return _moved(network, after)


def _moved(before: Network, after: Network) -> list[Tensor]:
    pairs = zip(shared_parameters(before), shared_parameters(after), strict=True)
    return [(old - new).detach() for old, new in pairs]


def attempt(victim: Victim, setting: Setting, number: int, steps: int) -> Attempt:
    """Make an update and seek the images behind it.

    Parameters
    ----------
    victim : Victim
        The hospital.
    setting : Setting
        How.
    number : int
        Which attempt; each has images of its own.
    steps : int
        Steps of the search.
    """
    network = victim.fresh if setting.knowledge == "initial" else victim.warm
    generator = numpy_generator(victim.config.seed, "attack", "update", number)
    chosen = generator.permutation(victim.split.train)[: setting.images]
    images, labels = victim.images(chosen), torch.from_numpy(victim.data.labels[chosen])
    if setting.whole_round:
        update = one_round(victim, network)
    else:
        rate = SGD_RATE if setting.optimizer == "sgd" else victim.config.learning_rate
        values = {"optimizer": setting.optimizer, "learning_rate": rate}
        update = one_step(network, images, labels, victim.config.changed(**values))
    known = copy.deepcopy(network).train()
    if setting.knowledge == "unknown":
        forget_normalisation(known)
    site = victim.data.name
    found = invert(known, site, update, labels, SIZE, steps, number)
    if setting.whole_round:
        # Any of the hospital's images may be behind it: the nearest one counts.
        everything = victim.images(victim.split.train)
        pairs = psnr(found, everything)
        return Attempt(everything[pairs.argmax(axis=1)], found, pairs.max(axis=1))
    places, quality = matched(found, images)
    return Attempt(images, found[torch.from_numpy(places)], quality)


def guesses(victim: Victim, setting: Setting, true: Tensor) -> tuple[float, float]:
    """Return the PSNR of one who has no update: the mean image's, and another patient's image's.

    The mean image is the hospital's, which is more than a coordinator has. The other image is the
    best of sixteen of its test images; after a whole round, what is found counts by its nearest
    training image, and so does a guess.
    """
    average = victim.images(victim.split.train).mean(dim=0, keepdim=True)
    generator = numpy_generator(victim.config.seed, "attack", "guesses")
    others = victim.images(generator.permutation(victim.split.test)[:ROUND_BATCH])
    if setting.whole_round:
        everything = victim.images(victim.split.train)
        return float(psnr(average, everything).max()), float(
            psnr(others, everything).max(axis=1).mean()
        )
    return float(psnr(average, true).mean()), float(psnr(others, true).max(axis=0).mean())


def run_updates(
    victim: Victim,
    settings: Sequence[Setting],
    attempts: int,
    steps: int,
    picture: Path | None,
    progress: Callable[[int, int], None],
) -> Findings:
    """Invert updates in every setting.

    Parameters
    ----------
    victim : Victim
        The hospital.
    settings : sequence of Setting
        The table's rows.
    attempts : int
        Batches sought in each, one where a batch is a round's.
    steps : int
        Steps of each search.
    picture : Path, optional
        Where to draw what was sought and found.
    progress : callable
        Told (done, total) attempts.
    """
    plan = [(s, n) for s in settings for n in range(1 if s.whole_round else attempts)]
    made: dict[str, list[Attempt]] = {setting.title: [] for setting in settings}
    for done, (setting, number) in enumerate(plan):
        made[setting.title].append(attempt(victim, setting, number, steps))
        progress(done + 1, len(plan))
    rows = []
    for setting in settings:
        tried = made[setting.title]
        found = mean(float(one.quality.mean()) for one in tried)
        blind = [guesses(victim, setting, one.true) for one in tried]
        rows.append(
            (setting.title, decimal(found), *(decimal(mean(g)) for g in zip(*blind, strict=True)))
        )
    if picture is not None:
        # With the normalisation known, all looks as it does without.
        _draw(picture, {s.title: made[s.title] for s in settings if s.knowledge != "known"})
    headings = ("The update", "Found", "The mean image", "Best of 16 others' images")
    return Findings(
        "Gradient inversion",
        ABOUT,
        (plain_table("PSNR in decibels with the images behind the update.", headings, rows),),
        MEANS,
        picture=picture,
        caption="Synthetic images behind an update, and what was made of the update.",
    )


def _draw(path: Path, made: dict[str, list[Attempt]]) -> None:
    rows: list[tuple[str, Tensor]] = []
    for title, tried in made.items():
        rows.append((f"{title}: true", torch.cat([one.true for one in tried])[:SHOWN]))
        rows.append(("found", torch.cat([one.found for one in tried])[:SHOWN]))
    draw(path, rows)


ABOUT = (
    "The coordinator knows the shared weights before and after, so how one hospital's training "
    "moved them. It seeks images whose gradient points the same way (cosine distance and total "
    "variation, after Geiping et al., NeurIPS 2020), and is granted their labels. The network is "
    "small (two convolutions with normalisation, images of 32 × 32), the objective is cross "
    "entropy alone: both favour the attacker.",
    "A higher PSNR is more alike; a guess without any update is what it must be held against. One "
    "step of one image or four is not what a hospital sends, unless `local-steps = 1` and a batch "
    "is as small; a round is 16 steps of 16 augmented images, and there what is found counts by "
    "the nearest of all the hospital's training images, and so do the guesses.",
)
MEANS = (
    "Where what is found is less alike than the mean image or another patient's image, the "
    "attacker would have done better without the update. *Known* and *unknown* come to the same "
    "wherever a batch is normalised by itself, as in training: a hospital that keeps its "
    "normalisation hides nothing from this attack by that. What helps is what makes a round: more "
    "images in a batch, more steps, Adam, augmentation. It is no proof: outlines of the body are "
    "in the picture where the figures are below a guess, and a better search may find more.",
)
