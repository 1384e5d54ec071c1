"""A network for inference: one site's modules in place, no state between calls."""

import io
import threading

import pytest
import torch
from torch import nn

from common.config.load import make_config
from common.errors import RunError
from common.models.network import Network, build_network
from common.models.per_site import PerSite, SiteRouting
from tests.common import small_training as small

CONFIGS = [
    {"backbone": "covidnet", "width": 0.0625},
    {"backbone": "covidnet", "width": 0.0625, "adapters": "series"},
    {"backbone": "covidnet", "width": 0.0625, "adapters": "parallel", "auxiliary": True},
    {"backbone": "covidnet", "width": 0.0625, "normalisation": "shared"},
    {"backbone": "torchvision:densenet121"},
]


def trained(**values: object) -> Network:
    """Return a network whose sites differ in whatever is their own."""
    network = build_network(make_config({"sites": "a,b", "image-size": 48, **values}), ["a", "b"])
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor += 0.02 * (torch.rand(tensor.shape, generator=generator) - 0.5)
    return network


def images(count: int = 4, size: int = 48) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("values", CONFIGS, ids=lambda v: "-".join(map(str, v.values())))
@torch.no_grad()
def test_it_computes_what_the_network_does_to_the_bit(values: dict[str, object]) -> None:
    network = trained(**values).eval()
    outputs = {}
    for site in "ab":
        plain = network.for_site(site)
        assert not any(isinstance(part, PerSite) for part in plain.modules())
        assert not any(
            isinstance(held, SiteRouting) for m in plain.modules() for held in vars(m).values()
        )
        expected, found = network(images(), [(site, 4)]), plain(images())
        for part in ("logits", "embedding", "projection"):
            assert torch.equal(getattr(found, part), getattr(expected, part))
        outputs[site] = found.logits
    assert torch.equal(*outputs.values()) == (values.get("normalisation") == "shared")


def test_modes_and_hooks_are_its_own_and_tensors_are_the_network_s() -> None:
    network = small.network("a", "b").train()
    plain = network.for_site("a")
    assert network.training and all(module.training for module in network.modules())
    assert not any(module.training for module in plain.modules())
    for module in plain.modules():
        module.register_forward_hook(lambda *_: None)
    assert not any(module._forward_hooks for module in network.modules())
    held = {id(tensor) for tensor in network.state_dict(keep_vars=True).values()}
    assert {id(tensor) for tensor in plain.state_dict(keep_vars=True).values()} <= held
    with pytest.raises(RunError, match="nothing of site 'z'"):
        network.for_site("z")


def test_a_module_in_two_places_stays_one() -> None:
    norm = nn.BatchNorm1d(3)
    backbone = nn.Sequential(norm, nn.Linear(3, 3), norm)
    plain = Network(backbone, nn.Identity(), nn.Identity(), ["a"], True, "twice").for_site("a")
    assert plain.get_submodule("backbone.0") is plain.get_submodule("backbone.2")


@torch.no_grad()
def test_threads_of_different_sites_do_not_meet() -> None:
    network = trained(**CONFIGS[0]).eval()
    expected = {site: network(images(), [(site, 4)]).logits for site in "ab"}
    wrong: list[str] = []

    def work(site: str) -> None:
        plain = network.for_site(site)
        with torch.no_grad():
            for _ in range(40):
                if not torch.equal(plain(images()).logits, expected[site]):
                    wrong.append(site)

    threads = [threading.Thread(target=work, args=(site,)) for site in "abab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not torch.equal(expected["a"], expected["b"])


class Logits(nn.Module):
    """Of a network's outputs one tensor alone, which a file of an exported program can hold."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(images).logits
        return logits


@torch.no_grad()
def test_it_can_be_exported_and_read_back() -> None:
    network = trained(**CONFIGS[0]).eval()
    file = io.BytesIO()
    torch.export.save(torch.export.export(Logits(network.for_site("b")), (images(),)), file)
    file.seek(0)
    found = torch.export.load(file).module()(images())
    expected = network(images(), [("b", 4)]).logits
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
