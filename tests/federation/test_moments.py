"""``optimizer-state = "average"``: Adam goes on at every site from the same state."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from numpy.typing import NDArray

from common.config.schema import Config
from common.device import limited_threads
from common.errors import RunError
from common.exchange.codecs.blocks import BLOCK
from common.exchange.codecs.moments import decode_round, encode_moments
from common.exchange.messages import RoundOrder, RoundReply
from common.exchange.wire import decode
from common.learning.loop import train
from common.learning.moments import pack_moments
from common.learning.optimiser import BETAS, make_optimizer
from common.models.network import build_network
from common.models.sharing import private_names
from common.runs.result import read_result
from common.tasks.task import task_layout
from common.tensor_files import below, load_tensors
from server.schedule import steps_per_epoch
from simulations.runtime.in_process import Tamper
from tests.federation.hospitals import federate, run_of, tiny_config
from tests.federation.search import FLOATS, Wire
from tests.federation.test_bad_replies import in_round_two
from tests.federation.test_invariants_equivalence import open_sites
from tests.federation.test_invariants_privacy import Collector
from tests.federation.test_invariants_reproducible import outcome
from tests.federation.test_invariants_resume import Killed, killing

AVERAGE: dict[str, Any] = {"optimizer_state": "average"}
Moments = dict[str, NDArray[Any]]


class Seen:
    """Keeps the moments of orders and replies by round and site."""

    def __init__(self, then: Tamper = lambda _, reply: [reply]) -> None:
        self.then = then
        self.down: dict[tuple[int, str], Moments] = {}
        self.up: dict[tuple[int, str], Moments] = {}

    def __call__(self, question: Message, reply: Message) -> list[Message]:
        if question.metadata.message_type == "train":
            order, said = decode(RoundOrder, question.content), decode(RoundReply, reply.content)
            self.down[order.round, said.site] = dict(order.moments)
            self.up[order.round, said.site] = dict(said.moments)
        return self.then(question, reply)


def flat(moments: Moments) -> dict[str, bytes]:
    return {key: array.tobytes() for key, array in moments.items()}


def test_every_site_goes_on_from_the_mean(tmp_path: Path) -> None:
    seen = Seen()
    federate(tiny_config(tmp_path, **AVERAGE), tamper=seen)
    assert seen.down[1, "north"] == seen.down[1, "south"] == {}
    for round in (2, 3):
        north, south = (seen.up[round - 1, site] for site in ("north", "south"))
        for site in ("north", "south"):
            for key, found in seen.down[round, site].items():
                mean = (north[key].astype(np.float64) + south[key]) / 2
                assert found.dtype == np.float32
                assert np.array_equal(found, mean.astype(np.float32))
        assert (north["exp_avg"] != south["exp_avg"]).mean() > 0.5
    # Two epochs of six steps lie behind the third round's.
    assert set(seen.down[3, "north"]["step"]) == {6.0}


def pooled_moments(config: Config, steps: int) -> Moments:
    """Return the shared moments of pooled training after some steps."""
    sites = open_sites(config)
    network = build_network(config, config.site_names)
    optimizer = make_optimizer(network, config)
    total = config.epochs * steps_per_epoch((len(s.train) for s in sites), config.batch_size)
    with limited_threads(config):
        train(network, optimizer, sites, config, range(steps), total)
    return pack_moments(network, optimizer)


def test_first_moments_are_pooled_training_s_and_second_ones_larger_by_the_variance(
    tmp_path: Path,
) -> None:
    """Two sites, every step exchanged, at weights that stay where they are.

    The mean of m over the sites is m of the mean gradient, (g₁ + g₂) / 2, which is the pooled one.
    Of v it is not: (g₁² + g₂²) / 2 = ((g₁ + g₂) / 2)² + ((g₁ − g₂) / 2)². So v is larger by
    (1 − β₂) Σ β₂ⁱ d₋ᵢ², with d the half difference of the sites' gradients, which their first
    moments tell: g = (m_after − β₁ m_before) / (1 − β₁).
    """
    config = tiny_config(
        tmp_path,
        precision="float64",
        learning_rate=1e-300,
        weight_decay=0.0,
        clip_norm=0.0,
        alpha=0.0,
        local_steps=1,
        epochs=1,
        **AVERAGE,
    )
    seen = Seen()
    federate(config, tamper=seen)
    more = np.zeros(1)
    for round in (1, 2):
        before = seen.down[round, "north"].get("exp_avg", np.zeros(1))
        after = [seen.up[round, site]["exp_avg"] for site in ("north", "south")]
        north, south = ((m - BETAS[0] * before) / (1 - BETAS[0]) for m in after)
        more = BETAS[1] * more + (1 - BETAS[1]) * ((north - south) / 2) ** 2
        found, pooled = seen.down[round + 1, "south"], pooled_moments(config, round)
        scale = np.abs(pooled["exp_avg"]).max()
        assert scale > 1e-3
        np.testing.assert_allclose(found["exp_avg"], pooled["exp_avg"], atol=1e-11 * scale)
        square = pooled["exp_avg_sq"].max()
        np.testing.assert_allclose(
            found["exp_avg_sq"], pooled["exp_avg_sq"] + more, atol=1e-10 * square
        )
        assert more.max() > 0.01 * square
        assert np.array_equal(found["step"], pooled["step"])


def test_no_private_moment_travels_and_no_shared_one_is_kept(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, epochs=2, validation_fraction=0.3, **AVERAGE)
    collector = Collector(config)
    wire = Wire(federate(config, tamper=collector).wire())
    kept = [name for name in collector.tensors if "round-0001" in name and "/exp_avg_sq" in name]
    private = [n for n in private_names(build_network(config, ["north"])) if "running" not in n]
    private = [name for name in private if "num_batches" not in name]
    assert len(kept) == 2 * len(private) > 10
    wanted = collector.pieces(FLOATS)
    assert len(wanted) > 5_000
    assert wire.found(wanted) == []


def test_a_killed_run_goes_on_from_the_average_and_no_bit_changes(tmp_path: Path) -> None:
    first, shot = (tiny_config(tmp_path, run_name=name, **AVERAGE) for name in ("first", "shot-"))
    federate(first, shuffle=1)
    seen = Seen()
    with pytest.raises(Killed):
        federate(shot, before=killing("train", 5), tamper=seen)
    tensors, _ = load_tensors(run_of(shot) / "checkpoint" / "round-0002.safetensors")
    north, south = (seen.up[2, site]["exp_avg_sq"] for site in ("north", "south"))
    mean = ((north.astype(np.float64) + south) / 2).astype(np.float32)
    assert np.array_equal(tensors["moments/exp_avg_sq"].numpy(), mean)
    federate(shot.changed(resume=True))
    assert outcome(first) == outcome(shot)


def test_a_site_that_missed_a_round_goes_on_from_what_the_others_do(tmp_path: Path) -> None:
    seen = Seen(in_round_two(lambda reply: replace(reply, images=7)))
    config = tiny_config(tmp_path, epochs=3, min_sites=1, **AVERAGE)
    federate(config, tamper=seen)
    assert "south LEFT OUT" in (run_of(config) / "log.txt").read_text()
    for round in (2, 3):
        assert flat(seen.down[round, "north"]) == flat(seen.down[round, "south"])
    assert flat(seen.down[3, "south"]) == flat(seen.up[2, "north"])
    # It went back to its first round of three steps, and the others' moments have six behind them.
    assert set(seen.up[3, "south"]["step"]) == {9.0}


def test_in_few_bits_the_server_adds_up_what_the_sites_say_and_a_kill_changes_no_bit(
    tmp_path: Path,
) -> None:
    coded = AVERAGE | {"codec_moments": "int4"}
    first, shot = (tiny_config(tmp_path, run_name=name, **coded) for name in ("first", "shot-"))
    federate(first, shuffle=1)
    seen = Seen()
    with pytest.raises(Killed):
        federate(shot, before=killing("train", 5), tamper=seen)
    checkpoint = run_of(shot) / "checkpoint"
    one, two = (
        {name: tensor.numpy() for name, tensor in below("moments/", load_tensors(path)[0]).items()}
        for path in (checkpoint / f"round-000{round}.safetensors" for round in (1, 2))
    )
    layout = task_layout(shot, "north")
    assert flat(seen.down[2, "north"]) == flat(encode_moments(one, "int4"))
    sums = [
        decode_round(seen.up[2, site], one, 3, "int4", layout, 6) for site in ("north", "south")
    ]
    for key, found in two.items():
        mean = (sums[0][key].astype(np.float64) + sums[1][key]) / 2
        assert np.array_equal(found, mean.astype(np.float32))
    federate(shot.changed(resume=True))
    assert outcome(first) == outcome(shot)


def test_moments_in_four_bits_are_an_eighth_of_float32(tmp_path: Path) -> None:
    sizes = {}
    for codec in ("none", "int8", "int4"):
        config = tiny_config(tmp_path, run_name=codec, epochs=2, codec_moments=codec, **AVERAGE)
        federate(config)
        sizes[codec] = read_result(run_of(config))["bytes"]
    layout = task_layout(config, "north")
    # Two rounds up, of which the second one's order brings some down; two sites.
    for way, orders in (("up", 2), ("down", 1)):
        plain, *few = (sizes[codec][way] for codec in sizes)
        for bits, found in zip((8, 4), few, strict=True):
            less = 2 * layout.size * (4 - (bits / 8 + 4 / BLOCK))
            assert plain - found == pytest.approx(2 * orders * less, rel=0.01)


@pytest.mark.parametrize("setting", [{"optimizer": "sgd"}, {"share": "prototypes"}])
def test_nothing_travels_where_there_is_nothing_to_average(
    tmp_path: Path, setting: dict[str, Any]
) -> None:
    seen = Seen()
    federate(tiny_config(tmp_path, epochs=2, **AVERAGE | setting), tamper=seen)
    assert [*seen.down.values(), *seen.up.values()] == [{}] * 8


def negative(reply: RoundReply) -> RoundReply:
    moments = {name: array.copy() for name, array in reply.moments.items()}
    moments["exp_avg_sq"][5] = -1e-9
    return replace(reply, moments=moments)


def unasked(reply: RoundReply) -> RoundReply:
    return replace(reply, moments={"exp_avg": reply.shared})


@pytest.mark.parametrize(
    ("change", "state", "said"),
    [
        (negative, "average", "it sends second moments below 0"),
        (unasked, "carry", "The message holds exp_avg; expected nothing"),
    ],
)
def test_a_site_with_moments_that_cannot_be_is_named_and_left_out(
    change: Callable[[RoundReply], RoundReply], state: str, said: str, tmp_path: Path
) -> None:
    config = tiny_config(tmp_path, epochs=2, optimizer_state=state)
    with pytest.raises(RunError, match=rf"Round 2: 1 of 2 sites .* south: .*{said}"):
        federate(config, tamper=in_round_two(change))
