"""One set of weights out of the sites': means by hand, robust ones beside Flower's own."""

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import get_args

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
from flwr.serverapp.strategy.multikrum import select_multikrum
from numpy.typing import NDArray

from common.config.sections import Aggregation
from common.exchange.messages import RoundReply
from common.learning.moments import moments_fault
from server.aggregate import aggregate, aggregate_moments, krum
from tests.server.answers import reply


def replies_of(
    *shared: NDArray[np.floating], images: tuple[int, ...] = ()
) -> dict[str, RoundReply]:
    counts = images or (10,) * len(shared)
    return {
        f"site-{k}": reply(f"site-{k}", shared=own, images=count)
        for k, (own, count) in enumerate(zip(shared, counts, strict=True))
    }


def test_sites_weigh_alike_or_by_their_images() -> None:
    one, other = np.array([1, 2, -3], np.float32), np.array([5, -2, 1], np.float32)
    found = replies_of(one, other, images=(30, 10))
    assert aggregate(found, "uniform").tolist() == [3, 0, -1]
    # (30·1 + 10·5)/40, (30·2 − 10·2)/40, (−30·3 + 10·1)/40
    assert aggregate(found, "images").tolist() == [2, 1, -2]
    assert aggregate(found, "images").dtype == np.float32


def test_the_average_is_that_of_numpy() -> None:
    generator = np.random.default_rng(0)
    shared = [generator.standard_normal(1000).astype(np.float32) for _ in range(7)]
    images = tuple(int(n) for n in generator.integers(1, 500, 7))
    found = replies_of(*shared, images=images)
    expected = np.average(np.array(shared, np.float64), axis=0, weights=images)
    assert np.allclose(aggregate(found, "images"), expected, rtol=1e-7, atol=1e-9)


def test_a_sum_loses_nothing_to_float32() -> None:
    """In float32, 10⁸ + 1 is 10⁸: its spacing there is 8."""
    shared = [np.array([1e8], np.float32), np.array([1], np.float32), np.array([-1e8], np.float32)]
    assert aggregate(replies_of(*shared), "uniform") == np.float32(1 / 3)


@pytest.mark.parametrize("how", get_args(Aggregation))
def test_one_site_s_average_is_that_site_s_to_the_bit(how: Aggregation) -> None:
    generator = np.random.default_rng(1)
    own = generator.standard_normal(1000).astype(np.float32) * np.float32(1e-30)
    own[:4] = [0.0, -0.0, 1e-45, -1e-45]
    found = replies_of(own, images=(37,))
    assert aggregate(found, how).tobytes() == own.tobytes()


def test_float64_stays_float64() -> None:
    own = np.array([1 / 3, 2 / 3])
    assert aggregate(replies_of(own, own, own), "uniform").dtype == np.float64


def test_the_order_of_the_sites_moves_no_average_further_than_rounding() -> None:
    generator = np.random.default_rng(2)
    shared = [generator.standard_normal(50).astype(np.float32) for _ in range(4)]
    expected = aggregate(replies_of(*shared), "uniform")
    for order in permutations(shared):
        assert np.allclose(aggregate(replies_of(*order), "uniform"), expected, rtol=1.2e-7, atol=0)


def drawn(count: int, size: int = 600_000) -> list[NDArray[np.float32]]:
    """Return sites' weights: more values than are aggregated at a time."""
    generator = np.random.default_rng(5)
    return [generator.standard_normal(size).astype(np.float32) for _ in range(count)]


def test_the_median_and_the_trimmed_mean_are_numpy_s_and_flower_s() -> None:
    shared = drawn(6)
    found = replies_of(*shared)
    assert np.array_equal(aggregate(found, "median"), np.median(np.array(shared), axis=0))
    expected = trim_mean(np.array(shared, np.float64), 0.2)
    assert np.allclose(aggregate(found, "trimmed-mean"), expected, rtol=1e-6, atol=1e-7)
    # Of fewer than five, a fifth is nobody.
    four = replies_of(*shared[:4])
    assert np.allclose(aggregate(four, "trimmed-mean"), aggregate(four, "uniform"), atol=1e-7)


@pytest.mark.parametrize("count", [3, 4, 5, 6, 7, 9])
def test_krum_chooses_whom_flower_s_krum_chooses(count: int) -> None:
    for shift in range(5):
        shared = [own + np.float32(0.3 * (k == shift)) for k, own in enumerate(drawn(count, 50))]
        contents = [RecordDict({"arrays": ArrayRecord({"w": Array(own)})}) for own in shared]
        (chosen,) = select_multikrum(contents, max(0, (count - 3) // 2), 1)
        assert contents.index(chosen) == krum(shared)


def test_krum_of_two_sites_is_the_first() -> None:
    assert krum(drawn(2, 8)) == 0


@pytest.mark.parametrize("how", ["median", "trimmed-mean", "krum"])
def test_one_liar_of_five_moves_a_robust_aggregate_no_further_than_the_others_differ(
    how: Aggregation,
) -> None:
    honest: Sequence[NDArray[np.float32]] = [own * np.float32(0.01) for own in drawn(4, 1000)]
    lie = -10 * np.ones(1000, np.float32)
    found = aggregate(replies_of(*honest[:2], lie, *honest[2:]), how)
    low, high = np.min(honest, axis=0), np.max(honest, axis=0)
    assert (found >= low - 1e-6).all() and (found <= high + 1e-6).all()
    assert np.abs(aggregate(replies_of(*honest, lie), "uniform")).min() > 1.9


def with_moments(count: int) -> dict[str, RoundReply]:
    """Return replies with moments of eight values after three of Adam's steps."""
    generator = np.random.default_rng(4)
    found = {}
    for k in range(count):
        gradients = generator.standard_normal((3, 8)) * 10.0 ** generator.integers(-3, 3, (3, 8))
        first, second = np.zeros(8), np.zeros(8)
        for own in gradients:
            first, second = 0.9 * first + 0.1 * own, 0.999 * second + 0.001 * own**2
        moments = {
            "exp_avg": first.astype(np.float32),
            "exp_avg_sq": second.astype(np.float32),
            "step": np.array([3, k], np.float32),
        }
        shared = generator.standard_normal(8).astype(np.float32)
        found[f"site-{k}"] = reply(f"site-{k}", shared=shared, images=k + 1, moments=moments)
    return found


@pytest.mark.parametrize("how", get_args(Aggregation))
def test_moments_are_aggregated_as_the_shared_tensors_are(how: Aggregation) -> None:
    found = with_moments(5)
    arrays = {
        key: np.array([one.moments[key] for one in found.values()], np.float64)
        for key in ("exp_avg", "exp_avg_sq", "step")
    }
    chosen = krum([one.shared for one in found.values()])
    by_hand: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
        "uniform": lambda own: own.mean(axis=0),
        "images": lambda own: np.average(own, axis=0, weights=range(1, 6)),
        "median": lambda own: np.median(own, axis=0),
        "trimmed-mean": lambda own: trim_mean(own, 0.2),
        # Not of another site, whose second moments could be next to nothing where these are not.
        "krum": lambda own: own[chosen],
    }
    moments = aggregate_moments(found, how)
    for key, own in arrays.items():
        np.testing.assert_allclose(moments[key], by_hand[how](own), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("how", get_args(Aggregation))
@pytest.mark.parametrize("count", range(1, 8))
def test_an_aggregate_of_moments_is_one_that_adam_can_have(how: Aggregation, count: int) -> None:
    for one in with_moments(count).values():
        assert moments_fault(one.moments) is None
    assert moments_fault(aggregate_moments(with_moments(count), how)) is None


def test_replies_without_moments_have_no_aggregate_of_them() -> None:
    assert aggregate_moments(replies_of(np.ones(2), np.ones(2)), "uniform") == {}
