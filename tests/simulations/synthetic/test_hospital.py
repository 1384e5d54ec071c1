"""Writing synthetic hospitals: reproducible, whole or not at all, an ordinary site folder."""

import csv
import hashlib
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import wasserstein_distance

from common.errors import ConfigError, RunError
from simulations.synthetic import FINDINGS, write_hospital

CLASSES = ("non-covid", "covid")
SIZE = 96


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def rows_of(root: Path) -> list[dict[str, str]]:
    with (root / "metadata.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.asarray(image)


def write(root: Path, index: int = 0, patients: int = 6, **changes: object) -> Path:
    arguments = {"name": "hospital-a", "classes": CLASSES, "seed": 3, "size": SIZE} | changes
    write_hospital(root, index=index, patients=patients, **arguments)  # type: ignore[arg-type]
    return root


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("synthetic") / "a", patients=12)


def test_the_same_arguments_write_the_same_bytes(hospital: Path, tmp_path: Path) -> None:
    assert digests(write(tmp_path / "again", patients=12)) == digests(hospital)


def test_a_patient_does_not_depend_on_how_many_there_are(hospital: Path, tmp_path: Path) -> None:
    few = digests(write(tmp_path / "few", patients=4))
    del few["metadata.csv"]
    assert len({name.rpartition("/")[2][:5] for name in few}) == 4
    assert few.items() <= digests(hospital).items()
    # An image, its lesions and its lungs.
    assert rows_of(hospital)[: len(few) // 3] == rows_of(tmp_path / "few")


@pytest.mark.parametrize("change", [{"seed": 4}, {"name": "hospital-b"}, {"index": 1}])
def test_another_seed_name_or_kind_is_another_hospital(
    hospital: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    def pictures(root: Path) -> set[str]:
        return {value for name, value in digests(root).items() if not name.startswith("masks")}

    assert not pictures(write(tmp_path / "other", **change)) & pictures(hospital)  # type: ignore[arg-type]


def test_metadata_names_every_file_and_agrees_with_it(hospital: Path) -> None:
    rows = rows_of(hospital)
    assert tuple(rows[0]) == ("file_name", "label", "patient_id", *FINDINGS)
    files = {f"{p.parent.name}/{p.name}" for name in CLASSES for p in (hospital / name).iterdir()}
    assert {row["file_name"] for row in rows} == files and len(rows) == len(files)
    for row in rows:
        folder, _, file = row["file_name"].partition("/")
        assert folder == row["label"] and file.startswith(row["patient_id"] + "_")
        picture = pixels(hospital / row["file_name"])
        assert min(picture.shape) == SIZE
        for masks in ("masks", "masks-lungs"):
            assert pixels(hospital / masks / row["file_name"]).shape == picture.shape
    labels = {row["patient_id"]: row["label"] for row in rows}
    assert len(labels) == 12 and all(labels[row["patient_id"]] == row["label"] for row in rows)


def test_labels_agree_with_the_masks(hospital: Path) -> None:
    for row in rows_of(hospital):
        mask = pixels(hospital / "masks" / row["file_name"])
        lungs = pixels(hospital / "masks-lungs" / row["file_name"])
        assert set(np.unique(mask)) <= {0, 255} == set(np.unique(lungs))
        assert (mask <= lungs).all()
        named = [row[finding] == "1" for finding in FINDINGS]
        assert mask.any() == any(named) == (row["label"] == "covid")
        if row["air_bronchogram"] == "1":
            assert row["consolidation"] == "1"


def test_the_smallest_hospital_has_both_classes_and_shares_are_kept(tmp_path: Path) -> None:
    for index in range(3):
        rows = rows_of(write(tmp_path / str(index), index, patients=2, size=64))
        assert {row["label"] for row in rows} == set(CLASSES)
    rows = rows_of(write(tmp_path / "shares", 3, patients=20, size=64))
    positives = {row["patient_id"] for row in rows if row["label"] == "covid"}
    assert len(positives) == 7  # the fourth preset's share is 0.35


def test_slices_per_patient_are_three_in_the_mean(tmp_path: Path) -> None:
    rows = rows_of(write(tmp_path / "a", patients=30, size=64))
    counts = np.unique([row["patient_id"] for row in rows], return_counts=True)[1]
    # 1 + Poisson(2): a mean of 3, a standard error of √(2 / 30) = 0.26
    assert counts.mean() == pytest.approx(3, abs=0.7) and counts.min() == 1 and counts.max() <= 7


def test_hospitals_differ_more_from_each_other_than_from_themselves(tmp_path: Path) -> None:
    def greys(index: int, seed: int) -> np.ndarray:
        root = write(tmp_path / f"{index}-{seed}", index, 4, name=f"h{index}", seed=seed, size=64)
        return np.concatenate([pixels(root / row["file_name"]).ravel() for row in rows_of(root)])

    of = {index: greys(index, 0) for index in range(7)}
    within = [wasserstein_distance(of[index], greys(index, 1)) for index in range(5)]
    between = [wasserstein_distance(of[i], of[j]) for i, j in combinations(of, 2)]
    assert max(within) < 0.7 * min(between)


def test_air_is_dark_and_white_where_greys_are_inverted(tmp_path: Path) -> None:
    for index in (0, 1, 3, 4):
        root = write(tmp_path / str(index), index, patients=2)
        for row in rows_of(root):
            picture = pixels(root / row["file_name"]).astype(float)
            air = picture[3:6, picture.shape[1] // 2].mean()
            heart = picture[picture.shape[0] // 2 - 8, picture.shape[1] // 2]
            assert (air > heart + 30) if index == 3 else (heart > air + 30)


def test_a_folder_with_anything_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    root = tmp_path / "full"
    root.mkdir()
    (root / "note.txt").write_text("mine")
    with pytest.raises(RunError, match=r"Cannot write .*full: Directory not empty"):
        write(root)
    with pytest.raises(RunError, match=r"Cannot write .*note\.txt"):
        write(root / "note.txt")
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "note.txt"]
    assert (root / "note.txt").read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert rows_of(write(tmp_path / "empty", patients=2))


def test_stopped_half_way_it_leaves_nothing(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a", patients=4, progress=stop)
    assert seen == [(1, 4), (2, 4)] and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("a", "b", "c")}, "two different classes"),
        ({"classes": ("a", "a")}, "two different classes"),
        ({"classes": ("masks", "b")}, "masks"),
        ({"classes": ("a", "masks-lungs")}, "masks-lungs"),
    ],
)
def test_arguments_that_make_no_hospital_are_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        write(tmp_path / "a", **change)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
