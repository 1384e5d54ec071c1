"""Images as an attack sees them: how alike two are, and a picture of some side by side."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from common.data.augment import MEAN, SPREAD, prepare
from common.data.cache import SiteData

GREYS = 1 / SPREAD
"""From black to white, as a network sees them."""


def load_images(data: SiteData, indices: NDArray[np.int64], size: int) -> Tensor:
    """Return a site's images as evaluation shows them to a network, one channel, (n, 1, …)."""
    raw = torch.from_numpy(np.asarray(data.images[indices]))
    return prepare(raw, size)[:, :1].contiguous()


def psnr(found: Tensor, true: Tensor) -> NDArray[np.float64]:
    """Return the peak signal-to-noise ratio of all pairs, in decibels.

    Parameters
    ----------
    found : Tensor, shape (n, 1, size, size)
        Images as networks see them.
    true : Tensor, shape (m, 1, size, size)
        Others.

    Returns
    -------
    ndarray of float64, shape (n, m)
        10·log₁₀ of the squared range of greys over the mean squared difference; at most 100.
    """
    differences = (found.double().flatten(1)[:, None] - true.double().flatten(1)[None]).square()
    error = differences.mean(dim=2) / GREYS**2
    return np.asarray((-10 * torch.log10(error.clamp_min(1e-10))).numpy())


def matched(found: Tensor, true: Tensor) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return which image found stands for each true one, in the best order of all, and its PSNR.

    Both have as many images.
    """
    pairs = psnr(found, true)
    columns, rows = linear_sum_assignment(-pairs.T)
    return rows, np.asarray(pairs[rows, columns])


def draw(path: Path, rows: Sequence[tuple[str, Tensor]]) -> None:
    """Write a PNG with rows of images, each below its title.

    Parameters
    ----------
    path : Path
        Where to.
    rows : sequence of (str, Tensor)
        Title, and images (n, 1, size, size) as a network sees them.
    """
    columns = max(len(images) for _, images in rows)
    figure = Figure(figsize=(columns, 1.2 * len(rows)))
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for places, (title, images) in zip(axes, rows, strict=True):
        places[0].set_title(title, fontsize=7, loc="left")
        for place in places:
            place.set_axis_off()
        for place, image in zip(places, images, strict=False):
            place.imshow(image[0].numpy() * SPREAD + MEAN, cmap="gray", vmin=0, vmax=1)
    figure.savefig(path, bbox_inches="tight")
