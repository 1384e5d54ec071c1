"""What is clipped has the norm that was promised, and noise the deviation."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import kstest

from clients.egress.noise import (
    PIECE,
    change_of,
    deviation,
    gaussian,
    noise_in,
    noised,
    noised_range,
)
from clients.egress.policy import Policy, make_policy
from common.exchange.messages import RoundReply, SiteReply
from common.learning.prototypes import Prototypes
from common.models.sharing import Layout

SIZE = PIECE + 3
"""Two pieces, one of them short."""


def policy(**values: Any) -> Policy:
    return make_policy({key.replace("_", "-"): value for key, value in values.items()}, "here")


def reply(shared: np.ndarray, prototypes: Prototypes | None = None) -> RoundReply:
    if prototypes is None:
        vectors = np.eye(2, 16, dtype=np.float32).reshape(2, 2, 8)
        prototypes = Prototypes("north", np.array([0, 1]), vectors, np.array([9, 5]))
    layout = Layout(("w",), ((len(shared),),), str(shared.dtype), len(shared))
    return RoundReply("run", 1, "north", "f" * 64, {}, 30, layout, shared, prototypes)


def sent(shared: np.ndarray, received: np.ndarray, held: Policy) -> np.ndarray:
    leaving = noised(reply(shared), received, held)
    assert isinstance(leaving, RoundReply)
    return leaving.shared


@pytest.fixture(scope="module")
def weights() -> tuple[np.ndarray, np.ndarray]:
    """Return what a round began with and ended with, of which few values are exact in float32."""
    draw = np.random.default_rng(0)
    received = draw.normal(0, 1, SIZE).astype(np.float32)
    return received, received + draw.normal(0, 1e-2, SIZE).astype(np.float32)


@pytest.mark.parametrize("largest", [1e-3, 0.5, 3.0])
def test_a_large_change_is_scaled_down_to_the_norm_and_never_lies_above_it(
    weights: tuple[np.ndarray, np.ndarray], largest: float
) -> None:
    received, trained = weights
    # 2²⁰ values that moved by 0.01 each: a norm of 0.01 · 2¹⁰.
    assert change_of(trained, received) == pytest.approx(10.24, rel=0.01)
    clipped = sent(trained, received, policy(clip_update=largest))
    change = clipped.astype(np.float64) - received
    assert clipped.dtype == np.float32
    wanted = (trained.astype(np.float64) - received) * (largest / change_of(trained, received))
    assert np.linalg.norm(change) <= largest * (1 + 1e-12)
    assert (abs(change) <= abs(wanted)).all()
    # A value is rounded by less than the distance of float32 numbers about it.
    furthest = (abs(received) + abs(wanted).max()).astype(np.float32)
    assert (abs(change - wanted) <= np.spacing(furthest)).all()


def test_a_small_change_is_left_alone(weights: tuple[np.ndarray, np.ndarray]) -> None:
    received, trained = weights
    assert np.array_equal(sent(trained, received, policy(clip_update=11.0)), trained)
    assert np.array_equal(sent(received, received, policy(clip_update=1.0)), received)
    assert np.array_equal(sent(trained, received, Policy()), trained)


def test_float64_weights_are_clipped_too(weights: tuple[np.ndarray, np.ndarray]) -> None:
    received, trained = (one.astype(np.float64) for one in weights)
    clipped = sent(trained, received, policy(clip_update=2.0))
    assert clipped.dtype == np.float64
    assert np.linalg.norm(clipped - received) == pytest.approx(2.0, rel=1e-12)


def test_noise_on_the_weights_has_the_deviation_that_was_promised(
    weights: tuple[np.ndarray, np.ndarray],
) -> None:
    received, trained = weights
    held = policy(clip_update=2.0, update_noise=0.5)
    # Two sites' clipped changes of norm 2 differ by 4 at most; half of that.
    assert deviation(held) == 2.0
    clipped = sent(trained, received, policy(clip_update=2.0)).astype(np.float64)
    noise = [sent(trained, received, held) - clipped for _ in range(2)]
    for one in noise:
        # Of n values the mean is off by 1/√n standard deviations, the standard deviation by
        # 1/√(2n) of itself; six times that happens once in 10⁹ draws.
        assert abs(one.mean()) < 6 * 2.0 / SIZE**0.5
        assert one.std() == pytest.approx(2.0, rel=6 / (2 * SIZE) ** 0.5)
    # Neither the two draws nor the two pieces of one of them have anything in common.
    assert abs(np.corrcoef(noise[0], noise[1])[0, 1]) < 6 / SIZE**0.5
    assert not np.isin(noise[0][PIECE:], noise[0][:PIECE]).any()


def test_the_operating_system_s_values_are_standard_normal() -> None:
    values = gaussian(200_000)
    assert np.isfinite(values).all() and len(np.unique(values)) == len(values)
    # True noise fails this once in 10⁹ times; of a wrong deviation 2 % would be seen.
    assert kstest(values, "norm").pvalue > 1e-9
    assert kstest(values * 1.02, "norm").pvalue < 1e-3


def test_the_range_of_a_noised_change_holds_it_and_not_one_without_noise(
    weights: tuple[np.ndarray, np.ndarray],
) -> None:
    received, trained = weights
    held = policy(clip_update=2.0, update_noise=0.01)
    least, most = noised_range(received, held)
    assert least < change_of(sent(trained, received, held), received) < most
    assert change_of(sent(trained, received, policy(clip_update=2.0)), received) < least
    doubled = policy(clip_update=2.0, update_noise=0.02)
    assert change_of(sent(trained, received, doubled), received) > most


def test_noise_on_prototypes_is_as_large_as_the_policy_says_and_never_the_same() -> None:
    size, many = 4096, 200
    vectors = np.zeros((many, 2, size), np.float32)
    vectors[:, 0, 0], vectors[:, 1] = 0.6, 0.8 / size**0.5
    held = Prototypes("north", np.arange(many), vectors, np.full(many, 9))
    nothing = np.zeros(1, np.float32)
    one, other = (
        noised(reply(nothing, held), nothing, policy(prototype_noise=0.005)).prototypes.vectors  # type: ignore[union-attr]
        for _ in range(2)
    )
    assert not np.array_equal(one, other)
    assert np.allclose(np.linalg.norm(one, axis=(1, 2)), 1, atol=1e-5)
    # Each of 2 · 4096 values had noise; the deviations, of 0.0125 each, were hardly cut off at 0.
    longer = (1 + 2 * size * 0.005**2) ** 0.5
    assert one[:, 0, 0].mean() * longer == pytest.approx(0.6, rel=2e-3)
    assert one[:, 0, 1:].std() * longer == pytest.approx(0.005, rel=0.02)
    assert one[:, 1].mean() * longer == pytest.approx(0.0125, rel=0.01)
    assert one[:, 1].std() * longer == pytest.approx(0.005, rel=0.02)
    assert one[:, 1].min() >= 0


def test_noise_leaves_no_deviation_below_0() -> None:
    vectors = np.zeros((1, 2, 64), np.float32)
    vectors[0, 0, 0] = 1
    nothing = np.zeros(1, np.float32)
    held = Prototypes("north", np.array([0]), vectors, np.array([9]))
    noisy = noised(reply(nothing, held), nothing, policy(prototype_noise=0.5))
    assert isinstance(noisy, RoundReply)
    assert noisy.prototypes.vectors[0, 1].min() == 0
    assert noisy.prototypes.fault(64, 0) is None


def test_the_ledger_is_told_of_noise_by_how_far_images_could_move_a_value() -> None:
    nothing = np.zeros(1, np.float32)
    both = noise_in(
        reply(nothing),
        policy(clip_update=3.0, update_noise=0.7, prototype_noise=0.5, delta=1e-6),
    )
    assert both is not None and (both.unit, both.delta) == ("site", 1e-6)
    # Two vectors of length 1 are 2 apart at most: a deviation of 0.5 is a quarter of that.
    assert [(one.record, one.multiplier, one.times) for one in both.releases] == [
        ("shared", 0.7, 1),
        ("prototypes", 0.25, 2),
    ]
    bare = Prototypes("north", np.empty(0, int), np.empty((0, 2, 8), np.float32), np.empty(0, int))
    assert noise_in(reply(nothing, bare), policy(prototype_noise=0.5)) is None
    assert noise_in(reply(nothing), policy(clip_update=3.0)) is None


def test_figures_alone_are_not_touched() -> None:
    figures = SiteReply("run", 1, "north", "f" * 64, {"test/auc": 0.5})
    nothing = np.zeros(1, np.float32)
    assert noised(figures, nothing, policy(clip_update=1.0, update_noise=1.0)) is figures
