r"""What a round costs on this machine beyond its training: of a simulation, and of a deployment.

*A simulation.* Two sites train a few rounds federated, through Flower and Ray as ``xsite train
federated`` does; then the same training runs without federation on the same threads, the sites at
the same time or in turns as federated training has them. Each figure is a median over the rounds
but the first, in which everything is cold. Nothing is extrapolated: a round has as many steps as is
said, and what does not depend on its steps (the exchange) or depends on the number of images
(evaluation, statistics, prototypes) is told apart.

    python -m simulations.evidence round --images 128,128 --rounds 4

*A deployment.* Two sites with next to no training take part over TLS as ``xsite deploy up --local``
has it, with the network at its full width. Each setting is deployed in turns with the others, and a
figure is a median over all of its rounds but each deployment's first. Seconds depend on what else
the machine does, processor time and what is written to the disk hardly: all are told.

    python -m simulations.evidence deployment-round \
        --setting codec=none --setting codec=half-deltas,optimizer-state=reset

A setting is keys of the configuration with their values; ``database=memory`` in it keeps what the
SuperLink has in its memory, ``database=`` and a path in this file.
"""

import math
import multiprocessing
import os
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise, product
from pathlib import Path
from statistics import median
from typing import Annotated
from unittest.mock import patch

import psutil
import typer
from rich.console import Console

from clients.egress.ledger import entries
from clients.flower_host.prefork import CLIENT, STANDBY
from common.config.schema import Config
from common.console.progress import ProgressListener
from common.data.folds import split_site
from common.device import choose_device, limited_threads
from common.formatting.numbers import duration
from common.formatting.numbers import size as octets
from common.formatting.tables import plain_table, print_table
from common.learning.evaluation import estimate_statistics, evaluate_site, predict
from common.learning.local_site import LocalSite, open_site
from common.learning.loop import train
from common.learning.objective import contrastive_term
from common.learning.optimiser import make_optimizer
from common.models.network import build_network
from common.models.sharing import shared_layout
from common.runs.result import read_result
from server.metrics import read_rows
from server.run_folder import describe_environment
from server.schedule import steps_per_epoch
from simulations.evidence.benchmarks.two_sites import SITES, looking, one_step_rounds, two_sites
from simulations.federated import train_federated
from simulations.rehearsal import DEPLOYMENT, own_folder
from simulations.runtime.flower_inside import FLWR_IN_MEMORY_DB_NAME
from simulations.runtime.placement import place
from simulations.runtime.processes import memory_of, program_line


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
            estimate_statistics(network, images, config)
            evaluate_site(network, images, config)
            predict(network, images, split.train, config)
            further.append(time.monotonic() - began)
            these = range(number * steps, (number + 1) * steps)
            total = rounds * steps
            terms = [contrastive_term(config, total)]
            summary = train(network, optimizer, [images], config, these, total, terms)
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


def simulated(
    images: Annotated[str, typer.Option(help="Images of the two sites.")] = "128,128",
    rounds: Annotated[int, typer.Option(min=2, help="Rounds; the first is left out.")] = 4,
    steps: Annotated[int, typer.Option(min=0, help="Steps of a round; 0: one epoch.")] = 0,
    size: Annotated[int, typer.Option(help="Height and width of an image.")] = 112,
    width: Annotated[float, typer.Option(help="Multiplier of every layer's width.")] = 1.0,
) -> None:
    """Measure rounds of a simulation, and print what they cost beyond training."""
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


def training_seconds(site: Path) -> list[float]:
    """Return how long each round's training took, from the log in a site's own folder."""
    log = (site / "log.txt").read_text(encoding="utf-8")
    return [float(seconds) for seconds in re.findall(r"round \d+: \d+ steps in ([\d.]+) s", log)]


SAMPLE_SECONDS = 0.2
STARTER = "flower-superexec"
ROLES = ("flower-superlink", "flower-supernode", CLIENT, STANDBY, "flwr-serverapp", STARTER)


Figures = dict[str, list[float]]
"""By its name in the table, a figure of every round or of the run."""


@dataclass
class Watch:
    """What is seen of a deployment's processes, and of the server's checkpoints."""

    run: Path
    started: dict[int, float] = field(default_factory=dict)
    """When each process of a site began, by number."""
    spent: dict[tuple[str, int], tuple[float, float]] = field(default_factory=dict)
    """Processor seconds, and bytes written to the disk, of every process by role and number."""
    checkpoints: dict[int, float] = field(default_factory=dict)
    """When each round's was written."""

    def look(self) -> None:
        """See what is there now."""
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                words = program_line(process)
                for role in [role for role in ROLES if role in words][:1]:
                    spent, written = process.cpu_times(), process.io_counters().write_bytes
                    # The starter writes nothing; Linux counts as its own what its ended children
                    # wrote.
                    written = 0 if role == STARTER else written
                    self.spent[role, process.pid] = (spent.user + spent.system, written)
                    if role == CLIENT:
                        self.started[process.pid] = process.create_time()
        for path in (self.run / "checkpoint").glob("round-*.safetensors"):
            with suppress(OSError):
                self.checkpoints[int(path.stem[6:])] = path.stat().st_mtime


def deploy(config: Config, base: Path) -> tuple[Figures, Figures]:
    """Deploy once, and return seconds of a round and of its parts, and sizes in bytes."""
    run = base / config.run_name
    watch = Watch(run)
    with looking(watch.look, SAMPLE_SECONDS):
        train_federated(config, base, ProgressListener(), backend=DEPLOYMENT)
    numbers = sorted(watch.checkpoints)
    released = [_released(run, site) for site in SITES]
    trained = [training_seconds(own_folder(run, site)) for site in SITES]
    seconds, sizes = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for before, number in pairwise(numbers):
        began, ended = watch.checkpoints[before], watch.checkpoints[number]
        # When both sites' processes have started, and both replies are in the ledgers.
        started = max(at for at in watch.started.values() if began < at < ended)
        entered = max(own[number] for own in released)
        training = max(own[number - 1] for own in trained)
        seconds["a round"].append(ended - began)
        seconds["  beyond training"].append(ended - began - training)
        seconds["    order out, until processes run"].append(started - began)
        seconds["    at the sites"].append(entered - started - training)
        seconds["    reply back, average, checkpoint"].append(ended - entered)
    titles = "processor time of a round", "written to the disk"
    for index, figures in enumerate((seconds, sizes)):
        by_role = dict.fromkeys(ROLES, 0.0)
        for (role, _), spent in watch.spent.items():
            # Of the whole run: join request, every round, one evaluation.
            by_role[role] += spent[index] / len(numbers)
        figures[titles[index]] = [sum(by_role.values())]
        figures |= {f"  {role}": [value] for role, value in by_role.items()}
    sent = read_result(run)["bytes"]
    sizes |= {f"bytes {way}, whole run": [sent[way]] for way in ("up", "down")}
    return seconds, sizes


def _released(run: Path, site: str) -> dict[int, float]:
    """Return when the reply to each round was entered in a site's ledger."""
    ledger = own_folder(run, site).parents[2] / "ledger"
    return {
        entry.round: datetime.fromisoformat(entry.time).timestamp()
        for entry in entries(ledger)
        if entry.message == "training"
    }


def deployed(
    setting: Annotated[list[str], typer.Option(help="Keys and values; may be repeated.")] = [  # noqa: B006
        "codec=none",
        "codec=half-deltas",
    ],
    rounds: Annotated[int, typer.Option(min=2, help="Rounds; the first is left out.")] = 6,
    repeats: Annotated[int, typer.Option(min=1, help="Deployments of each setting.")] = 1,
    size: Annotated[int, typer.Option(help="Height and width of an image.")] = 32,
    width: Annotated[float, typer.Option(help="Multiplier of every layer's width.")] = 1.0,
) -> None:
    """Measure rounds of deployments on this machine, and print what they cost."""
    measured: list[list[tuple[Figures, Figures]]] = [[] for _ in setting]
    loads = []
    with tempfile.TemporaryDirectory(prefix="xsite-") as folder:
        config = one_step_rounds(Path(folder), rounds, image_size=size, width=width, epochs=1)
        for number, (index, text) in product(range(repeats), enumerate(setting)):
            parts = (part.split("=", 1) for part in text.split(","))
            values = {key.replace("-", "_"): value for key, value in parts}
            database = values.pop("database", "")
            # Where the SuperLink keeps what it has: its folder, its memory or a file.
            where = FLWR_IN_MEMORY_DB_NAME if database == "memory" else database
            run = config.changed(**values, run_name=f"setting-{index}-{number}")
            with patch.dict(os.environ, {"XSITE_DATABASE": where} if where else {}):
                measured[index].append(deploy(run, Path(folder) / "runs"))
            loads.append(os.getloadavg()[0])
    machine = describe_environment()
    shared = shared_layout(build_network(config, SITES)).size
    print(
        f"{machine['cpu']}, {machine['cores']} cores; load average {min(loads):.1f} to "
        f"{max(loads):.1f}\n{shared:,} shared values ({octets(4 * shared)}), two sites, "
        f"{sum(len(seconds['a round']) for seconds, _ in measured[0])} rounds of each setting\n"
    )
    letters = [chr(ord("A") + number) for number in range(len(setting))]
    for letter, text in zip(letters, setting, strict=True):
        print(f"{letter}: {text}")
    writers: Sequence[Callable[[float], str]] = (duration, octets)
    lines = [
        (title, *(write(median(v for one in own for v in one[kind][title])) for own in measured))
        for kind, write in enumerate(writers)
        for title in measured[0][0][kind]
    ]
    print_table(Console(), plain_table("Medians", ("", *letters), lines))
