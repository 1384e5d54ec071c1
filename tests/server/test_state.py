import math
from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from common.messages import RoundReply, SiteReply
from server.state import RunState, advance, average, choose, validation_auc
from tests.server.answers import prototypes, reply


def replies_of(
    *shared: NDArray[np.floating], images: tuple[int, ...] = ()
) -> dict[str, RoundReply]:
    counts = images or (10,) * len(shared)
    return {
        f"site-{k}": reply(f"site-{k}", shared=own, images=count)
        for k, (own, count) in enumerate(zip(shared, counts, strict=True))
    }


def evaluated(site: str, **metrics: float) -> SiteReply:
    return SiteReply("run", 1, site, "f", {k.replace("_", "/"): v for k, v in metrics.items()})


def test_sites_weigh_alike_or_by_their_images() -> None:
    one, other = np.array([1, 2, -3], np.float32), np.array([5, -2, 1], np.float32)
    found = replies_of(one, other, images=(30, 10))
    assert average(found, "uniform").tolist() == [3, 0, -1]
    # (30·1 + 10·5)/40, (30·2 − 10·2)/40, (−30·3 + 10·1)/40
    assert average(found, "images").tolist() == [2, 1, -2]
    assert average(found, "images").dtype == np.float32


def test_the_average_is_that_of_numpy() -> None:
    generator = np.random.default_rng(0)
    shared = [generator.standard_normal(1000).astype(np.float32) for _ in range(7)]
    images = tuple(int(n) for n in generator.integers(1, 500, 7))
    found = replies_of(*shared, images=images)
    expected = np.average(np.array(shared, np.float64), axis=0, weights=images)
    assert np.allclose(average(found, "images"), expected, rtol=1e-7, atol=1e-9)


def test_a_sum_loses_nothing_to_float32() -> None:
    """In float32, 10⁸ + 1 is 10⁸: its spacing there is 8."""
    shared = [np.array([1e8], np.float32), np.array([1], np.float32), np.array([-1e8], np.float32)]
    assert average(replies_of(*shared), "uniform") == np.float32(1 / 3)


@pytest.mark.parametrize("how", ["uniform", "images"])
def test_one_site_s_average_is_that_site_s_to_the_bit(how: str) -> None:
    generator = np.random.default_rng(1)
    own = generator.standard_normal(1000).astype(np.float32) * np.float32(1e-30)
    own[:4] = [0.0, -0.0, 1e-45, -1e-45]
    found = replies_of(own, images=(37,))
    assert average(found, "uniform" if how == "uniform" else "images").tobytes() == own.tobytes()


def test_float64_stays_float64() -> None:
    own = np.array([1 / 3, 2 / 3])
    assert average(replies_of(own, own, own), "uniform").dtype == np.float64


def test_the_order_of_the_sites_moves_no_average_further_than_rounding() -> None:
    generator = np.random.default_rng(2)
    shared = [generator.standard_normal(50).astype(np.float32) for _ in range(4)]
    expected = average(replies_of(*shared), "uniform")
    for order in permutations(shared):
        assert np.allclose(average(replies_of(*order), "uniform"), expected, rtol=1.2e-7, atol=0)


def test_validation_is_the_mean_over_the_sites_where_it_is_defined() -> None:
    def auc(*values: float) -> float:
        return validation_auc(
            {str(k): evaluated(str(k), validation_auc=v) for k, v in enumerate(values)}
        )

    assert auc(0.5, 1.0) == 0.75
    assert auc(0.5, math.nan) == 0.5
    assert math.isnan(auc(math.nan, math.nan))
    assert math.isnan(validation_auc({"a": evaluated("a", test_auc=1.0)}))


@pytest.mark.parametrize(
    ("round", "best_round", "best_auc", "auc", "expected"),
    [
        (0, 0, 0.0, 0.9, (0, 0.0)),  # initial weights are nobody's choice
        (1, 0, 0.0, 0.2, (1, 0.2)),
        (1, 0, 0.0, 0.0, (1, 0.0)),  # even an AUC of 0 is the best of one
        (2, 1, 0.6, 0.7, (2, 0.7)),
        (2, 1, 0.6, 0.6, (1, 0.6)),  # of equals the earlier one
        (2, 1, 0.6, 0.5, (1, 0.6)),
        (2, 1, 0.6, math.nan, (1, 0.6)),
        (2, 0, 0.0, math.nan, (0, 0.0)),
    ],
)
def test_validation_chooses_the_first_of_the_best_rounds(
    round: int, best_round: int, best_auc: float, auc: float, expected: tuple[int, float]
) -> None:
    state = RunState(round, np.zeros(1), best_round=best_round, best_auc=best_auc)
    found = choose(state, {"a": evaluated("a", validation_auc=auc, test_auc=1.0)})
    assert (found.best_round, found.best_auc) == expected


def test_a_round_moves_on_what_it_replied_to_and_leaves_the_rest() -> None:
    before = RunState(
        round=2,
        shared=np.zeros(8, np.float32),
        prototypes={"north": prototypes("north"), "south": prototypes("south")},
        completed={"north": 2, "south": 1},
        figures={"north": {"train/loss": 9.0}},
        images_seen={"north": 24, "south": 12},
        best_round=1,
        best_auc=0.7,
        bytes_down=100,
        bytes_up=50,
        seconds=10.0,
    )
    newer = prototypes("north", counts=np.array([5, 5]))
    answer = reply("north", round=3, prototypes=newer)
    after = advance(before, {"north": answer}, "uniform", {"north": (7, 5), "south": (7, 0)}, 2.5)
    assert (after.round, after.best_round, after.best_auc) == (3, 1, 0.7)
    assert after.shared.tolist() == list(range(8))
    assert after.prototypes == {"north": newer, "south": before.prototypes["south"]}
    assert after.completed == {"north": 3, "south": 1}
    assert after.images_seen == {"north": 36, "south": 12}
    assert (after.bytes_down, after.bytes_up, after.seconds) == (114, 55, 12.5)
    assert after.figures == {
        "north": {"bytes/down": 7, "bytes/up": 5, "train/loss": 0.5, "train/images": 12.0},
        "south": {"bytes/down": 7, "bytes/up": 0},
    }
    assert before.round == 2
    assert before.completed == {"north": 2, "south": 1}
