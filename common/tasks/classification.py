"""Which class folder an image lies in: one of two or of more classes."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from common.config.schema import Config
from common.data.folder import CLASS, SiteFolder
from common.device import at_least_float32
from common.models.heads import class_head
from common.tasks.figures import measure


class Classification:
    """The class alone: softmax, cross entropy, the most probable class.

    Parameters
    ----------
    config : Config
        Classes and backbone.
    """

    def __init__(self, config: Config) -> None:
        self.config = config

    def targets(self, folder: SiteFolder) -> Mapping[str, NDArray[Any]]:
        """Return each image's class."""
        return {CLASS: folder.labels}

    def heads(self, embedding: int) -> Mapping[str, nn.Module]:
        """Return the classification head."""
        return {CLASS: class_head(self.config, embedding)}

    def loss(self, output: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return the mean cross entropy, shape ()."""
        return F.cross_entropy(at_least_float32(output[CLASS]), targets[CLASS])

    def decide(self, output: Mapping[str, Tensor]) -> Mapping[str, NDArray[Any]]:
        """Return the classes' probabilities, float64 of shape (n, classes)."""
        return {CLASS: output[CLASS].double().softmax(dim=1).cpu().numpy()}

    def figures(
        self, decided: Mapping[str, NDArray[Any]], targets: Mapping[str, NDArray[Any]]
    ) -> Mapping[str, float]:
        """Return what :func:`common.tasks.figures.measure` says."""
        return measure(targets[CLASS], decided[CLASS])
