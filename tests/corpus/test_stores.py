"""What server and hospital keep between two rounds, spoilt; then the next round comes."""

import shutil
from pathlib import Path

import pytest
from flwr.app import Message

from common.errors import CheckpointError
from common.runs.result import read_result
from tests.common.exchange.test_wire import carried
from tests.corpus.asking import ask
from tests.corpus.case import Case, assert_sentence, held, ids
from tests.corpus.checkpoints import CHECKPOINTS
from tests.corpus.recording import NORTH, Recording, key_of, node, replay
from tests.corpus.stores import STORES

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("case", STORES, ids=ids(STORES))
def test_a_store(case: Case, recording: Recording, tmp_path: Path) -> None:
    """The site's log names the file; what leaves is that the store cannot be used."""
    shutil.copytree(recording.root / "north", tmp_path / "north")
    own = tmp_path / "north" / "run" / "sites" / "north"
    case.make(own / "store")
    before = held(own / "store")
    order = carried(recording.questions["train", "2", NORTH])
    answer = ask(recording.config, order, node(recording.root, tmp_path, "north"), "train")
    if case.said:
        assert answer.has_error() and answer.error.code in (105, 109)
        assert_sentence(answer.error.reason, r"north: .*code 10\d, reference")
        assert_sentence((own / "log.txt").read_text().strip().splitlines()[-1], case.said)
        assert held(own / "store") == before
    else:
        assert answer.has_content(), (own / "log.txt").read_text()
        after = held(own / "store")
        assert all(after[path] == content for path, content in before.items())


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.fixture(scope="module")
def stopped(recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a server's folder of runs, killed after the second of two rounds was noted."""
    runs = tmp_path_factory.mktemp("stopped")

    def kill(question: Message) -> None:
        if key_of(question)[0] == "evaluate":
            raise Killed

    with pytest.raises(Killed):
        replay(recording, runs, before=kill)
    assert len(list((runs / "run" / "checkpoint").iterdir())) == 2
    return runs


@pytest.mark.parametrize("case", CHECKPOINTS, ids=ids(CHECKPOINTS))
def test_a_checkpoint(case: Case, recording: Recording, stopped: Path, tmp_path: Path) -> None:
    """The former one serves, or the run ends with a sentence; the weights are never others."""
    shutil.copytree(stopped / "run", tmp_path / "run")
    folder = tmp_path / "run" / "checkpoint"
    case.make(folder)
    before = held(folder)
    if case.said:
        with pytest.raises(CheckpointError) as caught:
            replay(recording, tmp_path, resume=True)
        assert_sentence(str(caught.value), case.said)
        assert read_result(tmp_path / "run")["status"] == "failed"
        assert held(folder) == before
    else:
        told = read_result(replay(recording, tmp_path, resume=True))
        whole = read_result(Path(recording.config.runs_dir) / "run")
        assert told["weights_digest"] == whole["weights_digest"]
