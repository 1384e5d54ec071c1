from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest

from common.data.pictures import (
    count_greys,
    image_statistics,
    measure_images,
)

RANDOM = np.random.default_rng(0)
IMAGES = np.stack(
    [
        np.zeros((8, 8, 1)),
        np.full((8, 8, 1), 255),
        np.full((8, 8, 1), 7),
        RANDOM.integers(0, 256, (8, 8, 1)),
        np.arange(64).reshape(8, 8, 1),
    ]
).astype(np.uint8)


def test_every_image_is_measured_as_its_pixels_say() -> None:
    found = measure_images(count_greys(IMAGES))
    for row, image in enumerate(IMAGES):
        greys, counts = np.unique(image, return_counts=True)
        expected = (
            image.mean(),
            image.std(),
            np.mean((image == 0) | (image == 255)),
            counts.max() / image.size,
            len(greys),
        )
        assert [values[row] for values in astuple(found)] == pytest.approx(expected, abs=1e-12)
    assert found.saturated[:3].tolist() == [1, 1, 0]
    assert found.distinct.tolist()[:3] == [1, 1, 1]


def test_statistics_are_those_of_all_chosen_pixels() -> None:
    images = RANDOM.integers(0, 256, (40, 16, 16, 3)).astype(np.uint8)
    chosen = np.array([3, 5, 8, 39])
    found = image_statistics(images, chosen)
    held = images[chosen].astype(float)
    assert found.images == 4
    assert found.mean == round(held.mean(), 1)
    assert found.deviation == round(held.std(), 1)
    shares = np.histogram(held, bins=32, range=(0, 256))[0] / held.size
    assert sum(found.histogram) == 1000
    assert np.abs(np.array(found.histogram) / 1000 - shares).max() < 0.001
    # A fifth of 16 pixels is 3, and the middle begins after the first.
    assert found.fields[0] == round(held[:, 3:6, 3:6].mean())
    assert found.fields[5] == round(held[:, 6:9, 9:12].mean())
    assert found.fault() is None


def test_a_histogram_sums_to_a_thousand_however_it_is_rounded() -> None:
    # Thirds: 333.3 each, and the one that is left goes to the first.
    thirds = np.repeat([0, 100, 200], 25).astype(np.uint8).reshape(3, 5, 5, 1)
    assert [n for n in image_statistics(thirds).histogram if n] == [334, 333, 333]
    assert image_statistics(thirds[:1]).histogram == (1000, *[0] * 31)


def test_memory_mapped_images_are_read_one_by_one(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", IMAGES)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert np.array_equal(count_greys(mapped), count_greys(IMAGES))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": 0}, "no images"),
        ({"histogram": (1000,)}, "a histogram of 1 bins that sum to 1000"),
        ({"histogram": (999, *[0] * 31)}, "a histogram of 32 bins that sum to 999"),
        ({"fields": (7,) * 8}, "the means of 8 fields"),
        ({"mean": 101.25}, "more than one decimal"),
        ({"deviation": 3.14159}, "more than one decimal"),
    ],
)
def test_statistics_that_no_images_have_are_told(change: dict[str, object], said: str) -> None:
    assert said in str(replace(image_statistics(IMAGES), **change).fault())
