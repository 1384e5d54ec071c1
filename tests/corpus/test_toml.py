"""Files that people write: configurations, studies, consortia, policies."""

from pathlib import Path

import pytest

from tests.corpus import configs, consortia, policies, studies
from tests.corpus.asking import ask_for_card
from tests.corpus.case import Case, assert_sentence, call, held, ids, refused
from tests.corpus.sites import write_site

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("own_home")]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder for the file alone."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.mark.parametrize("case", configs.CONFIGS, ids=ids(configs.CONFIGS))
def test_a_configuration(case: Case, place: Path, tmp_path: Path) -> None:
    case.make(place)
    before = held(place)
    site = write_site(tmp_path / "hospital")
    words = ("check-site", site, "--config", place / configs.FILE)
    if case.said:
        refused(case.said, *words)
        # A federation's sites would have to be started first; what is refused is refused before.
        refused(case.said, "train", "federated", "--config", place / configs.FILE)
        assert not (tmp_path / "runs").exists()
    else:
        done = call(*words)
        assert done.exit_code == 0, done.output
    assert held(place) == before


@pytest.mark.parametrize("case", studies.STUDIES, ids=ids(studies.STUDIES))
def test_a_study(case: Case, place: Path, tmp_path: Path) -> None:
    case.make(place)
    before = held(place)
    refused(case.said, "study", place / studies.FILE, "--report", "--runs", tmp_path / "runs")
    assert held(place) == before
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("case", consortia.CONSORTIA, ids=ids(consortia.CONSORTIA))
def test_a_consortium(case: Case, place: Path, tmp_path: Path) -> None:
    case.make(place)
    before = held(place)
    words = ("deploy", "init", place / consortia.FILE, "--output", tmp_path / "made")
    if case.said:
        refused(case.said, *words)
        assert not (tmp_path / "made").exists()
    else:
        done = call(*words)
        assert done.exit_code == 0, done.output
        assert (tmp_path / "made" / "a" / "policy.toml").exists()
    assert held(place) == before


@pytest.mark.parametrize("case", policies.POLICIES, ids=ids(policies.POLICIES))
def test_a_policy(case: Case, place: Path, tmp_path: Path) -> None:
    """What is wrong with it is said at the site; what leaves is a sentence written in advance."""
    case.make(place)
    before = held(place)
    answer, told = ask_for_card(tmp_path, policy=str(place / policies.FILE))
    if case.said:
        assert answer.has_error() and answer.error.code == 110
        assert_sentence(answer.error.reason, "the site's policy keeps this here")
        assert_sentence(told.strip().splitlines()[-1], f"PolicyError: .*{case.said}")
    else:
        assert answer.has_content(), told
    assert held(place) == before
