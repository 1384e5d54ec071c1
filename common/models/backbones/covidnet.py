"""COVID-Net, redesigned (PEPX blocks, batch normalisation, a 2×2 pooled embedding) and original.

Section III-A of arXiv 2009.07652 redesigns COVID-Net-Large (arXiv 2003.09871). Four stages of
3, 4, 6 and 3 PEPX blocks; within a stage every block reads the sum of what came before it.
The activations are kept as running sums, never as lists that are added up again.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

BLOCKS = (3, 4, 6, 3)
"""PEPX blocks of each stage."""
CHANNELS = (64, 256, 512, 1024, 2048)
"""Channels of the stem and of each stage, at width 1."""
PLACES = 4
"""Places of the pooled feature map: 2×2."""
RELEASED_FEED = (1, 2, 0, 1, 1, 1)
"""The released network's slip: how often each block of stage 3 enters stage 4's first block."""


def scaled(channels: int, width: float) -> int:
    """Return a layer's channels under a width multiplier: a multiple of 8, at least 8."""
    return max(8, 8 * round(channels * width / 8))


def feature_size(image_size: int) -> int:
    """Return the height of the last feature map for images of that height (7 for 224)."""
    return ((image_size - 1) // 2 + 1) // 16


def pool(features: Tensor) -> Tensor:
    """Average a feature map over 2×2 places, which overlap by a row and a column if it is odd.

    Equal to adaptive average pooling, whose gradient on a GPU is not reproducible to the bit.

    Parameters
    ----------
    features : Tensor, shape (batch, channels, height, width)

    Returns
    -------
    Tensor, shape (batch, channels, 2, 2)
    """
    height, width = features.shape[-2:]
    if min(height, width) < 2:
        features = F.interpolate(features, (max(2, height), max(2, width)), mode="nearest")
        height, width = features.shape[-2:]
    return F.avg_pool2d(features, ((height + 1) // 2, (width + 1) // 2), (height // 2, width // 2))


class Pepx(nn.Sequential):
    """A PEPX block: five convolutions and no activation between them.

    1×1 to n/2 channels, 1×1 to 3n/4, depthwise 3×3, 1×1 to n/2, 1×1 to the output's.

    Parameters
    ----------
    inputs, outputs : int
        Channels at width 1.
    width : float
        Multiplier of every layer's channels.
    """

    def __init__(self, inputs: int, outputs: int, width: float) -> None:
        narrow, wide = scaled(inputs // 2, width), scaled(inputs * 3 // 4, width)
        super().__init__(
            OrderedDict(
                reduce=nn.Conv2d(scaled(inputs, width), narrow, 1),
                widen=nn.Conv2d(narrow, wide, 1),
                depthwise=nn.Conv2d(wide, wide, 3, padding=1, groups=wide),
                narrow=nn.Conv2d(wide, narrow, 1),
                enlarge=nn.Conv2d(narrow, scaled(outputs, width), 1),
            )
        )


class Flow(NamedTuple):
    """What a stage hands on."""

    total: Tensor
    """Shape (batch, channels, height, width). Sum of the shortcut and of every block: what the next
    shortcut reads."""
    pooled: Tensor
    """Shape (batch, channels, height // 2, width // 2). Sum of the same tensors after max pooling,
    each pooled by itself since a maximum is not linear: what the next stage's first block reads."""
    last: Tensor
    """Shape (batch, channels, height, width). The last block alone."""


class Stage(nn.Module):
    """PEPX blocks that feed each other, and the 1×1 shortcut past them.

    Parameters
    ----------
    inputs, outputs : int
        Channels at width 1.
    feed : sequence of int
        One entry a PEPX block: how often its pooled output enters ``Flow.pooled``.
    width : float
        Multiplier of every layer's channels.
    halve : bool
        Whether the shortcut is max-pooled (in every stage but the first).
    normalised : bool
        Whether BatchNorm and ReLU follow the shortcut's convolution, before its pooling.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        feed: Sequence[int],
        width: float,
        halve: bool,
        normalised: bool = True,
    ) -> None:
        super().__init__()
        self.feed = tuple(feed)
        self.halve = halve
        self.shortcut = nn.Conv2d(scaled(inputs, width), scaled(outputs, width), 1)
        self.shortcut_norm = nn.BatchNorm2d(scaled(outputs, width)) if normalised else None
        self.blocks = nn.ModuleList(
            Pepx(inputs if index == 0 else outputs, outputs, width) for index in range(len(feed))
        )

    def forward(self, total: Tensor, entry: Tensor) -> Flow:
        """Run the stage.

        Parameters
        ----------
        total : Tensor, shape (batch, inputs, height, width)
            What the shortcut reads.
        entry : Tensor, shape (batch, inputs, height or height // 2, …)
            What the first block reads.
        """
        total = self.shortcut(total)
        if self.shortcut_norm is not None:
            total = F.relu(self.shortcut_norm(total), inplace=True)
        if self.halve:
            total = F.max_pool2d(total, 2)
        pooled = F.max_pool2d(total, 2) if any(self.feed) else total
        for block, times in zip(self.blocks, self.feed, strict=True):
            output = block(entry)
            # Not in place: the next block's first convolution keeps its input for the gradient.
            entry = total = total + output
            if times:
                pooled.add_(F.max_pool2d(output, 2), alpha=times)
        return Flow(total, pooled, output)


class CovidNet(nn.Module):
    """The backbone: images → embedding.

    Of the redesign, the last block's feature map, averaged over 2×2 places. The original is
    COVID-Net-Large, the paper's baseline: it has no normalisation and does not pool what its last
    stage sums. That is 2048 · 7 · 7 = 100352 values for images of 224 pixels, which is why their
    size is fixed when it is built.

    Parameters
    ----------
    width : float
        Multiplier of every layer's channels.
    variant : {'corrected', 'released', 'original'}
        Of the redesign: whether every block of stage 3 feeds stage 4, or only those that the
        released code adds.
    image_size : int
        Height and width of the original's images.
    """

    map_shape: tuple[int, int, int] | None
    """Channels, height and width of the feature map that is the original's embedding."""
    embedding: int
    """Width of the embedding: 8192 of the redesign at width 1."""

    def __init__(
        self,
        width: float = 1.0,
        variant: Literal["corrected", "released", "original"] = "corrected",
        image_size: int = 224,
    ) -> None:
        super().__init__()
        redesigned, side = variant != "original", feature_size(image_size)
        channels = scaled(CHANNELS[-1], width)
        self.map_shape = None if redesigned else (channels, side, side)
        self.embedding = channels * (PLACES if redesigned else side * side)
        self.stem = nn.Conv2d(3, scaled(CHANNELS[0], width), 7, stride=2, padding=3)
        self.stem_norm = nn.BatchNorm2d(scaled(CHANNELS[0], width)) if redesigned else None
        self.stages = nn.ModuleList()
        for index, blocks in enumerate(BLOCKS):
            feed = RELEASED_FEED if variant == "released" and index == 2 else (1,) * blocks
            if index == len(BLOCKS) - 1:
                feed = (0,) * blocks
            inputs, outputs = CHANNELS[index : index + 2]
            self.stages.append(Stage(inputs, outputs, feed, width, index > 0, redesigned))

    def forward(self, images: Tensor) -> Tensor:
        """Return the embedding, shape (batch, embedding).

        Parameters
        ----------
        images : Tensor, shape (batch, 3, height, width)
            At least 32 pixels high and wide.
        """
        stem = self.stem(images)
        if self.stem_norm is not None:
            stem = self.stem_norm(stem)
        stem = F.max_pool2d(F.relu(stem, inplace=True), 2)
        flow = Flow(stem, stem, stem)
        for stage in self.stages:
            flow = stage(flow.total, flow.pooled)
        return (pool(flow.last) if self.map_shape is None else flow.total).flatten(1)


class PooledMap(nn.Module):
    """Flattened feature map → the 2×2 pooled embedding of the redesign.

    The baseline has no projection head: in xsite it has the redesign's, which reads this.
    """

    def __init__(self, map_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.map_shape = map_shape
        self.embedding = map_shape[0] * PLACES

    def forward(self, flat: Tensor) -> Tensor:
        """Return the embedding, shape (batch, 4 · channels), of (batch, embedding)."""
        return pool(flat.reshape(-1, *self.map_shape)).flatten(1)
