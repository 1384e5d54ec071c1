"""The last thing that happens to a message at a site: it is read, judged and entered.

What is judged are the bytes that are about to leave, decoded anew, and not what the code before
meant to send. Every message is entered in the ledger before it leaves, and so is one that is held
back.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, RecordDict
from numpy.typing import NDArray

from clients.egress.budget import SENT, require_budget
from clients.egress.ledger import enter
from clients.egress.ledger_entry import Message, Noise, Part
from clients.egress.noise import change_of, noise_in, noised_range
from clients.egress.policy import Policy, may_leave
from clients.site import note
from common.errors import LedgerError, PolicyError, ReplyError
from common.exchange.codecs.half_deltas import HALF, add_delta
from common.exchange.messages import RoundReply, SiteInfo, SiteReply
from common.exchange.wire import (
    CARD,
    FLAT,
    SHARED,
    count_bytes,
    decode_evaluation,
    decode_reply,
    decode_site_info,
)
from common.learning.prototypes import Prototypes
from common.models.sharing import Layout

HELD_BACK = "held back"
DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ExpectedMessage:
    """What an answer can be.

    Attributes
    ----------
    site, run : str
        Whose, and to which run.
    round : int
        To which round; 0: to the join request.
    layout : Layout
        Of the shared tensors.
    classes, projection_size : int
        Of the prototypes.
    received : ndarray, shape (layout.size,), or None
        The shared tensors that a round began with.
    halved : bool
        Whether their change leaves, in half precision, and not they themselves.
    """

    site: str
    run: str
    round: int
    layout: Layout
    classes: int
    projection_size: int
    received: NDArray[Any] | None
    halved: bool = False


def release(content: RecordDict, expected: ExpectedMessage, policy: Policy, ledger: Path) -> None:
    """Judge a message and enter it; when this returns, it may leave.

    Parameters
    ----------
    content : RecordDict
        What is about to leave.
    expected : ExpectedMessage
        What it can be.
    policy : Policy
        The site's.
    ledger : Path
        The ledger's folder.

    Raises
    ------
    PolicyError
        If it holds anything that may not leave, or the budget has no room for it: what, and which
        key of the policy says so.
    LedgerError
        If it cannot be entered.
    """
    parts = parts_of(content, expected.layout)
    kind = "card" if CARD in content else "training" if SHARED in content else "evaluation"
    held = Message(expected.site, expected.run, expected.round, kind, HELD_BACK, "", 0, parts)
    try:
        noise = judge(content, expected, policy)
        sent = replace(held, verdict=SENT, size=count_bytes(content), noise=noise)

        def allow(before: Iterable[Message]) -> None:
            require_budget(before, sent, policy.largest_epsilon)

        enter(ledger, sent, allow=allow)
    except (PolicyError, ReplyError) as error:
        enter(ledger, replace(held, reason=str(error)))
        raise PolicyError(f"Held back at {expected.site}: {error}") from error


def enter_refusal(reason: str, own: Path, ledger: Path) -> None:
    """Enter the sentence that leaves in place of a result.

    A ledger that cannot be written does not keep it here: it was written in advance, and without
    it the server would wait.

    Parameters
    ----------
    reason : str
        The sentence.
    own : Path
        The folder of the site's files in the run: ``<run>/sites/<site>``.
    ledger : Path
        The ledger's folder.
    """
    part = text_part("error", "reason", reason)
    said = Message(own.name, own.parents[1].name, 0, "error", SENT, "", part.size, (part,))
    try:
        enter(ledger, said)
    except LedgerError as error:
        note(own, f"not in the ledger: {reason} ({error})")


def judge(content: RecordDict, expected: ExpectedMessage, policy: Policy) -> Noise | None:
    """Refuse a message that holds anything but what may leave.

    Returns
    -------
    Noise or None
        The noise in it.

    Raises
    ------
    PolicyError
        If the policy forbids it.
    ReplyError
        If it is no message of a site at all.
    """
    if CARD in content:
        _judge_info(decode_site_info(content), expected)
    elif SHARED in content:
        reply = decode_reply(content)
        _judge_header(reply, expected, policy)
        _judge_weights(reply, expected, policy)
        _judge_prototypes(reply.prototypes, expected, policy)
        if reply.images < 0:
            raise PolicyError("the number of images is negative")
        return noise_in(reply, policy)
    else:
        _judge_header(decode_evaluation(content), expected, policy)
    return None


def parts_of(content: RecordDict, layout: Layout) -> tuple[Part, ...]:
    """List all that a message holds; the shared tensors each by itself."""
    found = []
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            for key, array in record.items():
                values = array.numpy()
                if (name, key) == (SHARED, FLAT) and values.size == layout.size:
                    found += _tensors(values, layout)
                else:
                    found.append(_tensor(name, key, values))
        else:
            found += [_value(name, key, value) for key, value in record.items()]
    return tuple(found)


def text_part(record: str, name: str, text: str) -> Part:
    """Return a text as a part of a message."""
    data = text.encode()
    return Part(record, name, (), "text", len(data), hashlib.sha256(data).hexdigest())


def _tensors(flat: NDArray[Any], layout: Layout) -> list[Part]:
    parts, start = [], 0
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        stop = start + math.prod(shape)
        parts.append(_tensor(SHARED, name, flat[start:stop].reshape(shape)))
        start = stop
    return parts


def _tensor(record: str, name: str, values: NDArray[Any]) -> Part:
    data = np.ascontiguousarray(values)
    digest = hashlib.sha256(data.reshape(-1).view(np.uint8).data).hexdigest()
    shape = tuple(int(length) for length in values.shape)
    return Part(record, name, shape, str(values.dtype), values.nbytes, digest)


def _value(record: str, name: str, value: Any) -> Part:
    if isinstance(value, str):
        return text_part(record, name, value)
    kind = type(value).__name__
    if isinstance(value, float | int):
        data = np.asarray(value).tobytes()
    else:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Part(record, name, (), kind, len(data), hashlib.sha256(data).hexdigest())


def _judge_info(info: SiteInfo, expected: ExpectedMessage) -> None:
    _same("site", info.site, expected.site)
    _same("site of the split", info.leakage.site, expected.site)
    _same("layout", info.layout, expected.layout.digest())
    _digests({"fingerprint": info.fingerprint, "config": info.config})
    if info.leakage.unit not in ("patient", "image"):
        raise PolicyError("the unit of the split is neither 'patient' nor 'image'")
    _same("number of classes", len(info.class_counts), expected.classes)


def _judge_header(reply: SiteReply, expected: ExpectedMessage, policy: Policy) -> None:
    _same("site", reply.site, expected.site)
    _same("run", reply.run, expected.run)
    _same("round", reply.round, expected.round)
    _digests({"fingerprint": reply.fingerprint})
    unlisted = [name for name in reply.metrics if not may_leave(policy, name)]
    if unlisted:
        raise PolicyError(
            f"the figures {', '.join(sorted(unlisted))} are not listed (policy: figures)"
        )


def _judge_weights(reply: RoundReply, expected: ExpectedMessage, policy: Policy) -> None:
    if "weights" not in policy.may_leave:
        raise PolicyError("weights may not leave (policy: may-leave)")
    _same("layout of the weights", reply.layout, expected.layout)
    shape, dtype = (expected.layout.size,), HALF if expected.halved else expected.layout.dtype
    _same("shape of the weights", reply.shared.shape, shape)
    _same("type of the weights", str(reply.shared.dtype), dtype)
    if not (policy.largest_update or policy.clip_update):
        return
    if expected.received is None or expected.received.shape != shape:
        raise PolicyError(
            "what the round began with is unknown (policy: largest-update, clip-update)"
        )
    if expected.halved and policy.clip_update:
        raise PolicyError(
            "a change in half precision cannot be clipped exactly (policy: clip-update)"
        )
    received = expected.received
    shared = add_delta(received, reply.shared) if expected.halved else reply.shared
    change = change_of(shared, received)
    for key, (least, most) in _limits(received, policy).items():
        # Not `>`: a change that is no number is too large.
        if not change <= most:
            raise PolicyError(
                f"the weights changed by {change:.4g}, more than {most:.4g} (policy: {key})"
            )
        if change < least:
            raise PolicyError(
                f"the weights changed by {change:.4g}, less than {least:.4g} (policy: {key})"
            )


def _limits(received: NDArray[Any], policy: Policy) -> Mapping[str, tuple[float, float]]:
    """Return key of the policy → least and largest norm of a change that it lets pass."""
    limits = {}
    if policy.update_noise:
        limits["update-noise"] = noised_range(received, policy)
    elif policy.clip_update:
        limits["clip-update"] = (0.0, policy.clip_update * (1 + 1e-9))
    if policy.largest_update:
        limits["largest-update"] = (0.0, policy.largest_update)
    return limits


def _judge_prototypes(found: Prototypes, expected: ExpectedMessage, policy: Policy) -> None:
    count = len(found.classes)
    for name, array, shape, kind in (
        ("classes", found.classes, (count,), np.int64),
        ("vectors", found.vectors, (count, expected.projection_size), np.float32),
        ("counts", found.counts, (count,), np.int64),
    ):
        _same(f"shape of the prototypes' {name}", array.shape, shape)
        _same(f"type of the prototypes' {name}", array.dtype, np.dtype(kind))
    if not count:
        return
    if "prototypes" not in policy.may_leave:
        raise PolicyError("prototypes may not leave (policy: may-leave)")
    if len(set(found.classes.tolist())) < count or not set(found.classes.tolist()) <= set(
        range(expected.classes)
    ):
        raise PolicyError("the prototypes are not one a class")
    if (fewest := int(found.counts.min())) < policy.min_prototype_images:
        raise PolicyError(
            f"a prototype stands for {fewest} images, fewer than {policy.min_prototype_images} "
            "(policy: min-prototype-images)"
        )
    if not np.allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-3):
        raise PolicyError("a prototype is not of length 1")


def _same(what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise PolicyError(f"the {what} is not the one expected")


def _digests(texts: Mapping[str, str]) -> None:
    strange: Sequence[str] = [name for name, text in texts.items() if not DIGEST.fullmatch(text)]
    if strange:
        raise PolicyError(f"the {' and the '.join(strange)} is no SHA-256")
