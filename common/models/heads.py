"""The heads: embedding → logits and embedding → projection, through two dense layers each."""

from collections import OrderedDict

from torch import nn

from common.config.schema import Config
from common.models.backbones.covidnet import PooledMap, scaled

TORCHVISION = "torchvision:"
"""How the name of a torchvision classifier begins, where it is a backbone."""
HIDDEN = (1024, 256)
"""Widths of the classification head's dense layers, at width 1."""


def class_head(config: Config, embedding: int) -> nn.Module:
    """Return the head of a configuration's classes, freshly initialised: embedding → logits.

    COVID-Net's has two dense layers with ReLU, then one logit a class. BatchNorm stands before each
    ReLU in the redesign and not in the original; the released network's logits end in a sigmoid. A
    torchvision classifier's is one dense layer.
    """
    classes = len(config.class_names)
    if config.backbone.startswith(TORCHVISION):
        return nn.Linear(embedding, classes)
    redesigned = config.backbone == "covidnet"
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs = embedding
    for place, channels in enumerate((scaled(size, config.width) for size in HIDDEN), start=1):
        layers[f"dense{place}"] = nn.Linear(inputs, channels)
        if redesigned:
            layers[f"norm{place}"] = nn.BatchNorm1d(channels)
        layers[f"relu{place}"] = nn.ReLU(inplace=True)
        inputs = channels
    layers["logits"] = nn.Linear(inputs, classes)
    if redesigned and config.variant == "released":
        layers["sigmoid"] = nn.Sigmoid()
    return nn.Sequential(layers)


def projection_head(
    config: Config, embedding: int, map_shape: tuple[int, int, int] | None = None
) -> nn.Module:
    """Return the projection head, freshly initialised: embedding → projection, or to itself.

    Two dense layers, each with normalisation and ReLU (8192 → 1024 → 128 in the paper). Only the
    contrastive term trains it (section III-C of arXiv 2009.07652).

    Parameters
    ----------
    config : Config
        Its widths, and as ``contrastive-on`` whether there is one.
    embedding : int
        Width of its input.
    map_shape : tuple of int, optional
        Channels, height and width of the feature map that the embedding is; it is pooled first.
    """
    if config.contrastive_on == "embedding":
        return nn.Identity()
    hidden, size = scaled(config.projection_hidden, config.width), config.projection_size
    pooled = None if map_shape is None else PooledMap(map_shape)
    head = nn.Sequential(
        OrderedDict(
            hidden=nn.Linear(embedding if pooled is None else pooled.embedding, hidden),
            hidden_norm=nn.BatchNorm1d(hidden),
            hidden_relu=nn.ReLU(inplace=True),
            output=nn.Linear(hidden, size),
            output_norm=nn.BatchNorm1d(size),
            output_relu=nn.ReLU(inplace=True),
        )
    )
    return head if pooled is None else nn.Sequential(pooled, head)
