"""What the tests of the corpus share."""

from pathlib import Path

import pytest

from tests.corpus.recording import Recording, record


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let everything that a command keeps lie in the test's folder, where it also works."""
    monkeypatch.setenv("XSITE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XSITE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Return a federation of two hospitals, to be replayed."""
    return record(tmp_path_factory.mktemp("recorded"))
