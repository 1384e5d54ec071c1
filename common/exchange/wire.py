"""Messages as Flower records: built and parsed here, and only here.

Decoding refuses a record, a key or a type that does not belong, so that nothing travels unnoticed.
Callers pass the module ``flwr.app``; this file does not import it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from common.config.sites import SITE_NAME
from common.errors import ReplyError
from common.exchange.messages import (
    JoinRequest,
    Purpose,
    RoundOrder,
    RoundReply,
    SiteInfo,
    SiteReply,
    fault_of,
)
from common.formatting.from_json import from_json
from common.learning.prototypes import Prototypes
from common.models.sharing import Layout

# Names of records
JOIN, CARD, ORDER, REPLY = "roll-call", "card", "order", "reply"
SHARED, PROTOTYPES, METRICS = "shared", "prototypes", "metrics"
# Keys in them
RUN, ROUND, SITE, FINGERPRINT, AWAITED = "run", "round", "site", "fingerprint", "awaited"
PURPOSE, PREVIOUS, BEST, EVALUATE = "purpose", "previous", "best", "evaluate"
FIRST_STEP, LAST_STEP, TOTAL_STEPS = "first-step", "last-step", "total-steps"
FLAT, IMAGES, LAYOUT, CLASS_COUNTS = "flat", "images", "layout", "class-counts"
CLASSES, VECTORS, COUNTS = "classes", "vectors", "counts"
HEADER = (RUN, ROUND, SITE, FINGERPRINT)


class Records(Protocol):
    """What this file needs of ``flwr.app``."""

    @property
    def Array(self) -> Callable[..., Any]: ...  # noqa: D102, N802
    @property
    def ArrayRecord(self) -> Callable[..., Any]: ...  # noqa: D102, N802
    @property
    def ConfigRecord(self) -> Callable[..., Any]: ...  # noqa: D102, N802
    @property
    def MetricRecord(self) -> Callable[..., Any]: ...  # noqa: D102, N802
    @property
    def RecordDict(self) -> Callable[..., Any]: ...  # noqa: D102, N802


def encode_join(call: JoinRequest, records: Records) -> Any:
    """Return a join request as a RecordDict."""
    about = records.ConfigRecord({RUN: call.run, AWAITED: call.awaited})
    return records.RecordDict({JOIN: about})


def decode_join(content: Mapping[str, Any]) -> JoinRequest:
    """Read what :func:`encode_join` made; ReplyError if it is nothing of the kind."""
    _only(content, (JOIN,))
    _only(content[JOIN], (RUN, AWAITED))
    return JoinRequest(_text(content[JOIN], RUN), _text(content[JOIN], AWAITED))


def encode_site_info(info: SiteInfo, records: Records) -> Any:
    """Return what a site says of itself as a RecordDict."""
    return records.RecordDict({CARD: records.ConfigRecord({CARD: json.dumps(asdict(info))})})


def decode_site_info(content: Mapping[str, Any]) -> SiteInfo:
    """Read what :func:`encode_site_info` made; ReplyError if it is nothing of the kind."""
    _only(content, (CARD,))
    _only(content[CARD], (CARD,))
    try:
        info = from_json(SiteInfo, _text(content[CARD], CARD))
    except ValueError as error:
        raise _strange("a site's info") from error
    leakage = info.leakage
    numbers = (leakage.patients, leakage.shared_patients, leakage.shared_images, leakage.unknown)
    if not all(0 <= number < 2**63 for number in (*info.class_counts, info.nodes, *numbers)):
        raise _strange("a site's info of numbers that count something")
    if not SITE_NAME.fullmatch(info.site):
        raise _strange("a site's info with its name")
    return info


def encode_shared(shared: NDArray[Any], records: Records) -> Any:
    """Return shared tensors as an ArrayRecord."""
    return records.ArrayRecord({FLAT: records.Array(shared)})


def decode_shared(record: Mapping[str, Any]) -> NDArray[Any]:
    """Read what :func:`encode_shared` made; ReplyError if it is nothing of the kind."""
    _only(record, (FLAT,))
    return _array(record, FLAT)


def encode_order(order: RoundOrder, records: Records, shared: Any = None) -> Any:
    """Return an order as a RecordDict.

    Parameters
    ----------
    order : RoundOrder
        The order.
    records : Records
        ``flwr.app``.
    shared : ArrayRecord, optional
        ``order.shared`` by :func:`encode_shared`, where it is made already: several sites get it.
    """
    about = {
        RUN: order.run,
        PURPOSE: order.purpose,
        ROUND: order.round,
        PREVIOUS: order.previous,
        BEST: order.best,
        FIRST_STEP: order.steps.start,
        LAST_STEP: order.steps.stop,
        TOTAL_STEPS: order.total_steps,
        EVALUATE: order.evaluate,
        CLASS_COUNTS: json.dumps([[p.site, order.class_counts[p.site]] for p in order.prototypes]),
    }
    return records.RecordDict(
        {
            ORDER: records.ConfigRecord(about),
            SHARED: encode_shared(order.shared, records) if shared is None else shared,
            PROTOTYPES: _encode_prototypes(order.prototypes, records),
        }
    )


def decode_order(content: Mapping[str, Any]) -> RoundOrder:
    """Read what :func:`encode_order` made; ReplyError if it is nothing of the kind."""
    _only(content, (ORDER, SHARED, PROTOTYPES))
    about = content[ORDER]
    steps = (FIRST_STEP, LAST_STEP, TOTAL_STEPS)
    _only(about, (RUN, PURPOSE, ROUND, PREVIOUS, BEST, *steps, EVALUATE, CLASS_COUNTS))
    try:
        counts = {str(s): tuple(int(n) for n in ns) for s, ns in _json(about, CLASS_COUNTS)}
    except (TypeError, ValueError, OverflowError) as error:
        raise _strange("the other sites' class counts") from error
    order = RoundOrder(
        run=_text(about, RUN),
        purpose=_purpose(about),
        round=_whole(about, ROUND),
        previous=_whole(about, PREVIOUS),
        best=_whole(about, BEST),
        steps=range(_whole(about, FIRST_STEP), _whole(about, LAST_STEP)),
        total_steps=_whole(about, TOTAL_STEPS),
        evaluate=_truth(about, EVALUATE),
        shared=decode_shared(content[SHARED]),
        prototypes=_decode_prototypes(tuple(counts), content[PROTOTYPES]),
        class_counts=counts,
    )
    if (fault := fault_of(order)) is not None:
        raise _strange(f"an order that can be followed ({fault})")
    return order


def encode_reply(reply: SiteReply, records: Records) -> Any:
    """Return a site's reply as a RecordDict."""
    about: dict[str, Any] = {
        RUN: reply.run,
        ROUND: reply.round,
        SITE: reply.site,
        FINGERPRINT: reply.fingerprint,
    }
    content = {METRICS: records.MetricRecord({k: float(v) for k, v in reply.metrics.items()})}
    if isinstance(reply, RoundReply):
        about |= {IMAGES: reply.images, LAYOUT: reply.layout.to_json()}
        content[SHARED] = encode_shared(reply.shared, records)
        content[PROTOTYPES] = _encode_prototypes([reply.prototypes], records)
    return records.RecordDict(content | {REPLY: records.ConfigRecord(about)})


def decode_evaluation(content: Mapping[str, Any]) -> SiteReply:
    """Read a reply to an evaluation; ReplyError if it is nothing of the kind."""
    _only(content, (REPLY, METRICS))
    _only(content[REPLY], HEADER)
    return SiteReply(**_header(content))


def decode_reply(content: Mapping[str, Any]) -> RoundReply:
    """Read a reply to a round of training; ReplyError if it is nothing of the kind."""
    _only(content, (REPLY, METRICS, SHARED, PROTOTYPES))
    _only(content[REPLY], (*HEADER, IMAGES, LAYOUT))
    header = _header(content)
    (prototypes,) = _decode_prototypes((header[SITE],), content[PROTOTYPES])
    return RoundReply(
        **header,
        images=_whole(content[REPLY], IMAGES),
        layout=Layout.from_json(_text(content[REPLY], LAYOUT)),
        shared=decode_shared(content[SHARED]),
        prototypes=prototypes,
    )


def count_bytes(content: Mapping[str, Any]) -> int:
    """Return the size of a message's records in bytes."""
    return sum(int(record.count_bytes()) for record in content.values())


def _header(content: Mapping[str, Any]) -> dict[str, Any]:
    about = content[REPLY]
    header: dict[str, Any] = {key: _text(about, key) for key in (RUN, SITE, FINGERPRINT)}
    if not all(type(value) in (int, float) for value in content[METRICS].values()):
        raise _strange("scalar metrics")
    metrics = {str(name): float(value) for name, value in content[METRICS].items()}
    return header | {ROUND: _whole(about, ROUND), METRICS: metrics}


def _purpose(about: Mapping[str, Any]) -> Purpose:
    said, known = _text(about, PURPOSE), get_args(Purpose)
    if said not in known:
        raise ReplyError(f"The order's purpose is '{said}'; expected one of {', '.join(known)}.")
    purpose: Purpose = known[known.index(said)]
    return purpose


def _encode_prototypes(prototypes: Sequence[Prototypes], records: Records) -> Any:
    arrays = {
        f"{one.site}/{key}": records.Array(array)
        for one in prototypes
        for key, array in ((CLASSES, one.classes), (VECTORS, one.vectors), (COUNTS, one.counts))
    }
    return records.ArrayRecord(arrays)


def _decode_prototypes(sites: Sequence[str], record: Any) -> tuple[Prototypes, ...]:
    parts = (CLASSES, VECTORS, COUNTS)
    _only(record, [f"{site}/{part}" for site in sites for part in parts])
    return tuple(
        Prototypes(site, *(_array(record, f"{site}/{part}") for part in parts)) for site in sites
    )


def _only(found: Any, expected: Sequence[str]) -> None:
    """Refuse a message or a record that holds anything else than expected."""
    there = set(found) if isinstance(found, Mapping) else set()
    if there != set(expected):
        raise ReplyError(
            f"The message holds {', '.join(sorted(there)) or 'nothing'}; expected "
            f"{', '.join(sorted(expected)) or 'nothing'}. Do both ends run the same code?"
        )


def _strange(what: str) -> ReplyError:
    return ReplyError(f"The message does not hold {what}. Do both ends run the same code?")


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record[key]
    if not isinstance(value, str):
        raise _strange(f"'{key}' as text")
    return value


def _whole(record: Mapping[str, Any], key: str) -> int:
    value = record[key]
    if type(value) is not int:
        raise _strange(f"'{key}' as a whole number")
    return value


def _truth(record: Mapping[str, Any], key: str) -> bool:
    value = record[key]
    if type(value) is not bool:
        raise _strange(f"'{key}' as true or false")
    return value


def _json(record: Mapping[str, Any], key: str) -> Any:
    try:
        return json.loads(_text(record, key))
    except (ValueError, RecursionError) as error:
        raise _strange(f"'{key}' as JSON") from error


def _array(record: Mapping[str, Any], key: str) -> NDArray[Any]:
    try:
        array = record[key].numpy()
    # NumPy raises whatever its header parser, zipfile or the allocator meet first.
    except Exception as error:
        raise _strange(f"the array '{key}'") from error
    if not isinstance(array, np.ndarray):
        raise _strange(f"the array '{key}'")
    return array
