import pytest
import torch
from torch import nn

from common.config.load import make_config
from common.config.schema import Config
from common.models.adapters import AdaptedConvolution, adapt
from common.models.network import Network, build_network
from common.models.per_site import SiteRouting
from common.models.sharing import private_names, shared_names


def small(**values: object) -> Config:
    return make_config({"image-size": 32, "width": 0.05, "projection-hidden": 64, **values})


def batch(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def filled(network: Network) -> Network:
    """Give every site's adapters weights that differ."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, AdaptedConvolution):
                for adapter in module.adapters.sites.values():
                    weight = adapter.weight
                    assert isinstance(weight, torch.Tensor)
                    weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    return network


@pytest.mark.parametrize("kind", ["series", "parallel"])
@pytest.mark.parametrize("backbone", ["covidnet", "covidnet-original", "torchvision:resnet18"])
def test_an_adapted_network_begins_as_the_plain_one(kind: str, backbone: str) -> None:
    values = {"backbone": backbone} | ({"width": 1.0} if ":" in backbone else {})
    plain = build_network(small(**values), ["a", "b"]).eval()
    adapted = build_network(small(adapters=kind, **values), ["a", "b"]).eval()
    assert shared_names(adapted) == shared_names(plain)
    site_slices = [("a", 2), ("b", 1)]
    expected, found = plain(batch(3), site_slices), adapted(batch(3), site_slices)
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["series", "parallel"])
def test_what_an_adapter_adds(kind: str) -> None:
    routing = SiteRouting()
    routing.site_slices = (("b", 2), ("a", 1))
    shared = nn.Conv2d(3, 4, 3, stride=2, padding=1)
    holder = nn.Sequential(shared, nn.Conv2d(4, 4, 1))
    adapt(holder, ["a", "b"], routing, "series" if kind == "series" else "parallel")
    adapted = holder[0]
    assert isinstance(adapted, AdaptedConvolution)
    assert not isinstance(holder[1], AdaptedConvolution)  # 1×1
    own = {site: torch.randn(adapted.adapters.sites[site].weight.shape) for site in "ab"}
    with torch.no_grad():
        for site, weight in own.items():
            adapted.adapters.sites[site].weight.copy_(weight)
    x = batch(3)
    plain = shared(x)
    for index, site in enumerate("bba"):
        weight = own[site][:, :, 0, 0]
        read = plain[index] if kind == "series" else x[index, :, ::2, ::2]
        expected = plain[index] + torch.einsum("oi,ihw->ohw", weight, read)
        torch.testing.assert_close(adapted(x)[index], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["series", "parallel"])
def test_a_site_sees_its_own_adapters_and_they_are_private(kind: str) -> None:
    network = filled(build_network(small(adapters=kind), ["a", "b"])).eval()
    x = batch(2)
    both = network(x, [("a", 1), ("b", 1)]).logits
    torch.testing.assert_close(network(x[:1], [("a", 1)]).logits, both[:1], rtol=1e-4, atol=1e-5)
    other = network(x[:1], [("b", 1)]).logits
    assert not torch.allclose(other, both[:1], rtol=1e-3, atol=1e-4)
    adapters = [name for name in network.state_dict() if ".adapters." in name]
    assert adapters and set(adapters) <= set(private_names(network))


def test_a_new_site_begins_with_another_s_adapters() -> None:
    network = filled(build_network(small(adapters="series"), ["a", "b"])).eval()
    network.add_site("d", like="b")
    x = batch(1)
    torch.testing.assert_close(
        network(x, [("d", 1)]).logits, network(x, [("b", 1)]).logits, rtol=0, atol=0
    )
