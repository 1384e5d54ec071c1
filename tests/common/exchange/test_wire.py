"""Messages go through their bytes here, as they do between processes."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import flwr.app
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from common.data.folds import Leakage
from common.data.pictures import ImageStatistics
from common.errors import ReplyError
from common.exchange.messages import JoinRequest, RoundOrder, RoundReply, SiteInfo, SiteReply
from common.exchange.wire import count_bytes, decode, encode, encode_arrays
from common.learning.prototypes import Prototypes
from common.models.sharing import Layout

F = "f" * 64
LAYOUT = Layout(("dense.weight", "dense.bias"), ((2, 2), (0,)), "float64", 4)
SHARED = np.array([0.0, -0.0, 5e-324, np.pi])
NORTH = Prototypes(
    "north", np.array([1]), np.array([[[0.36, 0.48], [0.8, 0]]], np.float32), np.array([7])
)
NONE = Prototypes(
    "east", np.empty(0, np.int64), np.empty((0, 2, 2), np.float32), np.empty(0, np.int64)
)
INFO = SiteInfo("north", F, "c" * 64, "1" * 64, (3, 0), 2, Leakage("north", "image", 9, 1, 2, 3))
STATISTICS = ImageStatistics(3, 101.3, 40.0, (999, *[0] * 30, 1), (1, 2, 3, 4, 5, 6, 7, 8, 255))
ORDER = RoundOrder(
    run="a-run",
    purpose="train",
    round=3,
    previous=2,
    best=1,
    first_step=4,
    last_step=6,
    total_steps=9,
    evaluate=True,
    class_counts={"north": (3, 7), "east": (2, 2)},
    coded=False,
    arrays={"flat": SHARED},
    prototypes=(NORTH, NONE),
)
EVALUATION = SiteReply("a-run", 3, "north", F, {"test/auc": 2 / 3, "test/f1": math.nan})
REPLY = RoundReply("a-run", 3, "north", F, {"train/loss": 0.1}, 10, LAYOUT, SHARED, NORTH)


def carried(content: RecordDict) -> RecordDict:
    """Return records made anew of their bytes."""
    objects = {key: one.deflate() for key, one in get_all_nested_objects(content).items()}
    arrived = inflate_object_from_contents(content.object_id, objects)
    assert isinstance(arrived, RecordDict)
    return arrived


def same(one: Any, other: Any) -> bool:
    """Compare messages, arrays by their bytes."""

    def told(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return (value.tobytes(), value.dtype, value.shape)
        if isinstance(value, Prototypes):
            return [told(part) for part in vars(value).values()]
        if isinstance(value, tuple):
            return [told(part) for part in value]
        return repr(value)

    return type(one) is type(other) and all(
        told(found) == told(expected)
        for found, expected in zip(vars(one).values(), vars(other).values(), strict=True)
    )


MESSAGES: dict[str, Any] = {
    "join request": JoinRequest("a-run"),
    "card": INFO,
    "card with statistics": replace(INFO, statistics=STATISTICS),
    "order": ORDER,
    "order with moments": replace(ORDER, moments={"exp_avg": SHARED, "step": np.ones(2, "f")}),
    "first order": replace(ORDER, prototypes=(), class_counts={}),
    "evaluation": EVALUATION,
    "reply": REPLY,
    "reply with moments": replace(REPLY, moments={"values": np.arange(3, dtype=np.int8)}),
}


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_message_comes_back_from_its_bytes(kind: str) -> None:
    message = MESSAGES[kind]
    assert same(decode(type(message), carried(encode(message, flwr.app))), message)


@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.parametrize("change", ["empty", "additional", "replaced"])
def test_a_record_more_or_less_or_of_another_kind_is_refused(kind: str, change: str) -> None:
    message = MESSAGES[kind]
    first = next(iter(encode(message, flwr.app)))
    others: dict[str, Callable[[RecordDict], object]] = {
        "empty": lambda content: content.clear(),
        "additional": lambda content: content.update({"images": MetricRecord({"n": 1})}),
        "replaced": lambda content: content.update({first: ArrayRecord({"n": Array(SHARED)})}),
    }
    content = encode(message, flwr.app)
    others[change](content)
    with pytest.raises(ReplyError, match=r"^The message .* the same code\?$"):
        decode(type(message), carried(content))


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_key_more_in_any_record_is_refused_by_name(kind: str) -> None:
    message = MESSAGES[kind]
    for name in encode(message, flwr.app):
        content = encode(message, flwr.app)
        if isinstance(content[name], MetricRecord) or name in ("method", "moments"):
            continue  # figures hold numbers alone; the others are held against their forms
        more = Array(SHARED) if isinstance(content[name], ArrayRecord) else "jane-roe"
        content[name]["patient"] = more
        with pytest.raises(ReplyError, match=r"The message holds .*patient.*; expected "):
            decode(type(message), carried(content))


@pytest.mark.parametrize(
    ("kind", "record", "key", "value"),
    [
        ("join request", "roll-call", "run", 7),
        ("card with statistics", "statistics", "images", 3.0),
        ("card with statistics", "statistics", "mean", [101.3]),
        ("card with statistics", "statistics", "mean", math.nan),
        ("card with statistics", "statistics", "deviation", -0.1),
        ("card with statistics", "statistics", "histogram", 1000),
        ("card with statistics", "statistics", "fields", [0.5] * 9),
        ("order", "order", "run", ["a-run"]),
        ("order", "order", "round", 3.0),
        ("order", "order", "round", True),
        ("order", "order", "round", 2**63),
        ("order", "order", "first_step", "4"),
        ("order", "order", "purpose", "delete"),
        ("order", "order", "class_counts", 7),
        ("order", "order", "class_counts", {"north": ["many"], "east": [1]}),
        ("evaluation", "reply", "site", 1),
        ("evaluation", "reply", "site", "jane roe"),
        ("evaluation", "reply", "fingerprint", "jane roe"),
        ("evaluation", "reply", "round", "3"),
        ("evaluation", "metrics", "test/auc", [0.5, 0.6]),
        ("reply", "reply", "images", 10.0),
        ("reply", "reply", "layout", "{}"),
        ("reply", "reply", "layout", {"dtype": "float32", "tensors": 7}),
        ("reply", "reply", "layout", {**vars(LAYOUT), "shapes": [[math.inf]]}),
        ("reply", "shared", "flat", Array("float32", (2,), "numpy.ndarray", b"no array")),
        ("reply", "shared", "flat", Array("float32", (2,), "another", b"")),
        ("reply", "prototypes", "north/counts", Array("int64", (1,), "numpy.ndarray", b"")),
    ],
)
def test_a_value_of_another_kind_is_refused(kind: str, record: str, key: str, value: Any) -> None:
    message = MESSAGES[kind]
    content = encode(message, flwr.app)
    if isinstance(content[record], ConfigRecord):
        content[record][record] = json.dumps(json.loads(content[record][record]) | {key: value})
    else:
        content[record][key] = value
    with pytest.raises(ReplyError):
        decode(type(message), carried(content))


@pytest.mark.parametrize("text", ["{", "[]", "{}", b"{}", 7])
@pytest.mark.parametrize("kind", MESSAGES)
def test_a_text_that_is_no_message_s_is_refused(kind: str, text: Any) -> None:
    message = MESSAGES[kind]
    content = encode(message, flwr.app)
    name = next(name for name, record in content.items() if isinstance(record, ConfigRecord))
    content[name][name] = text
    with pytest.raises(ReplyError, match="does not hold"):
        decode(type(message), carried(content))


def pickled() -> Array:
    array = np.array([{"run": "anything"}], dtype=object)
    buffer = BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return Array("object", (1,), "numpy.ndarray", buffer.getvalue())


def test_an_array_of_objects_is_never_unpickled() -> None:
    content = encode(REPLY, flwr.app)
    content["shared"]["flat"] = pickled()
    with pytest.raises(ReplyError, match="does not hold the array 'flat'"):
        decode(RoundReply, carried(content))


INFOS: dict[str, dict[str, Any]] = {
    "additional": {"patients": ["jane roe"]},
    "counts": {"class_counts": ["many"]},
    "infinite": {"class_counts": [math.inf]},
    "no counts": {"class_counts": 7},
    "nodes": {"nodes": None},
    "leakage": {"leakage": {"site": "north"}},
    "more leakage": {"leakage": {**vars(INFO.leakage), "names": ["jane roe"]}},
}


@pytest.mark.parametrize("fault", INFOS)
def test_a_card_that_holds_anything_else_is_refused(fault: str) -> None:
    content = encode(INFO, flwr.app)
    said = json.loads(str(content["card"]["card"])) | INFOS[fault]
    content["card"] = ConfigRecord({"card": json.dumps(said)})
    with pytest.raises(ReplyError, match=r"The message does not hold a card"):
        decode(SiteInfo, carried(content))


def test_prototypes_under_another_site_s_name_are_refused() -> None:
    content = encode(replace(REPLY, site="south"), flwr.app)
    with pytest.raises(ReplyError, match=r"holds north/classes.*; expected south/classes"):
        decode(RoundReply, carried(content))


def test_a_reply_to_training_is_none_to_an_evaluation_nor_the_reverse() -> None:
    with pytest.raises(
        ReplyError, match=r"holds method, metrics, moments, prototypes, reply, shared; exp"
    ):
        decode(SiteReply, carried(encode(REPLY, flwr.app)))
    with pytest.raises(ReplyError, match=r"holds metrics, reply; expected method, metrics"):
        decode(RoundReply, carried(encode(EVALUATION, flwr.app)))


def test_shared_tensors_encoded_once_serve_every_order() -> None:
    shared = encode_arrays({"flat": SHARED}, flwr.app)
    own = encode(replace(ORDER, arrays={}), flwr.app, shared)
    assert own["shared"] is shared
    assert decode(RoundOrder, carried(own)).shared.tobytes() == SHARED.tobytes()


def test_bytes_grow_by_what_is_sent() -> None:
    small = count_bytes(encode(REPLY, flwr.app))
    larger = replace(REPLY, shared=np.zeros(1004))
    assert count_bytes(encode(larger, flwr.app)) - small == 8 * 1000
