import numpy as np
import torch

from common.data.augment import augment, prepare
from common.randomness import torch_generator

PAPER = (0.5, 1.0)
"""The paper's shares of the area."""


def ramp(batch: int = 64, size: int = 32) -> torch.Tensor:
    """Images whose grey value is eight times the column."""
    row = torch.arange(size, dtype=torch.uint8) * (256 // size)
    return row.expand(batch, size, size)[..., None].contiguous()


def test_evaluation_only_resizes_and_normalises() -> None:
    images = torch.full((2, 32, 32, 1), 255, dtype=torch.uint8)
    ready = prepare(images, 28)
    assert ready.shape == (2, 3, 28, 28)
    assert ready.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(ready, torch.tensor(2.0), rtol=1e-6)  # (1 − 0.5) / 0.25
    exact = prepare(ramp(1), 32)
    assert torch.allclose(exact[0, 0, 0], (ramp(1)[0, 0, :, 0] / 255 - 0.5) / 0.25)


def test_whole_area_and_no_flip_is_nearly_evaluation() -> None:
    # At scale 1 the aspect is still drawn, so only square crops see the whole: compare the mean.
    images = ramp(256)
    crops = augment(images, 32, (1.0, 1.0), False, torch_generator(0, "x"))
    assert abs(float(crops.mean() - prepare(images, 32).mean())) < 0.05


def test_crops_keep_the_area_they_are_asked_to() -> None:
    # The slope of a ramp in a crop is the crop's width relative to the image's.
    crops = augment(ramp(512, 64), 64, (0.25, 1.0), False, torch_generator(0, "x"))
    span = (crops[:, 0, 32, -2] - crops[:, 0, 32, 1]) / (61 * 4 / 255 / 0.25)
    assert 0.4 < float(span.min()) < 0.55  # sqrt(0.25 · 3/4) = 0.433 at the narrowest
    assert 0.95 < float(span.max()) < 1.01


def test_a_crop_larger_than_the_image_shows_all_of_it_and_a_mirrored_rim() -> None:
    images = ramp(256)
    whole = prepare(images, 32)
    rows = augment(images, 64, (2.0, 2.0), False, torch_generator(0, "x"))[:, 0, 32]
    assert float((rows.amin(dim=1) - whole.min()).abs().max()) < 0.1
    assert float((rows.amax(dim=1) - whole.max()).abs().max()) < 0.1
    rising = (rows.diff(dim=1) > 0).float().mean(dim=1)  # the image; in the rim grey falls again
    assert 0.66 < float(rising.min()) < 0.74  # 1 / sqrt(2), at the widest
    assert 0.76 < float(rising.max()) < 0.84  # 1 / sqrt(2 · 3/4), at the narrowest


def test_half_of_the_images_are_mirrored() -> None:
    crops = augment(ramp(400), 32, (0.9, 1.0), True, torch_generator(0, "x"))
    mirrored = (crops[:, 0, 16, 0] > crops[:, 0, 16, -1]).float().mean()
    assert 0.4 < float(mirrored) < 0.6
    straight = augment(ramp(400), 32, (0.9, 1.0), False, torch_generator(0, "x"))
    assert not (straight[:, 0, 16, 0] > straight[:, 0, 16, -1]).any()


def test_the_generator_determines_it() -> None:
    one, other = (augment(ramp(), 28, PAPER, True, torch_generator(seed, "x")) for seed in (0, 1))
    assert torch.equal(one, augment(ramp(), 28, PAPER, True, torch_generator(0, "x")))
    assert not torch.equal(one, other)


def test_grey_becomes_three_equal_channels_and_colour_stays() -> None:
    grey = augment(ramp(2), 28, PAPER, True, torch_generator(0, "x"))
    assert torch.equal(grey[:, 0], grey[:, 2])
    values = np.array([0, 51, 255], np.uint8)
    colour = torch.from_numpy(np.broadcast_to(values, (2, 32, 32, 3)).copy())
    ready = augment(colour, 28, PAPER, True, torch_generator(0, "x"))
    assert torch.allclose(ready[0, :, 5, 5], (torch.tensor(values) / 255 - 0.5) / 0.25, atol=1e-5)
