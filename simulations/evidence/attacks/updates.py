"""What the coordinator makes of one hospital's update: the images behind it, or not.

Small images and a small network, which favours the attacker. The site trains as a site does: with
its own normalisation, on batches that are normalised by themselves.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.config.schema import Config
from common.formatting.tables import Table, plain_table
from common.learning.local_site import LocalSite, open_site
from common.learning.loop import train
from common.learning.optimiser import make_optimizer
from common.models.network import Network
from common.models.sharing import pack, unpack
from common.randomness import numpy_generator
from simulations.evidence.attacks.inversion import (
    draw,
    gradient,
    invert,
    load_images,
    matched,
    psnr,
    shared_parameters,
    small_network,
)
from simulations.evidence.federation import small_config
from simulations.report.numbers import decimal

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
    """One way to make an update and to attack it."""

    title: str
    """For the table."""
    images: int
    """In the batch that the attacker seeks."""
    optimizer: Literal["sgd", "adam"]
    """The site's."""
    knowledge: Knowledge
    """Normalisation: nobody has trained yet, so that it is the one that everybody starts from;
    trained, and the attacker has it; trained, and the attacker takes the initial one."""
    whole_round: bool = False
    """Sixteen steps of sixteen augmented images each, and not one step."""


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
    """A hospital that trains the small network: before any training, and after some."""

    config: Config
    site: LocalSite
    fresh: Network
    warm: Network

    def images(self, indices: NDArray[np.int64]) -> Tensor:
        """Return some of its images."""
        return load_images(self.site.data, indices, SIZE)


class Attempt(NamedTuple):
    """What was sought and found: images (n, 1, size, size), and the means of their PSNR.

    ``quality`` is that of what was found, of the hospital's mean image, which is more than a
    coordinator has, and of the best of sixteen test images of other patients. The latter two are
    guesses of one who has no update.
    """

    true: Tensor
    found: Tensor
    quality: tuple[float, float, float]


def make_victim(folder: Path, name: str, images: Path, seed: int) -> Victim:
    """Let a hospital train the small network for a while."""
    config = small_config(
        folder, {name: images}, seed, image_size=SIZE, cache_size=0, alpha=0.0, folds=2
    )
    site = LocalSite.of(open_site(config, name), config)
    fresh = small_network(SIZE, len(site.data.classes), name, PROJECTION, seed)
    warm, steps = copy.deepcopy(fresh), WARM_STEPS
    optimizer = make_optimizer(warm, config)
    train(warm, optimizer, [site], config, range(steps), steps)
    return Victim(config, site, fresh, warm)


def update_of(
    victim: Victim, setting: Setting, network: Network, images: Tensor, labels: Tensor
) -> list[Tensor]:
    """Return how training moves the shared weights, before minus after.

    A whole round runs in the loop that sites run; one step is an optimizer's, on a given batch.
    """
    config, after = victim.config, copy.deepcopy(network).train()
    if setting.whole_round:
        config, site = config.changed(batch_size=ROUND_BATCH), victim.site
        steps = range(WARM_STEPS, WARM_STEPS + ROUND_STEPS)
        optimizer = make_optimizer(after, config)
        train(after, optimizer, [site], config, steps, 2 * steps.stop)
    else:
        rate = SGD_RATE if setting.optimizer == "sgd" else config.learning_rate
        config = config.changed(optimizer=setting.optimizer, learning_rate=rate)
        optimizer = make_optimizer(after, config)
        wanted = gradient(after, images, labels, graph=False)
        for parameter, value in zip(shared_parameters(after), wanted, strict=True):
            parameter.grad = value
        if config.clip_norm:
            torch.nn.utils.clip_grad_norm_(after.parameters(), config.clip_norm)
        optimizer.step()
    pairs = zip(shared_parameters(network), shared_parameters(after), strict=True)
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
    data, split = victim.site.data, victim.site.split
    generator = numpy_generator(victim.config.seed, "attack", "update", number)
    chosen = generator.permutation(split.train)[: setting.images]
    images, labels = victim.images(chosen), torch.from_numpy(data.labels[chosen])
    update = update_of(victim, setting, network, images, labels)
    # Who does not know a site's normalisation takes the one that everybody begins with.
    known = copy.deepcopy(victim.fresh if setting.knowledge == "unknown" else network).train()
    unpack(known, pack(network))
    found = invert(known, update, labels, SIZE, steps, number)
    everything = victim.images(split.train)
    average = everything.mean(dim=0, keepdim=True)
    generator = numpy_generator(victim.config.seed, "attack", "guesses")
    others = victim.images(generator.permutation(split.test)[:ROUND_BATCH])
    if setting.whole_round:
        # Any of the hospital's images may be behind it: the nearest one counts, and so it does of
        # guesses.
        pairs = psnr(found, everything)
        images, quality = everything[pairs.argmax(axis=1)], pairs.max(axis=1)
        blind = psnr(average, everything).max(), psnr(others, everything).max(axis=1).mean()
    else:
        places, quality = matched(found, images)
        found = found[torch.from_numpy(places)]
        blind = psnr(average, images).mean(), psnr(others, images).max(axis=0).mean()
    return Attempt(images, found, (float(quality.mean()), float(blind[0]), float(blind[1])))


def run_updates(
    victim: Victim,
    attempts: int,
    steps: int,
    picture: Path | None,
    progress: Callable[[int, int], None],
) -> Table:
    """Invert updates in every setting.

    Parameters
    ----------
    victim : Victim
        The hospital.
    attempts : int
        Batches sought in each, one where a batch is a round's.
    steps : int
        Steps of each search.
    picture : Path, optional
        Where to draw what was sought and found.
    progress : callable
        Told (done, total) attempts.
    """
    plan = [(s, n) for s in SETTINGS for n in range(1 if s.whole_round else attempts)]
    made: dict[Setting, list[Attempt]] = {setting: [] for setting in SETTINGS}
    for done, (setting, number) in enumerate(plan):
        made[setting].append(attempt(victim, setting, number, steps))
        progress(done + 1, len(plan))
    rows: list[tuple[str, ...]] = []
    drawn: list[tuple[str, Tensor]] = []
    for setting, tried in made.items():
        figures = map(mean, zip(*(one.quality for one in tried), strict=True))
        rows.append((setting.title, *map(decimal, figures)))
        # With the normalisation known, all looks as it does without.
        if setting.knowledge != "known":
            true, found, _ = zip(*tried, strict=True)
            drawn.append((f"{setting.title}: true", torch.cat(true)[:SHOWN]))
            drawn.append(("found", torch.cat(found)[:SHOWN]))
    if picture is not None:
        draw(picture, drawn)
    headings = ("The update", "Found", "The mean image", "Best of 16 others' images")
    return plain_table("PSNR in decibels with the images behind the update.", headings, rows)
