"""What a guarantee costs: one federation of synthetic hospitals a level of noise.

Every hospital has the same policy: nothing leaves without noise, so that an ε holds of all that
left, counted from its own ledger. Half of the budget goes to the weights and half to the
prototypes. No figure leaves; the AUC is worked out from each hospital's own predictions. Everything
runs in this process, over the bytes of real messages.

    python -m simulations.evidence privacy
"""

import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import typer
from rich.console import Console

from clients.egress.budget import spent, upper
from clients.egress.ledger import entries
from common.config.schema import Config
from common.console.progress import StepCounter, make_listener
from common.errors import RunError
from common.formatting.tables import plain_table, print_table
from common.runs.predictions import read_predictions
from common.tasks.figures import measure as measure_predictions
from simulations.evidence.federation import federate, make_hospitals, small_config
from simulations.report.numbers import percent, points
from simulations.runtime.in_process import FIRST_NODE
from simulations.synth import hospital_names

SITES = hospital_names("3")
SETTINGS: Mapping[str, Any] = {"image_size": 48, "crop_scale": 0.8, "local_steps": 0}
PATIENTS, ROUNDS = 96, 12
LEVELS = (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Noise multipliers of the weights; 0: clipped alone."""


def policy_text(clip: float, noise: float, classes: int) -> str:
    """Return the policy of a level: prototypes spend as much as weights in every round.

    Of ``classes`` prototypes with a multiplier of √classes times the weights' the ε is theirs.
    """
    prototypes = 2 * noise * classes**0.5
    return (
        f'may-leave = ["weights", "prototypes"]\nclip-update = {clip}\nupdate-noise = {noise}\n'
        f"prototype-noise = {prototypes}\n"
    )


def federate_under(policy: str, config: Config, folders: Mapping[str, Path]) -> dict[str, float]:
    """Train a federation whose sites all have the same policy.

    Parameters
    ----------
    policy : str
        The policy's text; ``""``: none.
    config : Config
        With an absolute ``runs-dir``.
    folders : mapping of str to Path
        The sites' images.

    Returns
    -------
    dict
        ``auc``: mean over the sites, on test images; ``epsilon``: of the site that spent most;
        infinite without noise. Empty where training ended early.
    """
    base = Path(config.runs_dir) / "states" / config.run_name
    base.mkdir(parents=True)
    (base / "policy.toml").write_text(policy, encoding="utf-8")
    states = {site: base / site for site in folders}
    nodes = {
        FIRST_NODE + number: {
            "site": site,
            "data-dir": str(folders[site]),
            "state-dir": str(states[site]),
            "policy": str(base / "policy.toml"),
        }
        for number, site in enumerate(config.site_names)
    }
    try:
        federate(config, nodes=nodes)
    except RunError:
        if not policy:
            raise
        # With noise the weights may explode.
        return {}
    own = [state / config.run_name / "sites" / site for site, state in states.items()]
    tables = [read_predictions(folder / "predictions.csv", "test") for folder in own]
    return {
        "auc": mean(measure_predictions(one.labels, one.probabilities)["auc"] for one in tables),
        "epsilon": max(spent(entries(state / "ledger")).epsilon for state in states.values()),
    }


def main(
    clip: Annotated[float, typer.Option(help="clip-update of every site's policy.")] = 1.0,
    epochs: Annotated[int, typer.Option(help="Epochs, each of them a round.")] = ROUNDS,
    patients: Annotated[int, typer.Option(help="Patients at each hospital.")] = PATIENTS,
    seed: Annotated[int, typer.Option(help="Seed of everything random but the noise.")] = 0,
) -> None:
    """Train three hospitals at several levels of noise; print ε and the AUC."""
    rows: list[tuple[str, ...]] = []
    listener = make_listener()
    counter = StepCounter(listener, "federations")
    with tempfile.TemporaryDirectory(prefix="xsite-privacy-") as name, closing(listener):
        folder = Path(name)
        folders = make_hospitals(folder, SITES, patients, seed, listener)
        base = small_config(folder, folders, seed, epochs=epochs, **SETTINGS)
        policies = {"no policy": ""}
        for level in LEVELS:
            policies[f"{level:g}"] = policy_text(clip, level, len(base.class_names))
        plain = 0.0
        for level_name, policy in policies.items():
            found = federate_under(policy, base.changed(run_name=f"{len(rows):02d}"), folders)
            told = ("", "ended early", "")
            if found:
                plain = plain or found["auc"]
                told = upper(found["epsilon"]), percent(found["auc"]), points(found["auc"] - plain)
            rows.append((level_name, *told))
            counter(len(rows), len(policies))
    title = f"After {epochs} rounds: ε at δ = 1e-5; mean test AUC in percent"
    print_table(Console(), plain_table(title, ("Noise multiplier", "ε", "AUC", "Cost"), rows))
