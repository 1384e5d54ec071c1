"""Site folders and their tables of patients, as a hospital's person would give them."""

from pathlib import Path

import pytest

from tests.corpus.case import Case, ids
from tests.corpus.folders import FOLDERS
from tests.corpus.looking import look
from tests.corpus.tables import TABLES

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("own_home")]


@pytest.mark.parametrize("case", FOLDERS, ids=ids(FOLDERS))
def test_a_folder(case: Case, tmp_path: Path) -> None:
    look(case, tmp_path)


@pytest.mark.parametrize("case", TABLES, ids=ids(TABLES))
def test_a_table_of_patients(case: Case, tmp_path: Path) -> None:
    look(case, tmp_path)
