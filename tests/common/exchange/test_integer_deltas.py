"""A round's change in 8 or 4 bits: what travels, and that all of a change arrives in time."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from common.errors import ReplyError
from common.exchange.codecs.blocks import BLOCK, Quantiser
from common.exchange.codecs.integer_deltas import Int4Deltas, Int8Deltas, IntegerDeltas
from common.methods.method import Arrays

CODECS: list[IntegerDeltas] = [Int8Deltas(), Int4Deltas()]
SIZE = 5 * BLOCK + 3


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_what_travels_and_what_stays_by_hand(kind: Any) -> None:
    """Of a change of 7, 2.25 and -1.5 arrive 7, 2 and -2: 0.25 and 0.5 wait."""
    reference = np.array([1.0, 10.0, -4.0], kind)
    values = np.array([8.0, 12.25, -5.5], kind)
    first = Int4Deltas().encode(values, reference, {})
    # Codes 7, 2 and -2 and 0 after them, each and 8.
    assert first.parts["codes"].tolist() == [0xAF, 0x86]
    assert first.parts["scales"].tolist() == [1.0]
    assert first.memory["kept"].tolist() == [0.0, 0.25, 0.5]
    arrived = Int4Deltas().decode(first.parts, reference)
    assert (arrived.dtype, arrived.tolist()) == (kind, [8.0, 12.0, -6.0])
    # The next change is from what the server made of several sites' weights, and it is the same
    # 7, 2.25 and -1.5; with what waited, 2.5 goes to the even 2, and -1 remains.
    average = np.array([0.0, 1.0, 2.0], kind)
    second = Int4Deltas().encode(average + (values - reference), average, first.memory)
    assert Int4Deltas().decode(second.parts, average).tolist() == [7.0, 3.0, 1.0]
    assert second.memory["kept"].tolist() == [0.0, 0.5, 0.0]
    assert (reference.tolist(), values.tolist()) == ([1.0, 10.0, -4.0], [8.0, 12.25, -5.5])


@pytest.mark.parametrize("codec", CODECS)
def test_the_bytes_that_travel(codec: IntegerDeltas) -> None:
    parts = codec.encode(np.ones(SIZE, np.float32), np.zeros(SIZE, np.float32), {}).parts
    assert {name: (str(a.dtype), a.size) for name, a in parts.items()} == {
        "codes": ("uint8", -(-SIZE * codec.bits // 8)),
        "scales": ("float32", 6),
    }


def missing(codec: IntegerDeltas, rounds: int, feedback: bool) -> NDArray[np.float64]:
    """Return how much of the sum of all changes has not arrived, in the last round's steps.

    The reference goes where it likes, as the average of several sites' weights does.
    """
    generator = np.random.default_rng(0)
    drift = generator.standard_normal(SIZE) * 10.0 ** generator.uniform(-3, 0, SIZE)
    memory: Arrays = {}
    lacking, step = np.zeros(SIZE), np.ones(SIZE)
    for _ in range(rounds):
        reference = generator.standard_normal(SIZE)
        change = drift + 1e-4 * generator.standard_normal(SIZE)
        coded = codec.encode(reference + change, reference, memory)
        memory = coded.memory if feedback else {}
        lacking += change - (codec.decode(coded.parts, reference) - reference)
        step = np.repeat(coded.parts["scales"], BLOCK)[:SIZE].astype(np.float64)
    if feedback:
        assert lacking == pytest.approx(memory["kept"], abs=1e-12 * rounds)
    return np.abs(lacking) / step


@pytest.mark.parametrize("codec", CODECS)
def test_all_of_a_change_arrives_in_time_and_without_memory_it_does_not(
    codec: IntegerDeltas,
) -> None:
    for rounds in (5, 50):
        assert missing(codec, rounds, feedback=True).max() <= 0.5001
    few, many = (missing(codec, rounds, feedback=False).max() for rounds in (5, 50))
    assert few > 2 and many > 4 * few


@pytest.mark.parametrize("codec", CODECS)
def test_a_change_that_is_not_finite_or_too_large_arrives_as_such(codec: IntegerDeltas) -> None:
    start = np.zeros(SIZE)
    for strange in (np.nan, np.inf, 1e300):
        values = start.copy()
        values[7] = strange
        arrived = codec.decode(codec.encode(values, start, {}).parts, start)
        assert not np.isfinite(arrived[7]) and np.isfinite(arrived[BLOCK:]).all()


def test_what_is_no_change_in_so_many_bits_is_refused() -> None:
    start = np.zeros(SIZE, np.float32)
    parts = Int8Deltas().encode(start + 1, start, {}).parts
    wider = {"codes": parts["codes"], "scales": parts["scales"], "rest": start}
    for codec, arrays in (
        (Int4Deltas(), parts),
        (Int8Deltas(), {"flat": start}),
        (Int8Deltas(), {"codes": parts["codes"]}),
        (Int8Deltas(), wider),
        (Int8Deltas(), {**parts, "scales": -parts["scales"]}),
    ):
        with pytest.raises(ReplyError, match=r"expected|a scale is -"):
            codec.decode(arrays, start)
    one_less, scales = Quantiser(8).encode(start[:-1])
    with pytest.raises(ReplyError, match=rf"expected uint8 \({SIZE},\)"):
        Int8Deltas().decode({"codes": one_less, "scales": scales}, start)
