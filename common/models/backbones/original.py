"""The original COVID-Net-Large (arXiv 2003.09871): the paper's baseline before the redesign."""

import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import RunError
from common.models.backbones.covidnet import (
    CHANNELS,
    PLACES,
    feature_size,
    make_stages,
    pool,
    run_stages,
    scaled,
)


class PooledMap(nn.Module):
    """Flattened feature map → the 2×2 pooled embedding of the redesign.

    The baseline has no projection head: in xsite it has the redesign's, which reads this.

    Parameters
    ----------
    map_shape : tuple of int
        Channels, height and width of the feature map.
    """

    def __init__(self, map_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.map_shape = map_shape
        self.embedding = map_shape[0] * PLACES

    def forward(self, flat: Tensor) -> Tensor:
        """Return the embedding, shape (batch, 4 · channels), of (batch, embedding)."""
        return pool(flat.reshape(-1, *self.map_shape)).flatten(1)


class OriginalCovidNet(nn.Module):
    """Images → flattened feature map; no normalisation, no pooling of the last feature map.

    The embedding is the sum of the last stage's blocks and shortcut, 2048 · 7 · 7 = 100352 wide
    for images of 224 pixels, which is why the image size is fixed when it is built.

    Parameters
    ----------
    image_size : int
        Height and width of the images.
    width : float
        Multiplier of every layer's channels.

    Attributes
    ----------
    map_shape : tuple of int
        Channels, height and width of the feature map behind the embedding.
    embedding : int
        Their product.
    """

    def __init__(self, image_size: int, width: float = 1.0) -> None:
        super().__init__()
        side = feature_size(image_size)
        self.image_size = image_size
        self.map_shape = (scaled(CHANNELS[-1], width), side, side)
        self.embedding = self.map_shape[0] * side * side
        self.stem = nn.Conv2d(3, scaled(CHANNELS[0], width), 7, stride=2, padding=3)
        self.stages = make_stages(width, normalised=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the embedding, shape (batch, embedding).

        Parameters
        ----------
        images : Tensor, shape (batch, 3, image_size, image_size)

        Raises
        ------
        RunError
            If the images have another size than the network was built for.
        """
        if images.shape[-2:] != (self.image_size, self.image_size):
            raise RunError(
                f"The original COVID-Net was built for images of {self.image_size} pixels "
                f"and got {images.shape[-2]}×{images.shape[-1]}."
            )
        stem = F.relu(self.stem(images), inplace=True)
        return run_stages(self.stages, F.max_pool2d(stem, 2)).total.flatten(1)
