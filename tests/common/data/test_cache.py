import errno
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clients.site_check import check_folder
from common.config.load import make_config
from common.data import cache
from common.data.cache import SiteData, load_site
from common.data.folder import read_site
from common.data.open import cache_folder
from common.errors import RunError, SiteError
from common.learning.local_site import open_site
from tests.common.data.sites import CLASSES, SETTINGS, write_site


def load(root: Path, where: Path) -> SiteData:
    return load_site(read_site("a", root, CLASSES), SETTINGS, where)


def test_the_second_opening_decodes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_site(tmp_path / "a", patients=2)
    seen: list[tuple[int, int]] = []
    folder = read_site("a", root, CLASSES)
    first = load_site(folder, SETTINGS, tmp_path / "cache", progress=lambda *n: seen.append(n))
    assert seen[-1] == (8, 8)
    with Image.open(root / first.files[3]) as image:
        reduced = image.resize((8, 8), Image.Resampling.BILINEAR)
    assert np.array_equal(first.images[3, :, :, 0], np.asarray(reduced))

    def never(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(cache, "decode_all", never)
    again = load(root, tmp_path / "cache")
    assert np.array_equal(again.images, first.images)
    assert not again.images.flags.writeable
    assert again.patients == first.patients


def test_changed_content_or_settings_decode_anew(tmp_path: Path) -> None:
    root = write_site(tmp_path / "a")
    first = load(root, tmp_path / "cache")
    Image.new("L", (9, 9), 7).save(root / first.files[0])
    changed = load(root, tmp_path / "cache")
    assert set(changed.images[0].ravel().tolist()) == {7}
    assert np.array_equal(changed.images[1:], first.images[1:])


@pytest.mark.parametrize("damage", ["truncated", "manifest", "gone"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, damage: str) -> None:
    root = write_site(tmp_path / "a")
    first = np.array(load(root, tmp_path / "cache").images)
    (folder,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    if damage == "truncated":
        data = (folder / "images.npy").read_bytes()
        (folder / "images.npy").write_bytes(data[:-100])
    elif damage == "manifest":
        (folder / "manifest.json").write_text("{")
    else:
        (folder / "images.npy").unlink()
    assert np.array_equal(load(root, tmp_path / "cache").images, first)


def test_a_bad_file_is_named_with_its_site_and_nothing_is_published(tmp_path: Path) -> None:
    root = write_site(tmp_path / "a")
    (root / "covid" / "image 1 (1).png").write_bytes(b"")
    with pytest.raises(SiteError, match=r"Site 'a': .*image 1 \(1\)\.png is empty"):
        load(root, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_a_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_site(tmp_path / "a")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.os, "posix_fallocate", full)
    with pytest.raises(RunError, match=r"No space left on device\. Free some space"):
        load(root, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_a_configuration_opens_a_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_site(tmp_path / "sites" / "a")
    monkeypatch.setenv("XSITE_HOME", str(tmp_path / "home"))
    config = make_config({"data": str(tmp_path / "sites"), "sites": "a", "image-size": 28})
    data = open_site(config, "a")
    assert data.images.shape == (8, 32, 32, 1)
    assert cache_folder(config) == tmp_path / "home" / "cache"


def test_a_check_finds_every_problem(tmp_path: Path) -> None:
    root = write_site(tmp_path / "a", images=6, patients=6)
    config = make_config({"sites": "a", "folds": 3})
    good = check_folder("a", root, config)
    assert good.fit
    assert good.facts == {
        "images of non-covid": "6",
        "images of covid": "6",
        "patients known": "12",
        "images without patient": "0",
        "width, in pixels": "12",
        "height, in pixels": "10",
        "PNG (L)": "12",
    }
    assert good.folds == ((8, 4),) * 3
    (root / "covid" / "image 1 (1).png").write_bytes(b"")
    (root / "covid" / "image 2 (1).png").write_text("no image")
    bad = check_folder("a", root, config)
    assert not bad.fit
    assert len(bad.problems) == 2
    few = check_folder("a", root.parent / "none", config)
    assert "there is no folder" in few.problems[0]
