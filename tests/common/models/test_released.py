from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from common.config.load import make_config
from common.config.schema import Config
from common.errors import CheckpointError
from common.models.network import Network, build_network
from common.models.released import COUNTER, load_released, released_entries

SMALL = {"width": 0.125, "image-size": 64, "variant": "released"}


def small(**more: object) -> Config:
    return make_config(SMALL | {key.replace("_", "-"): value for key, value in more.items()})


def released_state(config: Config) -> dict[str, Tensor]:
    """Every tensor of a checkpoint as the authors name them, each filled with its own number."""
    network = build_network(config.changed(pretrained="", normalisation="dsbn"), ["x"])
    state = network.state_dict()
    tensors = {}
    for number, entry in enumerate(released_entries()):
        place = entry.module if entry.source is None else f"{entry.module}.sites.x"
        like = state[f"{place}.{entry.tensor}"]
        tensors[entry.name] = torch.full_like(like, number)
    return tensors


def write(path: Path, state: dict[str, Tensor]) -> Path:
    torch.save({"state_dict": state, "epoch": 12}, path)
    return path


def snapshot(network: Network) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_a_site_takes_the_normalisation_that_is_named_for_it(tmp_path: Path) -> None:
    network, state = build_network(small(), ["a", "b"]), released_state(small())
    before = snapshot(network)
    load_released(network, write(tmp_path / "c.pth", state), {"b": "new"})
    after = network.state_dict()
    assert after["backbone.stem.weight"].eq(state["conv1.weight"].flatten()[0]).all()
    for tensor in ("weight", "running_var", COUNTER):
        expected = state[f"fbn5new.0.{tensor}"].flatten()[0]
        assert after[f"projection.hidden_norm.sites.b.{tensor}"].eq(expected).all()
    own = [name for name in after if ".sites.a." in name]
    assert len(own) == 45
    assert all(torch.equal(after[name], before[name]) for name in own)


def test_shared_normalisation_takes_one_of_the_two(tmp_path: Path) -> None:
    network = build_network(small(normalisation="shared"), ["a", "b"])
    state = released_state(small())
    path = write(tmp_path / "c.pth", state)
    load_released(network, path, {"a": "new"})
    expected = state["bn3new.0.running_mean"].flatten()[0]
    assert network.state_dict()["backbone.stages.2.shortcut_norm.running_mean"].eq(expected).all()


def drop(state: dict[str, Tensor]) -> None:
    del state["pexp3_3.network.2.weight"], state["bn0new.0.running_var"]


def add(state: dict[str, Tensor]) -> None:
    state["module.extra"] = torch.zeros(1)


def reshape(state: dict[str, Tensor]) -> None:
    state["classifier.0.bias"] = torch.zeros(3)


def spoil(state: dict[str, Tensor]) -> None:
    state["fc1.weight"][0, 0] = torch.nan


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (drop, r"missing: pexp3_3\.network\.2\.weight, bn0new\.0\.running_var\)"),
        (add, r"additional: module\.extra\)"),
        (reshape, r"misshapen: classifier\.0\.bias \(3,\), expected \(2,\)\)"),
        (spoil, r"not finite: fc1\.weight\)"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_and_changes_nothing(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], None], sentence: str
) -> None:
    network, state = build_network(small(), ["a"]), released_state(small())
    change(state)
    before = snapshot(network)
    with pytest.raises(CheckpointError, match=sentence):
        load_released(network, write(tmp_path / "c.pth", state), {"a": "ucsd"})
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())


def test_another_backbone_is_refused(tmp_path: Path) -> None:
    network = build_network(small(variant="corrected", backbone="covidnet-original"), ["a"])
    path = write(tmp_path / "c.pth", released_state(small()))
    with pytest.raises(CheckpointError, match="the network is another: covidnet-original"):
        load_released(network, path, {"a": "ucsd"})


class Trap:
    """Pickled code: unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_no_code_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    network = build_network(small(), ["a"])
    torch.save({"state_dict": Trap(tmp_path / "sprung")}, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match="Cannot read the weights"):
        load_released(network, tmp_path / "c.pth", {"a": "ucsd"})
    assert not (tmp_path / "sprung").exists()
    torch.load(tmp_path / "c.pth", weights_only=False)
    assert (tmp_path / "sprung").exists(), "the trap would spring"


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 half a zip"])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"Cannot read the weights in .*c\.pth"):
        load_released(build_network(small(), ["a"]), path, {"a": "ucsd"})


@pytest.mark.parametrize("content", [[1, 2], {"weights": {}}, {"state_dict": {"fc1.weight": 3}}])
def test_a_checkpoint_without_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match="holds no 'state_dict'"):
        load_released(build_network(small(), ["a"]), tmp_path / "c.pth", {"a": "ucsd"})
