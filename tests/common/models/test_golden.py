"""Parity with the released network, in its authors' numbers (invariant 9 of the design)."""

import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from common.config.load import make_config
from common.models.network import Network, build_network
from common.models.released import COUNTER, load_released, released_entries

ROOT = Path(__file__).parents[3]
GOLDEN = Path(os.environ.get("XSITE_GOLDEN", ROOT.parent / "shared" / "golden"))
SITE_OF = {"ucsd": "hospital-a", "new": "hospital-b"}

pytestmark = pytest.mark.skipif(
    not (GOLDEN / "covidnet.npz").is_file(),
    reason="the released network's golden vectors are absent; XSITE_GOLDEN names their folder",
)


def reference_shapes() -> dict[str, tuple[int, ...]]:
    shapes = json.loads((GOLDEN / "reference_state_dict.json").read_text())
    return {name: tuple(shape) for name, shape in shapes.items()}


def golden_tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    """One tensor of the golden checkpoint, by the recipe that stands beside the vectors."""
    if name.endswith(COUNTER):
        return torch.zeros(shape, dtype=torch.int64)
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    x = generator.standard_normal(shape)
    if name.endswith("running_var"):
        x = 0.5 + np.abs(x)
    elif name.endswith("running_mean"):
        x = 0.1 * x
    elif name.endswith("bias"):
        x = 0.05 * x
    elif len(shape) == 1:
        x = 1 + 0.1 * x
    else:
        x = x / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(x.astype(np.float32))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("golden") / "released.pth"
    state = {name: golden_tensor(name, shape) for name, shape in reference_shapes().items()}
    torch.save({"state_dict": state}, path)
    return path


@pytest.fixture
def network(checkpoint: Path) -> Network:
    config = make_config({"variant": "released", "precision": "float64"})
    network = build_network(config, list(SITE_OF.values()))
    load_released(network, checkpoint, {site: source for source, site in SITE_OF.items()})
    return network


def golden_images() -> Tensor:
    generator = np.random.Generator(np.random.PCG64(2009))
    return torch.from_numpy(generator.standard_normal((4, 3, 224, 224)).astype(np.float32)).double()


@pytest.mark.parametrize("source", SITE_OF)
def test_outputs_match_in_eval_and_in_train_mode(network: Network, source: str) -> None:
    site = SITE_OF[source]
    with np.load(GOLDEN / "covidnet.npz") as golden, torch.no_grad():
        for mode in ("eval", "train"):
            output = network.train(mode == "train")(golden_images(), [(site, 4)])
            for key, got in (("output", output.logits), ("embedding", output.projection)):
                expected = golden[f"{mode}_{source}_{key}"]
                np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=0)
        place = network.backbone.stages[1].shortcut_norm.sites  # type: ignore[index,union-attr]
        key = {"ucsd": "train_ucsd_bn2_running_mean", "new": "train_new_bn2new_running_mean"}
        got = place[site].running_mean.numpy()  # type: ignore[index,union-attr]
        np.testing.assert_allclose(got, golden[key[source]], rtol=1e-5, atol=0)


def test_every_name_of_the_released_state_dict_is_consumed_exactly_once() -> None:
    names = [entry.name for entry in released_entries()]
    assert len(names) == 270
    assert sorted(names) == sorted(reference_shapes())
    places = [(entry.module, entry.tensor, entry.source) for entry in released_entries()]
    assert len(set(places)) == 270


def test_the_checkpoint_fills_the_network_and_can_be_read_back(network: Network) -> None:
    """Every tensor of ours is some tensor of theirs, with its values: 270 there, 270 here."""
    state = network.state_dict()
    ours = {
        entry.name: f"{entry.module}.{entry.tensor}"
        if entry.source is None
        else f"{entry.module}.sites.{SITE_OF[entry.source]}.{entry.tensor}"
        for entry in released_entries()
    }
    assert sorted(ours.values()) == sorted(state)
    for name, shape in reference_shapes().items():
        assert torch.equal(state[ours[name]].float(), golden_tensor(name, shape).float()), name
