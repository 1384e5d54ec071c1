"""From cached bytes to what the network sees, on the device, a whole batch at once."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

ASPECT = (3 / 4, 4 / 3)
"""Range of a random crop's width divided by its height."""
MEAN, SPREAD = 0.5, 0.25
"""What is taken from a grey value in [0, 1], and what the difference is divided by."""


def augment(
    images: Tensor,
    size: int,
    crop_scale: tuple[float, float],
    flip: bool,
    generator: torch.Generator,
) -> Tensor:
    """Crop at random, resize, and mirror at random.

    A crop's area is a share of the image's, drawn uniformly; its aspect ratio is drawn
    log-uniformly from 3/4 to 4/3. No side is longer than that of the largest square crop. A crop
    larger than the image shows a mirrored rim. With the paper's largest share of 1, evaluation on
    whole images shows everything at the smallest size that training ever did.

    Parameters
    ----------
    images : Tensor of uint8, shape (batch, height, width, channels)
        As cached; one channel becomes three equal ones.
    size : int
        Height and width of the result.
    crop_scale : (float, float)
        Smallest share of the area, in (0, 1], and largest, at least 1; the paper has 0.5 and 1.
    flip : bool
        Whether to mirror half of the images.
    generator : torch.Generator
        On the CPU; the draws do not depend on the device.

    Returns
    -------
    Tensor of float32, shape (batch, 3, size, size)
        Channels last, about zero.
    """
    draws = torch.rand((5, len(images)), generator=generator)
    smallest, largest = crop_scale
    longest = math.sqrt(largest)
    area = smallest + (largest - smallest) * draws[0]
    aspect = torch.exp(math.log(ASPECT[0]) + math.log(ASPECT[1] / ASPECT[0]) * draws[1])
    width = (area * aspect).sqrt().clamp_max(longest)
    height = (area / aspect).sqrt().clamp_max(longest)
    # In grid_sample's coordinates an image spans [-1, 1], so a centre lies within ±|1 - extent|.
    centre_x = (2 * draws[2] - 1) * (1 - width)
    centre_y = (2 * draws[3] - 1) * (1 - height)
    mirrored = torch.where((draws[4] < 0.5) & flip, -1.0, 1.0)
    zero = torch.zeros_like(width)
    affine = torch.stack(
        [
            torch.stack([width * mirrored, zero, centre_x], dim=1),
            torch.stack([zero, height, centre_y], dim=1),
        ],
        dim=1,
    ).to(images.device)
    grid = F.affine_grid(affine, [len(images), 1, size, size], align_corners=False)
    crops = F.grid_sample(
        _planes(images), grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return _normalised(crops)


def prepare(images: Tensor, size: int) -> Tensor:
    """Resize without augmentation, for evaluation.

    Parameters
    ----------
    images : Tensor of uint8, shape (batch, height, width, channels)
        As cached.
    size : int
        Height and width of the result.

    Returns
    -------
    Tensor of float32, shape (batch, 3, size, size)
        As :func:`augment` returns it.
    """
    planes = _planes(images)
    if planes.shape[2:] != (size, size):
        planes = F.interpolate(planes, (size, size), mode="bilinear", antialias=True)
    return _normalised(planes)


def _planes(images: Tensor) -> Tensor:
    """Return grey values in [0, 1], (batch, channels, height, width)."""
    return images.movedim(3, 1).to(torch.float32) / 255


def _normalised(planes: Tensor) -> Tensor:
    normalised = (planes - MEAN) / SPREAD
    if normalised.shape[1] == 1:
        normalised = normalised.expand(-1, 3, -1, -1)
    return normalised.contiguous(memory_format=torch.channels_last)
