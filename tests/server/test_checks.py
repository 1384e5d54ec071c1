"""What a fault is called; tests/federation shows what becomes of the site that made it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from common.errors import ReplyError
from common.exchange.messages import RoundReply
from common.models.sharing import Layout
from server.checks import (
    check_header,
    check_layout,
    check_moments,
    check_weights,
    far_from_the_others,
    norm_of,
)
from tests.server.answers import LAYOUT, context, prototypes, reply

CONTEXT = context("north", "south", projection_size=2, prototype_rank=0, min_prototype_count=4)


def before(norm: float = 10.0) -> NDArray[np.float32]:
    """Return what a round began with."""
    return np.array([norm, *[0] * 7], np.float32)


def said(answer: RoundReply, norm: float = 10.0) -> str:
    with pytest.raises(ReplyError) as caught:
        check_weights(answer, before(norm), CONTEXT)
    return str(caught.value)


def test_a_good_reply_passes() -> None:
    check_header(reply("north"), "north", 1, CONTEXT)
    check_weights(reply("north"), before(), CONTEXT)


def test_a_site_need_not_send_prototypes() -> None:
    none = prototypes(
        "north",
        classes=np.empty(0, np.int64),
        vectors=np.empty((0, 2, 2), np.float32),
        counts=np.empty(0, np.int64),
    )
    check_weights(reply("north", prototypes=none), before(), CONTEXT)


@pytest.mark.parametrize(
    ("changes", "shapes"),
    [
        ({"vectors": np.ones((2, 2, 3), np.float32)}, "(2,), (2, 2, 3) and (2,)"),
        ({"vectors": np.ones((2, 3, 2), np.float32)}, "(2,), (2, 3, 2) and (2,)"),
        ({"vectors": np.ones((1, 2, 2), np.float32)}, "(2,), (1, 2, 2) and (2,)"),
        ({"vectors": np.ones((2, 2), np.float32)}, "(2,), (2, 2) and (2,)"),
        ({"vectors": np.ones(4, np.float32)}, "(2,), (4,) and (2,)"),
        ({"classes": np.array([[0, 1]])}, "(1, 2), (2, 2, 2) and (2,)"),
        ({"classes": np.array(0)}, "(), (2, 2, 2) and (2,)"),
        ({"counts": np.array([6])}, "(2,), (2, 2, 2) and (1,)"),
        ({"counts": np.array(6)}, "(2,), (2, 2, 2) and ()"),
    ],
)
def test_prototypes_of_other_shapes_are_refused(changes: dict[str, Any], shapes: str) -> None:
    found = said(reply("north", prototypes=prototypes("north", **changes)))
    assert found == f"its prototypes have shapes {shapes}; expected (n,), (n, 2, 2) and (n,)"


@pytest.mark.parametrize(
    "changes",
    [
        {"vectors": np.eye(2, 4).reshape(2, 2, 2)},
        {"classes": np.array([0, 1], np.int32)},
        {"classes": np.array([0.0, 1.0])},
        {"counts": np.array([6.0, 4.0])},
    ],
)
def test_prototypes_of_other_types_are_refused(changes: dict[str, Any]) -> None:
    assert "its prototypes have types" in said(
        reply("north", prototypes=prototypes("north", **changes))
    )


@pytest.mark.parametrize("classes", [[1, 1], [0, 2], [-1, 0]])
def test_a_class_that_is_none_or_comes_twice_is_refused(classes: list[int]) -> None:
    found = said(reply("north", prototypes=prototypes("north", classes=np.array(classes))))
    assert found == f"its prototypes are of the classes {classes}"


@pytest.mark.parametrize("second", [[0, 0], [0.6, 0.79], [6, 8], [np.nan, 1], [np.inf, 0]])
def test_a_prototype_that_is_no_direction_is_refused(second: list[float]) -> None:
    vectors = np.array([[[1, 0], [0, 0]], [second, [0, 0]]], np.float32)
    found = said(reply("north", prototypes=prototypes("north", vectors=vectors)))
    assert found == "its prototypes are not of length 1"


def test_a_prototype_of_negative_spread_is_refused() -> None:
    vectors = np.array([[[1, 0], [0, 0]], [[0.6, 0], [0, -0.8]]], np.float32)
    found = said(reply("north", prototypes=prototypes("north", vectors=vectors)))
    assert found == "a deviation of its prototypes is negative"


def test_a_prototype_with_too_few_images_behind_it_is_refused() -> None:
    few = prototypes("north", counts=np.array([6, 3]))
    assert said(reply("north", prototypes=few)) == (
        "3 images stand behind one of its prototypes, fewer than min-prototype-count = 4"
    )


@pytest.mark.parametrize("counts", [[7, 4], [6, 5]])
def test_a_prototype_with_more_images_behind_it_than_the_site_has_is_refused(
    counts: list[int],
) -> None:
    many = prototypes("north", counts=np.array(counts))
    assert said(reply("north", prototypes=many)) == (
        f"its prototypes of the classes [0, 1] stand for {counts} images, more than it has: [6, 4]"
    )


def test_prototypes_in_another_order_of_classes_are_good() -> None:
    turned = prototypes("north", classes=np.array([1, 0]), counts=np.array([4, 6]))
    check_weights(reply("north", prototypes=turned), before(), CONTEXT)


def test_the_same_tensors_in_another_order_are_refused() -> None:
    """Names and shapes are all there; the flat array means something else."""
    turned = Layout(LAYOUT.names[::-1], LAYOUT.shapes[::-1], "float32", 8)
    assert said(reply("north", layout=turned)) == (
        "its shared tensors do not fit (in another order, or one twice)"
    )


def test_a_tensor_that_comes_twice_is_refused() -> None:
    twice = Layout((*LAYOUT.names, "dense.bias"), (*LAYOUT.shapes, (2,)), "float32", 10)
    assert "one twice" in said(reply("north", layout=twice))


def test_another_type_is_named() -> None:
    other = replace(LAYOUT, dtype="float64")
    found = said(reply("north", layout=other, shared=np.arange(8.0)))
    assert found == "its shared tensors do not fit (they are float64, expected float32)"


def test_of_many_tensors_that_do_not_fit_five_are_named() -> None:
    many = Layout(tuple("abcdefg"), ((1,),) * 7, "float32", 7)
    with pytest.raises(ReplyError) as caught:
        check_layout(LAYOUT, many)
    assert "missing: a, b, c, d, e and 2 more; additional: dense.weight, dense.bias" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("place", "name"), [(0, "dense.weight"), (5, "dense.weight"), (6, "dense.bias")]
)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_tensor_that_is_not_finite_is_named(place: int, name: str, value: float) -> None:
    shared = np.arange(8, dtype=np.float32)
    shared[[place, 7]] = value
    assert said(reply("north", shared=shared)) == (
        f"2 shared values are not finite, the first in '{name}'"
    )


def test_an_array_of_another_shape_is_refused_even_if_it_holds_as_many_values() -> None:
    found = said(reply("north", shared=np.ones((2, 4), np.float32)))
    assert found.endswith("in shape (2, 4); expected (8,) of float32")


@pytest.mark.parametrize(("sent", "limit"), [(10.0, 1000.0), (0.01, 100.0)])
def test_weights_may_grow_a_hundredfold_and_no_further(sent: float, limit: float) -> None:
    """Of 8 equal values v the norm is √8·|v|; below a norm of 1 growth is counted from 1."""
    good = np.full(8, 0.999 * limit / 8**0.5, np.float32)
    check_weights(reply("north", shared=good), before(sent), CONTEXT)
    found = said(reply("north", shared=-good * np.float32(1.01)), sent)
    assert found.endswith("training has diverged there")


def test_a_norm_beyond_float32_is_refused_and_not_overflown() -> None:
    huge = np.full(8, 3e38, np.float32)
    assert "diverged" in said(reply("north", shared=huge))
    assert norm_of(np.array([3.0, 4.0])) == 5


@pytest.mark.parametrize("images", [9, 11, 0, -10])
def test_another_number_of_images_is_refused(images: int) -> None:
    assert said(reply("north", images=images)) == (
        f"it now has {images} training images, 10 at the start of the run"
    )


def test_who_answers_is_asked_before_what_it_ran() -> None:
    other = replace(CONTEXT, fingerprint="0" * 64)
    with pytest.raises(ReplyError, match="site 'south' says that it is 'north'"):
        check_header(reply("north"), "south", 2, other)
    with pytest.raises(ReplyError, match=r"other code \(f{12}…, here 0{12}…\)"):
        check_header(reply("south"), "south", 2, other)


def moved(*norms: float) -> dict[str, RoundReply]:
    """Return replies of sites whose weights moved so far from zero."""
    unit = np.zeros(8, np.float32)
    unit[3] = 1
    return {str(k): reply(str(k), shared=unit * np.float32(far)) for k, far in enumerate(norms)}


def test_who_moves_more_than_three_times_the_median_is_far() -> None:
    sent = np.zeros(8, np.float32)
    assert far_from_the_others(moved(1.0, 2.0, 5.9), sent) == {}
    found = far_from_the_others(moved(1.0, 2.0, -6.1), sent)
    assert list(found) == ["2"] and "moved by 6.1" in found["2"] and "sites, 2" in found["2"]
    # Two cannot be told apart, and nothing is far from those who did not move.
    assert far_from_the_others(moved(1.0, 99.0), sent) == {}
    assert far_from_the_others(moved(0.0, 0.0, 1.0), sent) == {}
    # What counts is the way from what was sent.
    assert far_from_the_others(moved(1.0, 2.0, -6.1), sent + np.float32(1000)) == {}


def test_of_five_nobody_can_undo_what_the_others_learnt() -> None:
    # Four equal steps of 1 and one of −4 add up to nothing.
    steps = (1.0, 1.0, 1.0, 1.0, -4.0)
    assert sum(steps) == 0
    assert list(far_from_the_others(moved(*steps), np.zeros(8, np.float32))) == ["4"]


def moments(**values: Any) -> dict[str, NDArray[Any]]:
    own = {
        "exp_avg": np.full(8, 0.1, np.float32),
        "exp_avg_sq": np.full(8, 0.01, np.float32),
        "step": np.array([4, 0], np.float32),
    }
    return own | values


def test_moments_are_those_of_the_shared_tensors_after_the_steps_so_far() -> None:
    """Of the context's rounds the first has four steps."""
    averaging = context("north", "south", optimizer_state="average")
    found = check_moments(reply("north", moments=moments()), {}, averaging)
    assert {key: array.tolist() for key, array in found.items()} == {
        key: array.tolist() for key, array in moments().items()
    }
    for values, said in (
        ({"exp_avg": np.zeros(7, np.float32)}, r"misshapen: exp_avg float32 \(7,\), expected"),
        ({"exp_avg_sq": np.ones(8)}, r"misshapen: exp_avg_sq float64 \(8,\), expected"),
        ({"step": np.array([5, 0], np.float32)}, "moments after 0 to 5 steps, of 4"),
        ({"exp_avg": np.full(8, np.nan, np.float32)}, "not finite: exp_avg"),
        ({"exp_avg_sq": np.zeros(8, np.float32)}, "more than 7.27 roots of the second"),
        ({"exp_avg_sq": np.full(8, -0.01, np.float32)}, "second moments below 0"),
        ({"scan": np.zeros(8, np.float32)}, "additional: scan"),
    ):
        with pytest.raises(ReplyError, match=said):
            check_moments(reply("north", moments=moments(**values)), {}, averaging)
    with pytest.raises(ReplyError, match="missing: exp_avg, exp_avg_sq, step"):
        check_moments(reply("north"), {}, averaging)


@pytest.mark.parametrize("changes", [{"optimizer_state": "carry"}, {"optimizer": "sgd"}])
def test_where_none_are_averaged_none_may_come(changes: dict[str, str]) -> None:
    carrying = context("north", "south", **{"optimizer_state": "average"} | changes)
    assert check_moments(reply("north"), {}, carrying) == {}
    with pytest.raises(ReplyError, match="The message holds exp_avg, exp_avg_sq, step; expected"):
        check_moments(reply("north", moments=moments()), {}, carrying)
