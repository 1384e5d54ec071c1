"""Image and DICOM files among the sound ones of a site."""

from pathlib import Path

import pytest

from tests.corpus.case import Case, ids
from tests.corpus.dicoms import DICOMS
from tests.corpus.images import IMAGES
from tests.corpus.looking import look

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("own_home")]


@pytest.mark.parametrize("case", IMAGES, ids=ids(IMAGES))
def test_an_image(case: Case, tmp_path: Path) -> None:
    look(case, tmp_path)


@pytest.mark.parametrize("case", DICOMS, ids=ids(DICOMS))
def test_a_dicom_file(case: Case, tmp_path: Path) -> None:
    look(case, tmp_path)
