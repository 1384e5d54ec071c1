"""Which module of a backbone gives the feature maps that a picture of its work is made of."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import RunError

FEWEST = 6
"""Fewest positions of a feature map, along one side."""


@dataclass
class _Call:
    """A call of a module that returned feature maps.

    ``height`` is that of the maps; ``depth`` counts the modules around it that returned maps too.
    """

    module: nn.Module
    height: int
    depth: int = 0


def feature_layer(backbone: nn.Module, images: Tensor, coarsest: int = 16) -> nn.Module:
    """Return the module that gives the deepest feature maps which are fine enough.

    Found by what the modules return, never by their names. Maps are fine enough if a position
    stands for at most ``coarsest`` × ``coarsest`` pixels and there are at least 6 × 6 of them. The
    last maps of the networks here stand for 32 × 32 pixels: 3 × 3 positions for images of 96
    pixels, each larger than most lesions. So with 16 the answer lies about one stage before:
    14 × 14 positions for 224 pixels, 6 × 6 for 96.

    Of the coarsest maps that are fine enough, the outermost module's are taken, since within a
    block the signal runs along several paths; and of several, the last. A module that returns no
    maps itself, as a stage of COVID-Net does, is looked through.

    Parameters
    ----------
    backbone : Module
        A backbone in eval mode.
    images : Tensor, shape (n, 3, height, width)
        One image is enough.
    coarsest : int
        Most pixels of an image, along one side, that a position may stand for.

    Raises
    ------
    RunError
        If no module returns such maps.
    """
    least = max(FEWEST, int(images.shape[-2]) // coarsest)
    calls = _trace(backbone, images)
    times = Counter(call.module for call in calls)
    # Of a module in several places a hook would see the last one alone.
    fine = [call for call in calls if call.height >= least and times[call.module] == 1]
    if not fine:
        raise RunError(
            f"The backbone gives no feature maps of {least} × {least} positions or more for images "
            f"of {images.shape[-2]} pixels, so there is nothing to draw activation maps from."
        )
    return min(reversed(fine), key=lambda call: (call.height, call.depth)).module


@torch.no_grad()
def _trace(backbone: nn.Module, images: Tensor) -> list[_Call]:
    """Run a module and return the calls of those within that return maps, by their end."""
    calls: list[_Call] = []
    # For each module under way, where its own calls begin.
    begun: list[int] = []

    def enter(module: nn.Module, _: Any) -> None:
        begun.append(len(calls))

    def leave(module: nn.Module, _: Any, output: Any) -> None:
        first = begun.pop()
        if isinstance(output, Tensor) and output.ndim == 4:
            for call in calls[first:]:
                call.depth += 1
            calls.append(_Call(module, min(output.shape[-2:])))

    handles = []
    try:
        for module in backbone.modules():
            if module is not backbone:
                handles.append(module.register_forward_pre_hook(enter))
                handles.append(module.register_forward_hook(leave))
        backbone(images)
    finally:
        for handle in handles:
            handle.remove()
    return calls
