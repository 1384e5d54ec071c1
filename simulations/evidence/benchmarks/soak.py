"""Whether a long run keeps to its memory, its files, its processes and its disk.

Two sites with a tiny network train for many rounds; after every round the processes and folders
are looked at. What the early rounds took is held against what the last ones take, figure by
figure. Some files grow by design: these have an allowance a round, with its reason. The exit
status is 1 if anything else grew.

    python -m simulations.evidence soak --backend deployment --rounds 200
"""

import os
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression, median
from typing import Annotated
from unittest.mock import patch

import psutil
import typer
from rich.console import Console

from common.console.progress import ProgressListener
from common.formatting.tables import plain_table, print_table
from simulations.evidence.benchmarks.two_sites import SITES, looking, one_step_rounds
from simulations.federated import SIMULATION, train_federated
from simulations.rehearsal import DEPLOYMENT
from simulations.runtime.processes import program_line

LOOK_SECONDS = 0.5
ROUND = re.compile(r"round (\d+)/\d+: ")
MB = 1e6
# A new process for every message is Flower's way, and Ray's workers come and go.
PASSING = ("flwr-clientapp", "ray::IDLE")
PROGRAMS = (
    *("flower-superlink", "flower-supernode", "flower-superexec", "flwr-serverapp"),
    *("flwr-clientapp", "xsite-standby", "flwr-simulation", "raylet", "gcs_server", "ray::"),
)


@dataclass(frozen=True)
class Allowance:
    """How far a figure may grow: at all, and for each round; and why that is right."""

    noise: float
    a_round: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Verdict:
    """A figure's medians over early and late rounds, its slope a round, and what follows."""

    early: float
    late: float
    slope: float
    fine: bool
    said: str


@dataclass
class Soak:
    """What is seen after every round: round → figure → value.

    ``folders``: name → folder whose bytes are counted, or a pattern of files in one.
    """

    run: Path
    folders: Mapping[str, tuple[Path, str]]
    seen: dict[int, dict[str, float]] = field(default_factory=dict)

    def look(self) -> None:
        """Look if a round has ended since."""
        log = self.run / "log.txt"
        rounds = ROUND.findall(log.read_text(encoding="utf-8")) if log.exists() else []
        if rounds and int(rounds[-1]) > max(self.seen, default=0):
            self.seen[int(rounds[-1])] = processes() | {
                f"disk, {name} (MB)": size_of(folder, pattern) / MB
                for name, (folder, pattern) in self.folders.items()
            }


def processes() -> dict[str, float]:
    """Return memory and open files of every role, and the number of lasting processes."""
    found = defaultdict[str, float](float, {"processes, lasting": 0, "processes, zombies": 0})
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            role = role_of(process)
            if process.status() == psutil.STATUS_ZOMBIE:
                found["processes, zombies"] += 1
            elif not role.startswith(PASSING):
                # Unique set size: what would be free if this process ended.
                found[f"memory, {role} (MB)"] += process.memory_full_info().uss / MB
                found[f"open files, {role}"] += process.num_fds()
                found["processes, lasting"] += 1
    return found


def role_of(process: psutil.Process) -> str:
    """Return what a process is for: its program, and a site's name if it is a node's."""
    line, words = " ".join(process.cmdline()), program_line(process)
    program = next((name for name in PROGRAMS if name in words), "others")
    site = re.search(r'site="([^"]+)"', line)
    if program == "ray::":
        return "ray::IDLE" if "IDLE" in line else "ray workers"
    return f"{program} of {site.group(1)}" if site else program


def size_of(folder: Path, pattern: str = "**/*") -> int:
    """Return the bytes of the files below a folder that fit a pattern."""
    total = 0
    for path in folder.glob(pattern):
        with suppress(OSError):
            total += path.lstat().st_size if path.is_file() and not path.is_symlink() else 0
    return total


# Of the first that is in a figure's name.
ALLOWANCES = (
    # A deployment's sites have a process for each message; a simulation's live on.
    (
        "memory, ray workers",
        Allowance(16.0, 0.15, "seen and not explained; a deployment has none of them"),
    ),
    ("memory, ", Allowance(16.0)),
    # A round's connections are open for a while after it.
    ("open files, ", Allowance(6.0)),
    ("processes, ", Allowance(1.0)),
    ("ledger", Allowance(0.1, 0.2, "a line a message, kept for good; a new file every 16 MB")),
    ("superlink.db", Allowance(16.0, 0.02, "Flower keeps a row of each message and task")),
    ("run's", Allowance(1.0, 0.05, "figures and log lines of every round")),
    ("Flower's", Allowance(2.0, 0.02, "log lines of every round")),
    ("temporary", Allowance(2.0, 0.02, "log lines of every round")),
    ("", Allowance(1.0, 0.005, "a line of its log for every round")),
)


def judge_growth(values: Mapping[int, float], allowed: Allowance) -> Verdict:
    """Hold the last tenth of the rounds against the second one.

    Parameters
    ----------
    values : mapping of int to float
        Round → figure; a hundred rounds at best, ten at least.
    allowed : Allowance
        How far it may grow.
    """
    rounds = sorted(values)
    tenth = max(2, len(rounds) // 10)
    first, last = rounds[tenth : 2 * tenth], rounds[-tenth:]
    early, late = (median(values[number] for number in part) for part in (first, last))
    rest = rounds[tenth:]
    slope = linear_regression(rest, [values[number] for number in rest]).slope
    between = median(last) - median(first)
    if late - early <= allowed.noise:
        return Verdict(early, late, slope, True, "steady")
    fine = late - early <= allowed.noise + allowed.a_round * between
    return Verdict(early, late, slope, fine, allowed.reason if fine else "GROWS")


def places(folder: Path, backend: str, run: Path) -> dict[str, tuple[Path, str]]:
    """Return what is counted on disk."""
    found = {
        "run's folder": (run, "*"),
        "run's curves": (run / "tensorboard", "**/*"),
        "server's checkpoints": (run / "checkpoint", "**/*"),
        "temporary folders": (folder / "t", "**/*"),
        "shared memory": (Path("/dev/shm"), "**/*"),
        "decoded images": (folder / "cache", "**/*"),
    }
    hospitals = Path(f"{run}-hospitals")
    for site in SITES:
        state = hospitals / site if backend == "deployment" else run / "sites" / site
        own = state / run.name / "sites" / site if backend == "deployment" else state
        found[f"{site}'s own files"] = (own, "*")
        found[f"{site}'s private store"] = (own / "store", "**/*")
        found[f"{site}'s ledger"] = (state / "ledger", "**/*")
        if backend == "deployment":
            found[f"Flower's of {site}"] = (state / "flwr", "**/*")
    if backend == "deployment":
        found["superlink.db"] = (hospitals / "coordinator", "superlink.db*")
        found["Flower's of the coordinator"] = (hospitals / "coordinator" / "flwr", "**/*")
    return found


def main(
    backend: Annotated[str, typer.Option(help="'deployment' or 'simulation'.")] = "deployment",
    rounds: Annotated[int, typer.Option(min=10, help="How many rounds.")] = 200,
    width: Annotated[float, typer.Option(help="Multiplier of every layer's width.")] = 0.05,
) -> None:
    """Train, look, and say what grew."""
    if backend not in ("deployment", "simulation"):
        raise typer.BadParameter("expected 'deployment' or 'simulation'", param_hint="--backend")
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder, run = Path(name), Path(name) / "runs" / "soak"
        (folder / "t").mkdir()
        # An epoch has ten rounds: evaluation is part of what is looked at.
        config = one_step_rounds(
            folder, 10, image_size=32, width=width, epochs=max(1, rounds // 10), run_name=run.name
        )
        soak = Soak(run, places(folder, backend, run))
        on = DEPLOYMENT if backend == "deployment" else SIMULATION
        began = time.monotonic()
        # This process, and all that it starts, puts temporary files into a folder of its own.
        elsewhere = patch.dict(os.environ, TMPDIR=str(folder / "t"))
        with elsewhere, patch.object(tempfile, "tempdir", None), looking(soak.look, LOOK_SECONDS):
            train_federated(config, run.parent, ProgressListener(), backend=on)
    print(
        f"{backend}, {len(soak.seen)} of {rounds} rounds seen, {time.monotonic() - began:.0f} s\n"
    )
    if not tell(soak.seen):
        raise typer.Exit(1)


def tell(seen: Mapping[int, Mapping[str, float]]) -> bool:
    """Print a line for every figure; return whether nothing grew that may not."""
    figures = sorted({figure for values in seen.values() for figure in values})
    fine, lines = True, []
    for figure in figures:
        allowed = next(allowed for part, allowed in ALLOWANCES if part in figure)
        verdict = judge_growth({n: v.get(figure, 0.0) for n, v in seen.items()}, allowed)
        fine = fine and verdict.fine
        values = (f"{verdict.early:.2f}", f"{verdict.late:.2f}", f"{verdict.slope:+.4f}")
        lines.append((figure, *values, verdict.said))
    print_table(Console(), plain_table("", ("", "early", "late", "a round", ""), lines))
    print("\nNothing grew beyond its allowance." if fine else "\nSomething grew.")
    return fine
