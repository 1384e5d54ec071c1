"""Sites join, over real nodes and their messages; only the time is made up."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import flwr.app
import pytest
from flwr.app import Message
from flwr.proto.node_pb2 import NodeInfo

from clients.app import app as client
from clients.egress.approval import approve
from common.config.schema import Config
from common.errors import RunError
from common.exchange.fingerprint import code_fingerprint
from common.exchange.messages import SiteInfo
from common.exchange.wire import decode, encode
from common.models.network import build_network
from common.models.sharing import shared_layout
from server.join import Joining
from server.participants import ExpectedSite, Participants, check_sites
from simulations.runtime.in_process import Tamper
from tests.federation.hospitals import make_grid, tiny_config
from tests.federation.watched import WatchedGrid
from tests.server.answers import site_info


@dataclass
class Clock:
    """Time that passes while somebody sleeps; ``events``: what happens at which second."""

    now: float = 1000.0
    events: dict[float, Callable[[], object]] = field(default_factory=dict)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for at in [at for at in self.events if 1000.0 + at <= self.now]:
            self.events.pop(at)()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("server.join.time", made)
    return made


def expected_of(config: Config) -> ExpectedSite:
    layout = shared_layout(build_network(config, config.site_names))
    return ExpectedSite(code_fingerprint(), config.digest(), layout.digest())


def call(config: Config, grid: WatchedGrid, said: list[str] | None = None) -> Participants:
    heard = [] if said is None else said
    return Joining(grid, "run", config, expected_of(config), heard.append).wait()


def patient_config(tmp_path: Path, **values: Any) -> Config:
    return tiny_config(tmp_path, **{"join_timeout": 60.0, "round_timeout": 90.0, **values})


def deployed(config: Config, sites: Mapping[int, str], **options: Any) -> WatchedGrid:
    """Return a grid of hospitals' own nodes; a site's folder is that of its name."""
    state = str(Path(config.runs_dir).parent / "state")
    nodes = {
        node: {"site": site, "data-dir": f"{config.data}/{site}", "state-dir": state}
        for node, site in sites.items()
    }
    return WatchedGrid(client, nodes, config.to_run_config(), **options)


def saying(change: Callable[[SiteInfo], SiteInfo], node: int = 101) -> Tamper:
    """Let a node answer the join request with a changed site info."""

    def tamper(question: Message, reply: Message) -> list[Message]:
        if question.metadata.dst_node_id == node:
            reply.content = encode(change(decode(SiteInfo, reply.content)), flwr.app)
        return [reply]

    return tamper


def test_participants_are_in_the_configuration_s_order(tmp_path: Path, clock: Clock) -> None:
    config = patient_config(tmp_path)
    grid = deployed(config, {7: "south", 9: "north"})
    participants = call(config, grid)
    assert list(participants.nodes.items()) == [("north", 9), ("south", 7)]
    assert list(participants.infos) == ["north", "south"]
    assert (participants.site_of(7), participants.site_of(9), participants.site_of(8)) == (
        "south",
        "north",
        None,
    )
    assert (participants.infos["north"].nodes, participants.infos["north"].class_counts) == (
        0,
        (6, 6),
    )
    assert clock.now == 1000.0


def test_who_is_awaited_is_said_early_and_then_every_ten_seconds(
    tmp_path: Path, clock: Clock
) -> None:
    config = patient_config(tmp_path)
    grid = deployed(config, {1: "north"})
    clock.events[25.0] = lambda: setattr(grid, "nodes", {**grid.nodes, **south})
    south = deployed(config, {2: "south"}).nodes
    said: list[str] = []
    assert call(config, grid, said).nodes == {"north": 1, "south": 2}
    assert said == [f"waiting for south to join, {n} s so far" for n in (3, 13, 23)]


def test_the_server_gives_up_after_join_timeout_and_names_who_is_missing(
    tmp_path: Path, clock: Clock
) -> None:
    config = patient_config(tmp_path)
    with pytest.raises(RunError, match=r"After 60 s still waiting for south to join \(join-timeo"):
        call(config, deployed(config, {1: "north"}))
    assert 1060.0 < clock.now <= 1061.0


def test_who_has_connected_has_the_longer_time_of_a_round_to_prepare(
    tmp_path: Path, clock: Clock
) -> None:
    config, silent = patient_config(tmp_path), {2}

    def tamper(question: Message, reply: Message) -> list[Message]:
        return [] if question.metadata.dst_node_id in silent else [reply]

    said: list[str] = []
    with pytest.raises(RunError, match=r"After 90 s .* \(round-timeout\)"):
        call(config, deployed(config, {1: "north", 2: "south"}, tamper=tamper), said)
    assert said[0] == "waiting for south (1 connected and preparing their images), 3 s so far"


def test_a_node_that_went_away_is_asked_again_when_it_is_back(tmp_path: Path, clock: Clock) -> None:
    config = patient_config(tmp_path)
    grid = deployed(config, {1: "north", 2: "south"}, dead={2})
    clock.events[20.0] = grid.dead.clear
    assert call(config, grid).nodes == {"north": 1, "south": 2}
    assert 1020.0 <= clock.now < 1021.0
    # Who has answered is not asked again.
    assert [sent.node for sent in grid.sent if sent.direction == "down"] == [1, 2]


def test_a_node_that_stays_away_is_awaited_no_longer_than_join_timeout(
    tmp_path: Path, clock: Clock
) -> None:
    config = patient_config(tmp_path)
    with pytest.raises(RunError, match=r"still waiting for south to join \(join-timeout\)"):
        call(config, deployed(config, {1: "north", 2: "south"}, dead={2}))


def test_a_site_whose_people_must_approve_first_is_asked_again(
    tmp_path: Path, clock: Clock
) -> None:
    config = patient_config(tmp_path)
    (tmp_path / "policy.toml").write_text("approve-runs = true\n")
    grid = deployed(config, {1: "north", 2: "south"})
    grid.nodes[2]["policy"] = str(tmp_path / "policy.toml")  # type: ignore[index]
    state, said = tmp_path / "state", list[str]()
    clock.events[50.0] = lambda: approve(state, "run", "jane")
    assert call(config, grid, said).nodes == {"north": 1, "south": 2}
    # Asked at 0, 20, 40 and 60 seconds, and not at every poll.
    assert [sent.node for sent in grid.sent if sent.direction == "down"] == [1, 2, 2, 2, 2]
    assert 1060.0 <= clock.now < 1062.0
    assert "waiting for south (at 1 a person must approve the run: xsite approve)" in said[0]


def test_a_run_that_nobody_approves_is_not_awaited_for_ever(tmp_path: Path, clock: Clock) -> None:
    config = patient_config(tmp_path)
    (tmp_path / "policy.toml").write_text("approve-runs = true\n")
    grid = deployed(config, {1: "north", 2: "south"})
    grid.nodes[2]["policy"] = str(tmp_path / "policy.toml")  # type: ignore[index]
    with pytest.raises(RunError, match=r"waiting for south \(at 1 a person must approve"):
        call(config, grid)


def test_two_nodes_that_claim_one_site_are_named(tmp_path: Path, clock: Clock) -> None:
    config = patient_config(tmp_path)
    with pytest.raises(RunError, match=r"Two nodes, 1 and 3, say that they are site 'north'"):
        call(config, deployed(config, {1: "north", 3: "north", 2: "south"}))


def test_a_node_that_is_no_site_of_the_run_is_done_without(tmp_path: Path, clock: Clock) -> None:
    config = patient_config(tmp_path, names=("north", "south"))
    grid = deployed(config, {5: "elsewhere", 1: "north", 2: "south"})
    grid.nodes = {**grid.nodes, 6: {}}
    assert call(config, grid).nodes == {"north": 1, "south": 2}
    with pytest.raises(RunError, match="still waiting for south to join"):
        call(config, deployed(config, {5: "elsewhere", 1: "north"}))


def test_the_info_of_a_stranger_is_refused(tmp_path: Path, clock: Clock) -> None:
    config = patient_config(tmp_path)
    grid = make_grid(config, tamper=saying(lambda said: replace(said, site="elsewhere")))
    expected = r"Node 101 says that it is 'elsewhere'; the run's sites are north, south\."
    with pytest.raises(RunError, match=expected):
        call(config, grid)


def test_an_answer_that_is_no_site_info_is_refused(tmp_path: Path, clock: Clock) -> None:
    def tamper(_: Message, reply: Message) -> list[Message]:
        reply.content = flwr.app.RecordDict({"metrics": flwr.app.MetricRecord({"auc": 1.0})})
        return [reply]

    config = patient_config(tmp_path)
    expected = (
        "Node 100 answers the join request strangely: The message holds metrics; expected card"
    )
    with pytest.raises(RunError, match=expected):
        call(config, make_grid(config, tamper=tamper))


def test_a_site_that_cannot_take_part_ends_the_call_in_its_own_words(
    tmp_path: Path, clock: Clock
) -> None:
    config = patient_config(tmp_path)
    grid = deployed(config, {1: "north", 2: "south"})
    grid.nodes = {1: grid.nodes[1], 2: {"site": "south", "data-dir": str(tmp_path / "nothing")}}
    with pytest.raises(RunError, match=r"^A site cannot take part\. south: .* \(code 103, "):
        call(config, grid)


FAULTS: dict[str, tuple[Callable[[SiteInfo], SiteInfo], str]] = {
    "code": (lambda said: replace(said, fingerprint="0" * 64), "install the same version there"),
    "configuration": (lambda said: replace(said, config="0" * 64), "read the same run-config"),
    "network": (lambda said: replace(said, layout="0" * 64), "the same libraries installed"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_site_that_runs_something_else_is_named_with_what_to_do(
    what: str, tmp_path: Path, clock: Clock
) -> None:
    change, advice = FAULTS[what]
    config = patient_config(tmp_path)
    with pytest.raises(RunError) as caught:
        call(config, make_grid(config, tamper=saying(change)))
    own = expected_of(config)
    digest = {"code": own.fingerprint, "configuration": own.config, "network": own.layout}[what]
    told = str(caught.value)
    assert f"south runs another {what} (000000000000…, here {digest[:12]}…): " in told
    assert advice in told
    assert "north" not in told


def test_every_site_that_differs_is_named_with_the_first_difference() -> None:
    own = ExpectedSite("f" * 64, "c" * 64, "1" * 64)
    check_sites({"north": site_info("north")}, own)
    infos = {
        "north": site_info("north", fingerprint="0" * 64, config="0" * 64),
        "south": site_info("south"),
        "east": site_info("east", layout="0" * 64),
    }
    with pytest.raises(RunError) as caught:
        check_sites(infos, own)
    told = str(caught.value)
    assert "north runs another code" in told
    assert "east runs another network" in told
    assert "another configuration" not in told
    assert "south" not in told


def test_a_site_s_own_configuration_differs_where_its_info_says_so(
    tmp_path: Path, clock: Clock
) -> None:
    config = patient_config(tmp_path)
    with pytest.raises(RunError, match=r"north runs another configuration .* south runs another"):
        call(config.changed(learning_rate=0.5), make_grid(config))


def test_fewer_simulated_nodes_than_sites_is_said_at_once(tmp_path: Path, clock: Clock) -> None:
    config = patient_config(tmp_path, names=("north", "south", "east"))
    grid = make_grid(config)
    grid.nodes = {100 + k: {"partition-id": k, "num-partitions": 2} for k in range(2)}
    expected = r"3 sites, but 2 nodes are simulated\. Add --federation-config 'num-supernodes=3'"
    with pytest.raises(RunError, match=expected):
        call(config, grid)
    assert clock.now == 1000.0


def test_more_simulated_nodes_than_sites_are_done_without(tmp_path: Path, clock: Clock) -> None:
    config = patient_config(tmp_path)
    grid = make_grid(config)
    grid.nodes = {100 + k: {"partition-id": k, "num-partitions": 4} for k in range(4)}
    participants = call(config, grid)
    assert (participants.nodes, participants.infos["north"].nodes) == (
        {"north": 100, "south": 101},
        4,
    )


def named(grid: WatchedGrid, names: Mapping[int, str]) -> WatchedGrid:
    """Let Flower say under which names the nodes' keys were registered."""
    found = [NodeInfo(node_id=node, name=names.get(node, "")) for node in grid.nodes]
    grid.get_nodes = lambda: found  # type: ignore[method-assign]
    return grid


def test_a_node_cannot_answer_for_another_site_than_its_key_was_registered_for(
    tmp_path: Path, clock: Clock
) -> None:
    config = patient_config(tmp_path)
    grid = named(deployed(config, {1: "north", 2: "south"}), {1: "north", 2: "east"})
    expected = "Node 2 says that it is 'south', but its key was registered for 'east'"
    with pytest.raises(RunError, match=expected):
        call(config, grid)
    assert call(config, named(deployed(config, {1: "north", 2: "south"}), {1: "north"})).nodes


def test_a_run_that_can_do_without_a_site_waits_for_it_until_join_timeout(
    tmp_path: Path, clock: Clock
) -> None:
    config = patient_config(tmp_path, min_sites=1)
    assert call(config, deployed(config, {1: "north"})).nodes == {"north": 1}
    assert 1060.0 <= clock.now < 1061.0


def test_a_site_that_cannot_take_part_is_told_where_the_run_can_do_without(
    tmp_path: Path, clock: Clock
) -> None:
    config = patient_config(tmp_path, min_sites=1)
    grid = deployed(config, {1: "north", 2: "south"})
    grid.nodes = {1: grid.nodes[1], 2: {"site": "south", "data-dir": str(tmp_path / "nothing")}}
    said: list[str] = []
    assert call(config, grid, said).nodes == {"north": 1}
    assert said[0].startswith("not taken in: A site cannot take part. south: ")
    # Once, and not at every poll.
    assert len([one for one in said if "not taken in" in one]) == 1
