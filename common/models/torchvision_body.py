"""Any torchvision classifier with batch normalisation as a backbone."""

import difflib

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from common.errors import ConfigError


class TorchvisionBody(nn.Module):
    """A torchvision classifier without its last dense layer: images → embedding.

    Or its first modules alone, up to one that is named. The embedding is then the mean of that
    module's feature maps over all places, each of which sees but a part of the image: a shallower
    network, whose class activation maps show closely where its evidence lies (W. Brendel and
    M. Bethge, ICLR 2019).

    Parameters
    ----------
    name : str
        As in ``torchvision.models.list_models()``, for example 'resnet18'; for its first modules
        with the path of the last of them behind a colon, as 'resnet18:layer2'.
    classes : int
        Number of classes; the layer that is taken away is known by it.
    image_size : int
        Height and width of the images that it will see, tried once.

    Attributes
    ----------
    embedding : int
        Width of the last dense layer's input, or channels of the named module's maps.

    Raises
    ------
    ConfigError
        If torchvision has no such classifier or the classifier no such module, if that gives no
        feature maps, if there is no batch normalisation, if a whole classifier does not end in a
        dense layer, or if it cannot take images of that size.
    """

    def __init__(self, name: str, classes: int, image_size: int) -> None:
        super().__init__()
        whole, part, last = name.partition(":")
        self.model = _make(whole, classes)
        if part:
            self.model = _FirstModules(self.model, whole, last)
        if not any(isinstance(module, _BatchNorm) for module in self.model.modules()):
            raise ConfigError(
                f"backbone = 'torchvision:{name}' has no batch normalisation, so no site could "
                "have its own. Choose one that has, for example 'torchvision:resnet18'."
            )
        width = None if part else _take_last_linear(self.model, name, classes)
        shape = self._try(name, image_size)
        if len(shape) != (4 if part else 2) or width not in (None, shape[1]):
            expected = "feature maps were" if part else f"(1, {width}) was"
            raise ConfigError(
                f"backbone = 'torchvision:{name}' gives values of shape {shape} where "
                f"{expected} expected; choose another."
            )
        self.embedding = shape[1]

    def forward(self, images: Tensor) -> Tensor:
        """Return the embedding, shape (batch, embedding), of (batch, 3, height, width)."""
        features: Tensor = self.model(images)
        return features.mean(dim=(2, 3)) if features.ndim == 4 else features

    def _try(self, name: str, image_size: int) -> tuple[int, ...]:
        self.eval()
        try:
            with torch.no_grad():
                shape = tuple(self.model(torch.zeros(1, 3, image_size, image_size)).shape)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ConfigError(
                f"backbone = 'torchvision:{name}' cannot take images of {image_size} pixels "
                f"(image-size): {error}"
            ) from error
        self.train()
        return shape


class _FirstModules(nn.Module):
    """A classifier up to one of its modules: images → that module's feature maps."""

    def __init__(self, model: nn.Module, name: str, last: str) -> None:
        super().__init__()
        try:
            self.modules_until = create_feature_extractor(
                model, {last: "maps"}, suppress_diff_warning=True
            )
        except ValueError as error:
            nodes = [f"{node}." for node in get_graph_node_names(model)[0]]
            paths = [
                path
                for path, _ in model.named_modules()
                if path and any(node.startswith(f"{path}.") for node in nodes)
            ]
            near = difflib.get_close_matches(last, paths, n=3, cutoff=0.4) or paths[:3]
            raise ConfigError(
                f"torchvision's {name} has no module '{last}' to end at. "
                f"Did you mean {' or '.join(near)}?"
            ) from error

    def forward(self, images: Tensor) -> Tensor:
        """Return feature maps, shape (batch, channels, h, w), of (batch, 3, height, width)."""
        maps: Tensor = self.modules_until(images)["maps"]
        return maps


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
