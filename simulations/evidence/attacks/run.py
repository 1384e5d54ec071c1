"""Attack oneself: run every attack, and write what it gets with the defences off and on.

python -m simulations.evidence attacks --output docs/attacks.md
"""

import platform
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from jinja2 import StrictUndefined, Template
from rich.console import Console

from common.config.schema import Config
from common.console.progress import ProgressListener, StepCounter, make_listener
from common.console.text import say
from common.device import limited_threads
from common.files import write_atomic
from common.formatting.numbers import duration
from common.formatting.tables import Table, print_table
from common.runs.result import read_result
from simulations.evidence.attacks.membership import run_membership
from simulations.evidence.attacks.poisoning import PoisoningPlan, kept, parse_names, run_poisoning
from simulations.evidence.attacks.prototypes import run_prototypes
from simulations.evidence.attacks.updates import make_victim, run_updates
from simulations.evidence.federation import federate, make_hospitals, small_config
from simulations.report.markdown import markdown
from simulations.synth import hospital_names

ATTACKS = ("membership", "inversion", "prototypes", "poisoning")
SITES = hospital_names("2")
PAGE = Path(__file__).parent / "page.md"


@dataclass(frozen=True)
class AttackSize:
    """Numbers that decide how long the attacks take."""

    patients: int = 64
    """At a hospital whose images are asked about."""
    few: int = 4
    many: int = 30
    """Epochs of the federations that are released."""
    shadows: int = 4
    """Networks that the attacker trains, an even number."""
    attempts: int = 3
    searches: int = 4
    """Batches sought in each setting of gradient inversion, prototypes inverted in each."""
    asked: int = 16
    """Prototypes of every kind that candidates are held against."""
    steps: int = 200
    prototype_steps: int = 60
    """Of every search."""
    prototype_patients: int = 360
    prototype_epochs: int = 10
    """At the hospital whose prototypes are attacked, with 256 training images of each class."""
    poisoning: tuple[PoisoningPlan, ...] = (
        PoisoningPlan(12, 160, ("reversed",), ("compared",)),
        PoisoningPlan(
            4, 96, ("reversed", "short", "swapped"), ("none", "compared", "trimmed-mean")
        ),
    )
    """Federations in which somebody lies."""


QUICK = AttackSize(
    patients=16,
    few=1,
    many=2,
    shadows=2,
    attempts=1,
    searches=2,
    asked=2,
    steps=10,
    prototype_steps=3,
    prototype_patients=16,
    prototype_epochs=1,
    poisoning=(PoisoningPlan(1, 16, ("reversed",), ("compared",)),),
)
"""To see that everything runs; its figures say nothing."""


def attack(
    names: Sequence[str],
    folder: Path,
    size: AttackSize,
    seed: int,
    picture: Path | None,
    listener: ProgressListener,
) -> Iterator[tuple[str, Table]]:
    """Run attacks, and yield what each found, by its name on the page, as soon as it did.

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
    # As many members as others.
    common = {"folds": 2, "local_steps": 32}
    if {"membership", "inversion"} & set(names):
        sites = make_hospitals(folder, SITES, size.patients, seed, listener)
    if "membership" in names:
        released = {}
        for title, (name, values) in released_by(size).items():
            listener.message(f"federation to be released: {title}")
            own = {**common, **values, "run_name": f"released-{name}"}
            released[title] = federate(small_config(folder, sites, seed, **own))
        counter = StepCounter(listener, "shadow networks")
        yield "membership", run_membership(released, size.shadows, counter)
    if "inversion" in names:
        victim = make_victim(folder, SITES[0], sites[SITES[0]], seed)
        counter = StepCounter(listener, "gradient inversion")
        yield "inversion", run_updates(victim, size.attempts, size.steps, picture, counter)
    if "prototypes" in names:
        large = make_hospitals(folder, SITES, size.prototype_patients, seed, listener)
        listener.message("federation whose prototypes are attacked")
        own = {**common, "epochs": size.prototype_epochs, "run_name": "prototypes"}
        run = federate(small_config(folder, large, seed, **own))
        counter = StepCounter(listener, "counts of images behind prototypes")
        asked, sought, steps = size.asked, size.searches, size.prototype_steps
        yield "prototypes", run_prototypes(run, asked, sought, steps, counter)
    if "poisoning" in names:
        for plan in size.poisoning:
            yield "poisoning", run_poisoning(plan, folder, listener)


def released_by(size: AttackSize) -> dict[str, tuple[str, dict[str, float | str]]]:
    """Return title → name and settings of what is released: defences off, and on."""
    many, epochs = f"{size.many} epochs", {"epochs": size.many}
    return {
        many: ("many", {**epochs}),
        f"{many}, shared normalisation": ("shared", {**epochs, "normalisation": "shared"}),
        f"{many}, weight decay 0.01": ("decay", {**epochs, "weight_decay": 0.01}),
        f"{size.few} epochs": ("few", {"epochs": size.few}),
    }


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
    found: defaultdict[str, list[str]] = defaultdict(list)
    # On one thread: the networks are small, and a second thread would wait for the first.
    one_thread = limited_threads(Config().changed(threads=1))
    with kept(keep) as folder, closing(listener), one_thread:
        for name, table in attack(names, folder, size, seed, picture, listener):
            listener.close()
            print_table(Console(), table)
            found[name].append(markdown(table))
            if output is not None:
                # After each attack: what is stopped has written what it found.
                runs = [read_result(run) for run in folder.glob("runs/*")]
                trained = [float(r["seconds"]) for r in runs if r.get("status") == "completed"]
                page = Template(PAGE.read_text(encoding="utf-8"), undefined=StrictUndefined).render(
                    dict.fromkeys(("membership", "inversion", "prototypes", "poisoning")) | found,
                    command=f"python -m simulations.evidence {shlex.join(sys.argv[1:])}",
                    when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
                    machine=platform.machine(),
                    took=duration(time.monotonic() - started),
                    trained=len(trained),
                    training_took=duration(sum(trained)),
                    quick=quick,
                    shadows=size.shadows,
                    picture=picture and picture.name,
                )
                write_atomic(output, page.encode())
    if output is not None:
        say(Console(), f"Page: {output}")
