"""A codec is one file: a toy one, with a memory, codes whole federations here, up and down."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from numpy.typing import NDArray

from common.config.schema import Config
from common.errors import ConfigError, ReplyError
from common.exchange.codecs.registry import CODECS, find_codec
from common.exchange.messages import RoundOrder, RoundReply
from common.exchange.payload import Codec
from common.exchange.wire import decode
from common.methods.method import Arrays, Outcome
from common.runs.result import read_result
from common.tensor_files import load_tensors
from tests.federation.hospitals import NAMES, federate, run_of, tiny_config
from tests.federation.test_bad_replies import in_round_two
from tests.federation.test_invariants_reproducible import outcome
from tests.federation.test_invariants_resume import Killed, killing

SHARE = 10


class TopK(Codec):
    """Sends the largest tenth of a change; the rest waits until it is large enough."""

    name = "top-k"
    about = "the largest tenth of a change"
    exact = False
    relative = True

    def encode(self, values: NDArray[Any], reference: NDArray[Any], memory: Arrays) -> Outcome:
        change = values - reference + memory.get("rest", np.zeros_like(values))
        count = -(-change.size // SHARE)
        places = np.sort(np.argsort(-np.abs(change), kind="stable")[:count])
        rest = change.copy()
        rest[places] = 0
        return Outcome({"places": places, "values": change[places]}, {"rest": rest})

    def decode(self, arrays: Arrays, reference: NDArray[Any]) -> NDArray[Any]:
        if set(arrays) != {"places", "values"}:
            raise ReplyError(f"its change consists of {sorted(arrays)}")
        places, values = arrays["places"], arrays["values"]
        count = -(-reference.size // SHARE)
        if places.shape != (count,) or places.dtype != np.int64 or values.shape != (count,):
            raise ReplyError("its change is not the largest tenth of one")
        whole = reference.copy()
        whole[places] += values.astype(reference.dtype)
        return whole


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CODECS, "top-k", TopK())


def test_what_is_not_sent_is_remembered_and_sent_later() -> None:
    """Of ten values one travels: first the 5, then the 3 + 3 that waited."""
    codec, start = TopK(), np.zeros(10)
    change = np.array([1.0, 5.0, 3.0, 0, 0, 0, 0, 0, 0, 0])
    first = codec.encode(start + change, start, {})
    assert (first.parts["places"].tolist(), first.parts["values"].tolist()) == ([1], [5.0])
    assert first.memory["rest"].tolist() == [1.0, 0, 3.0, 0, 0, 0, 0, 0, 0, 0]
    again = np.array([0.0, 4.0, 3.0, 0, 0, 0, 0, 0, 0, 0])
    second = codec.encode(start + again, start, first.memory)
    assert (second.parts["places"].tolist(), second.parts["values"].tolist()) == ([2], [6.0])
    assert codec.decode(second.parts, start)[2] == 6.0


class Seen:
    """Keeps orders and replies to training by round and site."""

    def __init__(self) -> None:
        self.orders: dict[tuple[int, str], RoundOrder] = {}
        self.replies: dict[tuple[int, str], Arrays] = {}

    def __call__(self, question: Message, reply: Message) -> list[Message]:
        if question.metadata.message_type == "train":

            def read(arrays: Arrays) -> NDArray[Any]:
                self.arrays = arrays
                return np.empty(0)

            site = decode(RoundReply, reply.content, read).site
            order = decode(RoundOrder, question.content)
            self.orders[order.round, site] = order
            self.replies[order.round, site] = self.arrays
        return [reply]

    def received(self, codec: str, site: str, rounds: int) -> list[NDArray[Any]]:
        """Return what a site's orders of rounds 1, 2, … stood for, one after the other."""
        arrived: list[NDArray[Any]] = []
        for round in range(1, rounds + 1):
            order = self.orders[round, site]
            if not order.coded:
                arrived.append(order.shared)
            else:
                arrived.append(find_codec(codec).decode(order.arrays, arrived[-1]))
        return arrived


def kept(config: Config, site: str, round: int, name: str) -> NDArray[Any]:
    path = run_of(config) / "sites" / site / "store" / f"round-{round:04d}.safetensors"
    tensors, _ = load_tensors(path)
    found: NDArray[Any] = tensors[f"memory/{name}"].numpy()
    return found


def test_a_federation_averages_what_a_new_codec_sends_and_remembers_the_rest(
    tmp_path: Path,
) -> None:
    config = tiny_config(tmp_path, codec="top-k", epochs=2)
    seen, rests = Seen(), {}

    def tamper(question: Message, reply: Message) -> list[Message]:
        if question.metadata.message_type == "train":
            seen(question, reply)
            round, site = list(seen.replies)[-1]
            rests[round, site] = kept(config, site, round, "codec/rest").copy()
        return [reply]

    federate(config, tamper=tamper)
    assert set(seen.replies) == {(r, s) for r in (1, 2) for s in ("north", "south")}
    began = [seen.orders[round, "north"].shared for round in (1, 2)]
    # The average is of what was sent alone, whatever else changed at the sites.
    sent = [TopK().decode(seen.replies[1, site], began[0]) for site in ("north", "south")]
    mean = ((sent[0].astype(np.float64) + sent[1]) / 2).astype(np.float32)
    assert np.array_equal(began[1], mean)
    for arrays in seen.replies.values():
        assert arrays["values"].size == -(-began[0].size // SHARE)
    # What was left of the first round is part of the second one's change: where nothing moved
    # enough to be sent, it is still there.
    first, second = rests[1, "north"], rests[2, "north"]
    assert not first[seen.replies[1, "north"]["places"]].any() and first.any()
    assert not second[seen.replies[2, "north"]["places"]].any()
    # The last round's store: settled after the final evaluation, and without a memory.
    store = run_of(config) / "sites" / "north" / "store" / "round-0002.safetensors"
    assert not [name for name in load_tensors(store)[0] if name.startswith("memory/")]


@pytest.mark.parametrize("codec", ["half-deltas", "int8-deltas", "int4-deltas"])
def test_both_ways_a_kill_and_the_order_of_arrival_change_no_bit(
    tmp_path: Path, codec: str
) -> None:
    both = {"codec": codec, "codec_down": codec}
    names = ("unharmed", "shuffled", "was-shot")
    first, shuffled, shot = (tiny_config(tmp_path, run_name=name, **both) for name in names)
    federate(first)
    federate(shuffled, shuffle=1)
    # In the third round, whose change down is the first with something kept at the server.
    with pytest.raises(Killed):
        federate(shot, before=killing("train", 6))
    federate(shot.changed(resume=True))
    assert outcome(first) == outcome(shuffled) == outcome(shot)


def test_changes_go_down_from_the_second_round_and_all_begin_with_the_same(tmp_path: Path) -> None:
    plain = tiny_config(tmp_path, run_name="plain", epochs=3)
    config = tiny_config(tmp_path, run_name="down", epochs=3, codec_down="half-deltas")
    seen = Seen()
    federate(plain)
    federate(config, tamper=seen)
    assert [seen.orders[r, "north"].coded for r in (1, 2, 3)] == [False, True, True]
    change = seen.orders[2, "north"].arrays
    assert change is not None and change["flat"].dtype == np.float16 and change["flat"].any()
    north, south = (seen.received("half-deltas", site, 3) for site in NAMES[:2])
    for one, other in zip(north, south, strict=True):
        assert one.tobytes() == other.tobytes()
    # What the average lost on its way is less than the 2^-11 of each change.
    average = [seen.replies[1, site]["flat"].astype(np.float64) for site in NAMES[:2]]
    wanted = (average[0] + average[1]) / 2
    assert np.abs(north[1] - wanted).max() <= 2.0**-10 * np.abs(wanted - north[0]).max()
    sizes = [read_result(run_of(one))["bytes"]["down"] for one in (config, plain)]
    # Of four sets of weights to each site (three rounds, final weights) two are halved.
    assert sizes[0] == pytest.approx(sizes[1] * 3 / 4, rel=0.05)


def test_a_site_that_missed_a_round_gets_whole_weights_and_the_same_ones(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, epochs=4, codec_down="half-deltas", min_sites=1)
    seen = Seen()
    spoil = in_round_two(lambda reply: replace(reply, images=7))

    def tamper(question: Message, reply: Message) -> list[Message]:
        return spoil(question, seen(question, reply)[0])

    federate(config, tamper=tamper)
    assert "south LEFT OUT" in (run_of(config) / "log.txt").read_text()
    whole = {key: not order.coded for key, order in seen.orders.items()}
    assert [whole[r, "north"] for r in (1, 2, 3, 4)] == [True, False, False, False]
    assert [whole[r, "south"] for r in (1, 2, 3, 4)] == [True, False, True, False]
    north = seen.received("half-deltas", "north", 4)
    south = seen.received("half-deltas", "south", 4)
    for one, other in zip(north, south, strict=True):
        assert one.tobytes() == other.tobytes()


def test_a_codec_that_there_is_not_is_refused_before_anybody_joins(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No codec is called 'top-kk'\. Did you mean 'top-k'"):
        federate(tiny_config(tmp_path, codec="top-kk"))
