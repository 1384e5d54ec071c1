"""Weights of a run on disk, and the network that is made of them again."""

from pathlib import Path

import pytest
import torch

from common.config.schema import Config
from common.errors import CheckpointError, RunError
from common.models.network import Network, build_network
from common.models.sharing import load_shared, private_names, shared_names
from common.runs.weights import load_run_network, weights_digest
from common.tensor_files import load_tensors, save_tensors
from server.run_folder import RunFolder
from tests.common.runs.written import write_private, write_shared

CONFIG = Config(
    run_name="run", sites="a,b", width=0.05, image_size=32, projection_hidden=64, projection_size=8
)


def different_network(config: Config) -> Network:
    """Return a network whose sites and tensors all differ, running statistics included."""
    network = build_network(config, ["a", "b"])
    generator = torch.Generator().manual_seed(0)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return network


def written(tmp_path: Path, config: Config = CONFIG) -> tuple[RunFolder, Network]:
    folder, network = RunFolder.create(config, "pooled", tmp_path), different_network(config)
    write_shared(folder, network)
    for site in ("a", "b"):
        write_private(folder, network, site)
    return folder, network


@pytest.mark.parametrize("normalisation", ["dsbn", "shared"])
def test_a_site_s_network_computes_what_the_run_s_did(tmp_path: Path, normalisation: str) -> None:
    folder, network = written(tmp_path, CONFIG.changed(normalisation=normalisation))
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    network.eval()
    for site in ("a", "b"):
        alone, config = load_run_network(folder.path, site)
        assert alone.sites == (site,) and config == folder.config
        alone.eval()
        with torch.no_grad():
            expected = network(images, [(site, 4)]).logits
            assert torch.equal(alone(images, [(site, 4)]).logits, expected)


def test_private_tensors_lie_in_the_site_s_file_alone(tmp_path: Path) -> None:
    folder, network = written(tmp_path)
    shared, about = load_tensors(folder.path / "shared.safetensors")
    assert set(shared) == set(shared_names(network))
    assert about == {"network": network.description, "config": CONFIG.digest()}
    own, _ = load_tensors(folder.site("a") / "private.safetensors")
    other, _ = load_tensors(folder.site("b") / "private.safetensors")
    assert set(own) | set(other) == set(private_names(network))
    assert not set(own) & set(other)


def test_a_site_s_own_network_comes_before_the_run_s(tmp_path: Path) -> None:
    folder, _ = written(tmp_path)
    own = build_network(CONFIG.changed(seed=9), ["b"])
    write_shared(folder, own, site="b")
    write_private(folder, own, "b")
    loaded, _ = load_run_network(folder.path, "b")
    assert weights_digest(loaded) == weights_digest(own)


def test_weights_that_are_not_there_are_told_with_the_reason(tmp_path: Path) -> None:
    folder, _ = written(tmp_path)
    with pytest.raises(RunError, match=r"'c' is no site of the run .*; its sites are a, b"):
        load_run_network(folder.path, "c")
    with pytest.raises(CheckpointError, match="validation-fraction = 0"):
        load_run_network(folder.path, "a", "best")
    (folder.site("a") / "private.safetensors").unlink()
    with pytest.raises(CheckpointError, match="lie at the site alone"):
        load_run_network(folder.path, "a")
    (folder.path / "shared.safetensors").unlink()
    with pytest.raises(CheckpointError, match="has not ended yet"):
        load_run_network(folder.path, "b")
    with pytest.raises(RunError, match="is not the folder of a run"):
        load_run_network(tmp_path, "a")


def test_weights_of_another_network_are_refused_and_change_nothing(tmp_path: Path) -> None:
    folder, _ = written(tmp_path)
    wider = build_network(CONFIG.changed(width=0.1), ["a"])
    before = weights_digest(wider)
    with pytest.raises(CheckpointError, match="misshapen"):
        load_shared(folder.path / "shared.safetensors", wider)
    assert weights_digest(wider) == before
    private, about = load_tensors(folder.site("a") / "private.safetensors")
    save_tensors(folder.site("b") / "private.safetensors", private, about)
    with pytest.raises(CheckpointError, match="belongs to another network"):
        load_run_network(folder.path, "b")


def test_what_a_run_started_from_may_be_gone(tmp_path: Path) -> None:
    config = CONFIG.changed(pretrained=str(tmp_path / "gone.safetensors"))
    folder = RunFolder.create(config, "pooled", tmp_path)
    network = different_network(CONFIG)
    write_shared(folder, network)
    write_private(folder, network, "a")
    load_run_network(folder.path, "a")


def test_the_digest_sees_every_bit() -> None:
    network = different_network(CONFIG)
    before = weights_digest(network)
    assert weights_digest(different_network(CONFIG)) == before
    name = private_names(network)[-2]
    tensor = network.state_dict()[name].flatten()
    tensor[0] = torch.nextafter(tensor[0], torch.tensor(2.0))
    network.state_dict()[name].view(-1).copy_(tensor)
    assert weights_digest(network) != before
