"""Activation maps against a network whose maps are known by hand, and their share in lesions."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.errors import RunError
from common.models.network import Network
from simulations.explain.activation_maps import METHODS, Method, activation_maps, lesion_share
from tests.common import small_training as small

SIZE = 8


def by_hand(dense: list[list[float]], enlarge: int = 1) -> Network:
    """Feature maps are the image's first two channels; the embedding is their means."""
    convolution = nn.Conv2d(3, 2, 1, stride=enlarge, bias=False)
    head = nn.Linear(2, len(dense), bias=False)
    with torch.no_grad():
        convolution.weight.copy_(torch.eye(2, 3)[:, :, None, None])
        head.weight.copy_(torch.tensor(dense))
    backbone = nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Network(backbone, head, nn.Identity(), ["a"], True, "by hand")


def pictures(count: int = 3) -> Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def peak_one(maps: Tensor) -> np.ndarray:
    return (maps / maps.amax(dim=(1, 2), keepdim=True)).numpy()


def test_grad_cam_is_the_weighted_sum_of_the_maps_for_each_image_s_own_class() -> None:
    # d logit_c / d A_k = w_ck / 64 at every place, so the map is ReLU(Σ_k w_ck A_k) / 64.
    images = pictures()
    found = activation_maps(
        by_hand([[2, -1], [-1, 3]]), "a", images, np.array([0, 1, 0]), "grad-cam"
    )
    first, second = images[:, 0], images[:, 1]
    expected = torch.stack(
        [
            (2 * first[0] - second[0]).relu(),
            (3 * second[1] - first[1]).relu(),
            (2 * first[2] - second[2]).relu(),
        ]
    )
    assert found.dtype == np.float32 and found.shape == (3, SIZE, SIZE)
    np.testing.assert_allclose(found, peak_one(expected), atol=1e-5)
    assert found.max(axis=(1, 2)) == pytest.approx(1.0)


def test_grad_cam_plus_plus_weighs_as_its_paper_does() -> None:
    # Equation 19: α_k = g² / (2g² + g³ Σ A_k) with the same g = w_k / 64 at all 64 places;
    # the weight of A_k is Σ α_k ReLU(g) = 64 α_k ReLU(g).
    images, dense = pictures(1), (2.0, 5.0)
    found = activation_maps(
        by_hand([[0, 0], list(dense)]), "a", images, np.array([1]), "grad-cam++"
    )
    expected = torch.zeros(1, SIZE, SIZE)
    for channel, weight in enumerate(dense):
        g = weight / SIZE**2
        alpha = g**2 / (2 * g**2 + g**3 * float(images[0, channel].sum()))
        expected += SIZE**2 * alpha * g * images[:, channel]
    np.testing.assert_allclose(found, peak_one(expected), atol=1e-4)


def test_hires_cam_is_what_each_place_adds_to_the_logit_of_a_head_that_tells_places_apart() -> None:
    images = pictures(2)
    weights = torch.randn(2 * SIZE**2, generator=torch.Generator().manual_seed(1))
    convolution = nn.Conv2d(3, 2, 1, bias=False)
    head = nn.Linear(2 * SIZE**2, 1, bias=False)
    with torch.no_grad():
        convolution.weight.copy_(torch.eye(2, 3)[:, :, None, None])
        head.weight.copy_(weights[None])
    backbone = nn.Sequential(convolution, nn.Flatten())
    network = Network(backbone, head, nn.Identity(), ["a"], True, "by hand")
    added = (images[:, :2] * weights.reshape(2, SIZE, SIZE)).sum(dim=1)
    logits = network(images, [("a", 2)]).logits[:, 0]
    torch.testing.assert_close(added.sum(dim=(1, 2)), logits)
    found = activation_maps(network, "a", images, np.zeros(2, np.int64), "hires-cam")
    np.testing.assert_allclose(found, peak_one(added.relu()), atol=1e-5)
    averaged = activation_maps(network, "a", images, np.zeros(2, np.int64), "grad-cam")
    assert np.abs(found - averaged).max() > 0.1


def test_coarse_maps_are_enlarged_to_the_images_and_lie_where_the_signal_is() -> None:
    images = torch.zeros(1, 3, 24, 24)
    images[:, 0, 18:, :6] = 1.0
    found = activation_maps(by_hand([[1, 0]], enlarge=3), "a", images, np.array([0]), "grad-cam")
    assert found.shape == (1, 24, 24)
    assert found[0, 18:, :6].sum() > 0.7 * found.sum()
    assert found[0, 21, 1] == 1.0 and not found[0, :14].any()


@pytest.mark.parametrize("method", METHODS)
def test_a_map_without_evidence_is_blank_and_not_noise(method: Method) -> None:
    found = activation_maps(by_hand([[-1, -2]]), "a", pictures(), np.zeros(3, np.int64), method)
    assert not found.any()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("labels", [np.array([0, 1, 1]), np.array([0, 1, 9])])
def test_nothing_of_the_network_changes_even_if_it_fails(
    method: Method, labels: np.ndarray
) -> None:
    network = small.network("a", "b").train()
    network.projection.eval()
    next(network.parameters()).grad = kept = torch.ones_like(next(network.parameters()))
    before = small.state(network)
    modes = [module.training for module in network.modules()]
    images = torch.rand(3, 3, 16, 16)
    if labels.max() == 9:
        with pytest.raises(RuntimeError):
            activation_maps(network, "a", images, labels, method)
    else:
        assert activation_maps(network, "a", images, labels, method).any()
    assert small.same(before, small.state(network))
    assert [module.training for module in network.modules()] == modes
    grads = [parameter.grad for parameter in network.parameters()]
    assert grads[0] is kept and bool((kept == 1).all()) and grads[1:] == [None] * len(grads[1:])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert not images.requires_grad


def test_a_site_s_images_meet_its_own_normalisation_alone() -> None:
    network = small.network("a", "b")
    images, labels = torch.rand(2, 3, 16, 16), np.array([0, 1])
    before = {s: activation_maps(network, s, images, labels, "grad-cam") for s in ("a", "b")}
    np.testing.assert_array_equal(before["a"], before["b"])
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if ".sites.b." in name and name.endswith("running_mean"):
                tensor += 0.7
    after = {s: activation_maps(network, s, images, labels, "grad-cam") for s in ("a", "b")}
    np.testing.assert_array_equal(before["a"], after["a"])
    assert np.abs(before["b"] - after["b"]).max() > 0.01


def test_frozen_weights_inference_mode_and_many_batches_change_nothing() -> None:
    network = small.network("a").requires_grad_(False)
    images = torch.rand(70, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    labels = np.arange(70) % 2
    with torch.inference_mode():
        together = activation_maps(network, "a", images, labels, "grad-cam++")
    alone = activation_maps(network, "a", images[66:67], labels[66:67], "grad-cam++")
    np.testing.assert_allclose(together[66:67], alone, atol=1e-5)
    none = activation_maps(network, "a", images[:0], labels[:0], "grad-cam")
    assert none.shape == (0, 16, 16)


def test_too_few_labels_and_broken_weights_are_told() -> None:
    network = by_hand([[1, 1]])
    with pytest.raises(RunError, match="3 images but 2 labels"):
        activation_maps(network, "a", pictures(), np.zeros(2, np.int64), "grad-cam")
    with pytest.raises(RunError, match="nothing of site 'z'"):
        activation_maps(network, "z", pictures(), np.zeros(3, np.int64), "grad-cam")
    with torch.no_grad():
        network.head.get_parameter("weight").fill_(math.inf)
    with pytest.raises(RunError, match="not finite"):
        activation_maps(network, "a", pictures(), np.zeros(3, np.int64), "grad-cam")


def masks() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two 4 × 4 images: 8 lung pixels each; 2 and 4 of them lesion."""
    maps, lesions, lungs = np.zeros((3, 2, 4, 4), np.float32)
    lungs[:, :2] = 1
    lesions[0, 0, :2] = 1
    lesions[1, 0] = 1
    return maps, lesions, lungs


def test_shares_in_lesions_are_those_counted_by_hand() -> None:
    maps, lesions, lungs = masks()
    maps[0, 0, :2] = 0.5  # 1 in the lesion,
    maps[0, 1, 0] = 1.0  # 1 in the lungs beside it,
    maps[0, 3, 3] = 0.5  # ½ outside
    maps[1] = 1.0
    found = lesion_share(maps, lesions, lungs)
    # Of the image's activation 1 / 2.5 and 4 / 16 in the lesions, of the lungs' 1 / 2 and 4 / 8;
    # they are 2 / 8 and 4 / 8 of the lungs' area, 2 / 16 and 4 / 16 of the image's.
    assert found.area == pytest.approx((2 / 8 + 4 / 8) / 2)
    assert found.gain == pytest.approx((0.4 + 0.25) / (0.25 + 0.5))
    assert found.gain_in_lungs == pytest.approx((0.5 + 0.5) / (0.25 + 0.5))
    assert found.gain_in_image == pytest.approx((0.4 + 0.25) / (0.125 + 0.25))


def test_an_even_map_gains_nothing_and_a_perfect_one_all() -> None:
    maps, lesions, lungs = masks()
    even = lesion_share(maps + 0.3, lesions, lungs)
    assert even.gain_in_lungs == pytest.approx(1) and even.gain_in_image == pytest.approx(1)
    assert even.gain == pytest.approx(0.5)  # half of the image is lung
    perfect = lesion_share(lesions, lesions, lungs)
    assert perfect.gain == pytest.approx(1 / 0.375)


def test_images_without_lesion_are_left_out_and_blank_maps_have_no_share() -> None:
    maps, lesions, lungs = masks()
    lesions[1] = 0
    found = lesion_share(maps, lesions, lungs)
    assert found.area == 0.25 and found.gain == found.gain_in_lungs == found.gain_in_image == 0
    none = lesion_share(maps[:0], lesions[:0], lungs[:0])
    assert math.isnan(none.area) and math.isnan(none.gain)


def test_part_pixels_count_in_part() -> None:
    maps, lesions, lungs = masks()
    maps += 1
    half = lesion_share(maps, lesions / 2, lungs)
    assert half.area == pytest.approx((1 / 8 + 2 / 8) / 2)
    assert half.gain_in_lungs == pytest.approx(1)
