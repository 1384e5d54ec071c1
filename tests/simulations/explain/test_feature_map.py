"""Which feature maps a picture is made of: fine enough, deep, and found by what modules return."""

import pytest
import torch
from torch import Tensor, nn

from common.errors import RunError
from common.models.backbones.covidnet import CovidNet
from common.models.backbones.torchvision_backbone import TorchvisionBackbone
from simulations.explain.activation_maps import feature_layer


def down(inputs: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, 3, 3, stride=2, padding=1), nn.ReLU())


class Turned(nn.Module):
    """Wraps its stage's output, so that it returns no map itself."""

    def __init__(self) -> None:
        super().__init__()
        self.anything = down()

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        return self.anything(x), 1


class Unwrap(nn.Module):
    def forward(self, x: tuple[Tensor, int]) -> Tensor:
        return x[0]


@pytest.mark.parametrize(("size", "stage"), [(48, 2), (64, 2), (96, 3), (112, 3), (224, 3)])
def test_covid_net_gives_a_sixteenth_of_the_image_s_resolution(size: int, stage: int) -> None:
    # Below 96 pixels, a sixteenth is fewer than six positions: one stage earlier.
    backbone = CovidNet(0.05).eval()
    found = feature_layer(backbone, torch.zeros(1, 3, size, size))
    # What stage 3 halves and adds to; it reads the sum of all of stage 2.
    assert found is backbone.stages[stage].get_submodule("shortcut_norm")
    original = CovidNet(0.05, "original", size).eval()
    found = feature_layer(original, torch.zeros(1, 3, size, size))
    assert found is original.stages[stage].get_submodule("shortcut")


def test_resnet_s_third_stage_is_taken_whole() -> None:
    backbone = TorchvisionBackbone("resnet18", 2, 96).eval()
    assert feature_layer(backbone, torch.zeros(1, 3, 96, 96)) is backbone.model.get_submodule(
        "layer3"
    )


def test_the_deepest_of_fine_maps_is_found_inside_a_container_that_ends_coarse() -> None:
    blocks = nn.Sequential(down(), down(), down(), down())
    backbone = nn.Sequential(nn.Conv2d(3, 3, 1), blocks, nn.Flatten())
    assert feature_layer(backbone, torch.zeros(1, 3, 64, 64)) is blocks[2]
    assert feature_layer(backbone, torch.zeros(1, 3, 48, 48)) is blocks[2]  # 6 × 6
    assert feature_layer(backbone, torch.zeros(1, 3, 44, 44)) is blocks[2]
    assert feature_layer(backbone, torch.zeros(1, 3, 40, 40)) is blocks[1]  # 5 × 5 would be too few
    assert feature_layer(backbone, torch.zeros(1, 3, 96, 96)) is blocks
    assert feature_layer(backbone, torch.zeros(1, 3, 96, 96), coarsest=8) is blocks[2]


def test_a_module_that_returns_no_map_is_looked_through() -> None:
    turned = Turned()
    backbone = nn.Sequential(down(), turned, Unwrap(), nn.Flatten())
    found = feature_layer(backbone, torch.zeros(1, 3, 32, 32))
    assert found is backbone[2]
    backbone = nn.Sequential(down(), turned)
    assert feature_layer(backbone, torch.zeros(1, 3, 32, 32)) is turned.anything


def test_a_module_in_two_places_is_passed_over() -> None:
    twice = nn.ReLU()
    convolution = nn.Conv2d(3, 3, 3, padding=1)
    backbone = nn.Sequential(convolution, twice, nn.Conv2d(3, 3, 3, stride=4), twice, nn.Flatten())
    assert feature_layer(backbone, torch.zeros(1, 3, 8, 8)) is convolution


def test_a_backbone_without_maps_is_told_and_no_hook_stays() -> None:
    backbone = nn.Sequential(down(), nn.Flatten())
    with pytest.raises(RunError, match="no feature maps of 6 × 6 positions"):
        feature_layer(backbone, torch.zeros(1, 3, 8, 8))
    with pytest.raises(RuntimeError):
        feature_layer(nn.Sequential(down(4)), torch.zeros(1, 3, 32, 32))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in backbone.modules())
