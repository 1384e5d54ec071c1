"""The projection head: embedding → the vector that the contrastive term compares."""

from collections import OrderedDict

from torch import nn


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
