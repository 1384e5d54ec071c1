"""``codec = "half-deltas"``: half the bytes to the server, and every invariant holds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from numpy.typing import NDArray

from clients.egress.ledger import entries
from clients.store import digest_of
from common.config.schema import Config
from common.errors import RunError
from common.exchange.codecs.half_deltas import HalfDeltas
from common.exchange.messages import RoundOrder, RoundReply
from common.exchange.wire import decode
from common.runs.result import read_result
from common.tensor_files import load_tensors
from tests.clients.opened import opened, order, train_round
from tests.federation.hospitals import NAMES, federate, run_of, tiny_config
from tests.federation.search import FLOATS, Wire
from tests.federation.test_bad_replies import in_round_two
from tests.federation.test_invariants_privacy import Collector

HALF = {"codec": "half-deltas", "epochs": 2}


class Replies:
    """Keeps what sites received and sent, and the digests that they then have in their stores."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.seen: list[tuple[str, NDArray[Any], RoundReply, str]] = []

    def __call__(self, question: Message, reply: Message) -> list[Message]:
        if question.metadata.message_type == "train":
            order, said = decode(RoundOrder, question.content), decode(RoundReply, reply.content)
            own = run_of(self.config) / "sites" / said.site / "store"
            _, about = load_tensors(own / f"round-{said.round:04d}.safetensors")
            self.seen.append((said.site, order.shared.copy(), said, about["sent"]))
        return [reply]


def test_the_server_averages_what_the_sites_say_that_they_sent(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **HALF)
    replies = Replies(config)
    federate(config, tamper=replies)
    assert [one[0] for one in replies.seen] == ["north", "south"] * 2
    arrived = []
    for _, received, said, sent in replies.seen:
        assert said.shared.dtype == np.float16
        assert np.count_nonzero(said.shared) > said.shared.size / 2
        arrived.append(HalfDeltas().decode({"flat": said.shared}, received))
        assert sent == digest_of(arrived[-1])
    final, _ = load_tensors(run_of(config) / "shared.safetensors")
    means = [(arrived[k].astype(np.float64) + arrived[k + 1]) / 2 for k in (0, 2)]
    assert np.array_equal(replies.seen[2][1], means[0].astype(np.float32))
    flat = np.concatenate([final[name].numpy().ravel() for name in replies.seen[0][2].layout.names])
    assert np.array_equal(flat, means[1].astype(np.float32))


def flat_of(config: Config) -> NDArray[np.float64]:
    tensors, _ = load_tensors(run_of(config) / "shared.safetensors")
    return np.concatenate([tensors[name].double().numpy().ravel() for name in sorted(tensors)])


def test_it_ends_near_the_weights_of_a_full_exchange_with_half_the_bytes(tmp_path: Path) -> None:
    # Not Adam, which makes a whole step of a gradient that is next to nothing.
    plain = {"optimizer": "sgd", "epochs": 2}
    full = tiny_config(tmp_path, run_name="full", **plain)
    half = tiny_config(tmp_path, run_name="half", **plain | {"codec": "half-deltas"})
    short = tiny_config(tmp_path, run_name="short", **plain | {"epochs": 1})
    for config in (full, half, short):
        federate(config)
    moved = np.linalg.norm(flat_of(full) - flat_of(short))
    # Every sum keeps eleven bits of each change: 2^-11, in two rounds, and what training makes of
    # it.
    assert 0 < np.linalg.norm(flat_of(half) - flat_of(full)) < 10 * 2.0**-11 * moved
    sizes = [read_result(run_of(config))["bytes"] for config in (half, full)]
    assert sizes[0]["down"] == pytest.approx(sizes[1]["down"], rel=1e-3)
    assert sizes[0]["up"] == pytest.approx(sizes[1]["up"] / 2, rel=0.05)


def test_one_site_alone_goes_on_from_what_it_sent(tmp_path: Path) -> None:
    """So that it does not estimate its statistics anew, as under somebody else's weights."""
    config = tiny_config(tmp_path, NAMES[:1], **HALF)
    replies = Replies(config)
    federate(config, tamper=replies)
    (_, _, _, sent), (_, received, _, _) = replies.seen
    assert sent == digest_of(received)


def test_no_private_tensor_is_in_any_message(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, validation_fraction=0.3, **HALF)
    collector = Collector(config)
    wire = Wire(federate(config, tamper=collector).wire())
    wanted = collector.pieces(FLOATS)
    assert len(wanted) > 10_000
    assert wire.found(wanted) == []


def test_the_ledger_has_the_changes_as_they_left(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **HALF)
    replies = Replies(config)
    federate(config, tamper=replies)
    ledger = run_of(config) / "sites" / "south" / "ledger"
    entry = next(entry for entry in entries(ledger) if entry.message == "training")
    (_, _, said, _) = replies.seen[1]
    parts = [part for part in entry.parts if part.record == "shared"]
    assert {part.dtype for part in parts} == {"float16"}
    assert sum(part.size for part in parts) == said.shared.nbytes == 2 * said.layout.size


def full_precision(reply: RoundReply) -> RoundReply:
    return replace(reply, shared=reply.shared.astype(np.float32))


def infinite(reply: RoundReply) -> RoundReply:
    shared = reply.shared.copy()
    shared[0] = np.inf
    return replace(reply, shared=shared)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (full_precision, r"a change of \(\d+,\) float32; expected \(\d+,\) float16"),
        (lambda r: replace(r, shared=r.shared[:-1]), r"a change of \(\d+,\) float16; expected"),
        (infinite, "1 shared values are not finite"),
    ],
)
def test_a_bad_change_is_named(
    change: Callable[[RoundReply], RoundReply], said: str, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=rf"Round 2: 1 of 2 sites .* south: .*{said}"):
        federate(tiny_config(tmp_path, **HALF), tamper=in_round_two(change))


def test_a_site_does_not_send_a_change_that_float16_cannot_hold(tmp_path: Path) -> None:
    # One step of Adam moves a weight by the learning rate. No prototypes: nobody computes on.
    settings = {"learning_rate": 100.0, "alpha": 0.0}
    full = opened(tiny_config(tmp_path / "full", **settings))
    assert np.isfinite(train_round(full, order(full, steps=range(1))).shared).all()
    half = opened(tiny_config(tmp_path / "half", **settings | {"codec": "half-deltas"}))
    with pytest.raises(RunError, match="Training diverged at north in round 1"):
        train_round(half, order(half, steps=range(1)))
    assert half.store().rounds() == []
