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
from common.randomness import derive_seed

Unit = Literal["patient", "image"]


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
    """Which part lacks a class that the site has."""


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
    images) than folds is missing from some of them.

    Parameters
    ----------
    data : SiteFolder
        Labels and patients.
    config : Config
        ``split``, ``folds``, ``fold`` and ``validation-fraction``.

    Raises
    ------
    SiteError
        If no class has as many patients (or images) as there are folds.
    """
    groups = _groups(data, config.split)
    everything = np.arange(len(data), dtype=np.int64)
    needed = "the {} folds. Use fewer folds"
    rest, test = _part(data, groups, everything, config, config.folds, config.fold, needed)
    train, validation = rest, everything[:0]
    if config.validation_fraction:
        parts = max(2, round(1 / config.validation_fraction))
        needed = "the {} parts of which validation-fraction makes one. Raise it"
        train, validation = _part(data, groups, rest, config, parts, 0, needed)
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
    return Split(train, validation, test, config.split, tuple(lacks))


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


def _part(
    data: SiteFolder,
    groups: NDArray[np.int64],
    chosen: NDArray[np.int64],
    config: Config,
    parts: int,
    part: int,
    needed: str,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (the rest, one of so many parts) of some images, where a class has that many."""
    labels, unit = data.labels[chosen], config.split
    counts = [len(np.unique(groups[chosen][labels == i])) for i in range(len(data.classes))]
    most = max(counts, default=0)
    if most < parts:
        raise SiteError(
            f"Site '{data.name}': class '{data.classes[counts.index(most)]}' has {most} {unit}s, "
            f"fewer than {needed.format(parts)} or add {unit}s; no other class has more."
        )
    seed = derive_seed(0, data.name, "folds") % 2**32
    dealt = _fold_numbers(labels.tobytes(), groups[chosen].tobytes(), unit, parts, seed)
    number = np.frombuffer(dealt, dtype=np.int64)
    return chosen[number != part], chosen[number == part]


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
