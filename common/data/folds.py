"""Folds of a site: stratified by class, grouped by patient, and honest about what they leak."""

import functools
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.config.schema import Config
from common.data.folder import SiteFolder
from common.errors import SiteError
from common.formatting.from_json import Count
from common.randomness import derive_seed, numpy_generator

Unit = Literal["patient", "image"]
EXACT, CLOSE = 0.005, 0.05
"""How far a share may be from the one asked for to count as it, and to be taken in its place."""
MOST_PARTS = 100
"""Parts into which images are divided for a share that is not one of equal parts."""
FEW_PARTS = 20
"""Of these at most every division is tried where the share that was asked for cannot be had."""


@dataclass(frozen=True)
class Split:
    """Which of a site's images are for what: positions in its data, sorted, disjoint."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]
    """``validation`` is empty where ``validation-fraction`` is 0."""
    unit: Unit
    """What a fold kept together: ``"patient"`` or ``"image"``."""
    warnings: tuple[str, ...] = ()
    """Which part lacks a class that the site has, or is not as large as it was asked to be."""


@dataclass(frozen=True)
class Leakage:
    """Whether patients fall on both sides of a split."""

    site: str
    """Whose split."""
    unit: Unit
    """What a fold kept together."""
    patients: Count
    """Known patients at the site."""
    shared_patients: Count
    """Patients with images on both the training and the test side."""
    shared_images: Count
    """Test images of such patients."""
    unknown: Count
    """Images without a patient id, of which nothing can be said."""

    def sentence(self) -> str:
        """Say it for a reader."""
        known = (
            f"{self.shared_patients} of {self.patients} patients are in both training and test "
            f"({self.shared_images} test images)"
            if self.patients
            else "no patient ids are known"
        )
        rest = (
            f"; {self.unknown} images carry no patient id, so slices of one patient may be on "
            "both sides"
            if self.unknown
            else ""
        )
        return f"{self.site}: split by {self.unit}, {known}{rest}."


def split_site(data: SiteFolder, config: Config) -> Split:
    """Split a site into training, validation and test images.

    The folds depend on the site's name, labels, patients and on ``split`` and ``folds``, not on
    the run's seed: every method and every seed meets the same ones. A class with fewer patients (or
    images) than folds is missing from some of them. Which training images ``train-images`` takes
    depends on the seed too, since results for few labels vary with them.

    Parameters
    ----------
    data : SiteFolder
        Labels and patients.
    config : Config
        ``split``, ``folds``, ``fold``, ``validation-fraction``, ``train-images`` and ``seed``.

    Raises
    ------
    SiteError
        If no class has as many patients (or images) as there are folds, or they cannot be divided
        as ``validation-fraction`` asks.
    """
    groups = _groups(data, config.split)
    everything = np.arange(len(data), dtype=np.int64)
    label, most = _largest_class(data, groups, everything)
    if most < config.folds:
        raise SiteError(
            f"Site '{data.name}': class '{label}' has {most} {config.split}s, fewer than the "
            f"{config.folds} folds. Use fewer folds or add {config.split}s; no other class has "
            "more."
        )
    number = _dealt(data, groups, everything, config.split, config.folds)
    rest, test = everything[number != config.fold], everything[number == config.fold]
    train, validation, said = rest, everything[:0], ""
    if config.validation_fraction:
        held_out, said = _validation(data, groups, rest, config)
        train, validation = rest[~held_out], rest[held_out]
    if config.train_images:
        train = _first(data, groups, train, config)
    parts_of = {"training": train, "validation": validation, "test": test}
    if not config.validation_fraction:
        del parts_of["validation"]
    for name, part in parts_of.items():
        if not len(part):
            raise SiteError(
                f"Site '{data.name}': the {name} part of fold {config.fold} holds no image. Use "
                "fewer folds or add patients."
            )
    lacks = (
        f"Site '{data.name}': the {name} part of fold {config.fold} holds no image of class "
        f"'{label}', of which the site has {np.sum(data.labels == index)}; figures that need it "
        "are undefined there. Use fewer folds or add patients of that class."
        for name, part in parts_of.items()
        for index, label in enumerate(data.classes)
        if np.any(data.labels == index) and not np.any(data.labels[part] == index)
    )
    return Split(train, validation, test, config.split, (*filter(None, [said]), *lacks))


def _groups(data: SiteFolder, unit: str) -> NDArray[np.int64]:
    """Return a number for what a fold must keep together.

    An image without a patient is alone, but for other frames of its file; copies are together.
    """
    numbers: dict[str, int] = {}

    def key(index: int) -> str:
        file, patient = data.files[index], data.patients[index]
        if patient is None and file in data.frames:
            return f"frames of {data.frames[file]}"
        return (
            f"patient {patient}" if unit == "patient" and patient is not None else f"image {index}"
        )

    group = [numbers.setdefault(key(index), len(numbers)) for index in range(len(data))]
    joined = list(range(len(numbers)))

    def first(number: int) -> int:
        while joined[number] != number:
            number = joined[number]
        return number

    for one, other in data.together:
        low, high = sorted((first(group[one]), first(group[other])))
        joined[high] = low
    return np.array([first(number) for number in group], dtype=np.int64)


def _largest_class(
    data: SiteFolder, groups: NDArray[np.int64], chosen: NDArray[np.int64]
) -> tuple[str, int]:
    """Return the class that has the most groups among some images, and how many."""
    labels = data.labels[chosen]
    counts = [len(np.unique(groups[chosen][labels == i])) for i in range(len(data.classes))]
    most = max(counts, default=0)
    return data.classes[counts.index(most)], most


def _dealt(
    data: SiteFolder, groups: NDArray[np.int64], chosen: NDArray[np.int64], unit: str, parts: int
) -> NDArray[np.int64]:
    """Deal some images out into parts, and return the part of each."""
    labels, seed = data.labels[chosen], derive_seed(0, data.name, "folds") % 2**32
    dealt = _fold_numbers(labels.tobytes(), groups[chosen].tobytes(), unit, parts, seed)
    return np.frombuffer(dealt, dtype=np.int64)


def _validation(
    data: SiteFolder, groups: NDArray[np.int64], rest: NDArray[np.int64], config: Config
) -> tuple[NDArray[np.bool_], str]:
    """Return which of the images that no test takes are for validation, and what to say of it."""
    asked, unit = config.validation_fraction, config.split
    label, most = _largest_class(data, groups, rest)
    parts, taken = _parts_of(asked, most)
    if parts <= most:
        held_out = _held_out(data, groups, rest, unit, parts, taken, asked)
        if not _is_one_part(asked) and abs(held_out.mean() - asked) > CLOSE:
            held_out = _nearest(data, groups, rest, config, most)
        share = float(held_out.mean())
        return held_out, "" if abs(share - asked) <= CLOSE else (
            f"Site '{data.name}': the validation part of fold {config.fold} holds {share:.2f} of "
            f"the training images instead of {asked:g}, as {unit}s cannot be divided."
        )
    possible = _possible(data, groups, rest, config)
    advice = f"set it to {possible:g}, which can be had" if possible else "set it to 0"
    raise SiteError(
        f"Site '{data.name}': class '{label}' has {most} {unit}s, fewer than the {parts} parts of "
        f"which validation-fraction makes {taken}. Add {unit}s, or {advice}."
    )


def _nearest(
    data: SiteFolder,
    groups: NDArray[np.int64],
    rest: NDArray[np.int64],
    config: Config,
    most: int,
) -> NDArray[np.bool_]:
    """Return, of all divisions of a small site, the one whose share is nearest to the one asked."""
    asked = config.validation_fraction
    tried = []
    for parts in range(2, min(most, FEW_PARTS) + 1):
        taken = _taken(asked, parts)
        tried.append(_held_out(data, groups, rest, config.split, parts, taken, asked))
    return min(tried, key=lambda held_out: abs(held_out.mean() - asked))


def _possible(
    data: SiteFolder, groups: NDArray[np.int64], rest: NDArray[np.int64], config: Config
) -> float:
    """Return the share nearest to the one asked for that can be had; 0 where none can."""
    most = min(_largest_class(data, groups, rest)[1], FEW_PARTS)
    shares = {round(k / n, 2) for n in range(2, most + 1) for k in range(1, n)}
    for share in sorted(shares, key=lambda share: abs(share - config.validation_fraction)):
        parts, taken = _parts_of(share, most)
        if parts <= most:
            held_out = _held_out(data, groups, rest, config.split, parts, taken, share)
            if abs(held_out.mean() - share) <= CLOSE:
                return share
    return 0.0


def _first(
    data: SiteFolder, groups: NDArray[np.int64], train: NDArray[np.int64], config: Config
) -> NDArray[np.int64]:
    """Return the training images that ``train-images`` takes, sorted.

    They are the first of an order of all, so that fewer are always among more. In it each class has
    its images patient by patient, the patients shuffled, and image j = 0, 1, … of the n of a class
    comes at place j/n. So the classes stand in their proportion however many are taken, and one of
    each comes first (Adams' method of giving out seats).
    """
    generator = numpy_generator(config.seed, data.name, config.fold, "train-images")
    patient, labels = generator.permutation(groups.max() + 1)[groups[train]], data.labels[train]
    place = np.empty(len(train))
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        place[own[np.argsort(patient[own], kind="stable")]] = np.arange(len(own)) / len(own)
    return np.sort(train[np.lexsort((labels, place))[: config.train_images]])


def _is_one_part(asked: float) -> bool:
    """Say whether a share is one of several equal parts."""
    return abs(1 / max(2, round(1 / asked)) - asked) <= EXACT


def _taken(asked: float, parts: int) -> int:
    """Return how many of so many equal parts come nearest to a share: not none, and not all."""
    return min(max(1, round(asked * parts)), parts - 1)


def _parts_of(asked: float, most: int) -> tuple[int, int]:
    """Return into how many parts to divide for a share, and how many of them to take.

    One part where the share is that, however many it needs; else of no more than ``most`` parts as
    many as come nearest.
    """
    if _is_one_part(asked):
        return max(2, round(1 / asked)), 1
    best = (2, 1)
    for parts in range(2, min(most, MOST_PARTS) + 1):
        taken = _taken(asked, parts)
        if abs(taken / parts - asked) < abs(best[1] / best[0] - asked) - EXACT:
            best = (parts, taken)
    return best


def _held_out(
    data: SiteFolder,
    groups: NDArray[np.int64],
    rest: NDArray[np.int64],
    unit: str,
    parts: int,
    taken: int,
    share: float,
) -> NDArray[np.bool_]:
    """Return which images so many of some equal parts hold: those that come nearest to a share."""
    number, labels = _dealt(data, groups, rest, unit, parts), data.labels[rest]
    if taken == 1:
        return np.equal(number, 0)

    def error(first: int) -> float:
        """Add up how far the share of all images, and that of each class, is off."""
        held_out = (number - first) % parts < taken
        shares = [held_out.mean(), *(held_out[labels == i].mean() for i in np.unique(labels))]
        return float(np.abs(np.array(shares) - share).sum())

    # Parts differ by what cannot be divided, so it makes a difference which of them are taken.
    return np.less((number - min(range(parts), key=error)) % parts, taken)


# Dealing out 2,500 images one by one takes a second, which a site would spend in every round; the
# same site meets the same folds.
@functools.lru_cache(maxsize=64)
def _fold_numbers(labels: bytes, groups: bytes, unit: str, folds: int, seed: int) -> bytes:
    """Return the fold in whose test part each image is; arrays of int64 as bytes."""
    # A second and 70 MB of every process that imports this file and splits nothing.
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    label, group = (np.frombuffer(held, dtype=np.int64) for held in (labels, groups))
    if unit == "patient" or len(np.unique(group)) < len(group):
        grouped = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        splits = grouped.split(label, label, group)
    else:
        splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(label, label)
    number = np.empty(len(label), dtype=np.int64)
    with warnings.catch_warnings():
        # A class with fewer images than folds; split_site says so with the site's name.
        warnings.filterwarnings("ignore", message="The least populated class")
        for place, (_, held_out) in enumerate(splits):
            number[held_out] = place
    return number.tobytes()


def leakage(data: SiteFolder, split: Split) -> Leakage:
    """Count the patients on both sides of a split (training with validation against test)."""
    patients = np.array([patient or "" for patient in data.patients], dtype=object)
    seen = set(patients[np.concatenate([split.train, split.validation])]) - {""}
    tested = patients[split.test]
    return Leakage(
        site=data.name,
        unit=split.unit,
        patients=len(set(patients) - {""}),
        shared_patients=len(seen & set(tested)),
        shared_images=sum(patient in seen for patient in tested),
        unknown=int(sum(patient == "" for patient in patients)),
    )
