"""The message schema: what is encoded is decoded again, and anything else is a ReplyError."""

import json
from dataclasses import replace
from typing import Any

import flwr.app
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from common.data.folds import Leakage
from common.data.pictures import ImageStatistics
from common.errors import ReplyError, is_plain
from common.exchange.messages import JoinRequest, RoundOrder, RoundReply, SiteInfo, SiteReply
from common.exchange.wire import decode, encode
from common.learning.prototypes import Prototypes
from common.models.sharing import Layout
from server.checks import check_weights
from server.participants import Participants
from tests.common.exchange.test_wire import MESSAGES, carried, same
from tests.corpus.fuzzing import JSON, spoilt, tried
from tests.server.answers import context, site_info

CONTEXT = context("north", projection_size=2, min_prototype_count=1)
SITES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,12}", fullmatch=True)
WORDS = st.text(st.characters(codec="utf-8"), max_size=12)
DIGESTS = st.sampled_from(("0" * 64, "af" * 32))
COUNTS = st.integers(0, 2**40)
FLOATS = st.sampled_from((np.float32, np.float64))


@st.composite
def prototypes(draw: st.DrawFn, site: str, classes: int = 4) -> Prototypes:
    chosen = draw(st.lists(st.integers(0, classes - 1), unique=True, max_size=classes))
    size = draw(st.integers(1, 5))
    # Of length 1, as prototypes are: along an axis, either way.
    axes = [draw(st.integers(0, size - 1)) for _ in chosen]
    signs = [draw(st.sampled_from((1, -1))) for _ in chosen]
    means = np.eye(size, dtype=np.float32)[axes].reshape(len(chosen), size)
    vectors = np.stack([means, np.zeros_like(means)], axis=1)
    return Prototypes(
        site,
        np.array(chosen, np.int64),
        vectors * np.array(signs, np.float32).reshape(-1, 1, 1),
        np.array([draw(st.integers(1, 2**40)) for _ in chosen], np.int64),
    )


TENTHS = st.integers(0, 2550).map(lambda tenths: tenths / 10)
STATISTICS = st.builds(
    ImageStatistics,
    st.integers(1, 2**40),
    TENTHS,
    TENTHS,
    st.permutations([400, 600, *[0] * 30]).map(tuple),
    st.tuples(*[st.integers(0, 255)] * 9),
)


@st.composite
def infos(draw: st.DrawFn) -> SiteInfo:
    site = draw(SITES)
    leakage = Leakage(site, draw(st.sampled_from(("patient", "image"))), *[draw(COUNTS)] * 4)
    counts = draw(st.lists(COUNTS, max_size=4).map(tuple))
    digests = draw(DIGESTS), draw(DIGESTS), draw(DIGESTS)
    statistics = draw(st.none() | STATISTICS)
    return SiteInfo(site, *digests, counts, draw(COUNTS), leakage, statistics)


@st.composite
def orders(draw: st.DrawFn) -> RoundOrder:
    names = draw(st.lists(SITES, unique=True, max_size=3))
    round = draw(st.integers(1, 2**40))
    first = draw(st.integers(0, 2**40))
    last = first + draw(st.integers(1, 2**20))
    purpose = draw(st.sampled_from(("train", "final", "best")))
    return RoundOrder(
        run=draw(WORDS),
        purpose=purpose,
        round=round,
        previous=draw(st.integers(0, 2**40 if purpose == "best" else round)),
        best=draw(st.integers(0, round)),
        first_step=first,
        last_step=last,
        total_steps=last + draw(st.integers(0, 2**20)),
        evaluate=draw(st.booleans()),
        class_counts=dict.fromkeys(names, (2**40,) * 4),
        coded=False,
        arrays={"flat": draw(stn.arrays(draw(FLOATS), st.integers(0, 9)))},
        prototypes=tuple(draw(prototypes(name)) for name in names),
    )


@st.composite
def replies(draw: st.DrawFn) -> RoundReply:
    site = draw(SITES)
    names = draw(st.lists(WORDS, max_size=3))
    shapes = tuple(draw(stn.array_shapes(min_dims=0, max_side=4)) for _ in names)
    size = sum(int(np.prod(shape)) for shape in shapes)
    return RoundReply(
        run=draw(WORDS),
        round=draw(COUNTS),
        site=site,
        fingerprint=draw(DIGESTS),
        metrics=draw(st.dictionaries(WORDS, st.floats(), max_size=3)),
        images=draw(COUNTS),
        layout=Layout(tuple(names), shapes, "float32", size),
        shared=draw(stn.arrays(draw(FLOATS), st.integers(0, 9))),
        prototypes=draw(prototypes(site)),
    )


evaluations = st.builds(
    SiteReply, WORDS, COUNTS, SITES, DIGESTS, st.dictionaries(WORDS, st.floats(), max_size=3)
)
SOUND: dict[str, st.SearchStrategy[Any]] = {
    "join request": st.builds(JoinRequest, WORDS),
    "card": infos(),
    "order": orders(),
    "evaluation": evaluations,
    "reply": replies(),
}


@pytest.mark.parametrize("kind", SOUND)
def test_fuzz_what_is_encoded_is_decoded(kind: str) -> None:
    messages = SOUND[kind]

    @tried(60)
    @given(messages)
    def holds(message: Any) -> None:
        assert same(decode(type(message), carried(encode(message, flwr.app))), message)

    holds()


INTS, DOUBLES = st.integers(-(2**63), 2**63 - 1), st.floats()
CONFIG_VALUES = (
    INTS
    | DOUBLES
    | WORDS
    | st.binary(max_size=9)
    | st.booleans()
    | st.lists(INTS, max_size=2)
    | st.lists(WORDS, max_size=2)
    | JSON.map(lambda value: json.dumps(value))
)
METRIC_VALUES = INTS | DOUBLES | st.lists(INTS, max_size=2) | st.lists(DOUBLES, max_size=2)
ARRAYS = stn.arrays(
    stn.integer_dtypes()
    | stn.floating_dtypes()
    | stn.complex_number_dtypes()
    | stn.unicode_string_dtypes(max_len=3)
    | stn.boolean_dtypes()
    | stn.datetime64_dtypes(),
    stn.array_shapes(min_dims=1, max_dims=3, max_side=3),
).map(Array)
NPY = Array(np.arange(6, dtype=np.float32)).data
BROKEN = st.builds(
    Array,
    st.sampled_from(("float32", "object", "")),
    st.just((1,)),
    st.sampled_from(("numpy.ndarray", "torch", "")),
    spoilt(NPY) | st.binary(max_size=40),
)
NAMES = WORDS | st.sampled_from(
    (
        "run",
        "round",
        "site",
        "card",
        "flat",
        "order",
        "reply",
        "shared",
        "prototypes",
        "metrics",
        "layout",
        "images",
        "class-counts",
        "purpose",
        "north/vectors",
        "north/counts",
        "north/classes",
        "roll-call",
        "statistics",
        "histogram",
    )
)
RECORDS = (
    st.dictionaries(NAMES, CONFIG_VALUES, max_size=3).map(ConfigRecord)
    | st.dictionaries(NAMES, METRIC_VALUES, max_size=3).map(MetricRecord)
    | st.dictionaries(NAMES, ARRAYS | BROKEN, max_size=3).map(ArrayRecord)
)
KINDS: tuple[Any, ...] = (JoinRequest, SiteInfo, RoundOrder, SiteReply, RoundReply)


def refused_or_valid(content: RecordDict) -> None:
    """Decode in every way; check what the server would check of a reply."""
    for kind in KINDS:
        try:
            found = decode(kind, content)
        except ReplyError as error:
            assert is_plain(str(error))
            continue
        if isinstance(found, RoundReply):
            own = replace(CONTEXT, layout=found.layout, participants=Participants((found.site,)))
            own.participants.add(100, site_info(found.site, class_counts=(3, 7)))
            try:
                check_weights(found, np.ones(1, np.float32), own)
            except ReplyError as error:
                assert is_plain(str(error))


@tried(80)
@given(st.dictionaries(NAMES, RECORDS, max_size=4))
def test_fuzz_records_of_anything(records: dict[str, Any]) -> None:
    refused_or_valid(carried(RecordDict(records)))


@pytest.mark.parametrize("kind", MESSAGES)
def test_fuzz_a_message_with_values_changed(kind: str) -> None:
    message = MESSAGES[kind]

    @tried(80)
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        content = encode(message, flwr.app)
        for _ in range(data.draw(st.integers(1, 2))):
            name = data.draw(st.sampled_from(sorted(content))) if len(content) else ""
            assume(name)
            record = content[name]
            match data.draw(st.sampled_from(("drop", "drop key", "value", "more", "record"))):
                case "drop":
                    del content[name]
                case "drop key" if len(record):
                    del record[data.draw(st.sampled_from(sorted(record)))]
                case "value" if len(record):
                    record[data.draw(st.sampled_from(sorted(record)))] = data.draw(values(record))
                case "more":
                    record[data.draw(NAMES)] = data.draw(values(record))
                case "record":
                    content[data.draw(NAMES)] = data.draw(RECORDS)
        refused_or_valid(carried(content))

    holds()


def values(record: Any) -> st.SearchStrategy[Any]:
    """Return what a record of that kind can hold."""
    if isinstance(record, ArrayRecord):
        return ARRAYS | BROKEN
    return METRIC_VALUES if isinstance(record, MetricRecord) else CONFIG_VALUES


@tried(80)
@given(infos(), JSON, st.data())
def test_fuzz_a_site_info_s_text(info: SiteInfo, other: object, data: st.DataObject) -> None:
    text = str(encode(info, flwr.app)["card"]["card"])
    told = json.loads(text)
    key = data.draw(st.sampled_from(sorted(told)))
    inner = data.draw(st.sampled_from(sorted(told["leakage"])))
    for changed in (
        data.draw(spoilt(text.encode())).decode("utf-8", "replace"),
        json.dumps(told | {key: other}),
        json.dumps(told | {"leakage": told["leakage"] | {inner: other}}),
        json.dumps(other),
    ):
        try:
            found = decode(SiteInfo, {"card": {"card": changed}, "statistics": {}})
        except ReplyError as error:
            assert is_plain(str(error))
        else:
            assert all(type(n) is int and n >= 0 for n in (*found.class_counts, found.nodes))
            assert found.train_images >= 0
