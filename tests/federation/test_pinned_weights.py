"""Training ends with the weights of ``pinned_weights.json``.

``python -m tests.federation.test_pinned_weights --write`` pins them anew.

Which bits a sum has depends on the processor and on the libraries, so digests are pinned for each
kind of machine, by a key that names both. On a machine of another kind the tests of bits are
skipped; the numbers of every tensor are compared there as everywhere.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.config.load import load_config
from common.config.schema import Config
from common.console.progress import ProgressListener
from common.device import limited_threads
from common.runs.result import read_result
from simulations.comparison import METHODS, values_of
from simulations.local import train_pooled, train_single
from tests.federation.hospitals import federate, run_of
from tests.federation.pinned import (
    PINNED,
    TOLERANCE,
    TOLERANCES,
    Weights,
    compact,
    compared,
    difference,
    digests_of,
    far,
    machine,
    names_of,
    numbers_of,
    pinned,
    stored,
    weights_of,
)
from tests.federation.test_invariants_reproducible import ROOT
from tests.federation.test_invariants_resume import Killed, killing
from tests.simulations.test_local import StopAt

SAME_IMAGES = {"AVX2", "AVX512"}
"""What PyTorch calls processors on which augmented images, which are float32, are the same to the
bit. Elsewhere they are not, and a rounding in an image decides which of equal pixels a pooling
takes."""

# The demonstration, so small that a run takes seconds, of four rounds.
DEMO: dict[str, Any] = {
    "synthetic-patients": 16,
    "epochs": 2,
    "batch-size": 12,
    "local-steps": 2,
    # Adam takes steps of this size also where a gradient is nothing but rounding: a bias before a
    # batch normalisation. The demonstration's tenfold makes such a bias differ by 1e-9 of itself.
    "learning-rate": 1e-4,
    "device": "cpu",
    "precision": "float64",
    "join-timeout": 0.2,
}
# What a method does does not depend on the network; this one has few tensors.
SMALL: dict[str, Any] = {
    "backbone": "torchvision:resnet18:layer1",
    "width": 1.0,
    "image-size": 32,
    "projection-hidden": 64,
    "projection-size": 8,
    "epochs": 1,
}


@dataclass(frozen=True)
class Pin:
    """A run whose weights are pinned: how it is trained, and the keys that it changes."""

    mode: str
    settings: dict[str, Any]


PINS = {
    "pooled": Pin("pooled", {}),
    "federated": Pin("federated", {}),
    "single": Pin("single", {}),
    "half-deltas": Pin("federated", {"codec": "half-deltas"}),
} | {
    name: Pin(METHODS[name].mode, SMALL | values_of(METHODS[name]))
    for name in ("fedprox", "moon", "fedproto", "fedbn", "ms-net", "fed-adapters", "joint")
}
TRAINERS = {"pooled": train_pooled, "single": train_single}


def config_of(pin: Pin, folder: Path, run_name: str) -> Config:
    places = {"cache-dir": str(folder / "cache"), "runs-dir": str(folder), "run-name": run_name}
    return load_config(ROOT / "configs" / "demo.toml", DEMO | pin.settings | places)


def train(pin: Pin, config: Config) -> Path:
    if pin.mode == "federated":
        with limited_threads(config):
            federate(config)
        return run_of(config)
    return TRAINERS[pin.mode](config, Path(config.runs_dir), ProgressListener())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of all runs, and of the images that they share."""
    return tmp_path_factory.mktemp("pinned")


@pytest.fixture(scope="module")
def ran(folder: Path) -> Callable[[str], Weights]:
    """Return a function from a pin's name to the weights of its run, which is done once."""

    @cache
    def weights(name: str) -> Weights:
        return weights_of(train(PINS[name], config_of(PINS[name], folder, name)))

    return weights


@pytest.mark.parametrize("name", PINS)
def test_numbers_of_every_tensor_are_the_pinned_ones(
    name: str, ran: Callable[[str], Weights]
) -> None:
    if torch.backends.cpu.get_cpu_capability() not in SAME_IMAGES:
        pytest.skip("PyTorch has no AVX2 here and rounds the float32 images otherwise.")
    found, expected = ran(name), stored()["numbers"][name]
    assert {file: [[one.name, one.kind] for one in own] for file, own in found.items()} == {
        file: [numbers[:2] for numbers in own] for file, own in expected.items()
    }
    wrong = [
        (file, one, numbers)
        for file, own in found.items()
        for one, numbers in zip(own, expected[file], strict=True)
        if far(one, numbers, TOLERANCES.get(name, TOLERANCE))
    ]
    assert not wrong, f"{len(wrong)} tensors have other numbers than the pinned ones: {wrong[:5]}"


@pytest.mark.parametrize("name", PINS)
def test_every_bit_is_the_pinned_one(name: str, ran: Callable[[str], Weights]) -> None:
    if machine() not in stored()["digests"]:
        pytest.skip(f"No digests are pinned for this kind of machine ({machine()}).")
    expected = stored()["digests"][machine()][name]
    names = {
        file: [one[0] for one in numbers] for file, numbers in stored()["numbers"][name].items()
    }
    found = ran(name)
    assert not difference(digests_of(found), expected, names_of(found), names)


def test_a_change_of_one_bit_and_a_change_of_a_name_are_told_apart() -> None:
    tensors = {"a": torch.tensor([1.0, 2.0], dtype=torch.float64), "b": torch.zeros(3)}
    before = {"f": [pinned(name, tensor) for name, tensor in tensors.items()]}
    renamed = {"f": [pinned("c", tensors["a"]), pinned("d", tensors["b"])]}
    tensors["a"][1] = np.nextafter(2.0, 3.0)
    changed = {"f": [pinned(name, tensor) for name, tensor in tensors.items()]}

    def told(now: Weights) -> str:
        return difference(digests_of(now), digests_of(before), names_of(now), names_of(before))

    assert told(before) == ""
    assert told(renamed).startswith("Every value is the pinned one, but names differ.")
    assert told(changed) == "1 of 2 tensors have other values than pinned: ['f:a']"
    numbers = numbers_of(before)["f"][0]
    assert not far(changed["f"][0], numbers, TOLERANCE)
    tensors["a"][1] = 2.0 + 1e-8
    assert far(pinned("a", tensors["a"]), numbers, TOLERANCE)


# Of four rounds at two sites: before the second site trains in the second round, and before the
# last round.
@pytest.mark.parametrize(("name", "number"), [("federated", 4), ("half-deltas", 7)])
def test_a_federated_run_that_was_killed_ends_with_the_pinned_weights(
    name: str, number: int, ran: Callable[[str], Weights], folder: Path
) -> None:
    config = config_of(PINS[name], folder, f"{name}-killed")
    with limited_threads(config), pytest.raises(Killed):
        federate(config, before=killing("train", number))
    assert weights_of(train(PINS[name], config.changed(resume=True))) == ran(name)


@pytest.mark.parametrize("name", ["pooled", "single"])
def test_a_local_run_that_was_stopped_ends_with_the_pinned_weights(
    name: str, ran: Callable[[str], Weights], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.learning.loop.REPORT_SECONDS", 0.0)
    config = config_of(PINS[name], folder, f"{name}-killed")
    with pytest.raises(KeyboardInterrupt):
        TRAINERS[name](config, folder, StopAt(2))
    assert read_result(run_of(config))["status"] == "interrupted"
    assert weights_of(train(PINS[name], config.changed(resume=True))) == ran(name)


def pin_anew(write: bool) -> None:
    """Print how every run differs from what is pinned, and write it.

    Digests of other machines are kept as long as no number changed, and nothing that can be
    compared bit by bit.
    """
    before = stored() if PINNED.exists() else {"numbers": {}, "digests": {}}
    here = before["digests"].get(machine(), {})
    numbers: dict[str, Any] = {}
    digests: dict[str, Any] = {}
    same = True
    with tempfile.TemporaryDirectory() as folder:
        for name, pin in PINS.items():
            weights = weights_of(train(pin, config_of(pin, Path(folder), name)))
            numbers[name], digests[name] = numbers_of(weights), digests_of(weights)
            said = compared(name, weights, before["numbers"].get(name), here.get(name))
            print(f"{name}: {said or 'as pinned'}", flush=True)
            same = same and not said
    kept = before["digests"] if same else {}
    if write:
        # What lies within the tolerance stays, so that the file changes where training did.
        content = {
            "numbers": before["numbers"] if same else numbers,
            "digests": kept | {machine(): digests},
        }
        PINNED.write_text(compact(content))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="pin what comes out")
    pin_anew(parser.parse_args().write)
