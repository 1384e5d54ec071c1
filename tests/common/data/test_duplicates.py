"""Copies among a site's images: which are found, what is said, and where folds put them."""

import io
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from clients.site_check import check_folder
from common.config.load import make_config
from common.config.schema import Config
from common.config.sections import ImageKeys
from common.data import duplicates
from common.data.cache import SiteData, load_site
from common.data.duplicates import Copies, find_copies, fingerprints
from common.data.folder import read_site
from common.data.folds import split_site
from common.errors import SiteError
from simulations.synthetic.hospital import write_hospital
from tests.common.data.dicom_files import grey_file
from tests.common.data.sites import CLASSES

SETTINGS = ImageKeys(image_size=112)


def scan(seed: int, size: int = 160) -> Image.Image:
    """Paint smooth shapes: no two seeds alike."""
    small = np.random.default_rng(seed).integers(0, 256, (7, 7), dtype=np.uint8)
    return Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)


def write_site(root: Path, images: int = 8) -> Path:
    for place, label in enumerate(CLASSES):
        (root / label).mkdir(parents=True)
        for number in range(images):
            scan(100 * place + number).save(root / label / f"{number}.png")
    return root


def opened(root: Path) -> SiteData:
    return load_site(read_site("a", root, CLASSES), SETTINGS, root.parent / "cache")


def pairs_of(site: SiteData) -> set[frozenset[str]]:
    return {frozenset({site.files[a], site.files[b]}) for a, b in site.together}


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    held = io.BytesIO()
    image.save(held, "JPEG", quality=quality)
    return Image.open(held)


COPIES = {
    "JPEG 90": lambda image: jpeg(image, 90),
    "JPEG 60": lambda image: jpeg(image, 60),
    "half as large": lambda image: image.resize((80, 80)),
    "twice as large": lambda image: image.resize((320, 320)),
    "brighter": lambda image: image.point(lambda grey: min(255, grey + 8)),
    "more contrast": lambda image: image.point(lambda grey: round(20 + grey * 0.85)),
}


def test_a_site_without_copies_has_none(tmp_path: Path) -> None:
    site = opened(write_site(tmp_path / "a"))
    assert site.together == () and site.warnings == ()


@pytest.mark.parametrize("how", COPIES)
def test_a_near_copy_is_told_and_tied(tmp_path: Path, how: str) -> None:
    root = write_site(tmp_path / "a")
    COPIES[how](scan(103)).save(root / "covid" / "copy.png")
    site = opened(root)
    assert pairs_of(site) == {frozenset({"covid/3.png", "covid/copy.png"})}
    (warning,) = site.warnings
    assert (
        "1 images are nearly the same as other images ('covid/3.png' and 'covid/copy.png')"
        in warning
    )


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_the_same_file_or_pixels_are_an_exact_copy(tmp_path: Path, suffix: str) -> None:
    root = write_site(tmp_path / "a")
    scan(103).save(root / "covid" / f"copy.{suffix}")
    site = opened(root)
    assert pairs_of(site) == {frozenset({"covid/3.png", f"covid/copy.{suffix}"})}
    assert "1 images are exact copies of other images" in site.warnings[0]


@pytest.mark.parametrize("suffix", ["png", "bmp"])
def test_an_exact_copy_of_another_class_is_refused_with_both_names(
    tmp_path: Path, suffix: str
) -> None:
    root = write_site(tmp_path / "a")
    scan(103).save(root / "non-covid" / f"copy.{suffix}")
    said = (
        f"'covid/3.png' and 'non-covid/copy.{suffix}' are copies of one image, in different "
        "classes (covid and non-covid). Keep the one that is right."
    )
    with pytest.raises(SiteError) as error:
        opened(root)
    assert said in str(error.value)
    check = check_folder("a", root, make_config({"sites": "a"}))
    assert [problem for problem in check.problems if said in problem]


def test_a_near_copy_of_another_class_is_told(tmp_path: Path) -> None:
    root = write_site(tmp_path / "a")
    jpeg(scan(103), 90).save(root / "non-covid" / "copy.png")
    site = opened(root)
    assert "1 of the images that are nearly the same are in different classes" in site.warnings[1]
    check = check_folder("a", root, make_config({"sites": "a"}))
    assert check.fit and set(site.warnings) <= set(check.warnings)


@pytest.mark.parametrize("unit", ["image", "patient"])
def test_copies_are_on_one_side_of_every_fold_and_of_the_validation_part(
    tmp_path: Path, unit: str
) -> None:
    root = write_site(tmp_path / "a", images=12)
    for number in range(6):
        scan(number).save(root / "non-covid" / f"again-{number}.png")
        jpeg(scan(number), 80).save(root / "non-covid" / f"near-{number}.png")
    names = sorted(p.relative_to(root).as_posix() for p in root.glob("*/*.png"))
    rows = [f"{name},{name.partition('/')[0]},patient {n}" for n, name in enumerate(names)]
    (root / "metadata.csv").write_text("\n".join(["file_name,label,patient_id", *rows]))
    site = opened(root)
    assert len(site.together) == 12
    place = {file: n for n, file in enumerate(site.files)}
    for fold in range(3):
        config = Config(folds=3, fold=fold, split=unit, validation_fraction=0.25)
        split = split_site(site, config)
        part_of = np.zeros(len(site), np.int64)
        part_of[split.validation], part_of[split.test] = 1, 2
        for number in range(6):
            kinds = [f"{number}", f"again-{number}", f"near-{number}"]
            same = {int(part_of[place[f"non-covid/{kind}.png"]]) for kind in kinds}
            assert len(same) == 1
        assert sorted(np.concatenate([split.train, split.validation, split.test])) == list(
            range(len(site))
        )


def test_pictures_of_one_grey_are_copies_of_none_but_the_same_file(tmp_path: Path) -> None:
    root = write_site(tmp_path / "a")
    for number in range(3):
        Image.new("L", (20 + number, 20), 9).save(root / "covid" / f"blank-{number}.png")
    assert opened(root).together == ()


def test_black_pictures_with_a_spot_are_no_copies() -> None:
    images = np.zeros((12, 64, 64, 1), np.uint8)
    for number, image in enumerate(images):
        image[5 * number : 5 * number + 6, 5 * number : 5 * number + 6] = 200
    assert find_copies(fingerprints(images), [str(n) for n in range(12)]) == Copies((), (), ())


def row_of_slices(n: int) -> NDArray[np.uint8]:
    """Return slices of one scan, each near the next: one picture that fades into another."""
    first, last = (np.asarray(scan(seed), np.float64) for seed in (1, 2))
    shares = np.linspace(0, 1, n)
    return np.stack([(1 - s) * first + s * last for s in shares]).astype(np.uint8)[..., None]


def test_the_slices_of_a_scan_are_no_chain() -> None:
    slices = row_of_slices(60)
    prints = fingerprints(slices)
    copies = find_copies(prints, [str(n) for n in range(60)])
    groups = {n: {n} for n in range(60)}
    for a, b in copies.near:
        groups[a] |= groups[b]
        for member in groups[a]:
            groups[member] = groups[a]
    # Neighbours are near, ends are not, and all of a group are near each other.
    assert copies.near and len({id(group) for group in groups.values()}) > 4
    hashes = np.stack([one.hash for one in prints])
    apart = (256 - hashes @ hashes.T) / 2
    for group in groups.values():
        members = sorted(group)
        assert apart[np.ix_(members, members)].max() <= duplicates.NEAR


def test_no_slice_of_a_synthetic_hospital_is_a_copy(tmp_path: Path) -> None:
    write_hospital(tmp_path / "a", "a", 3, 24, CLASSES, seed=0)
    assert opened(tmp_path / "a").together == ()


def test_what_was_found_is_kept_beside_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_site(tmp_path / "a")
    jpeg(scan(103), 90).save(root / "covid" / "copy.png")
    first = opened(root)
    (kept,) = (tmp_path / "cache").glob("*/copies.json")
    with monkeypatch.context() as patch:
        patch.setattr("common.data.cache.fingerprints", lambda _: pytest.fail("found again"))
        assert opened(root).together == first.together
    kept.write_text('[1, {"exact": 3}')
    assert opened(root).together == first.together


def test_ten_thousand_images_take_seconds_and_no_pair_of_all_is_kept() -> None:
    noise = np.random.default_rng(0)
    images = noise.integers(0, 256, (10_000, 16, 16, 1), dtype=np.uint8)
    images[5000:] = images[0] // 2 + noise.integers(0, 2, (5000, 16, 16, 1), dtype=np.uint8)
    start = time.monotonic()
    copies = find_copies(fingerprints(images), [str(n) for n in range(10_000)])
    assert time.monotonic() - start < 30
    assert 4000 < len(copies.exact) + len(copies.near) < 10_000


@pytest.mark.parametrize("patient", [None, "P1"])
def test_frames_of_one_file_are_no_exact_copies_and_stay_together_without_a_patient(
    tmp_path: Path, patient: str | None
) -> None:
    root = write_site(tmp_path / "a")
    for place, name in enumerate(("one.dcm", "other.dcm")):
        frames = [np.asarray(scan(500 + 10 * place + number, 64)) for number in range(4)]
        (root / "covid" / name).write_bytes(grey_file(np.stack(frames), 8, PatientID=patient))
    site = opened(root)
    own = [n for n, file in enumerate(site.files) if file.startswith("covid/o")]
    assert len(own) == 8 and not site.together
    assert {site.patients[n] for n in own} == {patient}
    for fold in range(4):
        split = split_site(site, Config(fold=fold, split="patient"))
        for name in ("one", "other"):
            of_file = {n for n in own if name in site.files[n]}
            assert of_file <= set(split.test) or not of_file & set(split.test)


def test_the_same_frame_of_a_copied_file_is_an_exact_copy(tmp_path: Path) -> None:
    root = write_site(tmp_path / "a")
    frames = np.stack([np.asarray(scan(500 + number, 64)) for number in range(2)])
    for name in ("one.dcm", "other.dcm"):
        (root / "covid" / name).write_bytes(grey_file(frames, 8))
    expected = [{f"covid/one.dcm#{n}", f"covid/other.dcm#{n}"} for n in (1, 2)]
    assert pairs_of(opened(root)) == set(map(frozenset, expected))
