"""Any torchvision classifier with batch normalisation as a backbone."""

import difflib
from collections import OrderedDict

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.errors import ConfigError


class TorchvisionBackbone(nn.Module):
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

    Raises
    ------
    ConfigError
        If torchvision has no such classifier or the classifier cannot end there, if there is no
        batch normalisation, if a whole classifier does not end in a dense layer, or if it cannot
        take images of that size.
    """

    embedding: int
    """Width of the last dense layer's input, or channels of the named module's maps."""
    least_size: int
    """Smallest images, from ``image_size`` on, at which no convolution with a stride meets a map of
    one pixel. There a processor's gradients in bfloat16 are not finite now and then (measured with
    PyTorch 2.x: ResNet-18 at 16 pixels, 1 of 15 short trainings; at 17 and 32, none)."""

    def __init__(self, name: str, classes: int, image_size: int) -> None:
        super().__init__()
        whole, part, last = name.partition(":")
        self.model = _make(whole, classes)
        if part:
            links = _links(self.model)
            if last not in links:
                near = difflib.get_close_matches(last, links, n=3, cutoff=0.4)
                outer = ", ".join(link for link in links if "." not in link)
                hint = f"Did you mean {' or '.join(near)}?" if near else f"It can at {outer}."
                raise ConfigError(f"torchvision's {whole} cannot end at '{last}'. {hint}")
            self.model = _chain(self.model, last)
        if not any(isinstance(module, _BatchNorm) for module in self.model.modules()):
            raise ConfigError(
                f"backbone = 'torchvision:{name}' has no batch normalisation, so no site could "
                "have its own. Choose one that has, for example 'torchvision:resnet18'."
            )
        width = None if part else _take_last_linear(self.model, name, classes)
        shape = self._try(name, image_size)
        if width is not None and shape != (1, width):
            raise ConfigError(
                f"backbone = 'torchvision:{name}' gives an embedding of shape {shape} where "
                f"(1, {width}) was expected; choose another."
            )
        self.embedding = shape[1]
        self.least_size = next(
            size for size in range(image_size, 1024) if not self._strides_over_a_pixel(name, size)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the embedding, shape (batch, embedding), of (batch, 3, height, width)."""
        features: Tensor = self.model(images)
        return features.mean(dim=(2, 3)) if features.ndim == 4 else features

    def _strides_over_a_pixel(self, name: str, image_size: int) -> bool:
        met = []

        def look(_: nn.Module, inputs: tuple[Tensor]) -> None:
            met.append(inputs[0].shape[2:].numel() == 1)

        hooks = [
            module.register_forward_pre_hook(look)
            for module in self.modules()
            if isinstance(module, nn.Conv2d)
            and max(module.kernel_size) > 1
            and max(module.stride) > 1
        ]
        self._try(name, image_size)
        for hook in hooks:
            hook.remove()
        return any(met)

    def _try(self, name: str, image_size: int) -> tuple[int, ...]:
        self.eval()
        try:
            with torch.no_grad():
                shape = tuple(self(torch.zeros(1, 3, image_size, image_size)).shape)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ConfigError(
                f"backbone = 'torchvision:{name}' cannot take images of {image_size} pixels "
                f"(image-size): {error}"
            ) from error
        self.train()
        return shape


def _links(module: nn.Module, path: str = "") -> list[str]:
    """Return where a classifier can end: before its dense layers, and within its chains."""
    found = []
    for name, child in module.named_children():
        if any(isinstance(part, nn.Linear) for part in child.modules()):
            break
        found.append(path + name)
        if isinstance(child, nn.Sequential):
            found += _links(child, f"{path}{name}.")
    return found


def _chain(module: nn.Module, last: str) -> nn.Sequential:
    """Return a module's children in their order, ``a.b`` ending within the chain ``a``."""
    end, _, within = last.partition(".")
    links = OrderedDict[str, nn.Module]()
    for name, child in module.named_children():
        links[name] = _chain(child, within) if name == end and within else child
        if name == end:
            break
    return nn.Sequential(links)


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
