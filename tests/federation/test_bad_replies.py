"""A bad reply is named and left out; the round goes on, or ends with an error that says why."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import flwr.app
import numpy as np
import pytest
from flwr.app import Message

from common.config.schema import Config
from common.errors import RunError
from common.exchange.messages import RoundOrder, RoundReply
from common.exchange.wire import decode, encode
from common.models.sharing import Layout
from common.runs.result import read_result
from common.tensor_files import load_tensors
from server.metrics import read_rows
from simulations.runtime.in_process import Tamper
from tests.federation.hospitals import federate, run_of, tiny_config

Change = Callable[[RoundReply], RoundReply]


def without_first(reply: RoundReply) -> RoundReply:
    layout, first = reply.layout, int(np.prod(reply.layout.shapes[0]))
    names, shapes = layout.names[1:], layout.shapes[1:]
    return replace(
        reply,
        layout=Layout(names, shapes, layout.dtype, layout.size - first),
        shared=reply.shared[first:],
    )


def with_private(reply: RoundReply) -> RoundReply:
    layout = reply.layout
    names = (*layout.names, "backbone.stem_norm.sites.south.weight")
    return replace(
        reply,
        layout=Layout(names, (*layout.shapes, (3,)), layout.dtype, layout.size + 3),
        shared=np.append(reply.shared, np.float32([1, 2, 3])),
    )


def transposed(reply: RoundReply) -> RoundReply:
    layout = reply.layout
    place = layout.names.index("head.logits.weight")
    shapes = list(layout.shapes)
    shapes[place] = shapes[place][::-1]
    return replace(reply, layout=replace(layout, shapes=tuple(shapes)))


def not_a_number(reply: RoundReply) -> RoundReply:
    shared = reply.shared.copy()
    ends = np.cumsum([np.prod(shape) for shape in reply.layout.shapes], dtype=int)
    shared[ends[reply.layout.names.index("head.dense1.weight")] - 1] = np.nan
    return replace(reply, shared=shared)


FAULTS: dict[str, tuple[Change, str]] = {
    "NaN": (not_a_number, r"1 shared values are not finite, the first in 'head.dense1.weight'"),
    "missing": (without_first, r"missing: backbone\.stem"),
    "additional": (with_private, r"additional: backbone\.stem_norm\.sites\.south\.weight"),
    "misshapen": (transposed, r"misshapen: head.logits.weight \(\d+, 2\), expected \(2, \d+\)"),
    "short": (lambda r: replace(r, shared=r.shared[:-1]), r"hold \d+ values of type float32"),
    "double": (lambda r: replace(r, shared=r.shared.astype("f8")), "of type float64"),
    "diverged": (lambda r: replace(r, shared=r.shared * 1e6), "training has diverged there"),
    "other code": (lambda r: replace(r, fingerprint="0" * 64), "ran other code"),
    "stale": (lambda r: replace(r, round=r.round - 1), "answers for round 1, not 2"),
    "other run": (lambda r: replace(r, run="another"), "answers for the run 'another'"),
    "other site": (
        lambda r: replace(r, site="north", prototypes=replace(r.prototypes, site="north")),
        "the node of site 'south' says that it is 'north'",
    ),
    "other data": (lambda r: replace(r, images=7), "has 7 training images, 8 at the start"),
}


def in_round_two(change: Change, site: int = 101) -> Tamper:
    def tamper(question: Message, reply: Message) -> list[Message]:
        metadata = question.metadata
        if (metadata.message_type, metadata.group_id, metadata.dst_node_id) == ("train", "2", site):
            reply.content = encode(change(decode(RoundReply, reply.content)), flwr.app)
        return [reply]

    return tamper


def twice(question: Message, reply: Message) -> list[Message]:
    metadata = question.metadata
    again = (metadata.message_type, metadata.group_id, metadata.dst_node_id) == ("train", "2", 101)
    return [reply, reply] if again else [reply]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_reply_ends_the_run_where_every_site_is_needed(fault: str, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, epochs=2)
    change, said = FAULTS[fault]
    with pytest.raises(RunError, match=rf"Round 2: 1 of 2 sites .* south: .*{said}") as caught:
        federate(config, tamper=in_round_two(change))
    assert "run-name = 'run', resume = true" in str(caught.value)
    result = read_result(run_of(config))
    assert (result["status"], result["reason"]) == ("failed", str(caught.value))


def test_a_site_that_answers_twice_is_left_out(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="south: it answered twice"):
        federate(tiny_config(tmp_path, epochs=2), tamper=twice)


def test_every_site_failing_ends_the_run_with_an_error(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, min_sites=1)
    both = [in_round_two(not_a_number, site) for site in (100, 101)]
    with pytest.raises(RunError, match=r"Round 2: 0 of 2 .*north: .*not finite.*south: .*not fini"):
        federate(config, tamper=lambda q, r: both[1](q, both[0](q, r)[0]))


@pytest.fixture(scope="module")
def tolerant(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, list[Any], list[Any]]:
    """Three rounds, the second of which goes on without 'south', and all orders and replies."""
    config = tiny_config(tmp_path_factory.mktemp("tolerant"), min_sites=1)
    orders, replies = [], []

    def watch(question: Message, reply: Message) -> list[Message]:
        arriving = in_round_two(not_a_number)(question, reply)
        if question.metadata.message_type == "train":
            orders.append(decode(RoundOrder, question.content))
            replies.append(decode(RoundReply, reply.content))
        return arriving

    federate(config, tamper=watch)
    return config, orders, replies


def test_a_round_goes_on_without_a_bad_reply_where_fewer_sites_suffice(
    tolerant: tuple[Config, list[Any], list[Any]],
) -> None:
    config, orders, replies = tolerant
    assert read_result(run_of(config))["status"] == "completed"
    assert (
        "south LEFT OUT: 1 shared values are not finite" in (run_of(config) / "log.txt").read_text()
    )
    north, south = replies[2], replies[3]
    assert (north.site, north.round, south.site, south.round) == ("north", 2, "south", 2)
    # The average of round 2, which round 3 begins with, is north's alone.
    assert np.array_equal(orders[4].shared, north.shared)


def test_a_site_that_was_left_out_goes_on_from_its_last_good_round(
    tolerant: tuple[Config, list[Any], list[Any]],
) -> None:
    config, orders, replies = tolerant
    south = orders[5]
    assert (south.round, south.previous) == (3, 1)
    stored = run_of(config) / "sites/south/store"
    assert [path.name for path in stored.glob("round-*")] == ["round-0003.safetensors"]
    # The others go on meeting the prototypes of its last good round.
    assert np.array_equal(orders[4].prototypes[0].vectors, replies[1].prototypes.vectors)
    seen = read_result(run_of(config))["images_seen"]
    assert seen == {"north": 36, "south": 24}


def test_figures_of_a_round_are_those_of_its_average(
    tolerant: tuple[Config, list[Any], list[Any]],
) -> None:
    config, _, replies = tolerant
    rows = {(row.round, row.site): row for row in read_rows(run_of(config) / "metrics.csv")}
    assert set(rows) == {(1, "north"), (2, "north"), (3, "north"), (2, "south"), (3, "south")}
    later = next(reply for reply in replies if (reply.site, reply.round) == ("north", 3))
    own = next(reply for reply in replies if (reply.site, reply.round) == ("north", 2))
    assert rows[2, "north"].figures["accuracy"] == later.metrics["test/accuracy"]
    assert rows[2, "north"].train_loss == own.metrics["train/loss"]
    assert (rows[2, "north"].step, rows[2, "north"].images_seen) == (6, 24)
    final = read_result(run_of(config))["metrics"]["north"]["test"]
    assert rows[3, "north"].figures["accuracy"] == final["accuracy"]
    weights, _ = load_tensors(run_of(config) / "shared.safetensors")
    assert set(weights) == set(replies[0].layout.names)


def reversed_tenfold(question: Message, reply: Message) -> list[Message]:
    """Let south send −10 times its update, in every round."""
    if question.metadata.message_type == "train" and question.metadata.dst_node_id == 101:
        sent, answer = (
            decode(RoundOrder, question.content).shared,
            decode(RoundReply, reply.content),
        )
        lie = replace(answer, shared=sent - np.float32(10) * (answer.shared - sent))
        reply.content = encode(lie, flwr.app)
    return [reply]


def test_a_site_that_moves_the_weights_much_further_than_the_others_is_left_out(
    tmp_path: Path,
) -> None:
    config = tiny_config(tmp_path, ("north", "south", "east"), epochs=2, min_sites=2)
    federate(config, tamper=reversed_tenfold)
    said = (run_of(config) / "log.txt").read_text()
    assert said.count("south") and "more than 3 times the median of the sites" in said
    # The honest ones' average is what it would have been without the third.
    honest = config.changed(runs_dir=str(tmp_path / "other"), round_timeout=0.5)

    def silent(question: Message, reply: Message) -> list[Message]:
        kind, node = question.metadata.message_type, question.metadata.dst_node_id
        return [] if (kind, node) == ("train", 101) else [reply]

    federate(honest, tamper=silent)
    weights = [load_tensors(run_of(one) / "shared.safetensors")[0] for one in (config, honest)]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[1])


def test_of_two_sites_nobody_tells_which_one_is_far(tmp_path: Path) -> None:
    federate(tiny_config(tmp_path, epochs=1), tamper=reversed_tenfold)


@pytest.mark.parametrize("aggregation", ["median", "trimmed-mean", "krum"])
def test_a_robust_aggregation_trains(tmp_path: Path, aggregation: str) -> None:
    config = tiny_config(tmp_path, ("north", "south", "east"), aggregation=aggregation)
    federate(config)
    assert read_result(run_of(config))["status"] == "completed"
