"""Messages that no site and no server of xsite sends: a bug's, another version's, an attacker's."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import flwr.app
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from common.exchange.messages import RoundOrder, RoundReply
from common.exchange.wire import decode, encode

Change = Callable[[RecordDict], object]


@dataclass(frozen=True)
class Said:
    """A malformed message.

    Attributes
    ----------
    name : str
        Short, and the test's id.
    why : str
        How it comes about, or what it would do.
    change : callable
        Spoils a sound message in place.
    said : str
        A regular expression that the sentence must match.
    """

    name: str
    why: str
    change: Change
    said: str


def within(record: str, key: str, value: Any) -> Change:
    """Return what sets a value."""
    return lambda content: content[record].__setitem__(key, value)


def saying(record: str, **values: Any) -> Change:
    """Return what changes what a message's text says; None takes a key away."""

    def spoil(content: RecordDict) -> None:
        said = json.loads(str(content[record][record])) | values
        told = {key: value for key, value in said.items() if value is not None}
        content[record] = ConfigRecord({record: json.dumps(told)})

    return spoil


def without(record: str, key: str = "") -> Change:
    """Return what takes a record, or a key of it, away."""
    return lambda content: content[record].pop(key) if key else content.pop(record)


def instead(record: str, other: Any) -> Change:
    """Return what puts another record in a record's place."""
    return lambda content: content.__setitem__(record, other)


def of_reply(change: Callable[[RoundReply], RoundReply]) -> Change:
    """Return what changes a reply and encodes it again, as xsite would."""

    def spoil(content: RecordDict) -> None:
        changed = encode(change(decode(RoundReply, content)), flwr.app)
        content.clear()
        content.update(changed)

    return spoil


def of_order(change: Callable[[RoundOrder], RoundOrder]) -> Change:
    """Return the same for an order."""

    def spoil(content: RecordDict) -> None:
        changed = encode(change(decode(RoundOrder, content)), flwr.app)
        content.clear()
        content.update(changed)

    return spoil


def of_prototypes(**parts: Callable[[Any], Any]) -> Change:
    """Return what changes the prototypes of a reply."""
    return of_reply(
        lambda r: replace(
            r,
            prototypes=replace(
                r.prototypes, **{k: f(getattr(r.prototypes, k)) for k, f in parts.items()}
            ),
        )
    )


def of_met(**parts: Callable[[Any], Any]) -> Change:
    """Return what changes the prototypes of an order."""
    return of_order(
        lambda o: replace(
            o,
            prototypes=tuple(
                replace(one, **{k: f(getattr(one, k)) for k, f in parts.items()})
                for one in o.prototypes
            ),
        )
    )


def of_card(**values: Any) -> Change:
    """Return what changes what a site info says; None takes a key away."""

    def spoil(content: RecordDict) -> None:
        told = json.loads(str(content["card"]["card"])) | values
        if isinstance(values.get("site"), str):
            told["leakage"] = told["leakage"] | {"site": values["site"]}
        told = {key: value for key, value in told.items() if value is not None}
        content["card"] = ConfigRecord({"card": json.dumps(told)})

    return spoil


def of_leakage(**values: Any) -> Change:
    """Return what changes what a site info says of its split."""

    def spoil(content: RecordDict) -> None:
        leakage = json.loads(str(content["card"]["card"]))["leakage"] | values
        of_card(leakage=leakage)(content)

    return spoil


def of_statistics(**values: Any) -> Change:
    """Return what adds statistics to a site info that are sound but for these values."""

    def spoil(content: RecordDict) -> None:
        images = sum(json.loads(str(content["card"]["card"]))["class_counts"])
        sound = {"images": images, "mean": 1.5, "deviation": 2.0}
        sound |= {"histogram": [1000, *[0] * 31], "fields": [1] * 9}
        content["statistics"] = MetricRecord(sound | values)

    return spoil


def array(header: bytes, data: bytes = b"") -> Array:
    """Return an array whose NumPy header says whatever."""
    text = header + b" " * (118 - len(header)) + b"\n"
    start = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little")
    return Array("float32", (1,), "numpy.ndarray", start + text + data)


def of_objects() -> Array:
    held = io.BytesIO()
    np.save(held, np.array([{"run": "anything"}], dtype=object), allow_pickle=True)
    return Array("object", (1,), "numpy.ndarray", held.getvalue())


HUGE = array(b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999,), }")
NEGATIVE = array(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }")
DEEP = "[" * 100_000
STRANGE = r"answers the join request strangely"
INFOS = (
    Said("empty", "a node of another app", lambda c: c.clear(), STRANGE),
    Said("no JSON", "another version", within("card", "card", "hello"), STRANGE),
    Said("a number", "another version", within("card", "card", 5), STRANGE),
    Said("brackets", "a parser's stack ends", within("card", "card", DEEP), STRANGE),
    Said("5,000 digits", "none counts so far", within("card", "card", "9" * 5000), STRANGE),
    Said("a record more", "names of patients", instead("more", MetricRecord({"n": 1})), STRANGE),
    Said("a key less", "another version", of_card(nodes=None), STRANGE),
    Said("a key more", "another version", of_card(patients=["Jane Roe"]), STRANGE),
    Said("text for counts", "another version", of_card(class_counts="12"), STRANGE),
    Said("decimals for counts", "half an image", of_card(class_counts=[5.5, 6.5]), STRANGE),
    Said("true for a count", "1 elsewhere", of_card(class_counts=[True, 12]), STRANGE),
    Said("negative counts", "it lies", of_card(class_counts=[-5, 30]), STRANGE),
    Said("counts beyond 64 bits", "it lies", of_card(class_counts=[10**30, 1]), STRANGE),
    Said("no counts", "it lies", of_card(class_counts=[]), "images of 0 classes"),
    Said(
        "counts of three classes", "another run's", of_card(class_counts=[4, 4, 4]), "of 3 classes"
    ),
    Said("counts of zero", "it has no images", of_card(class_counts=[0, 0]), "no training images"),
    Said("negative nodes", "it lies", of_card(nodes=-1), STRANGE),
    Said("a site's number", "another version", of_card(site=7), STRANGE),
    Said("a stranger's name", "it lies", of_card(site="east"), "says that it is 'east'"),
    Said("the other's name", "two of one name", of_card(site="north"), "say that they are site"),
    Said("a name of 1 MB", "it lies", of_card(site="x" * 2**20), STRANGE),
    Said("a name of two lines", "it would forge a log", of_card(site="a\nb"), STRANGE),
    Said("another code", "another version", of_card(fingerprint="0" * 64), "another code"),
    Said(
        "another configuration", "edited there", of_card(config="0" * 64), "another configuration"
    ),
    Said("text in the leakage", "names of patients", of_leakage(patients="Jane Roe"), STRANGE),
    Said("a list in the leakage", "names", of_leakage(unit=["Jane Roe"]), STRANGE),
    Said("a site in the leakage", "names", of_leakage(site="Jane Roe"), "another split"),
    Said("a unit in the leakage", "names", of_leakage(unit="Jane Roe"), STRANGE),
    Said("negative leakage", "it lies", of_leakage(unknown=-1), STRANGE),
    Said("no record of statistics", "another version", without("statistics"), STRANGE),
    Said(
        "statistics of other images",
        "it lies",
        of_statistics(images=10**6),
        "statistics of 1000000 images, but has",
    ),
    Said("statistics of no images", "0 / 0", of_statistics(images=0), STRANGE),
    Said(
        "statistics by text", "names", instead("statistics", ConfigRecord({"mean": "x"})), STRANGE
    ),
    Said(
        "an image for statistics",
        "it would leave",
        instead("statistics", ArrayRecord([np.zeros((4, 4))])),
        STRANGE,
    ),
    Said("a statistic more", "of a patient", of_statistics(patient=7), STRANGE),
    Said("a mean of NaN", "0 / 0", of_statistics(mean=float("nan")), STRANGE),
    Said("a mean above white", "16 bits", of_statistics(mean=4095.0), STRANGE),
    Said(
        "a mean of 15 digits", "they hold something", of_statistics(mean=1.23456789012345), STRANGE
    ),
    Said("a negative deviation", "it lies", of_statistics(deviation=-1.0), STRANGE),
    Said(
        "shares of 99.9 %", "rounded elsewhere", of_statistics(histogram=[999] + 31 * [0]), STRANGE
    ),
    Said("negative shares", "it lies", of_statistics(histogram=[1001, -1] + 30 * [0]), STRANGE),
    Said("256 bins", "one for each grey", of_statistics(histogram=[1000] + 255 * [0]), STRANGE),
    Said("shares as decimals", "another version", of_statistics(histogram=[1 / 32] * 32), STRANGE),
    Said("an image for fields", "a picture of 12²", of_statistics(fields=[7] * 144), STRANGE),
    Said("fields above white", "16 bits", of_statistics(fields=[256] * 9), STRANGE),
)
"""Answers of the node of 'south' to the join request."""
MESSAGE = r"The message "
REPLIES = (
    Said("empty", "another app", lambda c: c.clear(), MESSAGE),
    Said("no header", "another version", without("reply"), MESSAGE),
    Said("no weights", "another version", without("shared"), MESSAGE),
    Said("no prototypes", "another version", without("prototypes"), MESSAGE),
    Said("no figures", "another version", without("metrics"), MESSAGE),
    Said("a record more", "images?", instead("images", ArrayRecord([np.zeros(9)])), MESSAGE),
    Said("a key more", "a patient?", saying("reply", patient="Jane Roe"), MESSAGE),
    Said("a round of text", "another version", saying("reply", round="1"), MESSAGE),
    Said("a round of 2.0", "another version", saying("reply", round=1.0), MESSAGE),
    Said("a site of a number", "another version", saying("reply", site=1), MESSAGE),
    Said("a round before", "late", saying("reply", round=0), "answers for round 0, not 1"),
    Said("a round to come", "early", saying("reply", round=2), "answers for round 2, not 1"),
    Said("another run", "late", saying("reply", run="old"), "answers for the run 'old'"),
    Said("another code", "updated", saying("reply", fingerprint="0" * 64), "ran other code"),
    Said("fewer images", "some were moved", saying("reply", images=3), "has 3 training images"),
    Said("negative images", "it lies", saying("reply", images=-12), MESSAGE),
    Said("a layout of text", "another version", saying("reply", layout="x"), "layout"),
    Said("a layout of brackets", "a stack ends", saying("reply", layout=DEEP), "layout"),
    Said(
        "figures of text",
        "another version",
        instead("metrics", ConfigRecord({"train/loss": "0.1"})),
        MESSAGE,
    ),
    Said(
        "figures of bytes",
        "an image?",
        instead("metrics", ConfigRecord({"train/loss": b"1"})),
        MESSAGE,
    ),
    Said(
        "figures of true",
        "1 elsewhere",
        instead("metrics", ConfigRecord({"train/loss": True})),
        MESSAGE,
    ),
    Said("figures of lists", "every image's?", within("metrics", "test/auc", [0.1, 0.2]), MESSAGE),
    Said(
        "NaN images trained on",
        "0 / 0",
        within("metrics", "train/images", float("nan")),
        "trained on nan",
    ),
    Said(
        "infinite images",
        "it lies",
        within("metrics", "train/images", float("inf")),
        "trained on inf",
    ),
    Said(
        "negative images trained",
        "it lies",
        within("metrics", "train/images", -1.0),
        "trained on -1",
    ),
    Said(
        "weights of text",
        "no array",
        within("shared", "flat", Array("f4", (1,), "numpy.ndarray", b"x")),
        MESSAGE,
    ),
    Said("weights of objects", "they would run", within("shared", "flat", of_objects()), MESSAGE),
    Said("weights of 364 TiB", "it lies", within("shared", "flat", HUGE), MESSAGE),
    Said("weights of length -1", "it lies", within("shared", "flat", NEGATIVE), MESSAGE),
    Said(
        "weights of rows",
        "another shape",
        of_reply(lambda r: replace(r, shared=r.shared[None])),
        "in shape",
    ),
    Said(
        "weights of half",
        "another precision",
        of_reply(lambda r: replace(r, shared=r.shared.astype("f2"))),
        "of type",
    ),
    Said(
        "weights big-endian",
        "another machine",
        of_reply(lambda r: replace(r, shared=r.shared.astype(">f4"))),
        "of type",
    ),
    Said(
        "weights complex",
        "another kind",
        of_reply(lambda r: replace(r, shared=r.shared.astype("c8"))),
        "of type",
    ),
    Said(
        "weights infinite",
        "it diverged",
        of_reply(lambda r: replace(r, shared=r.shared / np.float32(0))),
        "not finite",
    ),
    Said(
        "weights of 1e30",
        "it lies",
        of_reply(lambda r: replace(r, shared=r.shared * np.float32(1e30))),
        "norm",
    ),
    Said(
        "prototypes ragged",
        "three of two",
        of_prototypes(counts=lambda c: np.append(c, 9)),
        "have shapes",
    ),
    Said("prototypes flat", "no vectors", of_prototypes(vectors=np.ravel), "have shapes"),
    Said(
        "prototypes too wide",
        "another network",
        of_prototypes(vectors=lambda v: np.tile(v, 2)),
        "have shapes",
    ),
    Said(
        "prototypes a number",
        "no list",
        of_prototypes(classes=lambda c: np.array(c[0])),
        "have shapes",
    ),
    Said("prototypes NaN", "0 / 0", of_prototypes(vectors=lambda v: v * np.nan), "not of length 1"),
    Said(
        "prototypes of negative spread",
        "it lies",
        of_prototypes(vectors=lambda v: -v),
        "a deviation of its prototypes is negative",
    ),
    Said(
        "prototypes zero",
        "absent classes",
        of_prototypes(vectors=lambda v: v * 0),
        "not of length 1",
    ),
    Said(
        "prototypes of class 7",
        "another run",
        of_prototypes(classes=lambda c: c + 7),
        "of the classes",
    ),
    Said(
        "prototypes of class -1",
        "it lies",
        of_prototypes(classes=lambda c: c - 1),
        "of the classes",
    ),
    Said("a class twice", "it lies", of_prototypes(classes=lambda c: c * 0), "of the classes"),
    Said("negative counts", "it lies", of_prototypes(counts=lambda c: -c), "images stand behind"),
    Said(
        "counts too large", "it lies", of_prototypes(counts=lambda c: c * 10**9), "more than it has"
    ),
    Said(
        "counts decimal",
        "another kind",
        of_prototypes(counts=lambda c: c.astype(float)),
        "have types",
    ),
    Said(
        "another site's prototypes",
        "it lies",
        of_reply(lambda r: replace(r, prototypes=replace(r.prototypes, site="north"))),
        MESSAGE,
    ),
)
"""Replies of 'south' to its first round."""
NOT_UNDERSTOOD, NOT_DONE, NO_STORE = 106, 107, 105


@dataclass(frozen=True)
class Asked(Said):
    """A malformed order, and the code of what the site answers."""

    code: int = NOT_UNDERSTOOD


def steps(first: int, last: int, total: int) -> Change:
    """Return what changes the steps of an order."""

    def spoil(content: RecordDict) -> None:
        saying("order", first_step=first, last_step=last, total_steps=total)(content)

    return spoil


ORDERS = (
    Asked("empty", "another app", lambda c: c.clear(), MESSAGE),
    Asked("no weights", "another version", without("shared"), MESSAGE),
    Asked("a key less", "another version", saying("order", best=None), MESSAGE),
    Asked("a key more", "another version", saying("order", more=1), MESSAGE),
    Asked("a purpose of its own", "another version", saying("order", purpose="steal"), "purpose"),
    Asked("a round of text", "another version", saying("order", round="2"), MESSAGE),
    Asked("true for a round", "1 elsewhere", saying("order", round=True), MESSAGE),
    Asked("a negative round", "a bug", saying("order", round=-1), MESSAGE),
    Asked("previous to come", "a bug", saying("order", previous=9), MESSAGE),
    Asked("a negative previous", "a bug", saying("order", previous=-1), MESSAGE),
    Asked("steps backwards", "a bug", steps(9, 3, 12), MESSAGE),
    Asked("no steps", "nothing to train", steps(3, 3, 12), MESSAGE),
    Asked("negative steps", "a bug", steps(-3, 3, 12), MESSAGE),
    Asked("no steps in all", "a division by it", steps(0, 3, 0), MESSAGE),
    Asked("counts of brackets", "a stack ends", saying("order", class_counts=DEEP), MESSAGE),
    Asked(
        "counts of text",
        "another version",
        saying("order", class_counts={"south": "ab"}),
        MESSAGE,
    ),
    Asked("negative counts", "it lies", saying("order", class_counts={"south": [-3, 9]}), MESSAGE),
    Asked("counts of nobody", "a bug", saying("order", class_counts={}), MESSAGE),
    Asked("prototypes ragged", "three of two", of_met(counts=lambda c: np.append(c, 9)), MESSAGE),
    Asked("prototypes flat", "no vectors", of_met(vectors=np.ravel), MESSAGE),
    Asked("prototypes too wide", "another network", of_met(vectors=lambda v: np.tile(v, 2)), "8"),
    Asked("prototypes NaN", "0 / 0", of_met(vectors=lambda v: v * np.nan), MESSAGE),
    Asked("prototypes of negative spread", "it lies", of_met(vectors=lambda v: -v), MESSAGE),
    Asked("prototypes of text", "another kind", of_met(vectors=lambda v: v.astype("U9")), MESSAGE),
    Asked("prototypes of class 7", "another run", of_met(classes=lambda c: c + 7), MESSAGE),
    Asked("prototypes of class -1", "it lies", of_met(classes=lambda c: c - 1), MESSAGE),
    Asked("weights of objects", "they would run", within("shared", "flat", of_objects()), MESSAGE),
    Asked("weights of 364 TiB", "it lies", within("shared", "flat", HUGE), MESSAGE),
    Asked(
        "weights too short",
        "another network",
        of_order(lambda o: replace(o, arrays={"flat": o.shared[1:]})),
        "Shared weights of shape",
        NOT_DONE,
    ),
    Asked(
        "weights double",
        "another precision",
        of_order(lambda o: replace(o, arrays={"flat": o.shared.astype("f8")})),
        "Shared weights of shape",
        NOT_DONE,
    ),
    Asked(
        "weights NaN",
        "it diverged",
        of_order(lambda o: replace(o, arrays={"flat": o.shared * np.nan})),
        "not finite",
        NOT_DONE,
    ),
    Asked(
        "a run that leads elsewhere",
        "a traversal",
        saying("order", run="../../x"),
        "no name of a folder",
        102,
    ),
    Asked(
        "a run of 10,000 letters",
        "no folder's",
        saying("order", run="x" * 10_000),
        "no name of a folder",
        102,
    ),
)
"""Orders of round 2 to 'north'."""
