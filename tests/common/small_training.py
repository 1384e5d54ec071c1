"""A network that nests BatchNorm and sites of noise, small enough for a test."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.config.load import make_config
from common.config.schema import Config
from common.data.folder import CLASS
from common.device import Device
from common.learning.local_site import TrainingSite
from common.models.network import Network
from common.randomness import numpy_generator, seeded_torch

CPU = Device(torch.device("cpu"), torch.float32)
CPU64 = Device(torch.device("cpu"), torch.float64)


def config(**values: Any) -> Config:
    small = {"image-size": 16, "batch-size": 8, "sites": "a,b", "learning-rate": 0.01}
    return make_config(small | {key.replace("_", "-"): value for key, value in values.items()})


class Block(nn.Module):
    """A residual block, so that normalisation lies two levels below the body."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.inner(x)
        return result


def network(
    *sites: str, dtype: torch.dtype = torch.float32, dropout: float = 0.0, classes: int = 2
) -> Network:
    with seeded_torch(0, "test network"):
        body = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1),
            nn.BatchNorm2d(6),
            Block(6),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(dropout),
        )
        projection = nn.Sequential(nn.Linear(24, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
        made = Network(body, nn.Linear(24, classes), projection, sites, True, "small")
    return made.to(dtype)


def site(
    name: str, images: int = 40, balance: float = 0.5, size: int = 18, device: Device = CPU
) -> TrainingSite:
    """Positive images are brighter below, so that there is something to learn."""
    generator = numpy_generator(0, name, "test images")
    labels = (np.arange(images) < balance * images).astype(np.int64)
    pixels = generator.integers(0, 160, (images, size, size, 1))
    pixels[:, size // 2 :] += 60 * labels[:, None, None, None]
    return TrainingSite(
        name,
        torch.from_numpy(pixels.astype(np.uint8)),
        {CLASS: torch.from_numpy(labels)},
        np.arange(images, dtype=np.int64),
        device,
    )


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def normal(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    return numpy_generator(seed, "test normal").standard_normal(shape)
