"""Gradient inversion: make the images again that moved the shared weights.

After Geiping et al., *Inverting Gradients* (NeurIPS 2020): an image is sought whose gradient points
where the update points (cosine distance), and which is smooth (total variation). The attacker is
the coordinator: it knows the weights before and after, the labels, and that images are grey. A
site's own normalisation it does not know, except before training, when it is the initial one.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from common.data.augment import MEAN, SPREAD, prepare
from common.data.cache import SiteData
from common.models.network import Network
from common.models.sharing import shared_names
from common.randomness import seeded_torch, torch_generator

BLACK, WHITE = -2.0, 2.0
"""Grey values as :mod:`common.data.augment` hands them to a network."""
CHANNELS = (16, 32)
GREYS = 1 / SPREAD
"""From black to white, as a network sees them."""
SMOOTH = 0.02
"""Weight of the total variation."""


def small_network(size: int, classes: int, site: str, width: int, seed: int) -> Network:
    """Return two convolutions with a site's own normalisation, and dense heads.

    Parameters
    ----------
    size : int
        Height and width of the images, a multiple of 4.
    classes : int
        Number of classes.
    site : str
        The one site that the network knows.
    width : int
        Size of a projection.
    seed : int
        Of the initial weights.
    """
    first, second = CHANNELS
    embedding = second * (size // 4) ** 2
    with seeded_torch(seed, "small network"):
        body = nn.Sequential(
            nn.Conv2d(3, first, 5, stride=2, padding=2),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.Conv2d(first, second, 3, stride=2, padding=1),
            nn.BatchNorm2d(second),
            nn.ReLU(),
            nn.Flatten(),
        )
        head, projection = nn.Linear(embedding, classes), nn.Linear(embedding, width)
    return Network(body, head, projection, [site], True, "two convolutions")


def shared_parameters(network: Network) -> list[nn.Parameter]:
    """Return the parameters that leave a site, in the network's order."""
    names = set(shared_names(network))
    return [parameter for name, parameter in network.named_parameters() if name in names]


def gradient(network: Network, images: Tensor, labels: Tensor, graph: bool) -> list[Tensor]:
    """Return the gradient of the cross entropy with respect to what is shared.

    Parameters
    ----------
    network : Network
        Of one site, in training mode: batches are normalised by themselves.
    images : Tensor, shape (n, 1, size, size)
        Grey, as the network sees them.
    labels : Tensor, shape (n,)
        Their classes.
    graph : bool
        Whether the gradient shall itself be differentiated.
    """
    output = network(images.expand(-1, 3, -1, -1), [(network.sites[0], len(images))])
    loss = F.cross_entropy(output.logits, labels)
    return list(
        torch.autograd.grad(
            loss, shared_parameters(network), create_graph=graph, materialize_grads=True
        )
    )


def total_variation(images: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring pixels."""
    return images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean()


def distance(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Return 1 − cosine of two updates, each taken as one long vector."""
    products = torch.stack([(a * b).sum() for a, b in zip(found, wanted, strict=True)]).sum()
    norms = [torch.stack([(a**2).sum() for a in one]).sum().sqrt() for one in (found, wanted)]
    return 1 - products / (norms[0] * norms[1]).clamp_min(1e-12)


def descend(
    loss: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    steps: int,
    seed: int,
    rate: float = 0.3,
) -> Tensor:
    """Seek images, from noise, that make a loss small: Adam, its rate falling as half a cosine.

    Every grey value stays between black and white.
    """
    images = torch.randn(shape, generator=torch_generator(seed, "inversion")).requires_grad_()
    optimizer = torch.optim.Adam([images], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(images).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            images.clamp_(BLACK, WHITE)
    return images.detach()


def invert(
    network: Network,
    update: Sequence[Tensor],
    labels: Tensor,
    size: int,
    steps: int,
    seed: int,
) -> Tensor:
    """Seek the images whose gradient points where an update points.

    Parameters
    ----------
    network : Network
        As the attacker takes it to have been before the update, of one site; left as it was.
    update : sequence of Tensor
        Weights before minus weights after, of the shared parameters in the network's order.
    labels : Tensor, shape (n,)
        Classes of the images, which the attacker is granted.
    size : int
        Their height and width.
    steps : int
        Steps of the search.
    seed : int
        Of the noise that it starts from.

    Returns
    -------
    Tensor, shape (n, 1, size, size)
    """

    def loss(images: Tensor) -> Tensor:
        found = gradient(network, images, labels, graph=True)
        return distance(found, update) + SMOOTH * total_variation(images)

    return descend(loss, (len(labels), 1, size, size), steps, seed)


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
