"""Messages, to the real server and to a hospital's real client, over their bytes."""

import shutil
from pathlib import Path

import pytest
from flwr.app import Message

from common.errors import RunError
from common.runs.result import read_result
from tests.common.exchange.test_wire import carried
from tests.corpus.asking import ask
from tests.corpus.case import assert_sentence, held, ids
from tests.corpus.messages import INFOS, ORDERS, REPLIES, Asked, Said
from tests.corpus.recording import NORTH, SOUTH, Recording, key_of, node, replay

pytestmark = pytest.mark.timeout(60)


def test_replayed_the_run_is_the_recorded_one(recording: Recording, tmp_path: Path) -> None:
    run = replay(recording, tmp_path)
    told, before = read_result(run), read_result(Path(recording.config.runs_dir) / "run")
    assert told["weights_digest"] == before["weights_digest"]
    assert told["status"] == "completed"


def ends(run: Path, said: str, recording: Recording, change: Said, **more: object) -> None:
    """Check that the server ends the run with a sentence, and writes it down."""
    with pytest.raises(RunError) as caught:
        replay(recording, run.parent, change.change, **more)
    assert_sentence(str(caught.value), said)
    told = read_result(run)
    assert (told["status"], told["reason"]) == ("failed", str(caught.value))
    assert_sentence((run / "log.txt").read_text().splitlines()[-1], "failed: ")


@pytest.mark.parametrize("case", INFOS, ids=ids(INFOS))
def test_a_card(case: Said, recording: Recording, tmp_path: Path) -> None:
    ends(tmp_path / "run", case.said, recording, case, at=("query", "", SOUTH))


@pytest.mark.parametrize("case", REPLIES, ids=ids(REPLIES))
def test_a_reply(case: Said, recording: Recording, tmp_path: Path) -> None:
    said = rf"Round 1: 1 of 2 sites gave a good reply.* south: .*{case.said}"
    ends(tmp_path / "run", said, recording, case)


@pytest.mark.parametrize("case", REPLIES[::6], ids=ids(REPLIES[::6]))
def test_a_reply_that_the_run_can_do_without(
    case: Said, recording: Recording, tmp_path: Path
) -> None:
    """South's first reply is left out, and its second one counts."""
    run = replay(recording, tmp_path, case.change, min_sites=1)
    assert read_result(run)["status"] == "completed"
    assert "south LEFT OUT: " in (run / "log.txt").read_text()


FIGURES = [case for case in REPLIES if case.name in ("empty", "no figures", "figures of lists")]


@pytest.mark.parametrize("case", FIGURES, ids=ids(FIGURES))
def test_a_reply_to_an_evaluation(case: Said, recording: Recording, tmp_path: Path) -> None:
    said = r"Evaluation of the final weights: 1 of 2 .* south: The message "
    ends(tmp_path / "run", said, recording, case, at=("evaluate", "2", SOUTH))


def test_a_reply_twice(recording: Recording, tmp_path: Path) -> None:
    def twice(question: Message, reply: Message) -> list[Message]:
        again = key_of(question) == ("train", "1", SOUTH)
        return [reply, reply] if again else [reply]

    with pytest.raises(RunError, match="south: it answered twice"):
        replay(recording, tmp_path, tamper=twice)


@pytest.mark.parametrize("case", ORDERS, ids=ids(ORDERS))
def test_an_order(case: Asked, recording: Recording, tmp_path: Path) -> None:
    """The hospital keeps what it has, and says no more than the kind of the fault."""
    shutil.copytree(recording.root / "north", tmp_path / "north")
    store = tmp_path / "north" / "run" / "sites" / "north" / "store"
    before = held(store)
    content = carried(recording.questions["train", "2", NORTH])
    case.change(content)
    answer = ask(recording.config, content, node(recording.root, tmp_path, "north"), "train")
    assert answer.has_error() and answer.error.code == case.code, answer
    assert_sentence(answer.error.reason, rf"north: .* \(code {case.code}, reference \w{{8}}\)")
    assert held(store) == before
    log = tmp_path / "north" / "run" / "sites" / "north" / "log.txt"
    if case.code == 107 or "8" in case.said:
        assert_sentence(log.read_text().strip().splitlines()[-1], case.said)
