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

import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
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
from common.formatting.numbers import duration
from common.formatting.numbers import size as octets
from common.formatting.tables import plain_table, print_table
from common.models.network import build_network
from common.models.sharing import shared_layout
from common.runs.result import read_result
from server.run_folder import describe_environment
from simulations.evidence.benchmarks.two_sites import (
    SITES,
    looking,
    one_step_rounds,
    training_seconds,
)
from simulations.federated import train_federated
from simulations.rehearsal import DEPLOYMENT, own_folder
from simulations.runtime.flower_inside import FLWR_IN_MEMORY_DB_NAME
from simulations.runtime.processes import program_line

SAMPLE_SECONDS = 0.2
STARTER = "flower-superexec"
ROLES = ("flower-superlink", "flower-supernode", CLIENT, STANDBY, "flwr-serverapp", STARTER)


Figures = dict[str, list[float]]
"""By its name in the table, a figure of every round or of the run."""


@dataclass
class Watch:
    """What is seen of a deployment's processes, and of the server's checkpoints.

    Attributes
    ----------
    started : dict of int to float
        When each process of a site began, by number.
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
    for place, figures in enumerate((seconds, sizes)):
        by_role = dict.fromkeys(ROLES, 0.0)
        for (role, _), spent in watch.spent.items():
            # Of the whole run: join request, every round, one evaluation.
            by_role[role] += spent[place] / len(numbers)
        figures[titles[place]] = [sum(by_role.values())]
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
    measured: list[list[tuple[Figures, Figures]]] = [[] for _ in setting]
    loads = []
    with tempfile.TemporaryDirectory(prefix="xsite-") as folder:
        config = one_step_rounds(Path(folder), rounds, image_size=size, width=width, epochs=1)
        for number, (index, text) in product(range(repeats), enumerate(setting)):
            parts = (part.split("=", 1) for part in text.split(","))
            values = {key.replace("-", "_"): value for key, value in parts}
            database = values.pop("database", "")
            # Where the SuperLink keeps what it has: its folder, its memory or a file.
            place = FLWR_IN_MEMORY_DB_NAME if database == "memory" else database
            run = config.changed(**values, run_name=f"setting-{index}-{number}")
            with patch.dict(os.environ, {"XSITE_DATABASE": place} if place else {}):
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
