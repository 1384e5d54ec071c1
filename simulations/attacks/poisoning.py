"""Poisoning: one of five synthetic hospitals lies, and the other four pay for it, or do not.

Two lies: weights that moved −10 times as far as training moved them, and honest training on labels
that are swapped. Five defences: none; the comparison of every site's step with the others' (on by
default, and here needed: ``min-sites``, so that a round goes on without the liar); and the robust
aggregations, without that comparison. Everything runs in this process, over the bytes of real
messages.

    python -m simulations.attacks.poisoning
"""

import csv
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Annotated, Any
from unittest.mock import patch

import flwr.app
import numpy as np
import typer
from flwr.app import Message
from rich.console import Console

from clients.app import app as client
from common.config import Config
from common.errors import RunError
from common.report.numbers import percent, points
from common.results import read_result
from common.wire import decode_order, decode_reply, encode_reply
from server.app import app as server
from simulations.in_process import InProcessGrid, Tamper, run_server
from simulations.progress import SilentReport, StepCounter, make_report
from simulations.synth import hospital_names, write_hospitals
from simulations.tables import print_rows

SITES = hospital_names("5")
LIAR = SITES[-1]
HONEST = SITES[:-1]
FIRST_NODE = 100
SETTINGS: Mapping[str, Any] = {
    "sites": ",".join(SITES),
    "image_size": 64,
    "crop_scale": 0.7,
    "width": 0.125,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "temperature": 0.2,
    "alpha": 0.2,
}
DEFENCES: Mapping[str, tuple[bool, Mapping[str, Any]]] = {
    "none": (False, {}),
    "steps compared": (True, {"min_sites": len(HONEST)}),
    "median": (False, {"aggregation": "median"}),
    "trimmed mean": (False, {"aggregation": "trimmed-mean"}),
    "Krum": (False, {"aggregation": "krum"}),
}
"""Name → whether steps are compared, and what is set."""


def reverse(factor: float) -> Tamper:
    """Let the liar send so many times its step, in every round."""
    liar = FIRST_NODE + SITES.index(LIAR)

    def tamper(question: Message, reply: Message) -> list[Message]:
        asked = question.metadata
        if asked.message_type == "train" and asked.dst_node_id == liar and not reply.has_error():
            sent, answer = decode_order(question.content).shared, decode_reply(reply.content)
            step = answer.shared - sent
            lie = replace(answer, shared=(sent + np.float32(factor) * step).astype(sent.dtype))
            reply.content = encode_reply(lie, flwr.app)
        return [reply]

    return tamper


def swap_labels(site: Path, target: Path) -> Path:
    """Copy a site's folder with the two classes swapped, its metadata too."""
    negative, positive = Config().class_names
    other = {negative: positive, positive: negative}
    shutil.copytree(site, target)
    for name, swapped in ((negative, ".swapped"), (positive, negative), (".swapped", positive)):
        (target / name).rename(target / swapped)
    with (target / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        folder, _, rest = row["file_name"].partition("/")
        row["file_name"] = f"{other[folder]}/{rest}"
        if "label" in row:
            row["label"] = other[row["label"]]
    with (target / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return target


def federate(
    config: Config, folders: Mapping[str, Path], compared: bool, tamper: Tamper | None = None
) -> dict[str, float]:
    """Train a federation in this process.

    Parameters
    ----------
    config : Config
        With an absolute ``runs-dir``.
    folders : mapping of str to Path
        The sites' images.
    compared : bool
        Whether the server compares the sites' steps with each other.
    tamper : callable, optional
        What becomes of replies.

    Returns
    -------
    dict of str to float
        Test AUC by site; empty where the server ended the run, as it does if weights explode.
    """
    runs = Path(config.runs_dir)
    nodes = {
        FIRST_NODE + config.site_names.index(site): {
            "site": site,
            "data-dir": str(folder),
            "state-dir": str(runs / "states" / config.run_name / site),
        }
        for site, folder in folders.items()
    }
    grid = InProcessGrid(client, nodes, config.to_run_config(), tamper=tamper, keep=False)
    try:
        with _comparing(compared):
            run_server(server, grid)
    except RunError:
        # Nobody lies: then it is no effect of an attack.
        if tamper is None:
            raise
        return {}
    metrics = read_result(runs / config.run_name)["metrics"]
    return {site: metrics[site]["test"]["auc"] for site in folders}


@contextmanager
def _comparing(compared: bool) -> Iterator[None]:
    """Switch the server's comparison of steps off where it shall not help."""
    if compared:
        yield
        return
    nobody: Callable[..., dict[str, str]] = lambda *_: {}  # noqa: E731
    with patch("server.strategy.far_from_the_others", nobody):
        yield


def attack(folder: Path, epochs: int, patients: int, seed: int) -> list[tuple[str, ...]]:
    """Run every lie against every defence.

    Returns
    -------
    list of tuple of str
        (lie, defence, mean AUC of the honest sites, its difference from honest training).
    """
    write_hospitals(folder / "data", SITES, patients, seed, 64, SilentReport())
    folders = {site: folder / "data" / site for site in SITES}
    swapped = {**folders, LIAR: swap_labels(folders[LIAR], folder / "swapped")}
    lies: Mapping[str, tuple[Mapping[str, Path], Tamper | None]] = {
        "nobody lies": (folders, None),
        "-10 times its step": (folders, reverse(-10.0)),
        "labels swapped": (swapped, None),
    }
    base = Config().changed(
        **SETTINGS,
        data=str(folder / "data"),
        runs_dir=str(folder / "runs"),
        epochs=epochs,
        seed=seed,
    )
    rows: list[tuple[str, ...]] = []
    honest = math.nan
    report = make_report()
    counter = StepCounter(report, "federations")
    try:
        for lie, (where, tamper) in lies.items():
            for defence, (compared, values) in DEFENCES.items():
                config = base.changed(**values, run_name=f"{len(rows):02d}")
                auc = federate(config, where, compared, tamper)
                found = mean(auc[site] for site in HONEST) if auc else math.nan
                honest = found if not rows else honest
                told = (percent(found), points(found - honest)) if auc else ("ended early", "")
                rows.append((lie, defence, *told))
                counter(len(rows), len(lies) * len(DEFENCES))
    finally:
        report.close()
    return rows


def main(
    epochs: Annotated[int, typer.Option(help="Epochs of every federation.")] = 8,
    patients: Annotated[int, typer.Option(help="Patients at each hospital.")] = 96,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Let one of five hospitals lie, and print what it costs the other four."""
    with tempfile.TemporaryDirectory(prefix="xsite-poisoning-") as folder:
        rows = attack(Path(folder), epochs, patients, seed)
    title = f"Test AUC of the {len(HONEST)} honest hospitals, mean, in percent"
    print_rows(Console(), title, ("Lie", "Defence", "AUC", "Cost"), rows)


if __name__ == "__main__":
    typer.run(main)
