"""Copies among a site's images: the same picture twice, exactly or nearly.

Near copies are the same picture saved again. What is found was measured at 128 pixels on copies of
360 images of two CT sites, two chest X-ray sites and five synthetic hospitals: every copy saved as
JPEG of quality 75 or 90 or in 224 pixels, 99 of 100 of half the size, 97 of quality 50, 95 with
another gamma, 56 so bright that white is cut off, and no cropped one. Two slices of one scan can
have hashes as near, but their detail agrees by 0.93 at most at the real sites, and by 0.98 at the
smoothest synthetic ones, where no two hashes differ in fewer than 6 places of 256. Of different
patients no hashes differed in fewer than 12 places, but for one picture that two sources publish.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from common.data.folder import SiteFolder
from common.data.patients import examples
from common.errors import one_line
from common.files import write_json

SIDE = 16
"""A hash says of 16 × 16 places whether an image grows brighter to the right."""
BITS = SIDE * SIDE
DETAIL = 64
"""Height and width at which the detail of two images is compared, at most."""
FLOOR = 0.08
"""Detail, in standard deviations of an image's greys, below which differences are rounding."""
NEAR, SAME_DETAIL = 16, 0.99
"""Places of a hash in which near copies differ at most, and how far their detail agrees, ..."""
NEARER, NEARLY_SAME_DETAIL = 5, 0.9
"""... which need not be as far where their hashes are nearer."""
ALIKE, LIKE_DETAIL = 10, 0.75
"""The same of images that are slices of one scan, or copies if they cannot be that."""
BLOCK, PIXELS = 256, 2**22
"""Images whose hashes, and pixels whose greys, are looked at together: what is held in memory."""

Pair = tuple[int, int]


class Fingerprint(NamedTuple):
    """What copies of an image have in common."""

    pixels: str
    """Hash of its pixels; '' for a picture of one grey, which nobody can tell from another."""
    hash: NDArray[np.float32]
    """(256,) where it grows brighter from left to right: 1 or −1."""
    detail: NDArray[np.float16]
    """(64 · 64 + 1,) what is finer than three of its places, of length 1; zeros for one grey."""


class Copies(NamedTuple):
    """Pairs of images, as positions, that are copies; together they tie all copies of an image."""

    exact: tuple[Pair, ...]
    """Of the same file, or the same pixels."""
    near: tuple[Pair, ...]
    """Nearly the same, the nearest first."""
    alike: tuple[Pair, ...]
    """As alike as slices of one scan."""


def fingerprints(images: NDArray[np.uint8]) -> list[Fingerprint]:
    """Return what copies of each image would have in common with it.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size, channels)
        As they are cached.
    """
    found: list[Fingerprint] = []
    step = max(1, PIXELS // images.shape[1] ** 2)
    for start in range(0, len(images), step):
        block = images[start : start + step]
        greys = block.sum(axis=3, dtype=np.float64)
        steps = np.diff(_shrunk(greys, SIDE, SIDE + 1), axis=2)
        hashes = np.where(steps > 0, 1, -1).astype(np.float32).reshape(-1, BITS)
        for image, own, detail in zip(block, hashes, _detail(greys), strict=True):
            plain = image.min() == image.max()
            pixels = "" if plain else hashlib.sha256(image.tobytes()).hexdigest()
            found.append(Fingerprint(pixels, own, detail))
    return found


def _shrunk(greys: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Return sums over equal parts of images, shape (n, height, width).

    They are whole numbers below 2⁵³, and so exact in whatever order a processor adds.
    """
    rows, columns = (_shares(greys.shape[1], parts) for parts in (height, width))
    return rows @ greys @ columns.T


def _detail(greys: NDArray[np.float64]) -> NDArray[np.float16]:
    """Return what of images is finer than the mean of 3 × 3 places, (n, places + 1), of length 1.

    The last component is the same at all images, before the length: where there is no detail to
    speak of, two agree.
    """
    side = min(DETAIL, greys.shape[1])
    places = _shrunk(greys, side, side)
    wide = np.pad(places, ((0, 0), (1, 1), (1, 1)), mode="edge")
    around = sum(wide[:, y : y + side, x : x + side] for y in range(3) for x in range(3)) / 9
    spread = places.std(axis=(1, 2), keepdims=True)
    fine = (places - around) / np.where(spread > 0, spread, np.inf) / side
    floor = np.full((len(greys), 1), FLOOR) * (spread[:, :, 0] > 0)
    found = np.hstack([fine.reshape(len(greys), -1), floor])
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    detail: NDArray[np.float16] = (found / np.where(lengths > 0, lengths, 1)).astype(np.float16)
    return detail


def _shares(size: int, parts: int) -> NDArray[np.float64]:
    """Return how much of each pixel lies in each of equal parts of a line, (parts, size)."""
    edges, pixels = np.arange(parts + 1) * size, np.arange(size + 1) * parts
    low = np.maximum(edges[:-1, None], pixels[None, :-1])
    high = np.minimum(edges[1:, None], pixels[None, 1:])
    shares: NDArray[np.float64] = np.maximum(high - low, 0).astype(np.float64)
    return shares


NOTHING = Fingerprint("", np.zeros(BITS, np.float32), np.zeros(0, np.float16))
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
    exact, first_of = _exact(prints, contents)
    others = sorted(place for place in set(first_of) if prints[place].detail.any())
    near, alike = _near([prints[place] for place in others])
    return Copies(
        tuple(exact), *(tuple((others[a], others[b]) for a, b in pairs) for pairs in (near, alike))
    )


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


def _near(prints: Sequence[Fingerprint]) -> tuple[list[Pair], list[Pair]]:
    """Return pairs of near copies, the nearest first, and pairs that are alike.

    All copies of one image are near each other: a scan can be a row of slices of which each is near
    the next, and these are not tied to one another beyond that.
    """
    if not prints:
        return [], []
    hashes = np.stack([one.hash for one in prints])
    groups = [[place] for place in range(len(prints))]
    near: list[Pair] = []
    alike: list[Pair] = []
    for a, b, apart in _nearest_pairs(hashes):
        detail = float(prints[a].detail.astype(np.float32) @ prints[b].detail.astype(np.float32))
        one, other = groups[a], groups[b]
        same = detail >= (NEARLY_SAME_DETAIL if apart <= NEARER else SAME_DETAIL)
        if same and _apart(hashes[one], hashes[other]).max() <= NEAR:
            near.append((a, b))
            one += other
            for place in other:
                groups[place] = one
        elif detail >= LIKE_DETAIL and apart <= ALIKE:
            alike.append((a, b))
    return near, alike


def _nearest_pairs(hashes: NDArray[np.float32]) -> Iterator[tuple[int, int, int]]:
    """Yield pairs of images whose hashes are near, the nearest first, and how far apart they are.

    A forest of the nearest pairs, which ties all that is near: fewer pairs than images.
    """
    # A sixth of a second of every process that imports this file and looks for no copies.
    from scipy.sparse import coo_array, csgraph

    n = len(hashes)
    edges = coo_array((n, n), dtype=np.float64)
    for start in range(0, n, BLOCK):
        end = min(start + BLOCK, n)
        apart = _apart(hashes[start:end], hashes[:end])
        before = np.arange(end)[None, :] < np.arange(start, end)[:, None]
        later, earlier = np.nonzero((apart <= NEAR) & before)
        if len(later):
            # A weight of 0 would be no edge.
            weights = apart[later, earlier].astype(np.float64) + 1
            new = coo_array((weights, (earlier, later + start)), shape=(n, n))
            edges = coo_array(csgraph.minimum_spanning_tree((edges + new).tocsr()))
    for edge in np.lexsort((edges.col, edges.row, edges.data)):
        a, b = sorted((int(edges.row[edge]), int(edges.col[edge])))
        yield a, b, int(edges.data[edge]) - 1


def _apart(some: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return in how many places hashes differ, shape (some, others)."""
    agreement: NDArray[np.float32] = some @ others.T
    return np.float32(0.5) * (np.float32(BITS) - agreement)


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
    # Slices of one scan are of one patient and, but for a mistake, of one class.
    near = copies.near + tuple(
        pair for pair in copies.alike if _differ(folder.labels, pair) or _strangers(folder, pair)
    )
    said = [
        *_told(folder, copies.exact, "exact copies of"),
        *_told(folder, near, "nearly the same as"),
    ]
    if differing := [pair for pair in near if _differ(folder.labels, pair)]:
        said.append(
            f"{len(differing)} of the images that are nearly the same are in different classes "
            f"({_named(folder, differing)}). Look at them, and keep the one that is right if they "
            "are copies."
        )
    problems = [
        f"{_named(folder, [pair])} are copies of one image, in different classes "
        f"({' and '.join(folder.classes[folder.labels[place]] for place in pair)}). "
        "Keep the one that is right."
        for pair in copies.exact
        if _differ(folder.labels, pair)
    ]
    site = f"Site '{folder.name}': "
    warnings = tuple(one_line(site + warning) for warning in said)
    tied = replace(folder, together=copies.exact + near, warnings=folder.warnings + warnings)
    return tied, tuple(one_line(site + problem) for problem in problems)


def _told(folder: SiteFolder, pairs: Sequence[Pair], what: str) -> Iterator[str]:
    if pairs:
        strangers = sum(_strangers(folder, pair) for pair in pairs)
        of_others = f", {strangers} of them of another patient" if strangers else ""
        yield (
            f"{len(pairs)} images are {what} other images{of_others} ({_named(folder, pairs)}). A "
            "fold keeps them on one side; keep one of each if they are copies."
        )


def _differ(labels: NDArray[np.int64], pair: Pair) -> bool:
    return bool(labels[pair[0]] != labels[pair[1]])


def _strangers(folder: SiteFolder, pair: Pair) -> bool:
    """Say whether two images are of two known patients."""
    return len({folder.patients[place] for place in pair} - {None}) > 1


def _named(folder: SiteFolder, pairs: Sequence[Pair]) -> str:
    return examples([f"'{folder.files[a]}' and '{folder.files[b]}'" for a, b in pairs])
