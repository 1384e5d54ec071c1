"""An image as the network gets it: its pixels, and what is said of them."""

import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image

from clients.commands import preview as module
from common.config.load import make_config
from common.data.augment import MEAN, SPREAD, prepare
from common.data.cache import load_site
from common.data.folder import read_site
from simulations.cli import app
from tests.common.data.dicom_files import grey_file

SIZES = {"image-size": 24, "cache-size": 32}
RANDOM = np.random.default_rng(0)
DEEP = RANDOM.integers(0, 1000, (2, 4, 40, 30)).astype(np.uint16)


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XSITE_HOME", str(tmp_path / "home"))


def preview(file: object, *words: str, **keys: object) -> Result:
    settings = [f"--set={key}={value}" for key, value in {**SIZES, **keys}.items()]
    command = ["preview", str(file), "--output", "view.png", *settings, *words]
    return CliRunner().invoke(app, command)


def view() -> NDArray[np.uint8]:
    return np.asarray(Image.open("view.png"))


def evaluated(cached: NDArray[np.uint8]) -> NDArray[Any]:
    """Return what evaluation makes of one cached image, as greys, (height, width)."""
    normalised = prepare(torch.from_numpy(cached[None].copy()), 24)[0, 0]
    return np.asarray((normalised * SPREAD + MEAN) * 255)


def write_deep_site(root: Path) -> Path:
    """Write greys of 16 bits up to 999, and one image that reaches 4,000."""
    for label, images in zip(("non-covid", "covid"), DEEP, strict=True):
        (root / label).mkdir(parents=True)
        for number, image in enumerate(images):
            image = image.copy()
            image[0, 0] = 4000 if (label, number) == ("covid", 3) else image[0, 0]
            Image.fromarray(image).save(root / label / f"{number}.png")
    return root


def test_an_image_of_a_site_is_its_cached_image_resized_for_evaluation(tmp_path: Path) -> None:
    root = write_deep_site(tmp_path / "north")
    config = make_config({"sites": f"north={root}", **SIZES})
    site = load_site(read_site("north", root, config.class_names), config, tmp_path / "cache")
    done = preview(root / "covid" / "1.png", sites=f"north={root}")
    assert done.exit_code == 0, done.output
    cached = site.images[site.files.index("covid/1.png")]
    assert view().shape == (24, 24)
    assert np.abs(view() - evaluated(cached)).max() <= 0.5
    scale = "0 to 4,095 shown as black to white (the scale of the site 'north')"
    assert f"Greys: {scale}." in done.stdout
    assert "PNG (I;16), 30 × 40 pixels" in done.stdout
    assert "Squashed to 32 × 32 pixels" in done.stdout and "resized to 24 × 24" in done.stdout


def test_alone_a_file_has_a_scale_of_its_own_and_the_site_s_is_offered(tmp_path: Path) -> None:
    root = write_deep_site(tmp_path / "north")
    done = preview(root / "covid" / "1.png")
    assert "Greys: 0 to 1,023 shown as black to white (from this file alone" in done.stdout
    assert "--set sites=NAME=DIR" in done.stdout
    grey = np.rint(DEEP[1, 1] / 1023 * 255).astype(np.uint8)
    cached = np.asarray(Image.fromarray(grey).resize((32, 32), Image.Resampling.BILINEAR))
    assert np.abs(view() - evaluated(cached[..., None])).max() <= 0.5
    again = preview(root / "covid" / "1.png", "--force", **{"grey-high": 500})
    assert "Greys: 0 to 500 shown as black to white (grey-low and grey-high)." in again.stdout


def test_frames_stand_below_their_numbers_and_one_can_be_named(tmp_path: Path) -> None:
    frames = np.stack([np.full((32, 32), 50 * number, np.uint8) for number in range(5)])
    (tmp_path / "scan.dcm").write_bytes(grey_file(frames, 8))
    done = preview("scan.dcm")
    assert done.exit_code == 0, done.output
    assert "5 of 5 frames, each below its number." in done.stdout
    assert "0 to 255, all that the file's bits can hold" in done.stdout
    whole = view()
    assert whole.shape == (2 * 38, 3 * 24)
    for number in range(5):
        top, left = number // 3 * 38, number % 3 * 24
        assert (whole[top + 14 : top + 38, left : left + 24] == 50 * number).all()
        # What is drawn above it is its number.
        assert whole[top : top + 14, left : left + 24].max() > 200
    assert preview("scan.dcm#4", "--force").exit_code == 0
    assert view().shape == (24, 24) and (view() == 150).all()
    none = preview("scan.dcm#9", "--force")
    assert none.exit_code == 1 and "has no frame 9" in none.stderr


def test_a_sheet_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PIXELS", 3 * 24 * 24)
    frames = np.stack([np.full((32, 32), 50 * number, np.uint8) for number in range(5)])
    (tmp_path / "scan.dcm").write_bytes(grey_file(frames, 8))
    said = "3 of 5 frames, each below its number; name another as scan.dcm#5."
    assert said in preview("scan.dcm").stdout
    assert view().shape == (2 * 38, 2 * 24) and (view()[52:, :24] == 100).all()


def test_for_a_file_with_a_scale_of_its_own_the_rest_of_its_site_is_not_read(
    tmp_path: Path,
) -> None:
    root = write_deep_site(tmp_path / "north")
    (root / "covid" / "0.png").write_bytes(b"")
    Image.new("L", (40, 40), 7).save(root / "covid" / "scan.png")
    done = preview(root / "covid" / "scan.png", sites=f"north={root}")
    assert done.exit_code == 0 and "Shown as the file says, in 8 bits." in done.stdout
    deep = preview(root / "covid" / "1.png", "--force", sites=f"north={root}")
    assert deep.exit_code == 1 and "0.png is empty" in deep.stderr


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024}, "window −600 ± 750 HU."),
        ({"WindowCenter": 40, "WindowWidth": 400}, "the file's own window, 40 ± 200."),
        ({}, "0 to 4,095 shown as black to white (from this file alone"),
        (
            {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 40, "WindowWidth": 80},
            "the file's own window, 40 ± 40, inverted as the file says.",
        ),
    ],
)
def test_it_is_said_which_window_was_used(tmp_path: Path, tags: dict[str, Any], said: str) -> None:
    values = np.arange(0, 4096, 4).reshape(32, 32)
    (tmp_path / "scan.dcm").write_bytes(grey_file(values, 12, **tags))
    done = preview("scan.dcm")
    assert f"Greys: {said}" in done.stdout, done.output


def test_colours_stay_colours(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), (10, 200, 30)).save(tmp_path / "colour.png")
    assert preview("colour.png", channels=3).exit_code == 0
    assert view().shape == (24, 24, 3) and (view() == (10, 200, 30)).all()


def test_the_png_holds_pixels_alone_for_the_owner_alone(tmp_path: Path) -> None:
    (tmp_path / "scan.dcm").write_bytes(
        grey_file(np.eye(32) * 99, 8, PatientName="Jane Roe", PatientID="4711")
    )
    done = preview("scan.dcm")
    assert done.exit_code == 0 and "Roe" not in done.output
    content = Path("view.png").read_bytes()
    assert b"Roe" not in content and b"4711" not in content
    with Image.open("view.png") as image:
        image.load()
        assert image.info == {}
    assert stat.S_IMODE(Path("view.png").stat().st_mode) == 0o600


def test_no_file_is_overwritten_unasked_and_the_image_itself_never(tmp_path: Path) -> None:
    Image.new("L", (40, 40), 7).save(tmp_path / "scan.png")
    (tmp_path / "view.png").write_bytes(b"somebody's")
    done = preview("scan.png")
    assert done.exit_code == 1 and "view.png exists" in done.stderr
    assert Path("view.png").read_bytes() == b"somebody's"
    assert preview("scan.png", "--force").exit_code == 0 and (view() == 7).all()
    own = CliRunner().invoke(app, ["preview", "scan.png", "--output", "scan.png", "--force"])
    assert own.exit_code == 2 and "the image itself" in own.stderr
    other = CliRunner().invoke(app, ["preview", "scan.png", "--output", "view.jpg"])
    assert other.exit_code == 2 and "PNG" in other.stderr


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    for name, said in (("text.png", "is not an image"), ("none.png", "cannot read")):
        done = preview(name)
        assert done.exit_code == 1 and said in done.stderr, done.output
        assert not Path("view.png").exists()
