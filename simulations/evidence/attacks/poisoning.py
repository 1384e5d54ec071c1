"""Poisoning: one of five synthetic hospitals lies, and the other four pay for it, or do not.

Lies: weights that moved −10 times as far as training moved them; or −2.9 times, which the server's
comparison of steps lets pass; and honest training on labels that are swapped. Defences: none; the
comparison of every site's step with the others' (on by default; it needs ``min-sites`` here, so
that a round goes on without the liar); and the robust aggregations, without that comparison.
Everything runs in this process, over the bytes of real messages.

    python -m simulations.evidence poisoning
"""

import csv
import math
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, NamedTuple

import flwr.app
import numpy as np
import typer
from flwr.app import Message
from rich.console import Console

from common.config.schema import Config
from common.console.progress import ProgressListener, StepCounter, make_listener
from common.errors import RunError
from common.exchange.messages import RoundOrder, RoundReply
from common.exchange.wire import decode, encode
from common.formatting.numbers import NOT_DEFINED
from common.formatting.tables import Table, plain_table, print_table
from common.runs.result import read_result
from simulations.evidence.federation import federate, make_hospitals, small_config
from simulations.report.numbers import percent, points
from simulations.runtime.in_process import FIRST_NODE, Tamper
from simulations.synth import hospital_names

SITES = hospital_names("5")
LIAR = SITES[-1]
HONEST = SITES[:-1]
LIES: Mapping[str, str] = {
    "nobody": "nobody lies",
    "reversed": "−10 times its step",
    "short": "−2.9 times its step",
    "swapped": "labels swapped",
}
FACTORS: Mapping[str, float] = {"reversed": -10.0, "short": -2.9}
ALONE = "alone"
"""In the place of a lie: the honest hospitals without the liar, by whom it is to be measured."""
DEFENCES: Mapping[str, tuple[str, bool, Mapping[str, Any]]] = {
    "none": ("none", False, {}),
    "compared": ("steps compared", True, {"min_sites": len(HONEST)}),
    "median": ("median", False, {"aggregation": "median"}),
    "trimmed-mean": ("trimmed mean", False, {"aggregation": "trimmed-mean"}),
    "krum": ("Krum", False, {"aggregation": "krum"}),
}
"""Key → what it is called, whether steps are compared, and what is set."""


def reverse(factor: float) -> Tamper:
    """Let the liar send so many times its step, in every round."""
    liar = FIRST_NODE + SITES.index(LIAR)

    def tamper(question: Message, reply: Message) -> list[Message]:
        asked = question.metadata
        if asked.message_type == "train" and asked.dst_node_id == liar and not reply.has_error():
            sent, answer = (
                decode(RoundOrder, question.content).shared,
                decode(RoundReply, reply.content),
            )
            step = answer.shared - sent
            lie = replace(answer, shared=(sent + np.float32(factor) * step).astype(sent.dtype))
            reply.content = encode(lie, flwr.app)
        return [reply]

    return tamper


def swap_labels(site: Path, target: Path) -> Path:
    """Copy a site's folder with the two classes swapped, its metadata too."""
    negative, positive = Config().class_names
    other = {negative: positive, positive: negative}
    shutil.rmtree(target, ignore_errors=True)
    for name, swapped in other.items():
        shutil.copytree(site / name, target / swapped)
    with (site / "metadata.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        folder, _, rest = row["file_name"].partition("/")
        row["file_name"] = f"{other[folder]}/{rest}"
        if "label" in row:
            row["label"] = other[row["label"]]
    with (target / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return target


class PoisoningCase(NamedTuple):
    """One federation: who lies how, what defends, and the seed of hospitals and training."""

    lie: str
    defence: str
    seed: int

    @property
    def names(self) -> tuple[str, str]:
        """The lie and the defence, for a person."""
        if self.lie == ALONE:
            return "the four alone", NOT_DEFINED
        return LIES[self.lie], DEFENCES[self.defence][0]


class PoisoningOutcome(NamedTuple):
    """What a federation came to.

    ``auc``: on test images, mean of the honest hospitals; ``digest``: SHA-256 of the shared
    weights. NaN and empty where the server ended the run.
    """

    auc: float = math.nan
    digest: str = ""


@dataclass(frozen=True)
class PoisoningPlan:
    """Federations of one size."""

    epochs: int = 8
    patients: int = 128
    """Of each federation, and at each hospital."""
    lies: tuple[str, ...] = tuple(LIES)
    defences: tuple[str, ...] = tuple(DEFENCES)
    """Every one of these against every one of those."""
    seeds: int = 1
    """How often, with hospitals and training of another seed each time."""

    @property
    def cases(self) -> list[PoisoningCase]:
        """The federations, for every seed first what lies are held against."""
        pairs = [("nobody", "none"), (ALONE, "none"), *product(self.lies, self.defences)]
        made = (PoisoningCase(*pair, seed) for seed in range(self.seeds) for pair in pairs)
        return list(dict.fromkeys(made))


def run_case(
    case: PoisoningCase, plan: PoisoningPlan, folder: Path, listener: ProgressListener
) -> PoisoningOutcome:
    """Train one federation, unless it is complete in the folder of all files."""
    sites = make_hospitals(folder, SITES, plan.patients, case.seed, listener)
    if case.lie == ALONE:
        del sites[LIAR]
    if case.lie == "swapped":
        sites[LIAR] = swap_labels(sites[LIAR], folder / f"swapped-{plan.patients}-{case.seed}")
    _, compared, values = DEFENCES[case.defence]
    tamper = reverse(FACTORS[case.lie]) if case.lie in FACTORS else None
    name = f"{case.lie}-{case.defence}-{case.seed}-{plan.epochs}-{plan.patients}"
    config = small_config(folder, sites, case.seed, epochs=plan.epochs, run_name=name, **values)
    try:
        result = read_result(federate(config, compared, tamper))
    except RunError:
        if tamper is None:
            # Nobody lies about weights: then it is no effect of an attack.
            raise
        return PoisoningOutcome()
    auc = mean(float(result["metrics"][site]["test"]["auc"]) for site in HONEST)
    return PoisoningOutcome(auc, result["weights_digest"]["shared"])


def run_poisoning(plan: PoisoningPlan, folder: Path, listener: ProgressListener) -> Table:
    """Train federations, telling each one's figure as it comes.

    Parameters
    ----------
    plan : PoisoningPlan
        Which.
    folder : Path
        Of all files.
    listener : ProgressListener
        Told of progress.
    """
    found: dict[PoisoningCase, PoisoningOutcome] = {}
    counter = StepCounter(listener, "federations")
    for case in plan.cases:
        found[case] = run_case(case, plan, folder, listener)
        told = f"AUC {percent(found[case].auc)}" if found[case].digest else "ended early"
        lie, defence = case.names
        listener.message(f"{lie}, defence: {defence}, seed {case.seed}: {told}")
        counter(len(found), len(plan.cases))
    title = (
        f"Test AUC of the {len(HONEST)} honest hospitals, mean, in percent, and its difference in "
        f"points; {plan.patients} patients a hospital, {plan.epochs} epochs."
    )
    return plain_table(title, HEADINGS, poisoning_rows(found))


def poisoning_rows(found: Mapping[PoisoningCase, PoisoningOutcome]) -> list[tuple[str, ...]]:
    """Return a row for each lie and defence: means over the seeds, and in brackets the range."""
    rows: list[tuple[str, ...]] = []
    for lie, defence in dict.fromkeys(case[:2] for case in found):
        cases = [case for case in found if case[:2] == (lie, defence)]
        outcomes = [found[case] for case in cases]
        head = (*cases[0].names, str(len(cases)))
        if not all(outcome.digest for outcome in outcomes):
            rows.append((*head, "ended early", "", "", ""))
            continue
        five, four = (
            [found[PoisoningCase(reference, "none", case.seed)] for case in cases]
            for reference in ("nobody", ALONE)
        )
        same = [outcome.digest for outcome in outcomes] == [outcome.digest for outcome in four]
        costs = (
            [outcome.auc - other.auc for outcome, other in zip(outcomes, others, strict=True)]
            for others in (five, four)
        )
        auc = percent(mean(outcome.auc for outcome in outcomes))
        rows.append((*head, auc, *map(_ranged, costs), "yes" if same else "no"))
    return rows


def _ranged(differences: Sequence[float]) -> str:
    told = points(mean(differences))
    low, high = points(min(differences)), points(max(differences))
    return told if low == high else f"{told} [{low} to {high}]"


HEADINGS = (
    "Lie",
    "Defence",
    "Seeds",
    "AUC",
    "To five honest",
    "To the four alone",
    "Their weights",
)


def parse_names(text: str, known: Iterable[str], what: str) -> tuple[str, ...]:
    """Read comma-separated names.

    Raises
    ------
    BadParameter
        Naming the one that is not known, and those that are.
    """
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"no {what} is called '{name}'; there are {', '.join(known)}")
    return names


@contextmanager
def kept(folder: Path | None) -> Iterator[Path]:
    """Yield the folder for an attack's files, or one that is removed in the end."""
    if folder is not None:
        yield folder.expanduser().absolute()
        return
    with tempfile.TemporaryDirectory(prefix="xsite-attacks-") as made:
        yield Path(made)


def main(
    epochs: Annotated[int, typer.Option(help="Epochs of every federation.")] = 8,
    patients: Annotated[int, typer.Option(help="Patients at each hospital.")] = 128,
    seeds: Annotated[int, typer.Option(help="How many seeds.")] = 1,
    lies: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(LIES),
    defences: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(DEFENCES),
    keep: Annotated[
        Path | None, typer.Option(help="Keep all files here; go on from those that are there.")
    ] = None,
) -> None:
    """Let one of five hospitals lie, and print what it costs the other four."""
    plan = PoisoningPlan(
        epochs,
        patients,
        parse_names(lies, LIES, "lie"),
        parse_names(defences, DEFENCES, "defence"),
        seeds,
    )
    listener = make_listener()
    with kept(keep) as folder, closing(listener):
        table = run_poisoning(plan, folder, listener)
    print_table(Console(), table)
