"""The classification head: embedding → logits, through two dense layers."""

from collections import OrderedDict

from torch import nn

from common.config.schema import Config
from common.models.backbones.covidnet import scaled

TORCHVISION = "torchvision:"
"""How the name of a torchvision classifier begins, where it is a backbone."""
HIDDEN = (1024, 256)
"""Widths of the two dense layers, at width 1."""


class ClassificationHead(nn.Sequential):
    """Two dense layers with ReLU, then one logit a class.

    Parameters
    ----------
    embedding : int
        Width of its input.
    classes : int
        Number of classes.
    width : float
        Multiplier of the dense layers' widths.
    normalised : bool
        Whether BatchNorm stands before each ReLU (in the redesign, not in the original).
    sigmoid : bool
        Whether the logits end in a sigmoid, as the released network's do.
    """

    def __init__(
        self,
        embedding: int,
        classes: int,
        width: float = 1.0,
        normalised: bool = True,
        sigmoid: bool = False,
    ) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = embedding
        for place, channels in enumerate((scaled(size, width) for size in HIDDEN), start=1):
            layers[f"dense{place}"] = nn.Linear(inputs, channels)
            if normalised:
                layers[f"norm{place}"] = nn.BatchNorm1d(channels)
            layers[f"relu{place}"] = nn.ReLU(inplace=True)
            inputs = channels
        layers["logits"] = nn.Linear(inputs, classes)
        if sigmoid:
            layers["sigmoid"] = nn.Sigmoid()
        super().__init__(layers)


def class_head(config: Config, embedding: int) -> nn.Module:
    """Return the head of a configuration's classes, freshly initialised: embedding → logits."""
    classes = len(config.class_names)
    if config.backbone.startswith(TORCHVISION):
        return nn.Linear(embedding, classes)
    redesigned = config.backbone == "covidnet"
    sigmoid = redesigned and config.variant == "released"
    return ClassificationHead(embedding, classes, config.width, redesigned, sigmoid)


class ProjectionHead(nn.Sequential):
    """Two dense layers, each with normalisation and ReLU (8192 → 1024 → 128 in the paper).

    Only the contrastive term trains it (section III-C of arXiv 2009.07652).

    Parameters
    ----------
    embedding : int
        Width of its input.
    hidden : int
        Width of the layer between.
    size : int
        Width of a projection.
    """

    def __init__(self, embedding: int, hidden: int, size: int) -> None:
        super().__init__(
            OrderedDict(
                hidden=nn.Linear(embedding, hidden),
                hidden_norm=nn.BatchNorm1d(hidden),
                hidden_relu=nn.ReLU(inplace=True),
                output=nn.Linear(hidden, size),
                output_norm=nn.BatchNorm1d(size),
                output_relu=nn.ReLU(inplace=True),
            )
        )
