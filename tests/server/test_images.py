"""Sites side by side: who stands apart is named, and nobody else is."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.config.schema import Config
from common.data.cache import load_site
from common.data.folder import read_site
from common.data.pictures import ImageStatistics, image_statistics
from common.exchange.messages import SiteInfo
from server.images import describe_images, record_images, told_statistics, warn_of_images
from simulations.synthetic import write_hospital
from tests.server.answers import site_info

GENERATOR = np.random.default_rng(0)
CHEST = np.kron([[9, 2, 9], [9, 2, 9], [9, 5, 9]], np.ones((3, 3)))
"""Dark lungs left and right of what lies between them, in an image of 9 by 9 pixels."""


def chests(level: float = 12.0, span: float = 20.0, noise: float = 6.0) -> np.ndarray:
    """Return 30 images of 15 by 15 pixels, dark and bright as ``CHEST``."""
    image = np.pad(CHEST.T, 3, constant_values=0)
    made = level + span * image + GENERATOR.normal(0, noise, (30, 15, 15))
    return made.clip(0, 255).astype(np.uint8)[..., None]


def infos(**images: np.ndarray | None) -> dict[str, SiteInfo]:
    return {
        site.replace("_", "-"): site_info(
            site.replace("_", "-"),
            class_counts=(10, 20),
            statistics=None if held is None else image_statistics(held),
        )
        for site, held in images.items()
    }


def warned(**images: np.ndarray | None) -> list[str]:
    return warn_of_images(told_statistics(infos(**images)))


def test_sites_of_other_windows_and_contrasts_are_alike() -> None:
    assert warned(a=chests(), b=chests(40, 10), c=chests(0, 28, 20), d=chests(5, 8)) == []


def test_an_inverted_site_is_named_and_nobody_else() -> None:
    found = warned(a=chests(), b=255 - chests(30, 15), c=chests(40, 10))
    assert found == [
        "b looks inverted: where the images of a and c are dark, its own are bright (correlation "
        "of the mean greys in the middle: −1.00)."
    ]


def test_images_that_show_the_same_everywhere_are_no_negatives_of_others() -> None:
    noise = GENERATOR.integers(0, 160, (200, 15, 15, 1)).astype(np.uint8)
    assert warned(a=noise, b=255 - noise, c=chests(40, 10)) == []


def test_a_blank_site_is_named_once() -> None:
    black = np.zeros((30, 15, 15, 1), dtype=np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = warned(a=chests(), b=black, c=chests(40, 10))
    assert found == ["b looks blank: 100 % of its greys lie between 0 and 7."]
    # One that is blank is never held against the others, nor they against it.
    assert warned(a=black, b=chests()) == ["a looks blank: 100 % of its greys lie between 0 and 7."]


def test_a_site_of_greys_far_from_all_others_is_named_with_the_distance() -> None:
    light, dark = chests(140, 10), chests(2, 1, 8)
    found = warned(a=light, b=chests(150, 8), c=dark)
    distance = light.mean() - dark.mean()
    assert len(found) == 1 and distance > 125
    said = "c looks unlike a and b: its greys are far from theirs (earth mover's distance of the "
    assert found[0].startswith(said) and found[0].endswith(" of 255 greys).")
    assert abs(int(found[0].split("histograms: ")[1].split()[0]) - distance) < 10


def test_of_two_sites_that_differ_neither_is_the_odd_one() -> None:
    (found,) = warned(a=chests(), b=255 - chests())
    assert found.startswith("a and b differ: one of them looks inverted (")
    assert "Which of them is the odd one, this does not tell." in found
    # Nor are two of four.
    found = warned(a=chests(), b=255 - chests(), c=chests(), d=255 - chests())
    assert len(found) == 4 and all(" differ: " in one for one in found)


def test_two_of_five_that_are_inverted_are_named() -> None:
    found = warned(
        a=chests(), b=255 - chests(), c=chests(), d=255 - chests(40, 10), e=chests(40, 10)
    )
    assert [one.split(" looks inverted")[0] for one in found] == ["b", "d"]
    assert all("where the images of a, c and e are dark" in one for one in found)


def test_one_site_or_none_that_tells_is_held_against_nobody() -> None:
    assert warned(a=255 - chests()) == warned(a=None, b=chests(), c=None) == []
    assert describe_images(infos(a=None), ("non-covid", "covid")) == []


def test_every_site_has_a_line_and_the_warnings_follow() -> None:
    images = np.full((30, 15, 15, 1), 250, dtype=np.uint8)
    images[:3] = 5
    told = infos(a=images, b=None)
    assert describe_images(told, ("non-covid", "covid")) == [
        "a: 30 training images (10 non-covid, 20 covid), grey 225.5 ± 73.5, 10.0 % below 8, "
        "90.0 % from 248 on",
        "WARNING: a looks blank: 90 % of its greys lie between 248 and 255.",
    ]


def test_the_record_holds_what_the_sites_said() -> None:
    told = infos(a=chests(), b=None)
    found = record_images(told)
    assert found["sites"]["b"] == {"class_counts": [10, 20], "greys": None}
    greys: dict[str, Any] = found["sites"]["a"]["greys"]
    assert ImageStatistics(**greys) == told["a"].statistics
    assert found["warnings"] == []


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Return the images of five quite different synthetic hospitals, of which d makes negatives."""
    root, classes = tmp_path_factory.mktemp("hospitals"), ("non-covid", "covid")
    found = {}
    for index, name in enumerate("abcde"):
        write_hospital(root / name, name, index, 8, classes, seed=0, size=96)
        site = read_site(name, root / name, classes)
        found[name] = load_site(site, Config(image_size=56), Path(root / "cache")).images
    return found


def test_of_quite_different_hospitals_the_one_that_makes_negatives_is_named(
    hospitals: dict[str, np.ndarray],
) -> None:
    found = warned(**hospitals)
    assert len(found) == 1
    assert found[0].startswith("d looks inverted: where the images of a, b, c and e are dark")
    del hospitals["d"]
    assert warned(**hospitals) == []
    for one in hospitals:
        for other in hospitals:
            assert warned(**{one: hospitals[one], other: hospitals[other]}) == []
    assert len(warned(**{name: 255 - held for name, held in hospitals.items()})) == 0
