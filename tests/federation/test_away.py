"""Sites that go away in a round, come late, or leave: what becomes of the run and its weights."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Error, Message
from flwr.proto.node_pb2 import NodeInfo

from common.config.schema import Config
from common.errors import RunError
from common.runs.result import read_result
from server.app import app as server
from simulations.runtime.in_process import run_server
from tests.federation.hospitals import NAMES, federate, make_grid, run_of, tiny_config
from tests.federation.test_invariants_reproducible import outcome
from tests.federation.watched import WatchedGrid

SOUTH, EAST = 101, 102
AWAY = (5, "Node unavailable")


@dataclass
class Clock:
    """Time that passes while the server sleeps; ``events``: what happens after how long."""

    now: float = 0.0
    events: dict[float, Callable[[], object]] = field(default_factory=dict)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for at in [at for at in self.events if self.now >= at]:
            self.events.pop(at)()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("server.retry.time", made)
    return made


def log_of(config: Config) -> str:
    return (run_of(config) / "log.txt").read_text()


def in_round(question: Message, round: int, node: int, kind: str = "train") -> bool:
    about = question.metadata
    return (about.message_type, about.group_id, about.dst_node_id) == (kind, str(round), node)


def lost(question: Message) -> list[Message]:
    """What the SuperLink says when a node died before its answer was there."""
    return [Message(Error(*AWAY), reply_to=question)]


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("away")
    config = three_sites(folder, "unharmed")
    federate(config)
    return folder, outcome(config)


def three_sites(folder: Path, name: str, **values: Any) -> Config:
    return tiny_config(folder, NAMES, run_name=name, epochs=3, **values)


@pytest.mark.parametrize("trained", [False, True], ids=["before", "after"])
def test_a_site_that_dies_before_or_after_it_trained_is_awaited_and_asked_again(
    unharmed: tuple[Path, dict[str, bytes]], clock: Clock, trained: bool
) -> None:
    folder, expected = unharmed
    config = three_sites(folder, f"dies-{trained}")
    grid = make_grid(config)

    def die(question: Message) -> None:
        if in_round(question, 2, SOUTH) and not trained and clock.now == 0:
            grid.dead.add(SOUTH)
            clock.events[90.0] = grid.dead.clear

    def lose(question: Message, reply: Message) -> list[Message]:
        if in_round(question, 2, SOUTH) and trained and clock.now == 0:
            grid.dead.add(SOUTH)
            clock.events[90.0] = grid.dead.clear
            return lost(question)
        return [reply]

    grid.before, grid.tamper = die, lose
    run_server(server, grid)
    assert outcome(config) == expected
    assert 90 <= clock.now < 95
    assert "waiting: south is away: Node unavailable" in log_of(config)
    assert "waiting: asking south again" in log_of(config)
    for site, told in (("north", True), ("south", False), ("east", True)):
        own = (run_of(config) / "sites" / site / "log.txt").read_text()
        assert ("the server waits for south, who went away" in own) == told, site


def test_a_node_that_left_and_came_back_unseen_is_asked_again(
    unharmed: tuple[Path, dict[str, bytes]], clock: Clock
) -> None:
    """What a SuperNode has fetched, it alone knows; the SuperLink still waits for its answer."""
    folder, expected = unharmed
    config = three_sites(folder, "forgets")
    since = dict.fromkeys((100, SOUTH, EAST), "monday")

    class Dated(WatchedGrid):
        def get_nodes(self) -> Iterable[NodeInfo]:
            return [NodeInfo(node_id=n, last_activated_at=since[n]) for n in self.get_node_ids()]

    def swallow(question: Message, reply: Message) -> list[Message]:
        if in_round(question, 3, SOUTH) and since[SOUTH] == "monday":
            since[SOUTH] = "tuesday"
            return []
        return [reply]

    plain = make_grid(config)
    run_server(server, Dated(plain.client, plain.nodes, plain.run_config, tamper=swallow))
    assert outcome(config) == expected
    assert clock.now < 5


def test_a_site_whose_process_dies_of_every_question_ends_the_run_before_the_deadline(
    tmp_path: Path, clock: Clock
) -> None:
    config = three_sites(tmp_path, "crashes")
    asked = 0

    def crash(question: Message, reply: Message) -> list[Message]:
        nonlocal asked
        if question.metadata.message_type == "train" and question.metadata.dst_node_id == SOUTH:
            asked += 1
            return [Message(Error(8, "ClientApp stopped responding."), reply_to=question)]
        return [reply]

    with pytest.raises(RunError, match=r"Round 1: 2 of 3 sites .* south: ClientApp stopped"):
        federate(config, tamper=crash)
    assert asked == 5
    assert clock.now < 60


def test_a_site_that_stays_away_ends_a_run_that_needs_it_at_the_deadline(
    tmp_path: Path, clock: Clock
) -> None:
    config = three_sites(tmp_path, "stays-away", round_timeout=600.0)
    grid = make_grid(config, before=lambda question: dies_in(grid, question, 2, SOUTH))
    with pytest.raises(RunError, match=r"Round 2: 2 of 3 .* south: Node unavailable .*code 5"):
        run_server(server, grid)
    assert 600 <= clock.now < 605


def dies_in(grid: WatchedGrid, question: Message, round: int, node: int) -> None:
    if question.metadata.group_id == str(round) and question.metadata.message_type == "train":
        grid.dead.add(node)


def test_where_the_others_suffice_nobody_waits_and_the_site_rejoins_with_its_own_state(
    unharmed: tuple[Path, dict[str, bytes]], clock: Clock
) -> None:
    """Whether it had trained the round, and so is ahead, or not: the same weights."""
    folder, undisturbed = unharmed
    found = []
    for trained in (False, True):
        config = three_sites(folder, f"rejoins-{trained}".ljust(16, "-"), min_sites=2)
        grid = make_grid(config)

        def before(question: Message, grid: WatchedGrid = grid, kept: bool = trained) -> None:
            if in_round(question, 2, 100) and not kept:
                grid.dead.add(SOUTH)
            if in_round(question, 3, 100):
                grid.dead.discard(SOUTH)

        def tamper(question: Message, reply: Message, kept: bool = trained) -> list[Message]:
            return lost(question) if kept and in_round(question, 2, SOUTH) else [reply]

        grid.before, grid.tamper = before, tamper
        run_server(server, grid)
        assert "south LEFT OUT: Node unavailable" in log_of(config)
        found.append(outcome(config))
    assert found[0] == found[1]
    assert found[0] != undisturbed
    assert clock.now < 5


def test_a_site_that_leaves_for_good_is_done_without(tmp_path: Path, clock: Clock) -> None:
    config = three_sites(tmp_path, "leaves", min_sites=2)
    grid = make_grid(config, before=lambda question: dies_in(grid, question, 2, SOUTH))
    run_server(server, grid)
    result = read_result(run_of(config))
    assert (result["status"], list(result["metrics"])) == ("completed", ["north", "east"])
    assert result["images_seen"]["south"] < result["images_seen"]["north"]
    assert clock.now < 10


def test_a_site_that_comes_late_takes_part_from_the_next_round_on(
    tmp_path: Path, clock: Clock
) -> None:
    config = three_sites(tmp_path, "late", min_sites=2)
    grid = make_grid(config, dead={EAST})

    def before(question: Message) -> None:
        if in_round(question, 1, SOUTH):
            grid.dead.clear()

    grid.before = before
    run_server(server, grid)
    result = read_result(run_of(config))
    assert (result["status"], list(result["metrics"])) == ("completed", list(NAMES))
    # Asked between rounds 1 and 2, it answers while 2 is trained, and trains 3.
    assert "east joins late, with" in log_of(config)
    later = log_of(config).partition("east joins late, with")[2]
    assert "east: 10 training images (5 non-covid, 5 covid), grey " in later
    per_round = result["images_seen"]["north"] // 3
    assert result["images_seen"]["east"] == per_round
    # The run is as long as with the two that began it.
    assert result["budget"]["rounds"] == 3


def test_a_server_that_is_resumed_goes_on_with_whoever_is_there(
    tmp_path: Path, clock: Clock
) -> None:
    config = three_sites(tmp_path, "resumed", min_sites=2)

    class KilledError(BaseException):
        pass

    def kill(question: Message) -> None:
        if in_round(question, 2, SOUTH):
            raise KilledError

    with pytest.raises(KilledError):
        federate(config, before=kill)
    federate(config.changed(resume=True), dead={EAST})
    assert "going on after round 1" in log_of(config)
    assert list(read_result(run_of(config))["metrics"]) == ["north", "south"]


def test_a_late_site_that_runs_other_code_is_not_taken_in(tmp_path: Path, clock: Clock) -> None:
    config = three_sites(tmp_path, "late-other", min_sites=2)
    other = three_sites(tmp_path, "late-other", min_sites=2, learning_rate=0.5)
    grid = make_grid(config, dead={EAST})
    strange = make_grid(other)

    def before(question: Message) -> None:
        if in_round(question, 1, SOUTH):
            grid.dead.clear()

    def tamper(question: Message, reply: Message) -> list[Message]:
        if question.metadata.dst_node_id != EAST:
            return [reply]
        return list(strange.pull_messages(strange.push_messages([question])))

    grid.before, grid.tamper = before, tamper
    run_server(server, grid)
    assert "not taken in: The sites cannot be averaged. east runs another config" in log_of(config)
    assert list(read_result(run_of(config))["metrics"]) == ["north", "south"]
