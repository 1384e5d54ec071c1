import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from common.models.dsbn import DomainBatchNorm, convert, drop_counters
from common.models.per_site import SiteRouting


def norm_of(sites: tuple[str, ...], site_slices: tuple[tuple[str, int], ...]) -> DomainBatchNorm:
    routing = SiteRouting()
    routing.site_slices = site_slices
    norm = nn.BatchNorm2d(3, momentum=0.25).double()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, -1.0]))
        norm.bias.copy_(torch.tensor([0.5, 0.0, 1.0]))
    made = convert(norm, sites, routing)
    assert isinstance(made, DomainBatchNorm)
    return made


def images(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 4, 5, generator=generator, dtype=torch.float64)


def by_hand(x: Tensor) -> Tensor:
    """Train-mode batch normalisation with the affine parameters of norm_of."""
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
    weight = torch.tensor([1.0, 2.0, -1.0], dtype=x.dtype).view(1, 3, 1, 1)
    bias = torch.tensor([0.5, 0.0, 1.0], dtype=x.dtype).view(1, 3, 1, 1)
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def test_each_segment_is_normalised_by_itself() -> None:
    x = images(7)
    x[3:] = 10 * x[3:] + 5
    y = norm_of(("a", "b"), (("b", 3), ("a", 4)))(x)
    torch.testing.assert_close(y, torch.cat([by_hand(x[:3]), by_hand(x[3:])]), rtol=1e-12, atol=0)
    assert not torch.allclose(y, by_hand(x))


def test_only_the_sites_of_a_batch_learn_its_statistics() -> None:
    norm, x = norm_of(("a", "b", "c"), (("b", 3), ("a", 4))), images(7)
    norm(x)
    expected = 0.25 * x[:3].mean((0, 2, 3))
    torch.testing.assert_close(norm.sites["b"].running_mean, expected, rtol=1e-12, atol=0)
    expected = 0.25 * x[3:].mean((0, 2, 3))
    torch.testing.assert_close(norm.sites["a"].running_mean, expected, rtol=1e-12, atol=0)
    assert norm.sites["c"].running_mean.eq(0).all()
    assert [int(norm.sites[site].num_batches_tracked) for site in "abc"] == [1, 1, 0]


def test_evaluation_reads_the_site_s_statistics_and_leaves_them() -> None:
    norm, x = norm_of(("a", "b"), (("a", 2), ("b", 2))).eval(), images(4)
    norm.sites["b"].running_mean.fill_(2.0)
    norm.sites["b"].running_var.fill_(4.0)
    before = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    y = norm(x)
    first = (x[:2, 1] - 0) / (1 + 1e-5) ** 0.5 * 2
    second = (x[2:, 1] - 2) / (4 + 1e-5) ** 0.5 * 2
    torch.testing.assert_close(y[:, 1], torch.cat([first, second]), rtol=1e-12, atol=1e-12)
    assert all(torch.equal(before[name], t) for name, t in norm.state_dict().items())


def test_one_segment_is_neither_split_nor_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    norm, x = norm_of(("a", "b"), (("b", 5),)), images(5)

    def refuse(*_: object) -> None:
        raise AssertionError("split or cat was called")

    monkeypatch.setattr(torch, "cat", refuse)
    monkeypatch.setattr(torch, "split", refuse)
    torch.testing.assert_close(norm(x), by_hand(x), rtol=1e-12, atol=0)
    norm.routing.site_slices = (("b", 2), ("a", 3))
    with pytest.raises(AssertionError, match="split or cat"):
        norm(x)


def test_an_absent_site_gets_no_gradient() -> None:
    norm = norm_of(("a", "b"), (("a", 4),))
    norm(images(4)).square().sum().backward()
    assert norm.sites["a"].weight.grad is not None
    assert norm.sites["b"].weight.grad is None


class Nested(nn.Module):
    """BatchNorm of several kinds, at several depths, under names that do not tell."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ModuleDict({"x": nn.BatchNorm2d(4)})["x"])
        self.downsample = nn.ModuleList([nn.Sequential(nn.Sequential(nn.BatchNorm2d(4)))])
        self.bn = nn.GroupNorm(2, 4)
        self.norm = nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
        self.dense = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.BatchNorm1d(5))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dense(self.norm(self.bn(self.downsample[0](self.first(x)))))
        return y


def test_conversion_finds_every_batch_norm_by_type() -> None:
    network, routing = Nested(), SiteRouting()
    assert convert(network, ("a", "b"), routing) is network
    places = [name for name, m in network.named_modules() if isinstance(m, DomainBatchNorm)]
    assert places == ["first.1", "downsample.0.0.0", "dense.2"]
    assert isinstance(network.bn, nn.GroupNorm)
    assert isinstance(network.norm, nn.InstanceNorm2d)


def test_conversion_copies_parameters_and_statistics_to_every_site() -> None:
    network, routing, x = Nested().double(), SiteRouting(), images(6)[:, :, :2, :2].contiguous()
    for _ in range(3):
        network(x)
    with torch.no_grad():
        network.dense[2].weight.mul_(3)
    original = copy.deepcopy(network).eval()
    convert(network, ("a", "b"), routing).eval()
    routing.site_slices = (("a", 4), ("b", 2))
    assert not network.dense[2].training
    torch.testing.assert_close(network(x), original(x), rtol=1e-12, atol=1e-14)


def test_sites_own_their_tensors() -> None:
    norm = convert(nn.BatchNorm1d(2), ("a", "b"), SiteRouting())
    assert isinstance(norm, DomainBatchNorm)
    pointers = {tensor.data_ptr() for tensor in norm.state_dict().values()}
    assert len(pointers) == len(norm.state_dict()) == 10
    norm.sites["a"].weight.data.fill_(7)
    assert norm.sites["b"].weight.eq(1).all()


def test_dense_layers_are_normalised_by_site_too() -> None:
    routing = SiteRouting()
    norm = convert(nn.BatchNorm1d(1, affine=False), ("a", "b"), routing)
    routing.site_slices = (("a", 2), ("b", 2))
    y = norm(torch.tensor([[0.0], [2.0], [100.0], [300.0]]))
    torch.testing.assert_close(y, torch.tensor([[-1.0], [1.0], [-1.0], [1.0]]), rtol=1e-4, atol=0)
    routing.site_slices = (("a", 3), ("b", 1))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm(torch.zeros(4, 1))


def test_conversion_of_what_is_converted_changes_nothing() -> None:
    network, routing = Nested(), SiteRouting()
    names = list(convert(network, ("a", "b"), routing).state_dict())
    assert list(convert(network, ("c",), SiteRouting()).state_dict()) == names


def test_a_batch_norm_in_two_places_stays_one() -> None:
    norm = nn.BatchNorm2d(3)
    network = convert(nn.ModuleDict({"x": norm, "y": norm}), ("a",), SiteRouting())
    assert isinstance(network, nn.ModuleDict)
    assert network["x"] is network["y"]
    assert isinstance(network["x"], DomainBatchNorm)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_of_a_network_has_a_routing_of_its_own(again) -> None:  # type: ignore[no-untyped-def]
    routing = SiteRouting()
    network = convert(Nested(), ("a", "b"), routing)
    other = again(network)
    routings = {id(m.routing) for m in other.modules() if isinstance(m, DomainBatchNorm)}
    assert len(routings) == 1
    assert id(routing) not in routings


@pytest.mark.parametrize("site", ["train", "values", "type", "9-a_b"])
def test_a_site_may_be_called_as_it_likes(site: str) -> None:
    norm = norm_of((site, "other"), ((site, 4),))
    assert norm(images(4)).shape == (4, 3, 4, 5)
    assert f"sites.{site}.weight" in norm.state_dict()
    norm.load_state_dict(copy.deepcopy(norm).state_dict())
    norm.eval().train().double()
    assert norm.sites[site].training


def test_counters_of_shared_norms_go_and_those_of_sites_stay() -> None:
    network = nn.Sequential(nn.Sequential(nn.BatchNorm2d(3)), norm_of(("a",), (("a", 4),)).float())
    drop_counters(network)
    counters = [name for name in network.state_dict() if name.endswith("num_batches_tracked")]
    assert counters == ["1.sites.a.num_batches_tracked"]
    x = images(4).float()
    network(x)
    torch.testing.assert_close(network[0][0].running_mean, 0.1 * x.mean((0, 2, 3)))
