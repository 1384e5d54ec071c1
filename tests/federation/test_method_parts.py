"""A method is one file: a toy one sends parts up and down and remembers, in whole federations."""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from numpy.typing import NDArray

from common.config.schema import Config
from common.errors import RunError
from common.exchange.messages import RoundOrder, RoundReply
from common.exchange.wire import decode
from common.methods import registry
from common.methods.method import ArrayForms, Arrays, Averaged, Local, Method, Outcome
from common.models.sharing import Layout
from server.app import app as server
from simulations.runtime.in_process import run_server
from tests.federation.hospitals import deploy, federate, tiny_config
from tests.federation.test_invariants_reproducible import outcome
from tests.federation.test_invariants_resume import Killed, killing


class Halfway(Method):
    """A site sends the number of its rounds and what it was told; the server goes half the way."""

    name = "halfway"

    def active(self, config: Config) -> bool:
        return True

    def after_round(self, local: Local) -> Outcome:
        assert local.received is not None and local.trained is not None
        rounds = local.memory.get("rounds", np.zeros(1)) + 1
        return Outcome({"said": rounds + local.parts.get("total", 0.0)}, {"rounds": rounds})

    def forms(self, config: Config, layout: Layout) -> ArrayForms:
        return {"said": ("float64", (1,))}

    def broadcast(self, config: Config, memory: Arrays) -> Arrays:
        return {name: array for name, array in memory.items() if name == "total"}

    def broadcast_forms(self, config: Config, layout: Layout) -> ArrayForms:
        return {"total": ("float64", (1,))}

    def combine(self, averaged: Averaged) -> tuple[NDArray[np.floating], Arrays]:
        total = np.sum([sent["said"] for sent in averaged.replies.values()], axis=0)
        assert averaged.parameters.shape == averaged.shared.shape
        shared = averaged.received + (averaged.shared - averaged.received) / 2
        return shared, {"total": total, "unsent": np.ones(3)}


class Larger(Halfway):
    """Sends more than it says it does."""

    def after_round(self, local: Local) -> Outcome:
        return Outcome({"said": np.zeros(2)})


def register(monkeypatch: pytest.MonkeyPatch, method: Method) -> None:
    monkeypatch.setattr(registry, "REGISTERED", (*registry.REGISTERED, method))


def ledger_of(folder: Path, site: str) -> str:
    (path,) = [one for one in folder.rglob("*.jsonl") if site in one.parts]
    return path.read_text()


def test_parts_go_up_and_down_and_the_server_has_the_last_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Totals by hand: 1 + 1 = 2; (2 + 2) · 2 = 8; then (3 + 8) a site."""
    register(monkeypatch, Halfway())
    orders: dict[int, RoundOrder] = {}
    replies: dict[int, list[RoundReply]] = {}

    def watch(question: Message, reply: Message) -> list[Message]:
        if question.metadata.message_type == "train":
            said = decode(RoundReply, reply.content)
            orders[said.round] = decode(RoundOrder, question.content)
            replies.setdefault(said.round, []).append(said)
        return [reply]

    federate(tiny_config(tmp_path), tamper=watch)
    assert orders[1].parts == {}
    told = {round: orders[round].parts for round in (2, 3)}
    assert {round: list(arrays) for round, arrays in told.items()} == {
        2: ["halfway/total"],
        3: ["halfway/total"],
    }
    assert [told[round]["halfway/total"].tolist() for round in (2, 3)] == [[2.0], [8.0]]
    said = [one.parts["halfway/said"].tolist() for one in replies[3]]
    assert said == [[11.0], [11.0]]
    average = np.mean([one.shared.astype(np.float64) for one in replies[1]], axis=0)
    half = (orders[1].shared + average) / 2
    np.testing.assert_allclose(orders[2].shared, half, rtol=1e-6, atol=1e-7)


def test_what_sites_and_server_remember_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, Halfway())
    expected = tiny_config(tmp_path, run_name="unharmed")
    federate(expected)
    config = tiny_config(tmp_path, run_name="killed")
    with pytest.raises(Killed):
        federate(config, before=killing("train", 5))
    federate(config.changed(resume=True))
    assert outcome(config) == outcome(expected)


def test_a_part_that_is_not_what_its_method_says_stays_at_the_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, Larger())
    config = tiny_config(tmp_path)
    with pytest.raises(RunError, match="0 of 2 sites"):
        federate(config)
    assert "its parts do not fit" in ledger_of(tmp_path, "north")


def test_a_policy_keeps_a_method_s_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, Halfway())
    kept = 'may-leave = ["weights", "prototypes", "figures"]'
    grid = deploy(tiny_config(tmp_path), {"north": kept})
    with pytest.raises(RunError, match="north"):
        run_server(server, grid)
    assert "method may not leave: 'halfway/said'" in ledger_of(tmp_path, "north")
    assert "held back" not in ledger_of(tmp_path, "south")
