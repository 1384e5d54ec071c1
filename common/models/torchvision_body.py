"""Any torchvision classifier with batch normalisation as a backbone."""

import difflib

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.errors import ConfigError


class TorchvisionBody(nn.Module):
    """A torchvision classifier without its last dense layer: images → embedding.

    Parameters
    ----------
    name : str
        As in ``torchvision.models.list_models()``, for example 'resnet18'.
    classes : int
        Number of classes; the layer that is taken away is known by it.
    image_size : int
        Height and width of the images that it will see, tried once.

    Attributes
    ----------
    embedding : int
        Width of the last dense layer's input.

    Raises
    ------
    ConfigError
        If torchvision has no such classifier, if it has no batch normalisation, if it does not
        end in a dense layer, or if it cannot take images of that size.
    """

    def __init__(self, name: str, classes: int, image_size: int) -> None:
        super().__init__()
        self.model = _make(name, classes)
        if not any(isinstance(module, _BatchNorm) for module in self.model.modules()):
            raise ConfigError(
                f"backbone = 'torchvision:{name}' has no batch normalisation, so no site could "
                "have its own. Choose one that has, for example 'torchvision:resnet18'."
            )
        self.embedding = _take_last_linear(self.model, name, classes)
        self._try(name, image_size)

    def forward(self, images: Tensor) -> Tensor:
        """Return the embedding, shape (batch, embedding), of (batch, 3, height, width)."""
        embedding: Tensor = self.model(images)
        return embedding.flatten(1)

    def _try(self, name: str, image_size: int) -> None:
        self.eval()
        try:
            with torch.no_grad():
                shape = tuple(self(torch.zeros(1, 3, image_size, image_size)).shape)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ConfigError(
                f"backbone = 'torchvision:{name}' cannot take images of {image_size} pixels "
                f"(image-size): {error}"
            ) from error
        if shape != (1, self.embedding):
            raise ConfigError(
                f"backbone = 'torchvision:{name}' gives an embedding of shape {shape} where "
                f"(1, {self.embedding}) was expected; choose another."
            )
        self.train()


def _make(name: str, classes: int) -> nn.Module:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(near)}?" if near else "resnet18 is one."
        raise ConfigError(f"torchvision has no classifier called '{name}'. {hint}")
    extra = {}
    if name in ("googlenet", "inception_v3"):
        # Without the auxiliary classifiers, which return tuples and see no projection head.
        extra = {"aux_logits": False, "init_weights": True}
    model: nn.Module = torchvision.models.get_model(
        name, weights=None, num_classes=classes, **extra
    )
    return model


def _take_last_linear(model: nn.Module, name: str, classes: int) -> int:
    """Replace the last dense layer by an identity and return the width of its input."""
    dense = [(place, m) for place, m in model.named_modules() if isinstance(m, nn.Linear)]
    if not dense or dense[-1][1].out_features != classes:
        raise ConfigError(
            f"backbone = 'torchvision:{name}' does not end in a dense layer; choose another, "
            "for example 'torchvision:resnet18'."
        )
    place, last = dense[-1]
    parent, _, child = place.rpartition(".")
    model.get_submodule(parent)._modules[child] = nn.Identity()
    return last.in_features
