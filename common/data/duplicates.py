"""Copies among a site's images: the same picture twice, exactly or nearly.

Near copies are the same picture saved again: compressed, resized, a little brighter. Measured at
128 pixels on two CT and two chest X-ray sites and on five synthetic hospitals, nine copies of ten
that were resized or saved as JPEG (quality 75 or 90) differ from their originals in at most 8
places of 256. Two slices of one synthetic scan differ in 11 or more.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree

from common.data.folder import SiteFolder
from common.data.patients import examples
from common.errors import one_line
from common.files import write_json

SIDE = 16
"""A hash says of 16 × 16 places whether an image grows brighter to the right."""
BITS = SIDE * SIDE
NEAR = 10
"""Places of a hash in which near copies differ at most."""
ALIKE = 0.95
"""Correlation of their greys, at least: pictures that are black but for a spot have like hashes."""
BLOCK = 256

Pair = tuple[int, int]


class Fingerprint(NamedTuple):
    """What copies of an image have in common."""

    pixels: str
    """Hash of its pixels; '' for a picture of one grey, which nobody can tell from another."""
    hash: NDArray[np.float32]
    """(256,) where it grows brighter from left to right: 1 or −1."""
    greys: NDArray[np.float32]
    """(272,) mean greys of 16 × 17 places, centred, of length 1; zeros for one grey."""


class Copies(NamedTuple):
    """Pairs of images, as positions, that are copies; together they tie all copies of an image."""

    exact: tuple[Pair, ...]
    """Of the same file, or the same pixels."""
    near: tuple[Pair, ...]
    """Nearly the same, the nearest first."""


def fingerprints(images: NDArray[np.uint8]) -> list[Fingerprint]:
    """Return what copies of each image would have in common with it.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size, channels)
        As they are cached.
    """
    found: list[Fingerprint] = []
    rows, columns = (_shares(images.shape[1], parts) for parts in (SIDE, SIDE + 1))
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK]
        # Whole numbers below 2⁵³: their sums are exact, in whatever order a processor adds.
        means = rows @ block.sum(axis=3, dtype=np.float64) @ columns.T
        brighter = means[:, :, 1:] > means[:, :, :-1]
        hashes = np.where(brighter, 1, -1).astype(np.float32).reshape(-1, BITS)
        greys = means.reshape(len(block), -1)
        greys -= greys.mean(axis=1, keepdims=True)
        lengths = np.linalg.norm(greys, axis=1, keepdims=True)
        greys = np.divide(greys, lengths, out=np.zeros_like(greys), where=lengths > 0)
        for image, own, grey in zip(block, hashes, greys.astype(np.float32), strict=True):
            plain = image.min() == image.max()
            pixels = "" if plain else hashlib.sha256(image.tobytes()).hexdigest()
            found.append(Fingerprint(pixels, own, grey))
    return found


def _shares(size: int, parts: int) -> NDArray[np.float64]:
    """Return how much of each pixel lies in each of equal parts of a line, (parts, size)."""
    edges, pixels = np.arange(parts + 1) * size, np.arange(size + 1) * parts
    low = np.maximum(edges[:-1, None], pixels[None, :-1])
    high = np.minimum(edges[1:, None], pixels[None, 1:])
    shares: NDArray[np.float64] = np.maximum(high - low, 0).astype(np.float64)
    return shares


NOTHING = Fingerprint("", np.zeros(BITS, np.float32), np.zeros(BITS + SIDE, np.float32))
"""Of an image that cannot be decoded: a near copy of none."""


def content_keys(folder: SiteFolder, digests: Sequence[str]) -> list[str]:
    """Return what is equal for the same file and frame alone, given the hash of each one's file."""
    frames = (file.removeprefix(folder.frames.get(file, file)) for file in folder.files)
    return [f"{digest}{frame}" for digest, frame in zip(digests, frames, strict=True)]


def find_copies(prints: Sequence[Fingerprint], contents: Sequence[str]) -> Copies:
    """Find the copies among a site's images.

    Parameters
    ----------
    prints : sequence of Fingerprint
        Of each image.
    contents : sequence of str
        A hash of what each was decoded from: equal only for the same file, and frame.
    """
    if not prints:
        return Copies((), ())
    exact, first_of = _exact(prints, contents)
    others = sorted(set(first_of))
    near = _near(
        np.stack([prints[place].hash for place in others]),
        np.stack([prints[place].greys for place in others]),
    )
    return Copies(tuple(exact), tuple((others[a], others[b]) for a, b in near))


def _exact(prints: Sequence[Fingerprint], contents: Sequence[str]) -> tuple[list[Pair], list[int]]:
    """Return pairs of exact copies, and of each image the first that it is a copy of, or itself."""
    pairs: list[Pair] = []
    first_of = list(range(len(prints)))
    seen: dict[str, int] = {}
    for place, (own, content) in enumerate(zip(prints, contents, strict=True)):
        keys = [f"file {content}", *([f"pixels {own.pixels}"] if own.pixels else [])]
        first = min((seen[key] for key in keys if key in seen), default=place)
        if first != place:
            pairs.append((first, place))
            first_of[place] = first
        for key in keys:
            seen.setdefault(key, first)
    return pairs, first_of


def _near(hashes: NDArray[np.float32], greys: NDArray[np.float32]) -> list[Pair]:
    """Return pairs of near copies, the nearest first; all copies of one image are near each other.

    The slices of a scan can be a row of which each is near the next; they are no copies, and are
    not tied to one another beyond what is near.
    """
    n = len(hashes)
    edges = coo_array((n, n), dtype=np.int32)
    for start in range(0, n, BLOCK):
        end = min(start + BLOCK, n)
        # The agreement of two hashes of ±1 is 256 less twice the places in which they differ.
        apart = (BITS - hashes[start:end] @ hashes[:end].T) / 2
        alike = greys[start:end] @ greys[:end].T
        before = np.arange(end)[None, :] < np.arange(start, end)[:, None]
        later, earlier = np.nonzero((apart <= NEAR) & (alike >= ALIKE) & before)
        if len(later):
            # A weight of 0 would be no edge.
            weights = apart[later, earlier].astype(np.int32) + 1
            new = coo_array((weights, (earlier, later + start)), shape=(n, n))
            # A forest of the nearest pairs is all that is needed, and never grows beyond n.
            edges = coo_array(minimum_spanning_tree((edges + new).tocsr()))
    groups = [[place] for place in range(n)]
    pairs: list[Pair] = []
    for edge in np.lexsort((edges.col, edges.row, edges.data)):
        a, b = sorted((int(edges.row[edge]), int(edges.col[edge])))
        one, other = groups[a], groups[b]
        if ((BITS - hashes[one] @ hashes[other].T) / 2).max() <= NEAR:
            pairs.append((a, b))
            one += other
            for place in other:
                groups[place] = one
    return pairs


_KEPT = TypeAdapter(tuple[int, Copies])
FORMAT = 1
"""Version of the copies that are kept; raised whenever others are found."""


def kept_copies(path: Path, find: Callable[[], Copies]) -> Copies:
    """Return the copies that lie in a file, or find them and write them there."""
    try:
        version, copies = _KEPT.validate_json(path.read_bytes())
        if version == FORMAT:
            return copies
    # What is not there or damaged is found out anew.
    except (OSError, ValueError):
        pass
    copies = find()
    write_json(path, [FORMAT, copies])
    return copies


def with_copies(folder: SiteFolder, copies: Copies) -> tuple[SiteFolder, tuple[str, ...]]:
    """Tie the copies of a site together, and say what there is.

    Parameters
    ----------
    folder : SiteFolder
        With the patients that are known.
    copies : Copies
        Of its images.

    Returns
    -------
    SiteFolder
        With warnings; a fold keeps the copies on one side.
    tuple of str
        A sentence for each two exact copies that are said to be of different classes.
    """
    site = f"Site '{folder.name}': "
    said = [*_warnings(folder, copies)]
    problems = (
        f"'{folder.files[a]}' and '{folder.files[b]}' are copies of one image, in different "
        f"classes ({folder.classes[folder.labels[a]]} and {folder.classes[folder.labels[b]]}). "
        "Keep the one that is right."
        for a, b in _of_two_classes(folder, copies.exact)
    )
    tied = replace(
        folder,
        together=(*copies.exact, *copies.near),
        warnings=folder.warnings + tuple(one_line(site + warning) for warning in said),
    )
    return tied, tuple(one_line(site + problem) for problem in problems)


def _warnings(folder: SiteFolder, copies: Copies) -> Iterator[str]:
    for pairs, what in ((copies.exact, "exact copies of"), (copies.near, "nearly the same as")):
        if pairs:
            strangers = sum(
                len({folder.patients[a], folder.patients[b]} - {None}) > 1 for a, b in pairs
            )
            of_others = f", {strangers} of them of another patient" if strangers else ""
            yield (
                f"{len(pairs)} images are {what} other images{of_others} "
                f"({_named(folder, pairs)}). A fold keeps them on one side; keep one of each if "
                "they are copies."
            )
    if differing := _of_two_classes(folder, copies.near):
        yield (
            f"{len(differing)} of the images that are nearly the same are in different classes "
            f"({_named(folder, differing)}). Look at them, and keep the one that is right if they "
            "are copies."
        )


def _of_two_classes(folder: SiteFolder, pairs: Sequence[Pair]) -> list[Pair]:
    return [(a, b) for a, b in pairs if folder.labels[a] != folder.labels[b]]


def _named(folder: SiteFolder, pairs: Sequence[Pair]) -> str:
    return examples([f"'{folder.files[a]}' and '{folder.files[b]}'" for a, b in pairs])
