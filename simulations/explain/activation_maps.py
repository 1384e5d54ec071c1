"""Where in an image a network looks: class activation maps, and how they meet known lesions.

Grad-CAM: R. R. Selvaraju et al., ICCV 2017. Grad-CAM++: A. Chattopadhay et al., WACV 2018.
HiResCAM: R. L. Draelos and L. Carin, arXiv 2011.08891. All weigh the feature maps of one layer by
the gradient of a class's logit. The first two give a whole feature map one weight, as if places
did not matter to the head. But COVID-Net does not average its maps over the image: its head weighs
every place on its own. HiResCAM keeps the places' gradients apart.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torchcam.methods import GradCAM

from common.errors import RunError
from common.learning.evaluation import EVALUATION_BATCH
from common.models.network import Network
from simulations.explain.feature_map import feature_layer

Method = Literal["grad-cam", "grad-cam++", "hires-cam"]
METHODS: tuple[Method, ...] = get_args(Method)
# Of finer maps, Grad-CAM makes less and HiResCAM more: on synthetic hospitals at 224 pixels, 2.6
# times the mass inside the lesions at an eighth of the image's resolution as at a sixteenth.
_PIXELS_OF_A_PLACE: dict[Method, int] = {"grad-cam": 16, "grad-cam++": 16, "hires-cam": 8}


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
        How the feature maps are weighed; :func:`~simulations.explain.feature_map.feature_layer`
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


@dataclass(frozen=True)
class LesionShare:
    """How much of the activation lies in lesions; each array holds one value an image, (n,).

    Attributes
    ----------
    mass : ndarray of float64
        Share of the whole image's activation that lies inside the lesions; 0 of a blank map.
    mass_in_lungs : ndarray of float64
        The same share of the activation inside the lungs alone.
    area : ndarray of float64
        Share of the lungs' area that is lesion.
    area_in_image : ndarray of float64
        Share of the image's area that is lesion: the mass of a map that is even everywhere.
    blank : int
        How many maps are zero everywhere.
    """

    mass: NDArray[np.float64]
    mass_in_lungs: NDArray[np.float64]
    area: NDArray[np.float64]
    area_in_image: NDArray[np.float64]
    blank: int

    @property
    def images(self) -> int:
        """How many images were measured: those with a lesion."""
        return len(self.mass)

    @property
    def gain(self) -> float:
        """Mean mass over mean area: activation anywhere in the image, held against the lungs.

        The strictest of the three gains: activation outside the lungs counts against it, and a
        map that is even everywhere stays below 1. A ratio of means, since a mean of ratios is
        decided by the few images with the smallest lesions.
        """
        return _ratio(self.mass, self.area)

    @property
    def gain_in_lungs(self) -> float:
        """Mean mass in the lungs over mean area; 1 of a map that is even over the lungs."""
        return _ratio(self.mass_in_lungs, self.area)

    @property
    def gain_in_image(self) -> float:
        """Mean mass over mean area in the image; 1 of a map that is even everywhere."""
        return _ratio(self.mass, self.area_in_image)


def lesion_share(
    maps: NDArray[np.float32], lesions: NDArray[np.float32], lungs: NDArray[np.float32]
) -> LesionShare:
    """Measure how much of the activation lies inside the lesions.

    Parameters
    ----------
    maps : ndarray, shape (n, height, width)
        Activation of the positive class on positive images, at least 0; the scale of each does
        not matter.
    lesions, lungs : ndarray, shape (n, height, width)
        Share of each pixel that is lesion, and lung, 0 to 1; or masks of 0 and 1.

    Returns
    -------
    LesionShare
        Over the images with a lesion; the others are left out.
    """
    pixels = maps.shape[1] * maps.shape[2]
    active, lesion, lung = (
        each.reshape(-1, pixels).astype(np.float64) for each in (maps, lesions, lungs)
    )
    lesion = np.minimum(lesion, lung)
    ill = lesion.sum(axis=1) > 0
    active, lesion, lung = active[ill], lesion[ill], lung[ill]
    inside = (active * lesion).sum(axis=1)
    whole, within = active.sum(axis=1), (active * lung).sum(axis=1)
    return LesionShare(
        mass=_share(inside, whole),
        mass_in_lungs=_share(inside, within),
        area=_share(lesion.sum(axis=1), lung.sum(axis=1)),
        area_in_image=lesion.mean(axis=1),
        blank=int((whole == 0).sum()),
    )


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide, a share of nothing being 0."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> float:
    """Return the ratio of the means, NaN without images."""
    return float(part.mean() / whole.mean()) if len(part) else float("nan")
