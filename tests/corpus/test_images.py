"""Image and DICOM files among the sound ones of a site."""

from pathlib import Path

import numpy as np
import pytest

from common.config.schema import Config
from common.data.decode import as_shown, pictures
from tests.corpus.case import Case, ids
from tests.corpus.dicoms import DICOMS
from tests.corpus.images import IMAGES
from tests.corpus.looking import look
from tests.corpus.sites import SPOILT

CONFIG = Config()
pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("own_home")]


@pytest.mark.parametrize("case", IMAGES, ids=ids(IMAGES))
def test_an_image(case: Case, tmp_path: Path) -> None:
    look(case, tmp_path)


@pytest.mark.parametrize("case", DICOMS, ids=ids(DICOMS))
def test_a_dicom_file(case: Case, tmp_path: Path) -> None:
    look(case, tmp_path)


VALID = [case for case in (*IMAGES, *DICOMS) if not case.said]


@pytest.mark.parametrize("case", VALID, ids=ids(VALID))
def test_an_odd_image_shows_what_it_means(case: Case, tmp_path: Path) -> None:
    case.make(tmp_path / "site")
    (path,) = (tmp_path / "site" / "covid").glob(f"{SPOILT}.*")
    assert case.shows is not None, "a valid image shows something"
    expected = case.shows()
    frames = range(1, len(expected) + 1) if len(expected) > 1 else [None]
    jpeg = path.read_bytes().startswith(b"\xff\xd8")
    for greys, picture in zip(expected, pictures(path, frames, CONFIG), strict=True):
        found = np.asarray(as_shown(picture, CONFIG, None).convert("L"), dtype=float)
        assert found.shape == greys.shape
        assert np.abs(found - greys).max() <= (4 if jpeg else 1)
