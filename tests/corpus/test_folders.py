"""Site folders and their tables of patients, as a hospital's person would give them."""

from pathlib import Path

import pytest

from common.config.schema import Config
from common.learning.local_site import open_site
from tests.corpus.case import Case, ids
from tests.corpus.folders import FOLDERS
from tests.corpus.looking import look
from tests.corpus.tables import TABLES
from tests.simulations.tiny import SETTINGS

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("own_home")]


@pytest.mark.parametrize("case", FOLDERS, ids=ids(FOLDERS))
def test_a_folder(case: Case, tmp_path: Path) -> None:
    look(case, tmp_path)
    check_rows(case, tmp_path)


@pytest.mark.parametrize("case", TABLES, ids=ids(TABLES))
def test_a_table_of_patients(case: Case, tmp_path: Path) -> None:
    look(case, tmp_path)
    check_rows(case, tmp_path)


def check_rows(case: Case, tmp_path: Path) -> None:
    """Check which images an odd but valid site has, of which class and of which patient."""
    assert (case.rows is None) == bool(case.said)
    if case.rows is not None:
        config = Config().changed(sites=f"hospital={tmp_path / 'data' / 'hospital'}", **SETTINGS)
        site = open_site(config, "hospital")
        classes = (site.classes[label] for label in site.labels)
        told = zip(classes, site.patients, strict=True)
        assert dict(zip(site.files, told, strict=True)) == dict(case.rows)
