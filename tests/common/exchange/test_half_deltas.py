"""A round's change in half precision: how much of it is lost, and that both ends have the same."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from common.errors import ReplyError
from common.exchange.codecs.half_deltas import HalfDeltas


def half_delta(shared: NDArray[Any], received: NDArray[Any]) -> NDArray[Any]:
    return HalfDeltas().encode(shared, received, {}).parts["flat"]


def add_delta(received: NDArray[Any], delta: NDArray[Any]) -> NDArray[Any]:
    return HalfDeltas().decode({"flat": delta}, received)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_error_is_within_half_of_float16_s_last_place(kind: type[np.floating]) -> None:
    generator = np.random.default_rng(0)
    # From the smallest normal number of float16 on, 2^-14, it keeps eleven bits.
    change = (
        2.0 ** generator.uniform(-24, 5.99, 20_000) * generator.choice([-1, 1], 20_000)
    ).astype(kind)
    start = np.zeros_like(change)
    arrived = add_delta(start, half_delta(change, start))
    assert arrived.dtype == kind
    error = np.abs(arrived.astype(np.float64) - change) / np.abs(change)
    assert 2.0**-12 < error.max() <= 2.0**-11
    # Below, its numbers are 2^-24 apart; a change is sent times 2^10.
    tiny = np.linspace(-(2.0**-24), 2.0**-24, 2001).astype(kind)
    lost = np.abs(add_delta(tiny * 0, half_delta(tiny, tiny * 0)).astype(np.float64) - tiny)
    assert lost.max() <= 2.0**-35 < 3e-11


def test_the_sum_is_of_the_received_weights_own_type_and_leaves_both_as_they_are() -> None:
    received = np.array([1.0, -2.0, 0.1], np.float32)
    delta = np.array([0.5, 1024.0, 0.0], np.float16)
    # 0.5 / 1024, 1, 0
    expected = np.array([1 + 2.0**-11, -1.0, np.float32(0.1)], np.float32)
    assert add_delta(received, delta).tobytes() == expected.tobytes()
    assert received.tolist() == [1.0, -2.0, np.float32(0.1)]
    assert delta.tolist() == [0.5, 1024.0, 0.0]


def test_a_change_that_float16_cannot_hold_is_infinite() -> None:
    one = np.array([70.0, -70.0, np.nan], np.float32)
    assert half_delta(one, one * 0)[:2].tolist() == [np.inf, -np.inf]
    assert not np.isfinite(add_delta(one * 0, half_delta(one, one * 0))).any()


@pytest.mark.parametrize(
    "delta", [np.zeros(3, np.float32), np.zeros(2, np.float16), np.zeros((3, 1), np.float16)]
)
def test_what_is_no_change_in_half_precision_is_refused(delta: np.ndarray) -> None:
    with pytest.raises(ReplyError, match=r"expected \(3,\) float16"):
        add_delta(np.zeros(3, np.float32), delta)
