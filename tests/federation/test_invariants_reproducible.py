"""The same configuration and seed give the same weights, whatever else is different."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.config.schema import Config
from common.tensor_files import load_tensors
from server.app import app as server
from server.metrics import read_rows
from simulations.runtime.in_process import run_server
from tests.federation.hospitals import NAMES, federate, make_grid, run_of, tiny_config

ROOT = Path(__file__).parents[2]
SETTINGS: dict[str, Any] = {"epochs": 2, "validation_fraction": 0.3}


def outcome(config: Config) -> dict[str, bytes]:
    """Return the bytes of all weights, tensor by tensor, and of all predictions of a run."""
    run = run_of(config)
    found = {str(path.relative_to(run)): path.read_bytes() for path in run.glob("sites/*/*.csv")}
    for path in [*run.glob("*.safetensors"), *run.glob("sites/*/*.safetensors")]:
        # The file's own bytes tell nothing: safetensors writes metadata in any order.
        tensors, _ = load_tensors(path)
        found |= {
            f"{path.relative_to(run)}:{name}": tensor.numpy().tobytes()
            for name, tensor in tensors.items()
        }
    return found


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("reproducible")
    config = tiny_config(folder, NAMES, **SETTINGS)
    federate(config)
    found = outcome(config)
    files = {name.partition(":")[0] for name in found}
    assert {"shared.safetensors", "best-shared.safetensors"} < files
    assert sum(name.endswith("private.safetensors") for name in files) == 6
    assert len(read_rows(run_of(config) / "metrics.csv")) == 12
    return folder, found


@pytest.mark.parametrize("shuffle", [None, 1, 2])
def test_the_order_in_which_replies_arrive_changes_no_bit(
    before: tuple[Path, dict[str, bytes]], shuffle: int | None
) -> None:
    folder, expected = before
    config = tiny_config(folder, NAMES, run_name=f"shuffled-{shuffle}", **SETTINGS)
    federate(config, shuffle=shuffle)
    assert outcome(config) == expected


def test_which_node_is_which_site_changes_no_bit(before: tuple[Path, dict[str, bytes]]) -> None:
    folder, expected = before
    config = tiny_config(folder, NAMES, run_name="renumbered", **SETTINGS)
    grid = make_grid(config)
    grid.nodes = dict(reversed([(9000 - node, own) for node, own in grid.nodes.items()]))
    run_server(server, grid)
    assert outcome(config) == expected


def test_another_process_changes_no_bit(before: tuple[Path, dict[str, bytes]]) -> None:
    folder, expected = before
    config = tiny_config(folder, NAMES, run_name="elsewhere", **SETTINGS)
    code = (
        "from pathlib import Path; from tests.federation.hospitals import *; "
        f"federate(tiny_config(Path({str(folder)!r}), NAMES, run_name='elsewhere', **{SETTINGS}))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "77", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, cwd=folder)
    assert outcome(config) == expected


def test_another_seed_changes_the_weights(before: tuple[Path, dict[str, bytes]]) -> None:
    folder, expected = before
    config = tiny_config(folder, NAMES, run_name="seeded", seed=1, **SETTINGS)
    federate(config)
    weights = [name for name in expected if name.startswith("shared.") and "weight" in name]
    found = outcome(config)
    assert weights
    assert all(found[name] != expected[name] for name in weights)
