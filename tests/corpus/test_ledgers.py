"""Ledgers and approvals of a hospital, as somebody there looks at them."""

import shutil
from pathlib import Path

import flwr.app
import pytest

from clients.egress.approval import requests
from clients.egress.ledger import LedgerPart, Message, enter
from common.errors import LedgerError
from common.exchange.messages import JoinRequest
from common.exchange.wire import encode
from tests.clients.egress.test_ledger import written
from tests.corpus.approvals import APPROVALS
from tests.corpus.asking import ask, hospital
from tests.corpus.case import Case, assert_sentence, call, held, ids, refused
from tests.corpus.ledgers import LEDGERS
from tests.federation.hospitals import tiny_config

pytestmark = pytest.mark.timeout(60)
NEXT = Message(
    "north", "run", 9, "training", "sent", "", 1, (LedgerPart("r", "n", (), "text", 1, "0"),)
)


@pytest.mark.parametrize("case", LEDGERS, ids=ids(LEDGERS))
def test_a_ledger(case: Case, tmp_path: Path) -> None:
    """It is neither verified nor shown; what is entered after it is refused, or mends it."""
    ledger = written(tmp_path / "state" / "ledger", full=2**20)
    case.make(ledger)
    before = held(ledger)
    if case.said:
        refused(case.said, "ledger", "verify", tmp_path / "state")
        refused(case.said, "ledger", "show", tmp_path / "state")
    else:
        assert call("ledger", "verify", tmp_path / "state").exit_code == 0
        assert call("ledger", "show", tmp_path / "state").exit_code == 0
    assert held(ledger) == before
    try:
        entered = enter(ledger, NEXT)
    except LedgerError as error:
        assert_sentence(str(error), str(ledger))
        assert {k: v for k, v in held(ledger).items() if k in before} == before
    else:
        assert entered.number >= 1


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a hospital that was asked for a run and has not said yes."""
    root = tmp_path_factory.mktemp("asked")
    assert answer(root, root).error.code == 112
    return root


def answer(root: Path, own: Path) -> flwr.app.Message:
    """Call the roll at a hospital whose policy asks for a yes."""
    config = tiny_config(root)
    (own / "policy.toml").write_text("approve-runs = true\n")
    node = hospital(own, config, policy=str(own / "policy.toml"))
    return ask(config, encode(JoinRequest("run"), flwr.app), node)


@pytest.mark.parametrize("case", APPROVALS, ids=ids(APPROVALS))
def test_an_approval(case: Case, asked: Path, tmp_path: Path) -> None:
    """The command says which file is damaged; the site says nothing of it, and does not train."""
    shutil.copytree(asked / "state", tmp_path / "state")
    case.make(tmp_path / "state" / "approvals")
    before = held(tmp_path)
    refused(case.said, "approve", tmp_path / "state")
    refused(case.said, "approve", tmp_path / "state", "run")
    assert held(tmp_path) == before
    told = answer(asked, tmp_path)
    assert told.has_error() and told.error.code in (110, 112)
    assert not (tmp_path / "state" / "cache").exists()


def test_the_template_is_a_request(asked: Path) -> None:
    (one,) = requests(asked / "state")
    assert (one.run, one.site, one.approved) == ("run", "north", "")
