"""What leaves when something fails; tests/federation searches the bytes of real messages for it."""

import errno
import logging
import os
import re
from pathlib import Path
from typing import Any

import flwr.app
import pytest
import torch
from flwr.app import Context, Error, Message, MessageType, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from clients.app import app
from clients.client_errors import refuse
from clients.identity import IdentityError
from common.errors import CheckpointError, ConfigError, ReplyError, RunError, SiteError, StoreError
from common.exchange.messages import NOT_A_SITE, JoinRequest
from common.exchange.wire import encode
from tests.federation.hospitals import tiny_config

SECRET = "/data/covid/jane-roe-1962.png: patient 4711 of 'Jane Roe' \udcfc"

ERRORS: list[tuple[Exception, int, str]] = [
    (IdentityError(SECRET), NOT_A_SITE, "this node is no site of the run"),
    (ConfigError(SECRET), 102, "the configuration does not fit this machine"),
    (SiteError(SECRET), 103, "the site's folder, or a file in it, is not fit for training"),
    (CheckpointError(SECRET), 104, "weights that the run starts from cannot be used here"),
    (StoreError(SECRET), 105, "the private store cannot be used for this order"),
    (ReplyError(SECRET), 106, "the message could not be understood; the server may run other"),
    (RunError(SECRET), 107, "the round could not be completed"),
    (MemoryError(SECRET), 108, "the machine is short of memory"),
    (torch.OutOfMemoryError(SECRET), 108, "the GPU is short of memory"),
    (OSError(errno.EIO, SECRET, SECRET), 109, "a file could not be read or written"),
    (FileNotFoundError(errno.ENOENT, SECRET, SECRET), 109, "a file could not be read or written"),
    (KeyError(SECRET), 100, "something unexpected happened"),
    (RuntimeError(SECRET), 100, "something unexpected happened"),
    (type("JaneRoe4711Error", (Exception,), {})(SECRET), 100, "something unexpected happened"),
]


def raised(error: Exception) -> Exception:
    """Raise an error in a place whose traceback names a patient too, and catch it."""
    try:
        try:
            raise ValueError(f"the cause: {SECRET}")
        except ValueError as cause:
            raise error from cause
    except Exception as caught:
        return caught


def assert_silent(refusal: Error) -> None:
    told = refusal.reason.lower()
    for word in ("jane", "roe", "1962", "4711", "png", "/", "cause", "traceback", "\udcfc"):
        assert word not in told, told


@pytest.mark.parametrize(
    ("error", "code", "sentence"), ERRORS, ids=[type(error).__name__ for error, _, _ in ERRORS]
)
def test_of_an_error_leaves_its_kind_and_a_reference_and_the_rest_stays(
    error: Exception, code: int, sentence: str, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    refusal = refuse(raised(error), "north", own)
    assert refusal.code == code
    assert refusal.reason.startswith(f"north: {sentence}")
    assert_silent(refusal)
    (reference,) = re.findall(
        rf"\(code {code}, reference ([0-9a-f]{{8}})\)\. Its log\.txt says ", refusal.reason
    )
    log = (own / "log.txt").read_text(encoding="utf-8")
    assert f"reference {reference}: Traceback" in log
    assert "jane-roe-1962.png: patient 4711" in log
    assert "the cause: /data" in log


def test_a_node_without_a_name_says_it_to_who_runs_it(caplog: pytest.LogCaptureFixture) -> None:
    # What is logged goes into the test's report, which is sent as text: no half characters there.
    secret = SECRET.replace("\udcfc", "")
    with caplog.at_level(logging.ERROR, logger="xsite.site"):
        refusal = refuse(ConfigError(secret), "", None)
    assert refusal.reason.startswith("an unnamed node: the configuration does not fit")
    assert refusal.reason.endswith("The node's output says more.")
    assert_silent(refusal)
    assert "jane-roe-1962.png" in caplog.text


def test_every_refusal_has_a_reference_of_its_own(tmp_path: Path) -> None:
    reasons = {refuse(SiteError(SECRET), "north", tmp_path).reason for _ in range(20)}
    assert len(reasons) == 20


def test_a_log_that_cannot_be_written_changes_nothing_of_what_leaves(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("a file where the folder should be")
    refusal = refuse(raised(SiteError(SECRET)), "north", tmp_path / "own")
    assert refusal.code == 103
    assert_silent(refusal)


def ask(tmp_path: Path, content: RecordDict, node: dict[str, Any]) -> Error:
    """Put a join request to the ClientApp as Flower does, and return its refusal."""
    config = tiny_config(tmp_path)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    question = Message(content, 100, MessageType.QUERY)
    question.metadata.__dict__["_message_id"] = "question"
    answer = app(question, Context(1, 100, node, RecordDict(), config.to_run_config()))
    return Error(answer.error.code, answer.error.reason or "")


NORTH: dict[str, Any] = {"partition-id": 0, "num-partitions": 2}


def test_a_file_whose_name_is_no_text_is_refused_as_any_other(tmp_path: Path) -> None:
    """A name in Latin-1 reaches Python as lone surrogates, which no encoder takes."""
    tiny_config(tmp_path)
    folder = os.fsencode(tmp_path / "data" / "north" / "covid")
    with open(folder + b"/M\xfcller-4711.png", "wb") as file:  # noqa: PTH123
        file.write(b"no image")
    answer = ask(tmp_path, encode(JoinRequest("run"), flwr.app), NORTH)
    assert answer.code == 103
    assert_silent(answer)
    log = (tmp_path / "runs/run/sites/north/log.txt").read_text()
    assert "ller-4711.png" in log


def test_a_message_that_is_no_question_is_refused_without_its_content(tmp_path: Path) -> None:
    answer = ask(tmp_path, RecordDict(), NORTH)
    assert (answer.code, answer.reason[:7]) == (106, "north: ")
    assert "an unnamed node" not in answer.reason


def test_a_run_s_name_that_leads_elsewhere_writes_nothing(tmp_path: Path) -> None:
    call = encode(JoinRequest("../../elsewhere"), flwr.app)
    answer = ask(tmp_path, call, NORTH)
    assert answer.code == 102
    assert "elsewhere" not in answer.reason
    assert not list(tmp_path.rglob("*elsewhere*"))
    assert not (tmp_path / "runs").exists()


def test_a_node_that_is_no_site_says_so_by_its_code(tmp_path: Path) -> None:
    call = encode(JoinRequest("run"), flwr.app)
    answer = ask(tmp_path, call, {"site": "jane-roe", "data-dir": "/data"})
    assert answer.code == NOT_A_SITE
    assert_silent(answer)
