"""Caches of decoded images: what is damaged is made anew, and never believed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from common.runs.result import read_result
from tests.corpus.case import TINY, Case, call, held, ids, refused
from tests.corpus.sites import write_site

pytestmark = pytest.mark.timeout(60)
HASHES, IMAGES, MANIFEST = "a.hashes.json", "a-*/images.npy", "a-*/manifest.json"


def over(pattern: str, content: bytes) -> Callable[[Path], None]:
    """Return what writes something over a file of the cache."""

    def make(cache: Path) -> None:
        (path,) = cache.glob(pattern)
        path.write_bytes(content)

    return make


def half(cache: Path) -> None:
    (path,) = cache.glob(IMAGES)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def of_another_shape(cache: Path) -> None:
    (path,) = cache.glob(IMAGES)
    np.save(path, np.zeros((2, 8, 8, 1), np.uint8))


def pickled(cache: Path) -> None:
    (path,) = cache.glob(IMAGES)
    np.save(path, np.array([{"run": "anything"}], dtype=object), allow_pickle=True)


def a_file(cache: Path) -> None:
    shutil.rmtree(cache)
    cache.write_bytes(b"")


def lock_is_a_folder(cache: Path) -> None:
    (cache / "a.lock").unlink()
    (cache / "a.lock").mkdir()


def hashes_are_a_folder(cache: Path) -> None:
    (cache / HASHES).unlink()
    (cache / HASHES).mkdir()


CACHES = (
    Case("hashes: 0 bytes", "the power failed", over(HASHES, b"")),
    Case("hashes: a list", "another program's", over(HASHES, b"[]")),
    Case("hashes: other values", "another version's", over(HASHES, b'{"/a": 7, "/b": [1]}')),
    Case("hashes: brackets", "a parser's stack ends", over(HASHES, b"[" * 100_000)),
    Case("hashes: not UTF-8", "a damaged disk", over(HASHES, b'{"\xff": 0}')),
    Case("images: 0 bytes", "the power failed", over(IMAGES, b"")),
    Case("images: cut short", "the power failed", half),
    Case("images: of another shape", "another program's", of_another_shape),
    Case("images: a pickle", "it would run anything", pickled),
    Case("manifest: a list", "another program's", over(MANIFEST, b"[]")),
    Case("a file", "in the folder's place", a_file, r"Cannot write .*cache"),
    Case("lock: a folder", "in the file's place", lock_is_a_folder, r"Cannot write .*a\.lock"),
    Case("hashes: a folder", "in the file's place", hashes_are_a_folder, r"Cannot write .*hashes"),
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a site, and a cache and a run of it."""
    root = tmp_path_factory.mktemp("caches")
    write_site(root / "a")
    assert call(*training(root, root)).exit_code == 0
    return root


def training(sites: Path, own: Path) -> list[str]:
    words = ["train", "pooled", "--site", f"a={sites / 'a'}", "--runs", str(own / "runs"), *TINY]
    return [*words, "--name", "run", "--epochs", "1", "--set", f"cache-dir={own / 'cache'}"]


@pytest.mark.parametrize("case", CACHES, ids=ids(CACHES))
def test_a_damaged_cache_gives_the_same_weights(case: Case, template: Path, tmp_path: Path) -> None:
    shutil.copytree(template / "cache", tmp_path / "cache")
    case.make(tmp_path / "cache")
    before = held(template / "a")
    words = training(template, tmp_path)
    if case.said:
        refused(case.said, *words)
        assert not (tmp_path / "runs").exists()
    else:
        done = call(*words)
        assert done.exit_code == 0, done.output
        digests = [
            read_result(one / "runs" / "run")["weights_digest"] for one in (template, tmp_path)
        ]
        assert digests[0] == digests[1]
    assert held(template / "a") == before
