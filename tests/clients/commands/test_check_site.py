"""What a hospital is told of its images, and the page that shows them."""

import base64
import io
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image

from clients.commands import check_page
from simulations.cli import app
from simulations.synthetic import write_hospital
from tests.corpus.case import held

SMALL = ["--set", "image-size=56", "--set", "folds=2"]


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XSITE_HOME", str(tmp_path / "home"))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Write a synthetic hospital."""
    root = tmp_path / "north"
    write_hospital(root, "north", 0, 24, ("non-covid", "covid"), seed=0, size=64)
    return root


def files_of(site: Path) -> list[Path]:
    return sorted([*site.glob("non-covid/*.png"), *site.glob("covid/*.png")])


def replace(path: Path, change: Callable[[NDArray[Any]], NDArray[Any]]) -> str:
    """Change an image's pixels in its file; return its name as warnings have it."""
    Image.fromarray(change(np.asarray(Image.open(path)))).save(path)
    return f"{path.parent.name}/{path.name}"


def check(*words: str) -> Result:
    return CliRunner().invoke(app, ["check-site", "north", *SMALL, *words])


def warned(done: Result) -> dict[str, list[str]]:
    """Return which files each warning of odd images names, by its kind."""
    lines = re.findall(r"images that (are blank|look inverted|stand apart)(.*)", done.stdout)
    return {kind: re.findall(r"'([^']+)'", rest) for kind, rest in lines}


def test_a_sound_site_has_no_odd_images(site: Path) -> None:
    done = check()
    assert done.exit_code == 0, done.output
    assert warned(done) == {}
    assert done.stdout.endswith("Fit for training: yes\n")


def test_odd_images_are_warned_of_by_name_and_no_others(site: Path) -> None:
    files = files_of(site)
    blank = replace(files[1], np.zeros_like)
    inverted = replace(files[7], lambda grey: 255 - grey)
    dark = replace(files[12], lambda grey: grey // 8)
    done = check()
    assert done.exit_code == 0, done.output
    found = {"are blank": [blank], "look inverted": [inverted], "stand apart": [dark]}
    assert warned(done) == found
    assert re.search(r"stand apart.*\(mean grey \d+, of most \d+ to \d+\)", done.stdout)
    page = (site.parent / "home" / "checks" / "north.html").read_text("utf-8")
    for kind, name in (("blank", blank), ("looks inverted", inverted), ("stands apart", dark)):
        label, _, file = name.partition("/")
        of_class = page[page.index(f"<h3>{label}: ") :]
        shown = re.findall(r"<figcaption>([^<]+)(?:<strong>([^:]+))?", of_class.split("</ul>")[0])
        odd = [(one, said) for one, said in shown if said]
        assert (file, kind) in odd and shown[: len(odd)] == odd


def test_more_than_five_are_counted(site: Path) -> None:
    for file in files_of(site)[:8]:
        replace(file, np.zeros_like)
    done = check()
    names = warned(done)["are blank"]
    assert len(names) == 5 and "and 3 more" in done.stdout


def test_a_site_of_mostly_blank_images_is_not_fit(site: Path) -> None:
    files = files_of(site)
    for file in files[: len(files) // 2 + 1]:
        replace(file, lambda grey: np.zeros(grey.shape, np.uint16))
    done = check()
    assert done.exit_code == 1
    assert re.search(r"Problem: .*images that are blank, or nearly, \d+ of \d+: ", done.stdout)
    assert done.stdout.endswith("Fit for training: no\n")


def test_the_scale_of_greys_is_told(site: Path) -> None:
    for file in files_of(site)[:3]:
        replace(file, lambda grey: grey.astype(np.uint16) * 16)
    done = check()
    assert "0 to 4,095 shown as black to white (3 images)" in " ".join(done.stdout.split())


def test_the_page_shows_images_as_they_are_cached_and_nothing_from_outside(site: Path) -> None:
    before = held(site)
    done = check()
    page = site.parent / "home" / "checks" / "north.html"
    assert f"Page: {page}, for this hospital's eyes only" in done.stdout
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert held(site) == before
    text = page.read_text("utf-8")
    assert "<h3>non-covid: " in text and "<h3>covid: " in text
    assert not re.search(r"https?://|<link|<script|url\(|@import", text)
    pictures = re.findall(r'<img alt="([^"]+)".*?src="data:image/png;base64,([^"]+)"', text)
    assert sorted(name for name, _ in pictures) == sorted(
        f"{file.parent.name}/{file.name}" for file in files_of(site)
    )
    assert text.count("src=") == len(pictures)
    for name, data in pictures[::10]:
        cached = Image.open(site / name).resize((64, 64), Image.Resampling.BILINEAR)
        expected = cached.resize((96, 96), Image.Resampling.BILINEAR)
        assert np.array_equal(Image.open(io.BytesIO(base64.b64decode(data))), expected)


def test_the_page_is_bounded(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_page, "MOST", 4)
    files = [file for file in files_of(site) if file.parent.name == "covid"]
    last = replace(files[-1], np.zeros_like)
    check("--page", "elsewhere/page.html")
    text = Path("elsewhere/page.html").read_text("utf-8")
    assert text.count("<img ") == 8
    assert f"<h3>covid: 4 of {len(files)}, odd ones first</h3>" in text
    first = re.search(r'<img alt="([^,"]+)', text[text.index("<h3>covid") :])
    assert first is not None and first[1] == last
    assert not (site.parent / "home").exists()


def test_names_are_text_on_the_page(site: Path) -> None:
    file = files_of(site)[0]
    file.rename(file.with_name('<b onload="x">.png'))
    (site / "metadata.csv").unlink()
    assert check().exit_code == 0
    text = (site.parent / "home" / "checks" / "north.html").read_text("utf-8")
    assert "<b onload" not in text and "&lt;b onload=&quot;x&quot;&gt;.png" in text


def test_a_folder_without_images_has_a_page_too(tmp_path: Path) -> None:
    (tmp_path / "north").mkdir()
    done = check()
    assert done.exit_code == 1 and "Page: " in done.stdout
    assert "Fit for training: no" in (tmp_path / "home" / "checks" / "north.html").read_text(
        "utf-8"
    )


def test_no_page_is_written_where_none_can_be_or_is_asked_for(site: Path) -> None:
    assert "Page: " not in check("--no-page").stdout
    (site.parent / "home").write_text("in the way")
    done = check()
    assert done.exit_code == 0 and "No page: Cannot write" in done.stdout
    assert check("--page", "home/page.html").exit_code == 1
