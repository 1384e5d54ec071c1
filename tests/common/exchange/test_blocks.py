"""Integers and scales: codes by hand, how far a value can be off, and what is refused."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from common.errors import ReplyError
from common.exchange.codecs.blocks import BLOCK, CHUNK, TINY, Quantiser

KINDS = [Quantiser(8), Quantiser(4), Quantiser(8, signed=False), Quantiser(4, signed=False)]
TYPES = [np.float32, np.float64]


def there_and_back(quantiser: Quantiser, values: NDArray[Any]) -> NDArray[Any]:
    return quantiser.decode(*quantiser.encode(values), values.size, values.dtype)


def drawn(size: int, quantiser: Quantiser, kind: Any = np.float32) -> NDArray[Any]:
    generator = np.random.default_rng(size)
    values = generator.standard_normal(size) * 10.0 ** generator.uniform(-6, 0, size)
    return (values if quantiser.signed else np.abs(values)).astype(kind)


@pytest.mark.parametrize(
    ("quantiser", "values", "codes", "scale"),
    [
        # 12.7 / 127 = 0.1: codes 127, -127, 3, -1 and 0, each and 128.
        (Quantiser(8), [12.7, -12.7, 0.3, -0.1, 0.04], [255, 1, 131, 127, 128], 0.1),
        (Quantiser(8, signed=False), [25.5, 0.0, 0.3, 0.14], [255, 0, 3, 1], 0.1),
        # 14 / 7 = 2: codes 7, -7, 1, -1 and 0, each and 8: 15, 1, 9, 7, 8. The first of two is in
        # the lower half of a byte; after the last one is a code of 0.
        (Quantiser(4), [14.0, -14.0, 2.9, -2.0, 0.9], [0x1F, 0x79, 0x88], 2.0),
        # 30 / 15 = 2: codes 15, 0, 4 and 1.
        (Quantiser(4, signed=False), [30.0, 0.9, 8.0, 1.1], [0x0F, 0x14], 2.0),
        # Of 0.45, 0 and 0.55 steps only 0 is code 0.
        (Quantiser(4, signed=False, positive=True), [30.0, 0.9, 0.0, 1.1], [0x1F, 0x10], 2.0),
        # Half-way goes to the even one: 0.5 and 2.5 scales.
        (Quantiser(4), [7.0, 0.5, 2.5, -2.5], [0x8F, 0x6A], 1.0),
        (Quantiser(4), [0.0], [0x88], TINY),
    ],
)
@pytest.mark.parametrize("kind", TYPES)
def test_codes_by_hand(
    quantiser: Quantiser, values: list[float], codes: list[int], scale: float, kind: Any
) -> None:
    given = np.array(values, kind)
    found, scales = quantiser.encode(given)
    assert (found.dtype, found.tolist()) == (np.uint8, codes)
    assert scales.dtype == np.float32
    assert scales.tolist() == pytest.approx([scale], rel=1e-7)
    assert given.tolist() == np.array(values, kind).tolist()


@pytest.mark.parametrize("kind", TYPES)
def test_integers_come_back_as_they_were(kind: Any) -> None:
    whole = np.arange(-127, 128).astype(kind)
    assert there_and_back(Quantiser(8), whole[-BLOCK:]).tolist() == whole[-BLOCK:].tolist()
    few = np.array([7, -7, *range(-6, 7)], kind)
    back = there_and_back(Quantiser(4), few)
    assert (back.dtype, back.tolist()) == (kind, few.tolist())


@pytest.mark.parametrize("quantiser", KINDS)
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, CHUNK + 3 * BLOCK + 1])
def test_a_value_is_off_by_half_a_scale_of_its_own_block_at_the_most(
    quantiser: Quantiser, kind: Any, size: int
) -> None:
    values = drawn(size, quantiser, kind)
    codes, scales = quantiser.encode(values)
    assert codes.shape == (-(-size * quantiser.bits // 8),)
    error = np.abs(quantiser.decode(codes, scales, size, kind).astype(np.float64) - values)
    for start in range(0, size, BLOCK):
        here = slice(start, start + BLOCK)
        largest = np.abs(values[here]).max()
        assert scales[start // BLOCK] == pytest.approx(largest / quantiser.largest, rel=1e-6)
        assert error[here].max() <= largest / quantiser.largest / 2 * (1 + 1e-5)
    if size > BLOCK:
        assert error.max() > scales.max() / 4


@pytest.mark.parametrize("quantiser", KINDS)
def test_the_smallest_and_the_largest_numbers_are_not_clipped(quantiser: Quantiser) -> None:
    for largest in (np.finfo(np.float32).max / 2, 1e-36, 1e-40, 1e-45):
        values = np.array([largest, 0.0], np.float32)
        off = np.abs(there_and_back(quantiser, values).astype(np.float64) - values)
        assert off.max() <= max(largest * 2.0**-23, TINY / 2)


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("quantiser", KINDS)
def test_a_block_that_cannot_be_held_says_so_and_spoils_no_other(
    quantiser: Quantiser, strange: float
) -> None:
    values = drawn(3 * BLOCK, quantiser, np.float64)
    alone = there_and_back(quantiser, values)
    values[BLOCK + 1] = strange
    back = there_and_back(quantiser, values)
    assert not np.isfinite(back[BLOCK : 2 * BLOCK]).any()
    assert back[:BLOCK].tolist() == alone[:BLOCK].tolist()
    assert back[2 * BLOCK :].tolist() == alone[2 * BLOCK :].tolist()


def replaced(array: NDArray[Any], place: int, value: float) -> NDArray[Any]:
    array = array.copy()
    array[place] = value
    return array


SIZE = BLOCK + 1


@pytest.mark.parametrize(
    ("bits", "change", "said"),
    [
        (8, lambda c, s: (c[:-1], s), rf"uint8 \({SIZE - 1},\) .*; expected uint8 \({SIZE},\)"),
        (8, lambda c, s: (c.reshape(-1, 1), s), "expected uint8"),
        (8, lambda c, s: (c.astype(np.int8), s), "codes and scales are int8"),
        (8, lambda c, s: (c, s[:1]), r"float32 \(1,\); .* float32 \(2,\)"),
        (8, lambda c, s: (c, s.astype(np.float64)), "float64"),
        (8, lambda c, s: (replaced(c, 0, 0), s), "no integer of 8 bits"),
        (4, lambda c, s: (replaced(c, 0, 0x80), s), "no integer of 4 bits"),
        (4, lambda c, s: (replaced(c, 0, 0x08), s), "no integer of 4 bits"),
        (4, lambda c, s: (replaced(c, -1, 0x78), s), "or there are too many"),
        (4, lambda c, s: (np.append(c, np.uint8(0x88)), s), "expected uint8"),
        (8, lambda c, s: (c, replaced(s, 1, -s[1])), "a scale is -"),
        (4, lambda c, s: (c, replaced(s, 1, 0)), "a scale is 0; the least one is 1.17549e-38"),
        (4, lambda c, s: (c, replaced(s, 1, -np.inf)), "a scale is -inf"),
    ],
)
def test_what_nobody_can_have_encoded_is_refused(bits: Any, change: Any, said: str) -> None:
    quantiser = Quantiser(bits)
    codes, scales = change(*quantiser.encode(drawn(SIZE, quantiser)))
    with pytest.raises(ReplyError, match=said):
        quantiser.decode(codes, scales, SIZE, np.float32)


def test_what_cannot_be_written_to_is_read() -> None:
    values = drawn(SIZE, Quantiser(4))
    codes, scales = Quantiser(4).encode(values)
    codes.flags.writeable = scales.flags.writeable = False
    back = Quantiser(4).decode(codes, scales, SIZE, values.dtype)
    assert back.tolist() == there_and_back(Quantiser(4), values).tolist()
