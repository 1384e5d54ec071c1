"""Class prototypes: made at a site, exchanged site by site, met by the others as constants.

A site never meets its own prototypes, and prototypes of different sites are never averaged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from common.config.schema import Config
from common.device import Device


@dataclass(frozen=True)
class Prototypes:
    """One site's class prototypes, with the number of images behind each."""

    site: str
    """Whose they are."""
    classes: NDArray[np.int64]
    """Shape (n,). The label of each; a class with too few images has none."""
    vectors: NDArray[np.float32]
    """Shape (n, size). Of length 1."""
    counts: NDArray[np.int64]
    """Shape (n,). Images behind each."""

    @classmethod
    def of(cls, site: str, arrays: Mapping[str, NDArray[Any]]) -> "Prototypes":
        """Return what :meth:`arrays` returned as prototypes again; nothing is checked."""
        return cls(site, **{key: arrays[key] for key in KEYS})

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by key, as they travel and are stored."""
        return {key: getattr(self, key) for key in KEYS}

    def chosen(self, which: NDArray[np.bool_]) -> "Prototypes":
        """Return those of the classes that a mask keeps, shape (n,)."""
        return Prototypes(self.site, **{key: own[which] for key, own in self.arrays().items()})

    def fault(
        self,
        size: int | None = None,
        classes: int | None = None,
        images: Sequence[int] | None = None,
        fewest: tuple[str, int] = ("", 1),
    ) -> str | None:
        """Say what no prototypes can be.

        Parameters
        ----------
        size : int, optional
            Width of a projection, where it is known.
        classes : int, optional
            How many there are.
        images : sequence of int, optional
            Images of each class that the site has.
        fewest : (str, int)
            The key that says how few images may stand behind a prototype, and its value.

        Returns
        -------
        str or None
            "its prototypes …"; None where every type, shape and value is one that
            :func:`make_prototypes` can make.
        """
        labels, vectors, counts = self.classes, self.vectors, self.counts
        width = vectors.shape[-1] if size is None and vectors.ndim == 2 else size
        n, shapes = labels.size, (labels.shape, vectors.shape, counts.shape)
        if shapes != ((n,), (n, width), (n,)):
            return (
                f"its prototypes have shapes {shapes[0]}, {shapes[1]} and {shapes[2]}; "
                f"expected (n,), (n, {'size' if width is None else width}) and (n,)"
            )
        types = [str(array.dtype) for array in (labels, vectors, counts)]
        if types != ["int64", "float32", "int64"]:
            return f"its prototypes have types {', '.join(types)}; expected int64, float32, int64"
        told: list[int] = labels.tolist()
        if classes is None:
            classes = max(told, default=0) + 1 if images is None else len(images)
        if len(set(told)) < n or not set(told) <= set(range(classes)):
            return f"its prototypes are of the classes {told}"
        if not np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3):
            return "its prototypes are not of length 1"
        key, least = fewest
        if n and counts.min() < least:
            least_of = f"{key} = {least}" if key else f"{least}"
            return (
                f"{int(counts.min())} images stand behind one of its prototypes, fewer than "
                f"{least_of}"
            )
        # The other sites weigh a prototype by the class's images, and cannot where there are none.
        if images is not None and (counts > np.array(images)[labels]).any():
            return (
                f"its prototypes of the classes {told} stand for {counts.tolist()} images, more "
                f"than it has: {list(images)}"
            )
        return None


KEYS = tuple(field.name for field in fields(Prototypes) if field.name != "site")


@dataclass(frozen=True)
class RemotePrototypes:
    """Prototypes as the objective meets them: constants on the training device."""

    vectors: Tensor
    """Shape (n, size). Directions."""
    labels: Tensor
    """Shape (n,). Classes."""
    multiplicity: Tensor
    """Shape (n,). For how many images of the joint batch each stands."""


def make_prototypes(site: str, projections: Tensor, labels: Tensor, min_count: int) -> Prototypes:
    """Average a site's L2-normalised projections by class and normalise the means.

    Parameters
    ----------
    site : str
        Whose images these are.
    projections : Tensor, shape (images, size)
        In eval mode.
    labels : Tensor, shape (images,)
        Their classes.
    min_count : int
        A class with fewer images sends no prototype. Nor does one whose mean has no direction.

    Returns
    -------
    Prototypes
        In the order of the labels; empty where no class qualifies.
    """
    unit = F.normalize(projections.detach().to("cpu", torch.float64), dim=1)
    labels = labels.to("cpu")
    classes, vectors, counts = [], [], []
    for label in torch.unique(labels).tolist():
        members = unit[labels == label]
        mean = members.mean(dim=0)
        if len(members) >= min_count and mean.norm() > 0:
            classes.append(label)
            vectors.append((mean / mean.norm()).numpy())
            counts.append(len(members))
    return Prototypes(
        site,
        np.array(classes, dtype=np.int64),
        np.array(vectors, dtype=np.float32).reshape(len(classes), projections.shape[1]),
        np.array(counts, dtype=np.int64),
    )


def remote_prototypes(
    site: str,
    prototypes: Sequence[Prototypes],
    class_counts: Mapping[str, Sequence[int]],
    config: Config,
    device: Device,
) -> RemotePrototypes | None:
    """Turn the other sites' prototypes into constants of the objective.

    A prototype's multiplicity is the number of images that the pooled batch would hold of that
    site and class: ``batch_size`` times the class's share of the site's training images.

    Parameters
    ----------
    site : str
        Who meets them; its own prototypes are left out.
    prototypes : sequence of Prototypes
        Of any sites, in the order in which they shall stand.
    class_counts : mapping of str to sequence of int
        Training images of each class (in label order) at every site; of a class of which there is
        a prototype, at least one.
    config : Config
        The batch size, and as ``prototypes`` and ``prototype-multiplicity`` what is met. An average
        is one prototype a class, the mean of all sites' (the site's own too) by the images behind
        them, with the multiplicity of the others': not what xsite does, but what it is compared
        with.
    device : Device
        Where, and as what, the constants shall lie.

    Returns
    -------
    RemotePrototypes or None
        None where no other site sent a prototype.
    """
    others = [other for other in prototypes if other.site != site and len(other.classes)]
    if not others:
        return None
    weights = np.array(
        [
            config.batch_size * (class_counts[other.site][label] / sum(class_counts[other.site]))
            for other in others
            for label in other.classes.tolist()
        ]
    )
    vectors = np.concatenate([other.vectors for other in others])
    labels = np.concatenate([other.classes for other in others])
    if config.prototypes == "average":
        met = np.unique(labels)
        vectors = np.stack([_mean(prototypes, label) for label in met])
        weights = np.array([weights[labels == label].sum() for label in met])
        labels = met
    if not config.prototype_multiplicity:
        weights = np.ones_like(weights)
    dtype = device.images_dtype
    return RemotePrototypes(
        torch.tensor(vectors, dtype=dtype).to(device.device),
        torch.tensor(labels).to(device.device),
        torch.tensor(weights, dtype=dtype).to(device.device),
    )


def _mean(prototypes: Sequence[Prototypes], label: int) -> NDArray[np.float64]:
    """Return the mean of all sites' prototypes of a class, by the images behind them."""
    return sum(
        (
            count * vector.astype(np.float64)
            for own in prototypes
            for known, vector, count in zip(own.classes, own.vectors, own.counts, strict=True)
            if known == label
        ),
        start=np.zeros(prototypes[0].vectors.shape[1]),
    )
