import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config.schema import Config
from common.data.folder import CLASS, SiteFolder
from common.data.folds import leakage, split_site
from common.errors import SiteError

PINNED = "486665bb5fe23ac5f5b35092a187b9765a96adc25c7664d957c2f3eb49318921"


def site(patients: int, slices: int = 3, known: bool = True) -> SiteFolder:
    """Every patient has ``slices`` images; patients take the two classes in turn."""
    n = patients * slices
    owner = np.arange(n) // slices
    return SiteFolder(
        "a",
        Path("a"),
        ("non-covid", "covid"),
        tuple(f"{i}.png" for i in range(n)),
        {CLASS: (owner % 2).astype(np.int64)},
        tuple(f"p{p}" if known else None for p in owner),
        (),
    )


@given(
    patients=st.integers(16, 40),
    slices=st.integers(1, 4),
    fold=st.integers(0, 3),
    validation=st.sampled_from([0.0, 0.2]),
)
@settings(max_examples=25, deadline=None)
def test_a_patient_is_on_one_side_and_every_image_on_one(
    patients: int, slices: int, fold: int, validation: float
) -> None:
    data = site(patients, slices)
    split = split_site(data, Config(fold=fold, validation_fraction=validation))
    parts = [split.train, split.validation, split.test]
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(data)))
    owners = [{data.patients[i] for i in part} for part in parts]
    assert not owners[0] & owners[1]
    assert not (owners[0] | owners[1]) & owners[2]
    assert leakage(data, split).shared_patients == 0


def test_the_folds_cover_the_site_and_do_not_depend_on_the_seed() -> None:
    data = site(20)
    tests = [split_site(data, Config(fold=fold)).test for fold in range(4)]
    assert sorted(np.concatenate(tests).tolist()) == list(range(60))
    assert np.array_equal(tests[2], split_site(data, Config(fold=2, seed=9)).test)


def test_an_image_split_leaks_patients_and_says_so() -> None:
    data = site(20)
    report = leakage(data, split_site(data, Config(split="image")))
    assert report.patients == 20
    assert report.shared_patients > 5
    assert report.shared_images >= report.shared_patients
    assert f"{report.shared_patients} of 20 patients are in both" in report.sentence()


def test_without_ids_nothing_is_claimed() -> None:
    data = site(20, known=False)
    report = leakage(data, split_site(data, Config()))
    assert (report.patients, report.unknown) == (0, 60)
    assert "no patient ids are known; 60 images carry no patient id" in report.sentence()


def test_fewer_patients_than_folds_is_refused_with_both_numbers() -> None:
    with pytest.raises(SiteError, match=r"Site 'a': class 'non-covid' has 3 patients.* 4 folds"):
        split_site(site(6), Config())


def of_classes(*images: int) -> SiteFolder:
    """Return a site with so many images of each class, without patients."""
    n, names = sum(images), tuple(f"class-{label}" for label in range(len(images)))
    labels = np.repeat(np.arange(len(images)), images).astype(np.int64)
    nobody, files = (None,) * n, tuple(f"{i}.png" for i in range(n))
    return SiteFolder("a", Path("a"), names, files, {CLASS: labels}, nobody, ())


@pytest.mark.parametrize("unit", ["image", "patient"])
def test_a_class_smaller_than_the_folds_is_missing_from_some_and_named(
    unit: str, recwarn: pytest.WarningsRecorder
) -> None:
    data = of_classes(12, 2)
    splits = [split_site(data, Config(fold=fold, split=unit)) for fold in range(4)]
    assert sorted(np.concatenate([split.test for split in splits]).tolist()) == list(range(14))
    held = [int(data.labels[split.test].sum()) for split in splits]
    assert sorted(held) == [0, 0, 1, 1]
    for fold, (split, positive) in enumerate(zip(splits, held, strict=True)):
        expected = (
            f"Site 'a': the test part of fold {fold} holds no image of class 'class-1', of which "
            "the site has 2; figures that need it are undefined there. Use fewer folds or add "
            "patients of that class.",
        )
        assert split.warnings == (() if positive else expected)
    assert not recwarn.list


@pytest.mark.parametrize("unit", ["image", "patient"])
def test_a_site_without_a_class_has_the_folds_of_those_it_has(unit: str) -> None:
    for fold in range(4):
        config = Config(fold=fold, split=unit, validation_fraction=0.25)
        one, two = of_classes(16, 0), of_classes(12, 0, 8)
        split, other = split_site(one, config), split_site(two, config)
        assert [len(part) for part in (split.train, split.validation, split.test)] == [9, 3, 4]
        # A quarter of each class is for testing, and of the rest a quarter for validation.
        assert np.bincount(two.labels[other.test]).tolist() == [3, 0, 2]
        assert sum(map(len, (other.train, other.validation))) == 15
        assert split.warnings == other.warnings == ()


def test_too_few_images_for_a_validation_part_are_refused() -> None:
    config = Config(folds=2, split="image", validation_fraction=0.1)
    # Of 14 and 8 images half are left, and a tenth of 7 is no image.
    with pytest.raises(SiteError, match=r"'class-0' has 7 images, .*10 parts of which validation"):
        split_site(of_classes(14, 8), config)


FRACTIONS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.33, 0.4, 0.45, 0.5, 0.6, 0.66, 0.7, 0.75, 0.8, 0.85)


@pytest.mark.parametrize("unit", ["image", "patient"])
@pytest.mark.parametrize(
    "images",
    [
        (2, 2),
        (4, 4),
        (4, 7),
        (6, 6),
        (10, 4),
        (20, 3),
        (20, 20),
        (33, 51),
        (100, 60),
        (9, 0),
        (32, 10),
    ],
)
def test_a_validation_part_is_as_large_as_asked_or_a_sentence_says_what_can_be_had(
    images: tuple[int, ...], unit: str
) -> None:
    data = of_classes(*images)
    # Every patient has two images.
    data = replace(data, patients=tuple(f"{y}-{i // 2}" for i, y in enumerate(data.labels)))
    given = 0
    for fraction in FRACTIONS:
        config = Config(folds=2, split=unit, validation_fraction=fraction)
        try:
            split = split_site(data, config)
        except SiteError as error:
            possible = re.search(r"set it to ([0-9.]+), which can be had\.$", str(error))
            if possible:
                split_site(data, config.changed(validation_fraction=float(possible[1])))
            else:
                assert re.search(r"set it to 0\.$|Use fewer folds", str(error)), error
            continue
        given += 1
        share = len(split.validation) / (len(split.train) + len(split.validation))
        told = any(f"{share:.2f} of the training images instead of" in w for w in split.warnings)
        assert told == (abs(share - fraction) > 0.05), (fraction, share, split.warnings)
    assert given or max(images) < 10


@pytest.mark.parametrize(
    ("fraction", "counts"), [(0.3, [6, 2]), (0.4, [5, 3]), (0.6, [3, 5]), (0.8, [2, 6])]
)
def test_a_small_site_has_the_nearest_share_there_is(fraction: float, counts: list[int]) -> None:
    """Of eight images, four of each class."""
    split = split_site(
        of_classes(8, 8), Config(folds=2, split="image", validation_fraction=fraction)
    )
    assert [len(split.train), len(split.validation)] == counts


@pytest.mark.parametrize("fraction", [0.4, 0.6, 0.8, 0.3, 0.7])
def test_a_share_that_is_no_single_part_is_given_of_every_class(fraction: float) -> None:
    data = of_classes(120, 80)
    split = split_site(data, Config(folds=2, split="image", validation_fraction=fraction))
    rest = np.concatenate([split.train, split.validation])
    for label in (0, 1):
        held_out = np.sum(data.labels[split.validation] == label)
        assert held_out / np.sum(data.labels[rest] == label) == pytest.approx(fraction, abs=0.02)


@pytest.mark.parametrize("unit", ["image", "patient"])
def test_four_and_four_images_in_two_folds_have_no_quarter(unit: str) -> None:
    config = Config(folds=2, split=unit, validation_fraction=0.25)
    said = rf"'class-0' has 2 {unit}s, fewer than the 4 parts .* set it to 0\.5, which can be had"
    with pytest.raises(SiteError, match=said):
        split_site(of_classes(4, 4), config)
    half = split_site(of_classes(4, 4), config.changed(validation_fraction=0.5))
    assert [len(part) for part in (half.train, half.validation, half.test)] == [2, 2, 4]


@pytest.mark.parametrize("unit", ["image", "patient"])
def test_frames_of_one_file_without_a_patient_are_on_one_side(unit: str) -> None:
    data = of_classes(20, 20)
    frames = {file: f"scan-{number // 4}" for number, file in enumerate(data.files[:20])}
    data = replace(data, frames=frames)
    for fold in range(4):
        split = split_site(data, Config(fold=fold, split=unit, validation_fraction=0.5))
        parts = [
            {frames.get(data.files[i]) for i in part} - {None}
            for part in (split.train, split.validation, split.test)
        ]
        assert not parts[0] & parts[1] and not (parts[0] | parts[1]) & parts[2]


@given(
    images=st.tuples(st.integers(8, 60), st.integers(8, 60)),
    limits=st.tuples(st.integers(1, 50), st.integers(1, 50)).map(sorted),
    seed=st.integers(0, 3),
    unit=st.sampled_from(["patient", "image"]),
)
@settings(max_examples=40, deadline=None)
def test_few_training_images_are_among_more_and_in_the_classes_proportion(
    images: tuple[int, int], limits: list[int], seed: int, unit: str
) -> None:
    data = of_classes(*images)
    # Every patient has three images.
    data = replace(data, patients=tuple(f"{y}-{i // 3}" for i, y in enumerate(data.labels)))
    config = Config(folds=2, split=unit, validation_fraction=0.5, seed=seed)
    whole = split_site(data, config)
    fewer, more = (split_site(data, config.changed(train_images=limit)) for limit in limits)
    assert set(fewer.train) <= set(more.train) <= set(whole.train)
    there = np.bincount(data.labels[whole.train], minlength=2)
    for limit, split in zip(limits, (fewer, more), strict=True):
        assert np.array_equal(split.validation, whole.validation)
        assert np.array_equal(split.test, whole.test)
        assert len(split.train) == min(limit, len(whole.train))
        assert split.train.tolist() == sorted(split.train)
        taken = np.bincount(data.labels[split.train], minlength=2)
        shares = len(split.train) * there / there.sum()
        assert np.abs(taken - shares).max() <= 1
        assert limit < 2 or ((taken > 0) == (there > 0)).all()
        if unit == "patient":
            cut = [
                patient
                for patient in {data.patients[i] for i in split.train}
                if sum(data.patients[i] == patient for i in split.train)
                < sum(data.patients[i] == patient for i in whole.train)
            ]
            # Of a class the last patient alone may be taken in part.
            assert len({str(patient)[0] for patient in cut}) == len(cut)


def test_which_training_images_are_few_depends_on_seed_and_fold_and_on_no_method() -> None:
    data = site(40)

    def patients(**values: Any) -> set[str | None]:
        split = split_site(data, Config(train_images=12).changed(**values))
        return {data.patients[i] for i in split.train}

    assert patients() == patients(alpha=0.0, epochs=3, batches="balanced", local_steps=1)
    # Twelve images of six patients with three each: two of each class.
    assert len(patients()) == 4
    assert patients() != patients(seed=1)
    assert patients() != patients(fold=1)


def test_by_hand_the_classes_take_turns_by_their_numbers() -> None:
    """Places of 8 and 4: 0 ⅛ ¼ ⅜ ½ … and 0 ¼ ½ …, a lower class first where they are alike."""
    data = of_classes(16, 8)
    config = Config(folds=2, split="image")
    for limit, expected in enumerate([[1, 0], [1, 1], [2, 1], [3, 1], [3, 2], [4, 2]], start=1):
        split = split_site(data, config.changed(train_images=limit))
        assert np.bincount(data.labels[split.train], minlength=2).tolist() == expected


def test_the_folds_of_sites_without_copies_are_pinned() -> None:
    """What these folds are was written down before copies were known."""
    digest = hashlib.sha256()
    for data in (of_classes(30, 18), site(20), site(20, known=False), of_classes(12, 0, 9)):
        for unit in ("patient", "image"):
            for fold in range(3):
                for fraction in (0.0, 0.2, 0.25, 0.33):
                    config = Config(folds=3, fold=fold, split=unit, validation_fraction=fraction)
                    split = split_site(data, config)
                    for part in (split.train, split.validation, split.test):
                        digest.update(part.tobytes() + b"|")
    assert digest.hexdigest() == PINNED
