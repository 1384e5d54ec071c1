"""Moments in a few bits: how far they are off, and that no step becomes longer than Adam's."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from common.errors import ReplyError
from common.exchange.codecs.blocks import BLOCK
from common.exchange.codecs.moments import (
    decode_moments,
    decode_round,
    encode_moments,
    encode_round,
)
from common.learning.moments import FURTHEST, moments_fault
from common.models.sharing import Layout

SIZE = 3 * BLOCK + 7
LAYOUT = Layout(("weight", "bias"), ((SIZE - 7,), (7,)), "float32", SIZE)
CODED = ("int8", "int4")
LARGEST = {"int8": (127, 255), "int4": (7, 15)}
Moments = dict[str, NDArray[Any]]


def adam(gradients: NDArray[np.float64], before: Moments | None = None) -> Moments:
    """Return Adam's moments after gradients, shape (steps, SIZE)."""
    m, v, steps = (0.0, 0.0, 0) if before is None else (*list(before.values())[:2], before["step"])
    for own in gradients:
        m, v = 0.9 * m + 0.1 * own, 0.999 * v + 0.001 * own**2
    return {
        "exp_avg": np.asarray(m, np.float32),
        "exp_avg_sq": np.asarray(v, np.float32),
        "step": np.full(2, steps + len(gradients), np.float32),
    }


def gradients(steps: int, seed: int = 0) -> NDArray[np.float64]:
    """Return gradients of scales between 10⁻⁶ and 1, the same for each value at every step."""
    generator = np.random.default_rng(seed)
    scales = 10.0 ** np.random.default_rng(99).uniform(-6, 0, SIZE)
    return generator.standard_normal((steps, SIZE)) * scales


def there_and_back(moments: Moments, codec: str) -> Moments:
    return decode_moments(encode_moments(moments, codec), codec, LAYOUT)


def test_without_a_codec_they_travel_to_the_bit() -> None:
    before, after = adam(gradients(3)), adam(gradients(4, 1), adam(gradients(3)))
    for found in (
        there_and_back(after, "none"),
        decode_round(encode_round(after, before, 4, "none"), before, 4, "none", LAYOUT),
    ):
        assert {k: a.tobytes() for k, a in found.items()} == {
            k: a.tobytes() for k, a in after.items()
        }


@pytest.mark.parametrize("codec", CODED)
def test_each_is_off_by_half_a_step_of_its_block_and_no_root_falls_by_more_than_a_third(
    codec: str,
) -> None:
    moments = adam(gradients(5))
    back = there_and_back(moments, codec)
    signed, unsigned = LARGEST[codec]
    for start in range(0, SIZE, BLOCK):
        here = slice(start, start + BLOCK)
        first, root = moments["exp_avg"][here], np.sqrt(moments["exp_avg_sq"][here])
        off = np.abs(back["exp_avg"][here] - first)
        assert off.max() <= np.abs(first).max() / signed / 2 * (1 + 1e-5)
        step = root.max() / unsigned * (1 + 1e-5)
        found = np.sqrt(back["exp_avg_sq"][here])
        assert (np.abs(found - root) <= np.where(root < step / 2, step, step / 2)).all()
        assert (found >= root * 2 / 3 * (1 - 1e-5)).all()
    assert np.array_equal(back["step"], moments["step"])


@pytest.mark.parametrize("codec", CODED)
def test_no_second_moment_is_lost_and_no_step_is_longer_than_adam_can_take(codec: str) -> None:
    """A value's gradients are a millionth of its neighbour's: rounded to the nearest, v is 0."""
    moments = adam(gradients(5))
    root = np.sqrt(moments["exp_avg_sq"])
    nearest = np.round(root[:BLOCK] / (root[:BLOCK].max() / LARGEST[codec][1]))
    assert (nearest == 0).sum() > BLOCK / 4
    back = there_and_back(moments, codec)
    assert (back["exp_avg_sq"] > 0).all()
    assert moments_fault(back) is None
    # And where m is rounded up to a step of its scale, and v is next to nothing:
    spike = {key: array.copy() for key, array in moments.items()}
    spike["exp_avg"][0], spike["exp_avg_sq"][0] = 1e-3, 2e-8
    assert moments_fault(spike) is None
    assert moments_fault(there_and_back(spike, codec)) is None


@pytest.mark.parametrize("codec", CODED)
def test_zeros_stay_zeros(codec: str) -> None:
    moments = {key: np.zeros_like(array) for key, array in adam(gradients(1)).items()}
    back = there_and_back(moments, codec)
    assert all(np.array_equal(back[key], moments[key]) for key in moments)


@pytest.mark.parametrize("codec", CODED)
def test_rounding_is_not_gone_on_from(codec: str) -> None:
    """A hundred rounds of four steps, whose gradients shrink tenfold after the tenth.

    The server's v falls as Adam's own: what was rounded in a round is no part of the next. v that
    is rounded as a whole at every exchange never falls, since it would by less than half a step.
    """
    server: Moments = {}
    exact: Moments | None = None
    stuck = adam(gradients(4))
    for round in range(100):
        own = gradients(4, round) * (1.0 if round < 10 else 0.1)
        received = there_and_back(server, codec) if server else {}
        site = adam(own, received or None)
        sent = encode_round(site, received, 4, codec)
        server = decode_round(sent, server, 4, codec, LAYOUT, 4 * (round + 1))
        exact = adam(own, exact)
        stuck = there_and_back(adam(own, stuck), codec)
    assert exact is not None
    large = exact["exp_avg_sq"] > exact["exp_avg_sq"].max() / 100
    ratio = np.sqrt(server["exp_avg_sq"] / exact["exp_avg_sq"])[large]
    wrong = np.sqrt(stuck["exp_avg_sq"] / exact["exp_avg_sq"])[large]
    off = {"int8": 0.02, "int4": 0.2}[codec]
    assert np.abs(ratio - 1).max() < off
    assert np.abs(wrong - 1).max() > 2 * off
    assert moments_fault(server) is None


@pytest.mark.parametrize("codec", CODED)
def test_what_nobody_can_have_encoded_is_refused(codec: str) -> None:
    good = encode_moments(adam(gradients(5)), codec)
    scales = good["exp_avg_sq/scales"]
    for values, said in (
        ({"exp_avg_sq/scales": -scales}, "a scale is -"),
        ({"exp_avg_sq/scales": scales * np.inf}, "not finite: exp_avg_sq"),
        ({"exp_avg_sq/scales": np.full_like(scales, 1e30)}, "not finite: exp_avg_sq"),
        ({"exp_avg/scales": scales * np.nan}, "not finite: exp_avg"),
        ({"exp_avg/codes": good["exp_avg/codes"][:-1]}, "its codes and scales are"),
        ({"exp_avg/codes": good["exp_avg/codes"].astype(np.int8)}, "its codes and scales are int8"),
        ({"step": good["step"] + 3}, "moments after 8 to 8 steps, of 5"),
        ({"exp_avg": scales}, "The message holds exp_avg, "),
    ):
        with pytest.raises(ReplyError, match=said):
            decode_moments(good | values, codec, LAYOUT, 5)
    plain = adam(gradients(5))
    with pytest.raises(ReplyError, match="The message holds exp_avg, exp_avg_sq, step"):
        decode_moments(plain, codec, LAYOUT)
    with pytest.raises(ReplyError, match="its parts do not fit"):
        decode_moments(good, "none", LAYOUT)


def test_large_first_moments_of_a_liar_are_cut_to_what_adam_can_have() -> None:
    lie = adam(gradients(5))
    lie["exp_avg"] = lie["exp_avg"] * np.float32(1e6)
    back = there_and_back(lie, "int8")
    furthest = np.abs(back["exp_avg"]) / np.sqrt(back["exp_avg_sq"])
    assert furthest.max() == pytest.approx(FURTHEST, rel=1e-6)
