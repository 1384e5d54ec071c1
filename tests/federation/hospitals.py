"""Two or three tiny sites of random images, and federations of them."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clients.app import app as client
from common.config.schema import Config
from server.app import app as server
from simulations.runtime.in_process import run_server, simulated_nodes
from tests.federation.watched import WatchedGrid

TINY: dict[str, Any] = {
    "image_size": 32,
    "cache_size": 32,
    "width": 0.05,
    "projection_hidden": 64,
    "projection_size": 8,
    "batch_size": 4,
    "folds": 2,
    "epochs": 3,
    "local_steps": 0,
    "prototype_rank": 2,
    "threads": 1,
    "device": "cpu",
    "precision": "float32",
    "learning_rate": 0.01,
    "min_prototype_count": 2,
    "join_timeout": 0.2,
}
CLASSES = ("non-covid", "covid")
NAMES = ("north", "south", "east")


def write_site(root: Path, images: int, seed: int, patient: str = "patient-{}-{:03d}") -> None:
    """Write ``images`` random images of each class, one patient each, with a metadata.csv."""
    generator = np.random.default_rng(seed)
    rows = []
    for label in CLASSES:
        (root / label).mkdir(parents=True)
        for number in range(images):
            who = patient.format(seed, number + (images if label == "covid" else 0))
            pixels = generator.integers(0, 156, (32, 32), dtype=np.uint8)
            if label == "covid":
                pixels[8:20, 8:20] += 100
            Image.fromarray(pixels).save(root / label / f"{who}.png")
            rows.append((f"{label}/{who}.png", label, who))
    with (root / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "label", "patient_id"), *rows])


def tiny_config(tmp_path: Path, names: Sequence[str] = NAMES[:2], **values: Any) -> Config:
    """Write the sites once and return a configuration of them."""
    for seed, name in enumerate(names):
        if not (tmp_path / "data" / name).exists():
            write_site(tmp_path / "data" / name, images=(12, 8, 10)[seed % 3], seed=seed)
    return Config().changed(
        **{
            **TINY,
            "data": str(tmp_path / "data"),
            "sites": ",".join(names),
            "cache_dir": str(tmp_path / "cache"),
            "runs_dir": str(tmp_path / "runs"),
            "run_name": "run",
            **values,
        }
    )


def make_grid(config: Config, **options: Any) -> WatchedGrid:
    """Return a grid that simulates the configuration's sites; site k is node 100 + k."""
    return WatchedGrid(client, simulated_nodes(config), config.to_run_config(), **options)


def deploy(config: Config, policies: Mapping[str, str]) -> WatchedGrid:
    """Return a grid of hospitals, each with a state-dir; some with a policy of that text."""
    base = Path(config.runs_dir).parent
    nodes: dict[int, dict[str, Any]] = {}
    for number, site in enumerate(config.site_names, start=100):
        state = base / "state" / site
        nodes[number] = {"site": site, "data-dir": f"{config.data}/{site}", "state-dir": str(state)}
        if site in policies:
            (base / f"{site}.toml").write_text(policies[site])
            nodes[number]["policy"] = str(base / f"{site}.toml")
    return WatchedGrid(client, nodes, config.to_run_config())


def federate(config: Config, **options: Any) -> WatchedGrid:
    """Run a federation to its end; the grid holds every message of it."""
    grid = make_grid(config, **options)
    run_server(server, grid)
    return grid


def run_of(config: Config) -> Path:
    """Return the folder of a federation's run."""
    return Path(config.runs_dir) / config.run_name
