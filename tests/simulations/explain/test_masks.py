"""Masks of a synthetic hospital: beside the images, and in the images' own geometry."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from common.config.schema import Config
from common.data.augment import MEAN, SPREAD, prepare
from common.data.cache import load_site
from common.data.folder import LUNG_MASKS, MASKS, read_site
from common.data.open import site_root
from common.errors import ConfigError, SiteError
from common.learning.local_site import open_site
from simulations.explain.masks import has_masks, load_masks
from simulations.synthetic import write_hospital

CLASSES = ("non-covid", "covid")
CONFIG = Config(image_size=56, cache_size=64)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # The second preset's pictures are wider than high, so that squashing matters.
    root = tmp_path_factory.mktemp("masks") / "b"
    write_hospital(root, "b", 1, 8, CLASSES, seed=3, size=96)
    return root


def seen(root: Path, cache: Path) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """Return the grey values that the network sees, 0 to 1, with files and labels."""
    data = load_site(read_site("b", root, CLASSES), CONFIG, cache)
    images = prepare(torch.from_numpy(np.array(data.images)), CONFIG.image_size)
    return (images[:, 0] * SPREAD + MEAN).numpy(), data.files, data.labels


def test_lesions_lie_in_the_lungs_and_both_are_shares(hospital: Path, tmp_path: Path) -> None:
    _, files, labels = seen(hospital, tmp_path)
    lesions, lungs = (load_masks(hospital / of, files, CONFIG) for of in (MASKS, LUNG_MASKS))
    assert lesions.shape == lungs.shape == (len(files), 56, 56)
    for each in (lesions, lungs):
        assert each.dtype == np.float32 and each.min() >= 0 and each.max() <= 1
    assert (lesions <= lungs + 1e-6).all()
    np.testing.assert_array_equal(lesions.any(axis=(1, 2)), labels == 1)
    share = lungs.mean(axis=(1, 2))
    assert share.min() > 0.04 and share.max() < 0.45


def test_a_mask_takes_the_way_of_its_image(hospital: Path, tmp_path: Path) -> None:
    # Each image is replaced by its lungs: decoded and prepared, it must be the mask to the bit
    # of a cached byte.
    painted = tmp_path / "painted"
    for label in CLASSES:
        (painted / label).mkdir(parents=True)
        for file in (hospital / "masks-lungs" / label).iterdir():
            (painted / label / file.name).write_bytes(file.read_bytes())
    images, files, _ = seen(painted, tmp_path / "cache")
    lungs = load_masks(hospital / LUNG_MASKS, files, CONFIG)
    np.testing.assert_allclose(lungs, images, atol=1e-5)


def test_lungs_are_where_the_picture_is_dark_and_nowhere_else(
    hospital: Path, tmp_path: Path
) -> None:
    images, files, labels = seen(hospital, tmp_path)
    lungs = load_masks(hospital / LUNG_MASKS, files, CONFIG)
    for image, lung in zip(images[labels == 0], lungs[labels == 0], strict=True):
        inside = lung > 0.9
        near = (lung < 0.1) & grown(inside, 6)

        def contrast(
            shift: int,
            image: np.ndarray = image,
            inside: np.ndarray = inside,
            near: np.ndarray = near,
        ) -> float:
            moved = np.roll(image, shift, axis=(0, 1))
            return float(moved[near].mean() - moved[inside].mean())

        # Moved by four pixels of 56, the mask fits worse.
        assert contrast(0) > 0.1 and contrast(0) > 1.15 * max(contrast(4), contrast(-4))


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    rolled = [
        np.roll(mask, (row, column), axis=(0, 1))
        for row in range(-pixels, pixels + 1)
        for column in range(-pixels, pixels + 1)
    ]
    return np.logical_or.reduce(rolled)


def test_lesions_are_denser_than_the_lung_around_them(hospital: Path, tmp_path: Path) -> None:
    images, files, labels = seen(hospital, tmp_path)
    lesions, lungs = (load_masks(hospital / of, files, CONFIG) for of in (MASKS, LUNG_MASKS))
    ill = labels == 1
    lesion, lung = lesions[ill] > 0.7, (lungs[ill] > 0.95) & (lesions[ill] == 0)
    assert images[ill][lesion].mean() > images[ill][lung].mean() + 0.03


def test_no_mask_is_a_folder_without_masks_and_a_missing_one_is_named(
    hospital: Path, tmp_path: Path
) -> None:
    assert has_masks(hospital) and not has_masks(tmp_path)
    assert load_masks(hospital / LUNG_MASKS, (), CONFIG).shape == (0, 56, 56)
    with pytest.raises(SiteError, match=r"masks.covid.p9999_00\.png"):
        load_masks(hospital / MASKS, ("covid/p9999_00.png",), CONFIG)


def test_a_hospital_of_the_cache_without_lungs_is_written_anew_with_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(*arguments: Any, **named: Any) -> None:
        write_hospital(*arguments, **named, size=64)

    monkeypatch.setattr("simulations.synthetic.write_hospital", small)
    config = Config(synthetic_patients=8, cache_dir=str(tmp_path), image_size=16, sites="a")
    with monkeypatch.context() as before:
        before.setattr("common.data.open.SYNTHETIC_FORMAT", 1)
        old = site_root(config, "a")
    new = site_root(config, "a")
    assert old != new and has_masks(new) and site_root(config, "a") == new
    data = open_site(config, "a")
    assert (new / data.files[0]).read_bytes() == (old / data.files[0]).read_bytes()
    with Image.open(new / "masks-lungs" / data.files[0]) as lungs:
        assert set(np.unique(np.asarray(lungs))) == {0, 255}


def test_where_the_painter_is_not_installed_a_sentence_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "simulations.synthetic", None)
    config = Config(cache_dir=str(tmp_path), sites="a")
    with pytest.raises(ConfigError, match="name the folder of the site's images"):
        site_root(config, "a")
