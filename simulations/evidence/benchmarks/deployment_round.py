r"""What a round of a real deployment costs on this machine beyond its training.

Two sites with next to no training take part over TLS as ``xsite deploy up --local`` has it, with
the network at its full width. Each setting is deployed in turns with the others, and a figure is a
median over all of its rounds but each deployment's first. Seconds depend on what else the machine
does, processor time and what is written to the disk hardly: all are told.

    python -m simulations.evidence deployment-round \
        --setting codec=none --setting codec=half-deltas,optimizer-state=reset

A setting is keys of the configuration with their values; ``database=memory`` in it keeps what the
SuperLink has in its memory, ``database=`` and a path in this file.
"""

import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Annotated

import psutil
import typer
from rich.console import Console

from clients.egress.ledger import entries
from clients.flower_host.prefork import CLIENT, STANDBY
from common.config.schema import Config
from common.console.progress import SilentListener
from common.formatting.numbers import duration, size
from common.formatting.tables import plain_table, print_table
from common.models.network import build_network
from common.models.sharing import shared_layout
from server.environment import describe_environment
from simulations.evidence.benchmarks.round import TRAINED
from simulations.evidence.benchmarks.two_sites import SITES, looking, one_step_rounds
from simulations.federated import train_federated
from simulations.rehearsal import DEPLOYMENT, own_folder
from simulations.runtime.flower_inside import FLWR_IN_MEMORY_DB_NAME
from simulations.runtime.processes import program_line

SAMPLE_SECONDS = 0.2
STARTER = "flower-superexec"
ROLES = ("flower-superlink", "flower-supernode", CLIENT, STANDBY, "flwr-serverapp", STARTER)


@dataclass(frozen=True)
class Round:
    """Seconds of a round and of its parts.

    Attributes
    ----------
    whole, training : float
        From the end of the round before to its own; of that the slower site's training.
    out : float
        Until both sites' processes have started.
    at_site : float
        From then until both replies are in the ledgers, training included.
    back : float
        From then until the server's checkpoint is written.
    """

    whole: float
    training: float
    out: float
    at_site: float
    back: float


@dataclass(frozen=True)
class Deployed:
    """What a deployment came to.

    ``processor``, ``written``: seconds, and bytes, of a round by role; ``sent``: bytes that went
    up and down.
    """

    rounds: list[Round]
    processor: dict[str, float]
    written: dict[str, float]
    sent: dict[str, int]


@dataclass
class Watch:
    """What is seen of a deployment's processes, and of the server's checkpoints.

    Attributes
    ----------
    started : list of float
        When each process of a site began.
    spent : dict of (str, int) to (float, float)
        Processor seconds, and bytes written to the disk, of every process by role and number.
    checkpoints : dict of int to float
        When each round's was written.
    """

    run: Path
    started: dict[int, float] = field(default_factory=dict)
    spent: dict[tuple[str, int], tuple[float, float]] = field(default_factory=dict)
    checkpoints: dict[int, float] = field(default_factory=dict)

    def look(self) -> None:
        """See what is there now."""
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                self._see(process)
        for path in (self.run / "checkpoint").glob("round-*.safetensors"):
            with suppress(OSError):
                self.checkpoints[int(path.stem[6:])] = path.stat().st_mtime

    def _see(self, process: psutil.Process) -> None:
        words = program_line(process)
        role = next((role for role in ROLES if role in words), "")
        if role:
            spent, written = process.cpu_times(), process.io_counters().write_bytes
            if role == STARTER:
                # It writes nothing; Linux counts as its own what its ended children wrote.
                written = 0
            self.spent[role, process.pid] = (spent.user + spent.system, written)
            if role == CLIENT:
                self.started[process.pid] = process.create_time()


def deploy(config: Config, base: Path) -> Deployed:
    """Deploy once."""
    run = base / config.run_name
    watch = Watch(run)
    with looking(watch.look, SAMPLE_SECONDS):
        train_federated(config, base, SilentListener(), backend=DEPLOYMENT)
    rounds = sorted(watch.checkpoints)
    released = [_released(run, site) for site in SITES]
    logs = [(own_folder(run, site) / "log.txt").read_text() for site in SITES]
    trained = [[float(seconds) for seconds in TRAINED.findall(log)] for log in logs]
    found = []
    for before, number in pairwise(rounds):
        began, ended = watch.checkpoints[before], watch.checkpoints[number]
        started = max(at for at in watch.started.values() if began < at < ended)
        entered = max(own[number] for own in released)
        found.append(
            Round(
                ended - began,
                max(own[number - 1] for own in trained),
                started - began,
                entered - started,
                ended - entered,
            )
        )
    processor: dict[str, float] = defaultdict(float)
    written: dict[str, float] = defaultdict(float)
    for (role, _), (seconds, count) in watch.spent.items():
        # Of the whole run: join request, every round, one evaluation.
        processor[role] += seconds / len(rounds)
        written[role] += count / len(rounds)
    return Deployed(
        found, processor, written, json.loads((run / "result.json").read_text())["bytes"]
    )


def _released(run: Path, site: str) -> dict[int, float]:
    """Return when the reply to each round was entered in a site's ledger."""
    ledger = own_folder(run, site).parents[2] / "ledger"
    return {
        entry.round: datetime.fromisoformat(entry.time).timestamp()
        for entry in entries(ledger)
        if entry.message == "training"
    }


def main(
    setting: Annotated[list[str], typer.Option(help="Keys and values; may be repeated.")] = [  # noqa: B006
        "codec=none",
        "codec=half-deltas",
    ],
    rounds: Annotated[int, typer.Option(min=2, help="Rounds; the first is left out.")] = 6,
    repeats: Annotated[int, typer.Option(min=1, help="Deployments of each setting.")] = 1,
    size: Annotated[int, typer.Option(help="Height and width of an image.")] = 32,
    width: Annotated[float, typer.Option(help="Multiplier of every layer's width.")] = 1.0,
) -> None:
    """Measure and print."""
    measured: list[list[Deployed]] = [[] for _ in setting]
    loads = []
    with tempfile.TemporaryDirectory(prefix="xsite-") as folder:
        config = one_step_rounds(Path(folder), rounds, image_size=size, width=width, epochs=1)
        for number in range(repeats):
            for index, text in enumerate(setting):
                values = dict(part.split("=", 1) for part in text.split(","))
                with _database(values.pop("database", "")):
                    named = {"run_name": f"setting-{index}-{number}"}
                    run = config.changed(
                        **{k.replace("-", "_"): v for k, v in values.items()}, **named
                    )
                    measured[index].append(deploy(run, Path(folder) / "runs"))
                loads.append(os.getloadavg()[0])
    _tell(config, setting, measured, loads)


@contextmanager
def _database(where: str) -> Iterator[None]:
    """Have the SuperLink of a block keep what it has in its folder, in its memory or in a file."""
    if where:
        os.environ["XSITE_DATABASE"] = FLWR_IN_MEMORY_DB_NAME if where == "memory" else where
    try:
        yield
    finally:
        os.environ.pop("XSITE_DATABASE", None)


def _tell(
    config: Config,
    settings: Sequence[str],
    measured: Sequence[Sequence[Deployed]],
    loads: Sequence[float],
) -> None:
    machine = describe_environment()
    shared = shared_layout(build_network(config, SITES)).size
    rounds = [[one for deployed in own for one in deployed.rounds] for own in measured]
    print(
        f"{machine['cpu']}, {machine['cores']} cores; load average {min(loads):.1f} to "
        f"{max(loads):.1f}\n{shared:,} shared values ({size(4 * shared)}), two sites, "
        f"{len(rounds[0])} rounds of each setting\n"
    )
    letters = [chr(ord("A") + number) for number in range(len(settings))]
    for letter, text in zip(letters, settings, strict=True):
        print(f"{letter}: {text}")
    parts: list[tuple[str, Callable[[Round], float]]] = [
        ("a round", lambda r: r.whole),
        ("  beyond training", lambda r: r.whole - r.training),
        ("    order out, until processes run", lambda r: r.out),
        ("    at the sites", lambda r: r.at_site - r.training),
        ("    reply back, average, checkpoint", lambda r: r.back),
    ]
    lines = [
        (title, *(duration(median(part(one) for one in own)) for own in rounds))
        for title, part in parts
    ]
    processor = [[one.processor for one in own] for own in measured]
    lines += _by_role("processor time of a round", duration, processor)
    lines += _by_role("written to the disk", size, [[d.written for d in own] for own in measured])
    for way in ("up", "down"):
        sent = [size(median(one.sent[way] for one in own)) for own in measured]
        lines.append((f"bytes {way}, whole run", *sent))
    print_table(Console(), plain_table("Medians", ("", *letters), lines))


def _by_role(
    title: str, write: Callable[[float], str], spent: Sequence[Sequence[dict[str, float]]]
) -> list[tuple[str, ...]]:
    """Return what a round took of something, in all and by role, for each setting."""
    lines = [(title, *(write(median(sum(one.values()) for one in own)) for own in spent))]
    for role in ROLES:
        each = [write(median(one.get(role, 0.0) for one in own)) for own in spent]
        lines.append((f"  {role}", *each))
    return lines
