import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.models.backbones.covidnet import CovidNet, feature_size, pool, scaled


def images(size: int = 64, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, size, size, generator=generator, dtype=torch.float64)


def oracle(network: CovidNet, x: Tensor, redesigned: bool, released: bool = False) -> Tensor:
    """The network from its definition: lists of feature maps, summed anew wherever they are read.

    Parameters are found by their place; nothing is shared with the network's own forward pass.
    """
    x = network.stem(x)
    x = F.relu(network.stem_norm(x) if redesigned else x)
    total = entry = F.max_pool2d(x, 2)
    for number, stage in enumerate(network.stages, start=1):
        shortcut = stage.shortcut(total)
        if redesigned:
            shortcut = F.relu(stage.shortcut_norm(shortcut))
        if number > 1:
            shortcut = F.max_pool2d(shortcut, 2)
        maps: list[Tensor] = []
        for block in stage.blocks:
            y = entry if not maps else shortcut + sum(maps)
            for convolution in block:
                y = convolution(y)
            maps.append(y)
        total = shortcut + sum(maps)
        if number < 4:
            fed = [0, 1, 1, 3, 4, 5] if released and number == 3 else range(len(maps))
            entry = F.max_pool2d(shortcut, 2) + sum(F.max_pool2d(maps[i], 2) for i in fed)
    if not redesigned:
        return total.flatten(1)
    side = maps[-1].shape[-1]
    assert side == 2, "the oracle's pooling is the identity at 64 pixels"
    return maps[-1].flatten(1)


def gradients(network: nn.Module, embedding: Tensor) -> list[Tensor]:
    target = torch.linspace(-1, 1, embedding.numel(), dtype=embedding.dtype).view_as(embedding)
    found = torch.autograd.grad(
        (embedding * target).sum(), list(network.parameters()), allow_unused=True
    )
    return [g if g is not None else torch.zeros(()) for g in found]


@pytest.mark.parametrize("variant", ["corrected", "released"])
def test_the_redesign_is_wired_as_defined(variant: str) -> None:
    torch.manual_seed(0)
    network = CovidNet(0.125, variant).double()  # type: ignore[arg-type]
    got = network(images())
    expected = oracle(network, images(), True, variant == "released")
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
    for g, e in zip(gradients(network, got), gradients(network, expected), strict=True):
        torch.testing.assert_close(g, e, rtol=1e-7, atol=1e-9)


def test_the_variants_differ() -> None:
    torch.manual_seed(0)
    corrected, released = CovidNet(0.125).double(), CovidNet(0.125, "released").double()
    released.load_state_dict(corrected.state_dict())
    difference = (corrected(images()) - released(images())).abs().max()
    assert difference > 1e-6


def test_the_original_is_wired_as_defined_and_has_no_normalisation() -> None:
    torch.manual_seed(0)
    network = CovidNet(0.125, "original", 96).double()
    assert not any("norm" in type(m).__name__.lower() for m in network.modules())
    got = network(images(96))
    expected = oracle(network, images(96), redesigned=False)
    assert got.shape == (3, network.embedding) == (3, 256 * 3 * 3)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
    for g, e in zip(gradients(network, got), gradients(network, expected), strict=True):
        torch.testing.assert_close(g, e, rtol=1e-7, atol=1e-9)


def test_the_last_map_is_averaged_over_two_by_two_places() -> None:
    """7×7 is averaged over the overlapping rows and columns 0-3 and 3-6."""
    torch.manual_seed(0)
    network = CovidNet(0.125).double().eval()
    maps: list[Tensor] = []
    network.stages[-1].blocks[-1].register_forward_hook(lambda _, __, y: maps.append(y))
    embedding = network(images(224, 1)).view(256, 2, 2)
    assert maps[0].shape == (1, 256, 7, 7)
    torch.testing.assert_close(embedding[:, 0, 1], maps[0][0, :, :4, 3:].mean((1, 2)))
    torch.testing.assert_close(embedding[:, 1, 1], maps[0][0, :, 3:, 3:].mean((1, 2)))


@pytest.mark.parametrize("shape", [(7, 7), (2, 2), (3, 8), (1, 1), (1, 4), (5, 1)])
def test_pooling_equals_adaptive_pooling(shape: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pool(x), F.adaptive_avg_pool2d(x, 2), rtol=1e-12, atol=1e-15)


def test_memory_format_does_not_change_the_result() -> None:
    torch.manual_seed(0)
    network = CovidNet(0.125).double()
    plain = network(images())
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    last = network(images().to(memory_format=torch.channels_last))
    torch.testing.assert_close(plain, last, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("channels", "width", "expected"),
    [(64, 1.0, 64), (48, 1.0, 48), (48, 0.5, 24), (48, 0.25, 16), (32, 0.01, 8), (64, 1.3, 80)],
)
def test_scaled_channels_are_multiples_of_eight(channels: int, width: float, expected: int) -> None:
    # 48 · 0.25 = 12, half-way between 8 and 16: the even multiple, 16; 64 · 1.3 = 83.2 → 80.
    assert scaled(channels, width) == expected


@pytest.mark.parametrize("width", [0.03, 0.3, 0.5])
def test_any_width_runs(width: float) -> None:
    network = CovidNet(width)
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, network.embedding)
    assert all(p.shape[0] % 8 == 0 for p in network.parameters())


@pytest.mark.parametrize("size", [31, 32, 33, 63, 65, 112, 130, 224])
def test_the_feature_map_s_size_is_foretold(size: int) -> None:
    network = CovidNet(0.03).eval()
    sides: list[int] = []
    network.stages[-1].blocks[-1].register_forward_hook(lambda _, __, y: sides.append(y.shape[-1]))
    with torch.no_grad():
        network(torch.zeros(1, 3, size, size))
    assert sides == [feature_size(size)]
    assert feature_size(30) == 0
    with pytest.raises(RuntimeError), torch.no_grad():
        network(torch.zeros(1, 3, 30, 30))


def test_the_full_width_has_the_paper_s_embedding() -> None:
    with torch.device("meta"):
        network = CovidNet()
        assert network.embedding == 8192
        assert network(torch.zeros(2, 3, 224, 224)).shape == (2, 8192)
