"""Who is asked what, and whose answer a message is."""

from collections.abc import Sequence

import flwr.app
import numpy as np
import pytest
from flwr.app import Error, Message
from flwr.supercore.task_identity import TaskIdentity

from common.errors import RunError
from common.exchange.messages import RoundOrder, RoundReply
from common.exchange.wire import decode, encode
from server.aggregate import aggregate
from server.exchange import (
    Exchange,
    make_orders,
    require_enough,
    round_of,
    sort_replies,
)
from server.participants import RunContext
from server.state import RunState
from simulations.runtime.in_process import SUPERLINK
from tests.server.answers import context, prototypes, reply

STATE = RunState(
    round=2,
    shared=np.arange(8, dtype=np.float32),
    prototypes={"east": prototypes("east"), "north": prototypes("north")},
    completed={"north": 2, "east": 1},
    best_round=1,
)


@pytest.fixture(autouse=True)
def sender() -> None:
    """Messages are the SuperLink's, as in a run."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, SUPERLINK, 1


@pytest.fixture
def three() -> RunContext:
    return context("north", "south", "east")


def orders(of: RunContext, purpose: str = "train") -> dict[str, Message]:
    sent = make_orders(of, STATE, "train" if purpose == "train" else "best")
    for number, message in enumerate(sent.values()):
        message.metadata.__dict__["_message_id"] = f"question-{number}"
    return sent


def answers(sent: dict[str, Message], **shared: float) -> list[Message]:
    """Return a good reply of each named site to round 3, its weights all of one value."""
    return [
        Message(
            encode(
                reply(site, round=3, shared=np.full(8, value, np.float32)),
                flwr.app,
            ),
            reply_to=sent[site],
        )
        for site, value in shared.items()
    ]


def fault(sent: Message, code: int, reason: str, source: int | None = None) -> Message:
    message = Message(Error(code, reason), reply_to=sent)
    if source is not None:
        message.metadata.__dict__["_src_node_id"] = source
    return message


def sort(
    of: RunContext, sent: dict[str, Message], arrived: Sequence[Message]
) -> Exchange[RoundReply]:
    return sort_replies(of, 3, sent, arrived, RoundReply)


def test_a_site_is_sent_the_others_prototypes_and_never_its_own(three: RunContext) -> None:
    found = {site: decode(RoundOrder, message.content) for site, message in orders(three).items()}
    met = {site: [own.site for own in order.prototypes] for site, order in found.items()}
    # In the configuration's order; south has sent none yet.
    assert met == {"north": ["east"], "south": ["north", "east"], "east": ["north"]}
    assert found["south"].class_counts == {"north": (6, 4), "east": (6, 4)}


def test_every_site_goes_on_from_its_own_last_round(three: RunContext) -> None:
    found = {site: decode(RoundOrder, message.content) for site, message in orders(three).items()}
    assert {site: order.previous for site, order in found.items()} == {
        "north": 2,
        "south": 0,
        "east": 1,
    }
    assert {order.round for order in found.values()} == {3}
    assert {order.steps for order in found.values()} == {range(8, 10)}
    assert {order.received for order in found.values()} == {2}


def test_an_evaluation_is_about_the_round_that_its_purpose_names(three: RunContext) -> None:
    assert [round_of(STATE, purpose) for purpose in ("train", "final", "best")] == [3, 2, 1]
    order = decode(RoundOrder, orders(three, "best")["south"].content)
    assert (order.purpose, order.round, order.received, order.steps) == ("best", 1, 1, range(0))


def test_replies_are_sorted_by_site_whatever_the_order_of_arrival(three: RunContext) -> None:
    """1e8 + 1 − 1e8 depends on the order even in sums of float64 thirds; the bits do not."""
    sent = orders(three)
    found = []
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        arrived = answers(sent, north=1e8, south=1.1, east=-1e8)
        found.append(sort(three, sent, [arrived[index] for index in order]))
    assert {tuple(one.good) for one in found} == {("north", "south", "east")}
    assert len({aggregate(one.good, "uniform").tobytes() for one in found}) == 1


def test_a_site_speaks_for_no_other_site(three: RunContext) -> None:
    sent = orders(three)
    (arrived,) = answers(sent, north=1.0)
    arrived.content["metrics"]["south/test/auc"] = 1.0
    assert "figures of another site" in sort(three, sent, [arrived]).faults["north"]


def test_bytes_are_counted_for_every_site_that_was_asked(three: RunContext) -> None:
    sent = orders(three)
    found = sort(three, sent, answers(sent, north=1.0))
    # South gets one site's prototypes more than the others.
    assert found.traffic["south"][0] > found.traffic["north"][0] > 32
    assert found.traffic["north"][1] > 32
    assert found.traffic["south"][1] == found.traffic["east"][1] == 0


def test_a_reply_that_was_read_holds_its_bytes_no_longer(three: RunContext) -> None:
    """Flower's loop keeps every reply until the next ones are there, at 195 MB each."""
    sent = orders(three)
    arrived = answers(sent, north=1.0)
    assert sort(three, sent, arrived).good["north"].shared.size
    assert [len(message.content) for message in arrived] == [0]


def test_an_error_says_the_site_s_reason(three: RunContext) -> None:
    sent = orders(three)
    arrived = [fault(sent["north"], 105, "north: the private store"), fault(sent["east"], 8, "")]
    assert sort(three, sent, arrived).faults == {
        "north": "north: the private store (Flower's code 105)",
        "south": "no answer within round-timeout = 3600 s",
        "east": "no reason given (Flower's code 8)",
    }


def test_a_stranger_s_error_is_told_with_every_silent_site(three: RunContext) -> None:
    sent = orders(three)
    stranger = fault(sent["south"], 8, "killed", SUPERLINK)
    stranger.metadata.__dict__["_reply_to_message_id"] = "of another exchange"
    found = sort(three, sent, [stranger, *answers(sent, north=1.0)])
    assert list(found.good) == ["north"]
    assert found.faults["south"] == (
        "no answer, but from an unnamed node: killed (Flower's code 8)"
    )


def test_a_reply_from_a_node_outside_the_participants_is_nobody_s(three: RunContext) -> None:
    sent = orders(three)
    arrived = answers(sent, north=1.0)
    arrived[0].metadata.__dict__["_src_node_id"] = 999
    found = sort(three, sent, arrived)
    assert found.good == {}
    assert found.faults["north"] == "no answer, but from an unnamed node: a node without a name"


@pytest.mark.parametrize("first_is_bad", [False, True])
def test_of_two_answers_neither_is_taken(three: RunContext, first_is_bad: bool) -> None:
    sent = orders(three)
    good = answers(sent, north=1.0)
    bad = fault(sent["north"], 8, "killed")
    found = sort(three, sent, [bad, *good] if first_is_bad else [*good, *good])
    assert found.good == {}
    assert found.faults["north"] == "it answered twice"


@pytest.mark.parametrize(("needed", "enough"), [(0, False), (1, True), (2, True), (3, False)])
def test_so_many_sites_as_min_sites_says_must_answer(needed: int, enough: bool) -> None:
    of = context("north", "south", "east", min_sites=needed)
    sent = orders(of)
    found = sort(of, sent, answers(sent, north=1.0, east=1.0))
    if enough:
        require_enough(of, "Round 3", found)
        return
    with pytest.raises(RunError) as caught:
        require_enough(of, "Round 3", found)
    assert str(caught.value) == (
        f"Round 3: 2 of 3 sites gave a good reply, 3 are needed (min-sites = {needed}). south: "
        "no answer within round-timeout = 3600 s. When that is mended, go on with the run: "
        "run-name = 'run', resume = true."
    )
