"""Where in an image a network looks: class activation maps, and how they meet known lesions.

Grad-CAM: R. R. Selvaraju et al., ICCV 2017. Grad-CAM++: A. Chattopadhay et al., WACV 2018.
HiResCAM: R. L. Draelos and L. Carin, arXiv 2011.08891. All weigh the feature maps of one layer by
the gradient of a class's logit. The first two give a whole feature map one weight, as if places
did not matter to the head. But COVID-Net does not average its maps over the image: its head weighs
every place on its own. HiResCAM keeps the places' gradients apart.
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torchcam.methods import GradCAM

from common.errors import RunError
from common.learning.evaluation import EVALUATION_BATCH
from common.models.network import Network

Method = Literal["grad-cam", "grad-cam++", "hires-cam"]
METHODS: tuple[Method, ...] = get_args(Method)
# Of finer maps, Grad-CAM makes less and HiResCAM more: on synthetic hospitals at 224 pixels, 2.6
# times the mass inside the lesions at an eighth of the image's resolution as at a sixteenth.
_PIXELS_OF_A_PLACE: dict[Method, int] = {"grad-cam": 16, "grad-cam++": 16, "hires-cam": 8}

FEWEST = 6
"""Fewest positions of a feature map, along one side."""


class _Logits(nn.Module):
    """A site's network as a function from images to logits."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, shape (n, classes), of images (n, 3, height, width)."""
        logits: Tensor = self.network(images).logits
        return logits


def activation_maps(
    network: Network,
    site: str,
    images: Tensor,
    labels: NDArray[np.int64],
    method: Method,
) -> NDArray[np.float32]:
    """Compute class activation maps in eval mode, with the site's own normalisation.

    Neither weights, gradients, running statistics nor modes of the network change, and no hook
    stays behind.

    Parameters
    ----------
    network : Network
        On any device.
    site : str
        Whose images these are.
    images : Tensor, shape (n, 3, height, width)
        As :func:`common.data.augment.prepare` returns them.
    labels : ndarray of int64, shape (n,)
        The class of each image whose logit the map explains.
    method : {'grad-cam', 'grad-cam++', 'hires-cam'}
        How the feature maps are weighed; :func:`feature_layer`
        chooses whose.

    Returns
    -------
    ndarray of float32, shape (n, height, width)
        Enlarged bilinearly to the images' size and divided by its maximum, image by image; a map
        without a positive value is all zeros.

    Raises
    ------
    RunError
        If labels and images differ in number, the site is unknown, the backbone has no feature
        maps, or a map is not finite.
    """
    if len(labels) != len(images):
        raise RunError(f"There are {len(images)} images but {len(labels)} labels; give one each.")
    size = (int(images.shape[-2]), int(images.shape[-1]))
    if not len(images):
        return np.empty((0, *size), np.float32)
    weight = next(network.parameters())
    images = images.detach().to(weight.device, weight.dtype)
    of_site = network.for_site(site)
    model = _Logits(of_site).eval()
    chosen = feature_layer(of_site.backbone, images[:1], _PIXELS_OF_A_PLACE[method])
    parts = []
    # Grad mode is on for the caller who works in inference mode too, where nothing could be
    # differentiated.
    with torch.inference_mode(False), torch.enable_grad():
        for start in range(0, len(images), EVALUATION_BATCH):
            stop = start + EVALUATION_BATCH
            batch = images[start:stop].clone().requires_grad_()
            classes = [int(label) for label in labels[start:stop]]
            with GradCAM(model, chosen) as extractor:
                # Not the library's normalisation: it takes the smallest value away first,
                # and what is no evidence would no longer be zero.
                maps = extractor(classes, model(batch), normalized=False)[0]
                if method != "grad-cam":
                    maps = _weighted(extractor.hook_a[0], extractor.hook_g[0], method)
            parts.append(_scaled(maps, size))
    return np.concatenate(parts)


@torch.no_grad()
def _weighted(activation: Tensor | None, gradient: Tensor | None, method: Method) -> Tensor:
    """Return maps (n, h, w) of feature maps and gradients (n, channels, h, w).

    HiResCAM: the sum of g A over the channels, place by place. Grad-CAM++, equation 19 of its
    paper: a place's gradient g weighs g² / (2g² + g³ ΣA), which is 1 / (2 + g ΣA), and only where
    g > 0. The paper's A are rectified; of others the positive part is summed. Not the library's
    own: as of 0.5.0 it divides a copy, and weighs by g³ alone.
    """
    assert activation is not None and gradient is not None  # the extractor has just been called
    if method == "hires-cam":
        return (gradient * activation).sum(dim=1).clamp_min(0)
    positive = gradient.clamp_min(0)
    total = activation.clamp_min(0).sum(dim=(2, 3), keepdim=True)
    weights = (positive / (2 + positive * total)).sum(dim=(2, 3), keepdim=True)
    return (weights * activation).sum(dim=1).clamp_min(0)


def _scaled(maps: Tensor, size: tuple[int, int]) -> NDArray[np.float32]:
    """Enlarge maps (n, h, w) ≥ 0 and divide each by its maximum."""
    enlarged = F.interpolate(
        maps.float().unsqueeze(1), size, mode="bilinear", align_corners=False
    ).squeeze(1)
    if not bool(enlarged.isfinite().all()):
        raise RunError(
            "An activation map is not finite: the network's weights or running statistics are "
            "broken. Lower learning-rate, or set clip-norm."
        )
    highest = enlarged.amax(dim=(1, 2), keepdim=True)
    scaled = torch.where(highest > 0, enlarged / highest, torch.zeros_like(enlarged))
    return np.ascontiguousarray(scaled.cpu().numpy().astype(np.float32))


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


@dataclass(frozen=True)
class LesionShare:
    """How much of the activation lies inside the lesions, over the images that have one.

    A gain is a ratio of means, since a mean of ratios is decided by the few images with the
    smallest lesions. NaN without images.
    """

    area: float
    """Mean share of the lungs' area that is lesion."""
    gain: float
    """Mean share of the whole image's activation inside the lesions, over ``area``. The strictest
    of the three: activation outside the lungs counts against it, and a map that is even everywhere
    stays below 1."""
    gain_in_lungs: float
    """The same of the activation within the lungs; 1 of a map that is even over the lungs."""
    gain_in_image: float
    """The first share over the lesions' share of the image; 1 of a map that is even everywhere."""


def lesion_share(
    maps: NDArray[np.float32], lesions: NDArray[np.float32], lungs: NDArray[np.float32]
) -> LesionShare:
    """Measure how much of the activation lies inside the lesions.

    Parameters
    ----------
    maps : ndarray, shape (n, height, width)
        Activation of the positive class on positive images, at least 0; the scale of each does
        not matter, and a blank one has no share.
    lesions, lungs : ndarray, shape (n, height, width)
        Share of each pixel that is lesion, and lung, 0 to 1; or masks of 0 and 1.
    """
    pixels = maps.shape[1] * maps.shape[2]
    active, lesion, lung = (
        each.reshape(-1, pixels).astype(np.float64) for each in (maps, lesions, lungs)
    )
    lesion = np.minimum(lesion, lung)
    ill = lesion.sum(axis=1) > 0
    if not ill.any():
        return LesionShare(math.nan, math.nan, math.nan, math.nan)
    active, lesion, lung = active[ill], lesion[ill], lung[ill]
    inside = (active * lesion).sum(axis=1)
    mass = _mean_share(inside, active.sum(axis=1))
    area = _mean_share(lesion.sum(axis=1), lung.sum(axis=1))
    return LesionShare(
        area=area,
        gain=mass / area,
        gain_in_lungs=_mean_share(inside, (active * lung).sum(axis=1)) / area,
        gain_in_image=mass / float(lesion.mean(axis=1).mean()),
    )


def _mean_share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> float:
    """Return the mean of the shares, a share of nothing being 0."""
    return float(np.divide(part, whole, out=np.zeros_like(part), where=whole > 0).mean())
