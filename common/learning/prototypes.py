"""Class prototypes: made at a site, exchanged site by site, met by the others as constants.

A prototype describes how a site's L2-normalised projections of one class lie: their mean, their
spread along each axis and, with ``prototype-rank``, along a few directions of its own. The mean is
not normalised again: its length says how close together they are. The other sites draw vectors from
it at every step, which stand for the images that a joint batch would hold. A site never meets its
own prototypes, and prototypes of different sites are never averaged.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from common.config.schema import Config
from common.device import Device
from common.learning.batches import images_in_batch


@dataclass(frozen=True)
class Prototypes:
    """One site's class prototypes, with the number of images behind each."""

    site: str
    """Whose they are."""
    classes: NDArray[np.int64]
    """Shape (n,). The label of each; a class with too few images has none."""
    vectors: NDArray[np.float32]
    """Shape (n, 2 + rank, size). Of each the mean, the standard deviation along each axis, and
    factors along further directions: a projection is mean + deviation · z + Σ factor · z, with z
    standard normal. Together of length 1, since every projection is."""
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
        rank: int | None = None,
        classes: int | None = None,
        images: Sequence[int] | None = None,
        fewest: tuple[str, int] = ("", 1),
    ) -> str | None:
        """Say what no prototypes can be.

        Parameters
        ----------
        size : int, optional
            Width of a projection, where it is known.
        rank : int, optional
            Factors of each, where it is known.
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
        whole = vectors.ndim == 3 and vectors.shape[1] >= 2
        width = vectors.shape[2] if size is None and whole else size
        parts = vectors.shape[1] if rank is None and whole else 2 + (rank or 0)
        n, shapes = labels.size, (labels.shape, vectors.shape, counts.shape)
        if shapes != ((n,), (n, parts, width), (n,)):
            return (
                f"its prototypes have shapes {shapes[0]}, {shapes[1]} and {shapes[2]}; "
                f"expected (n,), (n, {parts}, {'size' if width is None else width}) and (n,)"
            )
        types = [str(array.dtype) for array in (labels, vectors, counts)]
        if types != ["int64", "float32", "int64"]:
            return f"its prototypes have types {', '.join(types)}; expected int64, float32, int64"
        told: list[int] = labels.tolist()
        if classes is None:
            classes = max(told, default=0) + 1 if images is None else len(images)
        if len(set(told)) < n or not set(told) <= set(range(classes)):
            return f"its prototypes are of the classes {told}"
        if not np.allclose(np.linalg.norm(vectors, axis=(1, 2)), 1.0, atol=1e-3):
            return "its prototypes are not of length 1"
        if (vectors[:, 1] < 0).any():
            return "a deviation of its prototypes is negative"
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


class Constants(NamedTuple):
    """What stands for the other sites' images in a step: constants on the training device."""

    vectors: Tensor
    """Shape (m, size). Directions."""
    labels: Tensor
    """Shape (m,). Classes."""
    multiplicity: Tensor
    """Shape (m,). For how many images of the joint batch each stands."""


@dataclass(frozen=True)
class RemotePrototypes:
    """The other sites' prototypes as a site's objective meets them, on the training device."""

    vectors: Tensor
    """Shape (n, 2 + rank, size). As of :class:`Prototypes`."""
    labels: Tensor
    """Shape (n,). Classes."""
    multiplicity: Tensor
    """Shape (n,). For how many images of the joint batch each stands."""
    sites: int
    """How many other sites they are of."""

    def means(self) -> Constants:
        """Return the direction of each mean, which stands for all of its images."""
        return Constants(F.normalize(self.vectors[:, 0], dim=1), self.labels, self.multiplicity)

    def draw(self, count: int, generator: torch.Generator) -> Constants:
        """Draw vectors of length 1 from every prototype.

        Parameters
        ----------
        count : int
            How many of each; together they stand for its images.
        generator : Generator
            On the CPU.

        Returns
        -------
        Constants
            ``count`` vectors of the first prototype, then of the second, and so on.
        """
        n, parts, size = self.vectors.shape
        vectors = self.vectors

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float32).to(vectors)

        mean, deviation, factors = vectors[:, :1], vectors[:, 1:2], vectors[:, 2:]
        around = normal(n, count, size)
        drawn = mean + deviation * around
        if parts > 2:
            drawn = drawn + normal(n, count, parts - 2) @ factors
        return Constants(
            F.normalize(drawn.reshape(n * count, size), dim=1),
            self.labels.repeat_interleave(count),
            (self.multiplicity / count).repeat_interleave(count),
        )


def make_prototypes(
    site: str,
    projections: NDArray[np.floating],
    labels: NDArray[np.int64],
    min_count: int,
    rank: int = 0,
    images: NDArray[np.int64] | None = None,
) -> Prototypes:
    """Describe by class how a site's L2-normalised projections lie.

    Parameters
    ----------
    site : str
        Whose images these are.
    projections : ndarray, shape (n, size)
        Of images.
    labels : ndarray of int64, shape (n,)
        Their classes.
    min_count : int
        A class with fewer images sends no prototype. Nor does one whose mean has no direction.
    rank : int
        Directions of largest spread that factors describe; the deviations hold the rest.
    images : ndarray of int64, shape (n,), optional
        Which image each is of, where some are of the same.

    Returns
    -------
    Prototypes
        In the order of the labels; empty where no class qualifies.
    """
    lengths = np.linalg.norm(projections.astype(np.float64), axis=1, keepdims=True)
    unit = projections / np.maximum(lengths, 1e-12)
    behind = np.arange(len(labels)) if images is None else images
    classes, vectors, counts = [], [], []
    for label in np.unique(labels).tolist():
        members, count = unit[labels == label], len(np.unique(behind[labels == label]))
        if count >= min_count and members.mean(axis=0).any():
            classes.append(label)
            vectors.append(_described(members, rank))
            counts.append(count)
    return Prototypes(
        site,
        np.array(classes, dtype=np.int64),
        np.array(vectors, dtype=np.float32).reshape(len(classes), 2 + rank, unit.shape[1]),
        np.array(counts, dtype=np.int64),
    )


def _described(members: NDArray[np.float64], rank: int) -> NDArray[np.float64]:
    """Return mean, deviations and factors of vectors (n, size), shape (2 + rank, size)."""
    mean = members.mean(axis=0)
    away = (members - mean) / math.sqrt(len(members))
    factors = np.zeros((rank, members.shape[1]))
    if rank:
        _, lengths, directions = np.linalg.svd(away, full_matrices=False)
        own = lengths[:rank, None] * directions[:rank]
        factors[: len(own)] = own
    rest = (away**2).sum(axis=0) - (factors**2).sum(axis=0)
    described: NDArray[np.float64] = np.vstack([mean, np.sqrt(np.maximum(rest, 0)), factors])
    return described


def remote_prototypes(
    site: str,
    prototypes: Sequence[Prototypes],
    class_counts: Mapping[str, Sequence[int]],
    config: Config,
    device: Device,
) -> RemotePrototypes | None:
    """Turn the other sites' prototypes into what a site's objective meets.

    A prototype's multiplicity is the number of images that the pooled batch would hold of that
    site and class.

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
        is one prototype a class, of all sites' images together (the site's own too), with the
        multiplicity of the others': not what xsite does, but what it is compared with.
    device : Device
        Where, and as what, they shall lie.

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
            images_in_batch(config, class_counts[other.site])[label]
            for other in others
            for label in other.classes.tolist()
        ]
    )
    vectors = np.concatenate([other.vectors for other in others])
    labels = np.concatenate([other.classes for other in others])
    if config.prototypes == "average":
        met = np.unique(labels)
        vectors = np.stack([_average(prototypes, label) for label in met])
        weights = np.array([weights[labels == label].sum() for label in met])
        labels = met
    if not config.prototype_multiplicity:
        weights = np.ones_like(weights)
    dtype = device.images_dtype
    return RemotePrototypes(
        torch.tensor(vectors, dtype=dtype).to(device.device),
        torch.tensor(labels).to(device.device),
        torch.tensor(weights, dtype=dtype).to(device.device),
        len(others),
    )


def _average(prototypes: Sequence[Prototypes], label: int) -> NDArray[np.float64]:
    """Return a class's prototype of all sites' images, shape (2 + rank, size), without factors."""
    own = [
        (count, vectors.astype(np.float64))
        for one in prototypes
        for known, vectors, count in zip(one.classes, one.vectors, one.counts, strict=True)
        if known == label
    ]
    counts = [count for count, _ in own]
    mean = np.average([vectors[0] for _, vectors in own], axis=0, weights=counts)
    square = np.average([(vectors**2).sum(axis=0) for _, vectors in own], axis=0, weights=counts)
    average: NDArray[np.float64] = np.zeros_like(own[0][1])
    average[:2] = mean, np.sqrt(np.maximum(square - mean**2, 0))
    return average
