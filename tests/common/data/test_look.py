"""Which images look odd: planted ones by name, and no others."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from common.config.sections import ImageKeys
from common.data.look import BLANK, INVERTED, STANDS_APART, Odd, find_odd, look_at
from common.data.scale import Scale
from simulations.synthetic import write_hospital

CONFIG = ImageKeys(cache_size=64)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> list[NDArray[np.uint8]]:
    """Return the images of a synthetic hospital, about 70."""
    root = tmp_path_factory.mktemp("made") / "north"
    write_hospital(root, "north", 0, 24, ("non-covid", "covid"), seed=0, size=64)
    files = [*root.glob("non-covid/*.png"), *root.glob("covid/*.png")]
    return [np.asarray(Image.open(file)) for file in sorted(files)]


def odd_among(images: list[NDArray[np.uint8]], folder: Path) -> dict[int, Odd]:
    """Write images as files, and look at them."""
    paths = [folder / f"{place:03d}.png" for place in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    sizes = np.array([image.shape[1::-1] for image in images])
    return find_odd(look_at(paths, CONFIG), sizes)


def test_nothing_is_odd_about_a_sound_site(
    hospital: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    assert odd_among(hospital, tmp_path) == {}


def test_planted_images_are_found_and_no_others(
    hospital: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    images = list(hospital)
    spot = np.zeros((64, 64), np.uint8)
    spot[30:34, 30:34] = 255
    images[3], images[5] = np.zeros((64, 64), np.uint8), spot
    images[8] = 255 - images[8]
    images[20], images[21] = images[20] // 8, np.tile(images[21], (1, 5))
    found = odd_among(images, tmp_path)
    kinds = {place: odd.kind for place, odd in found.items()}
    assert kinds == {3: BLANK, 5: BLANK, 8: INVERTED, 20: STANDS_APART, 21: STANDS_APART}
    assert found[3].reason == "one grey in 100% of it, deviation of greys 0.0"
    mean = images[20].mean()
    assert found[20].reason.startswith(f"mean grey {mean:.0f}"[:11])
    assert found[21].reason == "width / height 5, of most 1"


@pytest.mark.parametrize("number", range(0, 70, 10))
def test_the_negative_of_any_image_looks_inverted(
    hospital: list[NDArray[np.uint8]], tmp_path: Path, number: int
) -> None:
    images = list(hospital)
    place = number % len(images)
    images[place] = 255 - images[place]
    found = odd_among(images, tmp_path)
    assert {at: odd.kind for at, odd in found.items()} == {place: INVERTED}


def test_of_few_images_it_is_not_said_what_most_look_like(
    hospital: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    images = hospital[:18]
    black = np.zeros((64, 64), np.uint8)
    found = odd_among([*images, 255 - images[0], black], tmp_path)
    assert {place: odd.kind for place, odd in found.items()} == {19: BLANK}


def test_the_scale_is_told_and_how_many_images_needed_it(tmp_path: Path) -> None:
    deep = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray((deep // 16).astype(np.uint8)).save(tmp_path / "shallow.png")
    (tmp_path / "none.png").write_bytes(b"")
    paths = [tmp_path / name for name in ("deep.png", "none.png", "shallow.png", "deep.png")]
    looked = look_at(paths, CONFIG)
    assert (looked.scale, looked.scaled) == (Scale(0, 4095), 2)
    assert str(looked.scale) == "0 to 4,095"
    assert list(looked.decoded) == [0, 2, 3]
    assert "is empty" in looked.faults[paths[1]]
    assert looked.counts[0].sum() == 64 * 64
    expected = np.bincount(np.rint(deep / 4095 * 255).astype(int).ravel(), minlength=256)
    assert np.array_equal(looked.counts[0], expected)
