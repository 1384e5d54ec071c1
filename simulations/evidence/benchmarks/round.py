"""What a federated round costs on this machine beyond its local training.

Two sites train a few rounds federated, through Flower and Ray as ``xsite train federated`` does;
then the same training runs without federation on the same threads, the sites at the same time or
in turns as federated training has them. Each figure is a median over the rounds but the first, in
which everything is cold. Nothing is extrapolated: a round has as many steps as is said, and what
does not depend on its steps (the exchange) or depends on the number of images (evaluation,
statistics, prototypes) is told apart.

    python -m simulations.evidence round --images 128,128 --rounds 4
"""

import math
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Annotated

import psutil
import typer
from rich.console import Console

from common.config.schema import Config
from common.console.progress import ProgressListener
from common.data.folds import split_site
from common.device import choose_device, limited_threads
from common.formatting.numbers import size as octets
from common.formatting.tables import plain_table, print_table
from common.learning.evaluation import estimate_statistics, evaluate_site, predict
from common.learning.local_site import LocalSite, open_site
from common.learning.loop import train
from common.learning.objective import contrastive_term
from common.learning.optimiser import make_optimizer
from common.models.network import build_network
from common.models.sharing import shared_layout
from server.metrics import read_rows
from server.run_folder import describe_environment
from server.schedule import steps_per_epoch
from simulations.evidence.benchmarks.two_sites import (
    SITES,
    looking,
    training_seconds,
    two_sites,
)
from simulations.federated import train_federated
from simulations.runtime.placement import place
from simulations.runtime.processes import memory_of


@dataclass
class FirstStep(ProgressListener):
    """Notes when the first step of training was done."""

    began: float = field(default_factory=time.monotonic)
    seconds: float = math.nan

    def step(self, done: int, loss: float, images_per_second: float) -> None:
        """Take the time of the first call."""
        if math.isnan(self.seconds):
            self.seconds = time.monotonic() - self.began


@contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """Watch the memory of this process and all that descends from it; yield what asks for its peak.

    It is the largest sum of proportional set sizes (PSS), in bytes, in which a page that processes
    share counts once.
    """
    root, seen = psutil.Process(), [0]

    def look() -> None:
        seen.append(memory_of([root, *root.children(recursive=True)]))

    with looking(look, seconds=1.0):
        yield lambda: max(seen)


def in_turns(config: Config) -> bool:
    """Say whether the sites train one after the other on this machine."""
    placed = place(config)
    return placed.cpus // placed.cpus_per_site < len(SITES)


def run_alone(config: Config, site: str, rounds: int) -> tuple[float, float]:
    """Train one site as its federated process does, without any exchange.

    Returns
    -------
    tuple of float
        Medians of the seconds of a round's training, and of what else a site does in a round.
    """
    with limited_threads(config):
        images = LocalSite.of(open_site(config, site), config)
        split, device = images.split, images.device
        network = build_network(config, [site]).to(device.device)
        optimizer = make_optimizer(network, config)
        steps = config.local_steps or steps_per_epoch([len(split.train)], config.batch_size)
        training, further = [], []
        for number in range(rounds):
            began = time.monotonic()
            estimate_statistics(network, images, config, device)
            evaluate_site(network, images, split, config, device)
            predict(network, images, split.train, config, device)
            further.append(time.monotonic() - began)
            these = range(number * steps, (number + 1) * steps)
            total = rounds * steps
            terms = [contrastive_term(config, total)]
            summary = train(network, optimizer, [images], config, device, these, total, terms)
            training.append(summary.seconds)
    return median(training[1:]), median(further[1:])


def run_both_alone(config: Config, rounds: int) -> list[tuple[float, float]]:
    """Train both sites, at the same time each in a process of its own, or in turns in one."""
    processes = 1 if in_turns(config) else len(SITES)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        # Half a minute of imports is over when they begin.
        for _ in pool.map(time.sleep, [2.0] * processes):
            pass
        return list(pool.map(run_alone, [config] * len(SITES), SITES, [rounds] * len(SITES)))


def main(
    images: Annotated[str, typer.Option(help="Images of the two sites.")] = "128,128",
    rounds: Annotated[int, typer.Option(min=2, help="Rounds; the first is left out.")] = 4,
    steps: Annotated[int, typer.Option(min=0, help="Steps of a round; 0: one epoch.")] = 0,
    size: Annotated[int, typer.Option(help="Height and width of an image.")] = 112,
    width: Annotated[float, typer.Option(help="Multiplier of every layer's width.")] = 1.0,
) -> None:
    """Measure and print."""
    counts = [int(count) for count in images.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        config = two_sites(Path(folder), counts, 256, image_size=size, width=width)
        trained = [len(split_site(open_site(config, name), config).train) for name in SITES]
        epoch = steps_per_epoch(trained, config.batch_size)
        config = config.changed(
            local_steps=steps or epoch,
            epochs=math.ceil(rounds * (steps or epoch) / epoch),
            threads=place(config).threads,
        )
        listener = FirstStep()
        with peak_memory() as together:
            run = train_federated(config, Path(folder) / "runs", listener)
        rows = [row for row in read_rows(run / "metrics.csv") if row.subset == "test"]
        training = list(zip(*(training_seconds(run / "sites" / s) for s in SITES), strict=True))
        with peak_memory() as apart:
            alone = run_both_alone(config, len(training))
    ends = [0.0, *sorted({row.seconds for row in rows})]
    last = [row for row in rows if row.round == rows[-1].round]
    turns = in_turns(config)
    combine = sum if turns else max
    whole = median([after - before for before, after in pairwise(ends)][1:])
    local = median([combine(seconds) for seconds in training][1:])
    without, further = (combine(seconds) for seconds in zip(*alone, strict=True))
    beyond = whole - local

    machine, network = describe_environment(), build_network(config, SITES)
    print(f"{machine['cpu']}, {machine['cores']} cores, {choose_device(config).describe()}")
    print(
        f"{network.description}, {config.image_size} px, {config.threads} "
        f"threads a site, {'in turns' if turns else 'at the same time'}; "
        f"{trained[0]} and {trained[1]} training images; rounds of "
        f"{config.local_steps} steps, {len(training) - 1} of them measured\n"
    )
    lines = [
        ("a round, from order to checkpoint", f"{whole:.2f} s"),
        (
            f"  local training in it, {'both sites' if turns else 'the slower site'}",
            f"{local:.2f} s",
        ),
        ("  beyond local training", f"{beyond:.2f} s, {beyond / whole:.1%} of the round"),
        ("    evaluation, statistics, prototypes (measured alone)", f"{further:.2f} s"),
        ("    exchange, averaging, files (the rest)", f"{beyond - further:.2f} s"),
        ("the same training without federation", f"{without:.2f} s"),
        ("  the federated round beside it", f"{whole / without - 1:+.1%}"),
        ("shared tensors", octets(4 * shared_layout(network).size)),
        ("bytes of a round, both sites", f"{octets(sum(row.bytes_down for row in last))} down"),
        ("", f"{octets(sum(row.bytes_up for row in last))} up"),
        ("peak memory of all processes, federated", octets(together())),
        ("  without federation", octets(apart())),
        ("from the call to the end of the first step", f"{listener.seconds:.1f} s"),
    ]
    print_table(Console(), plain_table("Medians of the rounds", ("", ""), lines))
