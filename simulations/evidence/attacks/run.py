"""Attack oneself: run every attack, and write what it gets with the defences off and on.

python -m simulations.evidence attacks --output docs/attacks.md
"""

import platform
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from common.config.schema import Config
from common.console.progress import ProgressListener, StepCounter, make_listener
from common.console.tables import say
from common.device import limited_threads
from common.files import write_atomic
from common.formatting.numbers import duration
from common.formatting.tables import print_table
from common.runs.result import read_result
from simulations.evidence.attacks.findings import Findings, findings_page
from simulations.evidence.attacks.membership import Target, with_own_normalisation
from simulations.evidence.attacks.poisoning import findings as told_of_poisoning
from simulations.evidence.attacks.poisoning import kept, parse_names, run_poisoning
from simulations.evidence.attacks.prototypes import run_prototypes
from simulations.evidence.attacks.released import (
    ReleasedWeights,
    release_run,
    run_membership,
    ways_to_train,
)
from simulations.evidence.attacks.sizes import QUICK, AttackSize
from simulations.evidence.attacks.updates import SETTINGS, make_victim, run_updates
from simulations.evidence.federation import make_hospitals
from simulations.synth import hospital_names

ATTACKS = ("membership", "inversion", "poisoning")
SITES = hospital_names("2")
OVERFITTED = "many"


def attack(
    names: Sequence[str],
    folder: Path,
    size: AttackSize,
    seed: int,
    picture: Path | None,
    listener: ProgressListener,
) -> Iterator[Findings]:
    """Run attacks, and yield what each found as soon as it did.

    Parameters
    ----------
    names : sequence of str
        Of :data:`ATTACKS`.
    folder : Path
        For their files; federations that are complete there are not trained again.
    size : AttackSize
        How large they are.
    seed : int
        Of hospitals, training and attacks; poisoning has seeds of its own, from 0.
    picture : Path, optional
        Where to draw what gradient inversion finds.
    listener : ProgressListener
        Told of progress.
    """
    if {"membership", "inversion"} & set(names):
        sites = make_hospitals(folder, SITES, size.patients, seed, listener)
        wanted = list(ways_to_train(size)) if "membership" in names else [OVERFITTED]
        made = [release_run(way, folder, sites, size, seed, listener.message) for way in wanted]
        if "membership" in names:
            yield run_membership(made, size, StepCounter(listener, "shadow networks"))
        if "inversion" in names:
            victim = make_victim(folder, SITES[0], sites[SITES[0]], seed)
            counter = StepCounter(listener, "gradient inversion")
            yield run_updates(victim, SETTINGS, size.attempts, size.steps, picture, counter)
            yield _of_prototypes(made[0], size, listener)
    if "poisoning" in names:
        yield told_of_poisoning([run_poisoning(plan, folder, listener) for plan in size.poisoning])


def _of_prototypes(made: ReleasedWeights, size: AttackSize, listener: ProgressListener) -> Findings:
    target = Target.open(made.config, SITES[0])
    network = with_own_normalisation(made.run, target)
    progress = StepCounter(listener, "prototype inversion")
    table = run_prototypes(
        network, target, made.config, size.searches, size.prototype_steps, progress
    )
    return Findings("Prototypes", PROTOTYPES[:1], (table,), PROTOTYPES[1:])


PROTOTYPES = (
    "The attacker has a prototype, the released network, and here the hospital's own normalisation "
    "too, which favours it. It seeks an image whose projection is the prototype; or it has images "
    "and asks which of them are behind it. `min-prototype-images` and `prototype-noise` are the "
    "policy's defences; the last rows have all training images of a class behind a prototype.",
    "Whoever holds an image and the hospital's normalisation recognises it behind a prototype of "
    "few images: the fewer, the surer. That is what `min-prototype-images` is for.",
)


def opening(size: AttackSize, seconds: float, folder: Path) -> list[str]:
    """Return how the page came to be."""
    command = f"python -m simulations.evidence {shlex.join(sys.argv[1:])}"
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    runs = [read_result(run) for run in sorted((folder / "runs").iterdir())]
    trained = [float(run["seconds"]) for run in runs if run.get("status") == "completed"]
    return [
        "Attacks on federations of one's own, made of synthetic hospitals: what an attacker gets "
        "with the defences off and on. Synthetic images are more alike than patients', and the "
        "networks are small, so the figures rank attacks and defences and bound nothing.",
        f"Written by `{command}` on {when}, on one core of {platform.machine()}, in "
        f"{duration(seconds)}; the {len(trained)} federations, with those that were kept from "
        f"before, took {duration(sum(trained))}."
        + (" A quick run: its figures say nothing." if size == QUICK else ""),
    ]


def main(
    attacks: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(ATTACKS),
    output: Annotated[
        Path | None, typer.Option(help="Write a Markdown page here, a PNG beside it.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="Only see that everything runs.")] = False,
    seed: Annotated[int, typer.Option(help="Of membership inference and inversion.")] = 0,
    keep: Annotated[
        Path | None, typer.Option(help="Keep all files here; go on from those that are there.")
    ] = None,
) -> None:
    """Attack federations of synthetic hospitals: poisoning, membership inference, inversion."""
    names = parse_names(attacks, ATTACKS, "attack")
    size = QUICK if quick else AttackSize()
    started, listener = time.monotonic(), make_listener()
    picture = output.with_suffix(".png") if output is not None else None
    found: list[Findings] = []
    # On one thread: the networks are small, and a second thread would wait for the first.
    one_thread = limited_threads(Config().changed(threads=1))
    with kept(keep) as folder, closing(listener), one_thread:
        for one in attack(names, folder, size, seed, picture, listener):
            listener.close()
            found.append(one)
            for table in one.tables:
                print_table(Console(), table)
            if output is not None:
                # After each attack: what is stopped has written what it found.
                about = opening(size, time.monotonic() - started, folder)
                write_atomic(output, findings_page("What attacks get", about, found).encode())
    if output is not None:
        say(Console(), f"Page: {output}")
