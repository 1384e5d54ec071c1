import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.config.load import make_config
from common.errors import RunError, StoreError
from common.models import sharing
from common.models.dsbn import DomainBatchNorm, convert
from common.models.network import build_network
from common.models.per_site import SiteRouting

SITES = ("a", "b")


class KeepsToItself(nn.Module):
    """A compared method's private module, with a layer and a normalisation below it."""

    private = True

    def __init__(self) -> None:
        super().__init__()
        self.shared_looking = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))


class Odd(nn.Module):
    """Normalisation under a layer's name, layers under a normalisation's, both nested."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.BatchNorm2d(3)
        self.bn = nn.Conv2d(3, 4, 1)
        self.sites = nn.ModuleDict({"a": nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))})
        self.norm = nn.GroupNorm(2, 4)
        self.extra = KeepsToItself()
        self.register_buffer("scale", torch.ones(()))
        self.weight = nn.Parameter(torch.ones(2, 0, 3))


def odd() -> nn.Module:
    return convert(Odd(), SITES, SiteRouting())


def tied() -> nn.Module:
    """One normalisation under two names, both of which the state dict lists."""
    norm = nn.BatchNorm1d(3)
    return convert(
        nn.ModuleDict({"x": norm, "y": norm, "z": nn.Linear(3, 3)}), SITES, SiteRouting()
    )


def covidnet(**values: object) -> nn.Module:
    return build_network(make_config({"width": 0.125, "image-size": 64} | values), SITES)


NETWORKS = {
    "odd": odd,
    "tied": tied,
    "bare": lambda: convert(nn.BatchNorm1d(3), SITES, SiteRouting()),
    "private": KeepsToItself,
    "covidnet": covidnet,
    "original": lambda: covidnet(backbone="covidnet-original"),
    "shared": lambda: covidnet(normalisation="shared"),
    "mobilenet": lambda: covidnet(backbone="torchvision:mobilenet_v3_small", width=1.0),
}


def fill(network: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return network


def by_ownership(network: nn.Module) -> set[int]:
    """The private tensors found by walking down from every private module: another way round."""
    found: set[int] = set()
    for module in network.modules():
        if isinstance(module, DomainBatchNorm | KeepsToItself):
            found |= {tensor.data_ptr() for tensor in module.state_dict().values()}
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_every_tensor_is_either_shared_or_private(name: str) -> None:
    network = NETWORKS[name]()
    private, shared = sharing.private_names(network), sharing.shared_names(network)
    state = network.state_dict()
    assert set(private) | set(shared) == set(state)
    assert len(private) + len(shared) == len(state)
    own = by_ownership(network)
    assert all(state[n].data_ptr() in own for n in private)
    assert all(state[n].data_ptr() not in own for n in shared if state[n].numel())
    assert list(private) == [n for n in state if n in set(private)]
    assert list(shared) == [n for n in state if n in set(shared)]


def test_the_type_decides_and_never_the_name() -> None:
    assert sharing.shared_names(odd()) == (
        "weight",
        "scale",
        "bn.weight",
        "bn.bias",
        "sites.a.0.weight",
        "sites.a.0.bias",
        "norm.weight",
        "norm.bias",
    )
    private = sharing.private_names(odd())
    assert "conv.sites.a.weight" in private
    assert "sites.a.1.sites.b.running_mean" in private
    assert "extra.shared_looking.0.weight" in private
    assert sharing.shared_names(NETWORKS["bare"]()) == ()
    assert sharing.private_names(NETWORKS["shared"]()) == ()


def test_private_is_said_by_the_class_and_not_by_an_instance() -> None:
    layer = nn.Linear(2, 2)
    layer.private = True  # type: ignore[assignment]
    assert sharing.shared_names(layer) == ("weight", "bias")


def test_a_tensor_that_is_private_and_shared_at_once_is_refused() -> None:
    network = nn.Sequential(nn.Linear(3, 3), KeepsToItself())
    network[0].weight = network[1].shared_looking[0].weight
    with pytest.raises(RunError, match=r"'0\.weight' is shared.*'1\.shared_looking\.0\.weight'"):
        sharing.shared_names(network)


@pytest.mark.parametrize("name", NETWORKS)
def test_packing_and_unpacking_is_exact(name: str) -> None:
    source, target = fill(NETWORKS[name](), 1), fill(NETWORKS[name](), 2)
    private = sharing.private_state(target)
    flat = sharing.pack(source)
    assert flat.shape == (sharing.shared_layout(source).size,)
    flat.flags.writeable = False
    sharing.unpack(target, flat)
    state = target.state_dict()
    for key in sharing.shared_names(source):
        assert torch.equal(state[key], source.state_dict()[key])
    assert all(torch.equal(state[key], tensor) for key, tensor in private.items())
    assert (sharing.pack(target) == flat).all()


def test_a_packed_tensor_lies_in_row_major_order_whatever_its_memory_format() -> None:
    network = nn.Conv2d(2, 3, (2, 2), bias=False)
    network.weight.data = torch.arange(24.0).view(3, 2, 2, 2)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert sharing.pack(network).tolist() == list(range(24))
    sharing.unpack(network, np.arange(24, dtype=np.float32)[::-1].copy())
    assert network.weight.detach()[2, 1, 1].tolist() == [1.0, 0.0]
    assert network.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_packed_array_is_a_copy() -> None:
    network = nn.Linear(1, 1, bias=False)
    for flat in (sharing.pack(network), sharing.pack(network)):
        flat[:] = 9
        assert network.weight.item() != 9
    kept = np.ones(1, dtype=np.float32)
    sharing.unpack(network, kept)
    network.weight.data.fill_(5)
    assert kept[0] == 1


@pytest.mark.parametrize(
    ("flat", "sentence"),
    [
        (np.zeros(5, dtype=np.float32), r"shape \(6,\) and type float32 were expected"),
        (np.zeros((2, 3), dtype=np.float32), r"found \(2, 3\)"),
        (np.zeros(6), "float64"),
        (np.array([0, 0, 0, 0, 0, np.nan], dtype=np.float32), "not finite"),
        (np.array([np.inf, 0, 0, 0, 0, 0], dtype=np.float32), "not finite"),
    ],
)
def test_an_array_that_does_not_fit_is_refused_and_changes_nothing(
    flat: np.ndarray, sentence: str
) -> None:
    network = fill(nn.Linear(2, 2))
    before = sharing.pack(network)
    with pytest.raises(RunError, match=sentence):
        sharing.unpack(network, flat)
    assert (sharing.pack(network) == before).all()


def test_shared_integers_and_mixed_types_are_refused() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    names = "0.num_batches_tracked, 1.num_batches_tracked"
    with pytest.raises(RunError, match=names):
        sharing.pack(network)
    with pytest.raises(RunError, match="mix float32 and float64"):
        sharing.pack(nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1).double()))


def test_a_digest_tells_layouts_apart() -> None:
    layout = sharing.shared_layout(odd())
    assert layout.dtype == "float32"
    assert layout.size == 0 + 1 + 12 + 4 + 4 + 2 + 4 + 4
    assert sharing.shared_layout(odd()).digest() == layout.digest()
    assert sharing.shared_layout(odd().double()).digest() != layout.digest()
    swapped = nn.ModuleDict({"y": nn.Linear(1, 2), "x": nn.Linear(1, 2)})
    ordered = nn.ModuleDict({"x": nn.Linear(1, 2), "y": nn.Linear(1, 2)})
    assert sharing.shared_layout(swapped).digest() != sharing.shared_layout(ordered).digest()


def test_a_layout_is_json_without_secrets_of_python() -> None:
    assert json.loads(sharing.shared_layout(nn.Linear(2, 1)).to_json()) == {
        "dtype": "float32",
        "tensors": [["weight", [1, 2]], ["bias", [1]]],
    }


def equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in one)


@pytest.mark.parametrize("name", NETWORKS)
def test_private_tensors_come_back_exactly(name: str) -> None:
    source, target = fill(NETWORKS[name](), 1), fill(NETWORKS[name](), 2)
    shared = sharing.pack(target) if sharing.shared_names(target) else None
    sharing.load_private(target, sharing.private_state(source))
    assert equal(sharing.private_state(target), sharing.private_state(source))
    if shared is not None:
        assert (sharing.pack(target) == shared).all()


def test_a_site_s_state_leaves_the_other_sites_normalisation_out() -> None:
    source, target = fill(odd(), 1), fill(odd(), 2)
    state = sharing.private_state(source, "b")
    everything = sharing.private_state(source)
    assert set(state) == {n for n in everything if ".sites.a." not in n.removeprefix("sites.a.")}
    assert "extra.shared_looking.0.weight" in state
    untouched = sharing.private_state(target, "a")["conv.sites.a.weight"]
    sharing.load_private(target, state)
    assert equal(sharing.private_state(target, "b"), state)
    assert torch.equal(target.state_dict()["conv.sites.a.weight"], untouched)


def test_private_state_is_a_copy() -> None:
    network = odd()
    state = sharing.private_state(network)
    for tensor in network.state_dict().values():
        tensor.zero_()
    assert state["conv.sites.a.weight"].eq(1).all()


def test_private_tensors_that_do_not_fit_are_refused_and_change_nothing() -> None:
    network = fill(odd())
    before = sharing.private_state(network)
    state = sharing.private_state(network, "a")
    name = "conv.sites.a.weight"
    wrong: list[tuple[dict[str, Tensor], str]] = [
        ({k: v for k, v in state.items() if k != name}, f"missing: {name}"),
        (state | {"conv.sites.c.weight": state[name]}, r"additional: conv\.sites\.c\.weight"),
        (state | {"bn.weight": state[name]}, r"additional: bn\.weight"),
        (state | {name: torch.zeros(4)}, r"misshapen: conv\.sites\.a\.weight \(4,\)"),
        (state | {name: state[name].double()}, r"misshapen: .*float64"),
        ({}, "missing"),
    ]
    for tensors, sentence in wrong:
        with pytest.raises(StoreError, match=sentence):
            sharing.load_private(network, tensors)
    assert equal(sharing.private_state(network), before)


def test_running_statistics_are_shared_and_not_trained() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    network[1].register_buffer("num_batches_tracked", None)
    assert sharing.shared_layout(network).names[4:] == ("1.running_mean", "1.running_var")
    assert sharing.parameter_mask(network).tolist() == [True] * (6 + 3 + 3 + 3) + [False] * (3 + 3)
