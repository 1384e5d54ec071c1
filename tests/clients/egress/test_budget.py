"""ε and δ are those of the noise, of all that left, in every run; and no ε is told that is not."""

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar
from scipy.special import log_ndtr, ndtr

from clients.egress.budget import epsilon, in_words, require_budget, spent, upper
from clients.egress.ledger import Entry, LedgerPart, Message, Noise, Release, enter, entries, verify
from common.errors import PolicyError, RunError
from common.exchange.messages import RoundOrder, RoundReply
from common.exchange.wire import decode
from simulations.runtime.in_process import run_server
from tests.federation.hospitals import deploy, server, tiny_config

DELTA = 1e-5


def exact(mean: float, delta: float) -> float:
    """Return the least ε of Gaussian noise of deviation 1 that hides a move by ``mean``.

    δ = Φ(m/2 − ε/m) − exp(ε)·Φ(−m/2 − ε/m): theorem 8 of Balle and Wang (ICML 2018). Releases with
    multipliers z₁, z₂, … are one that moves by m = √(1/z₁² + 1/z₂² + …), since the joint density of
    independent normal values depends on the Euclidean distance of their means alone.
    """

    def surplus(value: float) -> float:
        low, high = -mean / 2 - value / mean, mean / 2 - value / mean
        return float(ndtr(high) - math.exp(value + log_ndtr(low)) - delta)

    return float(brentq(surplus, 0, 5000, xtol=1e-12))


def renyi(mean: float, delta: float) -> float:
    """Return the least ε that follows from the Rényi divergences, α·m²/2, of that noise.

    ε = α·m²/2 + log((α − 1)/α) − (log δ + log α)/(α − 1), at the best order α: proposition 12 of
    Canonne, Kamath and Steinke (NeurIPS 2020).
    """

    def bound(step: float) -> float:
        order = 1 + math.exp(step)
        drop = (math.log(delta) + math.log(order)) / (order - 1)
        return order * mean**2 / 2 + math.log((order - 1) / order) - drop

    return float(minimize_scalar(bound, bounds=(-14, 14), method="bounded").fun)


@pytest.mark.parametrize("delta", [1e-5, 1e-8])
@pytest.mark.parametrize(
    "multipliers",
    [{20.0: 1}, {1.0: 1}, {4.0: 10}, {1.0: 40}, {0.3: 1}, {1.5: 7, 0.8: 14}, {0.05: 1}],
)
def test_epsilon_is_the_renyi_bound_and_little_above_the_exact_one(
    multipliers: Mapping[float, int], delta: float
) -> None:
    mean = math.sqrt(sum(times / multiplier**2 for multiplier, times in multipliers.items()))
    found = epsilon(multipliers, delta)
    # Orders lie 12 % apart, and the bound is flat about its least.
    assert found == pytest.approx(renyi(mean, delta), rel=2e-3)
    assert exact(mean, delta) <= found <= 1.12 * exact(mean, delta)


def test_many_releases_are_one_with_less_noise() -> None:
    for times in (2, 10, 100):
        assert epsilon({3.0: times}, DELTA) == pytest.approx(
            epsilon({3.0 / times**0.5: 1}, DELTA), rel=1e-12
        )
    assert epsilon({}, DELTA) == 0.0
    # So little is told that δ alone covers it.
    assert epsilon({1e9: 1}, 1e-3) == 0.0


def test_an_epsilon_is_never_written_smaller_than_it_is() -> None:
    assert [upper(one) for one in (3.6171, 3.611, 12.0, 1234.1, 0.04567, 0.0, math.inf)] == [
        *("3.62", "3.62", "12", "1240", "0.0457", "0", "infinite")
    ]
    for value in np.random.default_rng(0).lognormal(0, 6, 1000):
        assert Decimal(float(value)) <= Decimal(upper(value)) <= Decimal(float(value * 1.0101))


VECTORS = LedgerPart("prototypes", "north/vectors", (2, 8), "float32", 64, "ab" * 32)
NO_VECTORS = LedgerPart("prototypes", "north/vectors", (0, 8), "float32", 0, "ab" * 32)
COUNTS = LedgerPart("prototypes", "north/counts", (2,), "int64", 16, "ab" * 32)
WEIGHTS = LedgerPart("shared", "body.weight", (2, 3), "float32", 24, "ab" * 32)
FIGURE = LedgerPart("metrics", "test/auc", (), "float", 8, "ab" * 32)
IMAGES = LedgerPart("reply", "images", (), "int", 8, "ab" * 32)
BOTH = Noise("site", DELTA, (Release("shared", 2.0, 1), Release("prototypes", 3.0, 2)))


def message(*parts: LedgerPart, noise: Noise | None = None, verdict: str = "sent") -> Message:
    return Message("north", "run", 1, "training", verdict, "", 30, (IMAGES, *parts), noise=noise)


def test_what_left_with_noise_adds_up_and_what_was_held_back_does_not_count() -> None:
    one = message(WEIGHTS, VECTORS, COUNTS, noise=BOTH)
    held = spent([one, replace(one, verdict="held back"), replace(one, run="other", site="new")])
    assert held.noise == {("shared", 2.0): 2, ("prototypes", 3.0): 4} and not held.bare
    assert held.epsilon == epsilon({2.0: 2, 3.0: 4}, DELTA) and held.messages == 2
    said = in_words(held)
    assert said.startswith(f"ε ≤ {upper(held.epsilon)} at δ = 1e-05 for all images of the site")
    assert "over 2 messages" in said and "numbers of images" in said


@pytest.mark.parametrize(
    ("bare", "said"),
    [
        (message(WEIGHTS), "no guarantee: weights without noise in 1 message"),
        (message(VECTORS, COUNTS), "no guarantee: prototypes without noise in 1 message"),
        (message(FIGURE), "no guarantee: exact figures in 1 message"),
        (
            message(WEIGHTS, VECTORS, noise=replace(BOTH, releases=BOTH.releases[:1])),
            "no guarantee: prototypes without noise in 1 message",
        ),
        (message(WEIGHTS, VECTORS, FIGURE, noise=BOTH), "no guarantee: exact figures in 1 message"),
    ],
)
def test_one_thing_without_noise_ends_the_guarantee(bare: Message, said: str) -> None:
    noised = message(WEIGHTS, VECTORS, noise=BOTH)
    held = spent([noised, bare])
    assert held.epsilon == math.inf and in_words(held) == said
    # Neither after it nor with it.
    for past, next_one in (([bare], noised), ([noised], bare)):
        with pytest.raises(PolicyError, match="no ε holds of what left and is to leave"):
            require_budget(past, next_one, 1e9)
        require_budget(past, next_one, 0.0)


def test_a_message_that_holds_nothing_of_images_always_leaves() -> None:
    assert in_words(spent([message(), message(NO_VECTORS)])).startswith("nothing spent")
    require_budget([message(WEIGHTS)], message(NO_VECTORS), 1.0)


def test_a_message_leaves_up_to_the_cap_and_not_beyond() -> None:
    one = message(WEIGHTS, VECTORS, noise=BOTH)
    third = epsilon({2.0: 3, 3.0: 6}, DELTA)
    require_budget([one, one], one, third)
    with pytest.raises(PolicyError) as told:
        require_budget([one, one], one, third * 0.999)
    assert f"ε would be {upper(third)} at δ = 1e-05" in str(told.value)
    assert f"{upper(epsilon({2.0: 2, 3.0: 4}, DELTA))} is spent" in str(told.value)


def test_messages_of_several_runs_at_once_do_not_share_the_same_room(tmp_path: Path) -> None:
    one, cap = message(WEIGHTS, VECTORS, noise=BOTH), epsilon({2.0: 3, 3.0: 6}, DELTA)

    def leave(_: int) -> bool:
        try:
            enter(tmp_path, one, allow=lambda before: require_budget(before, one, cap))
        except PolicyError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(leave, range(8))) == [False] * 5 + [True] * 3
    assert verify(tmp_path).entries == 3 and spent(entries(tmp_path)).epsilon == cap


ROUND = {8.0: 1, 10.0: 2}
"""What a round of the hospital below spends: weights once, prototypes of two classes."""
POLICY = (
    'may-leave = ["weights", "prototypes"]\nclip-update = 0.01\nupdate-noise = 8.0\n'
    "prototype-noise = 20.0\n"
)


def spent_after(rounds: int) -> float:
    return epsilon({multiplier: times * rounds for multiplier, times in ROUND.items()}, DELTA)


def ledger_of(root: Path) -> list[Entry]:
    return list(entries(root / "state" / "north" / "ledger"))


def test_the_budget_is_kept_over_runs_and_holds_the_round_back_that_is_too_much(
    tmp_path: Path,
) -> None:
    # Three rounds have room, and a fourth has not.
    cap = (spent_after(3) + spent_after(4)) / 2
    policy = POLICY + f"largest-epsilon = {cap}\n"
    first = tiny_config(tmp_path, epochs=2, run_name="first")
    grid = deploy(first, {"north": policy, "south": policy})
    run_server(server, grid)
    told = spent(ledger_of(tmp_path))
    assert told.epsilon == spent_after(2) and told.messages == 2
    # The join request and the last evaluation left too, and held no figure.
    assert [one.message for one in ledger_of(tmp_path)] == [
        *("card", "training", "training", "evaluation")
    ]

    # A new process, a new run, the same hospital.
    second = tiny_config(tmp_path, epochs=2, run_name="second")
    with pytest.raises(RunError, match=r"north: the site's policy keeps this here \(code 110"):
        run_server(server, deploy(second, {"north": policy, "south": policy}))
    lines = ledger_of(tmp_path)[4:]
    assert [(one.message, one.verdict) for one in lines] == [
        ("card", "sent"),
        ("training", "sent"),
        ("training", "held back"),
        ("error", "sent"),
    ]
    assert f"ε would be {upper(spent_after(4))}" in lines[2].reason
    assert f"more than {cap:g}" in lines[2].reason and "largest-epsilon" in lines[2].reason
    assert spent(ledger_of(tmp_path)).epsilon == spent_after(3)
    assert verify(tmp_path / "state" / "north" / "ledger").entries == 8


def first_reply(root: Path, policies: Mapping[str, str]) -> tuple[RoundReply, np.ndarray]:
    """Return what the server gets of north in the first round, and what that began with."""
    caught = []

    def look(question: Any, reply: Any) -> list[Any]:
        if question.metadata.message_type == "train" and question.metadata.dst_node_id == 100:
            caught.append(
                (decode(RoundReply, reply.content), decode(RoundOrder, question.content).shared)
            )
        return [reply]

    grid = deploy(tiny_config(root, epochs=1), policies)
    grid.tamper = look
    run_server(server, grid)
    return caught[0]


def test_what_the_server_gets_has_the_noise_that_the_ledger_says(tmp_path: Path) -> None:
    """Two federations of the same hospitals, the second with noise: the difference is the noise."""
    clipped, began = first_reply(tmp_path / "plain", {"north": "clip-update = 0.01\n"})
    assert np.linalg.norm(clipped.shared.astype(float) - began) == pytest.approx(0.01, rel=1e-3)
    noised, again = first_reply(tmp_path / "noise", {"north": POLICY})
    assert np.array_equal(began, again) and not noised.metrics and clipped.metrics
    noise = noised.shared.astype(float) - clipped.shared
    # 8 times 2 · 0.01; of n values the deviation is off by 1/√(2n) of itself.
    assert noise.std() == pytest.approx(0.16, rel=6 / (2 * noise.size) ** 0.5)
    assert abs(noise.mean()) < 6 * 0.16 / noise.size**0.5
    entry = next(one for one in ledger_of(tmp_path / "noise") if one.message == "training")
    assert entry.noise is not None
    assert {one.multiplier: one.times for one in entry.noise.releases} == ROUND


def test_weights_that_lack_their_noise_are_held_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgotten(reply: RoundReply, *_: object) -> RoundReply:
        return reply

    monkeypatch.setattr("clients.egress.pipeline.noised", forgotten)
    config = tiny_config(tmp_path, epochs=1)
    with pytest.raises(RunError, match="north: the site's policy keeps this here"):
        run_server(server, deploy(config, {"north": POLICY}))
    held = [one for one in ledger_of(tmp_path) if one.verdict == "held back"]
    assert len(held) == 1 and "less than" in held[0].reason and "update-noise" in held[0].reason
