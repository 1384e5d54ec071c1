"""The egress gate: what is about to leave is read and judged, part by part.

What is judged are the bytes, decoded anew, and not what the code before meant to send.
"""

import hashlib
import json
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, RecordDict
from numpy.typing import NDArray

from clients.egress.ledger import LedgerPart, Noise
from clients.egress.noise import change_of, noise_in, noised_range
from clients.egress.policy import Policy, may_leave, why_no_statistics
from common.config.schema import Config
from common.errors import PolicyError
from common.exchange.codecs.moments import decode_round
from common.exchange.codecs.registry import find_codec
from common.exchange.messages import RoundReply, SiteInfo, SiteReply
from common.exchange.payload import Codec, check_parts, only
from common.exchange.wire import CARD, METHOD, MOMENTS, SHARED, decode
from common.learning.prototypes import Prototypes
from common.methods.method import Arrays
from common.methods.registry import methods_of
from common.models.network import projection_width
from common.models.sharing import Layout
from common.tasks.task import task_layout


@dataclass(frozen=True)
class ExpectedMessage:
    """What an answer can be."""

    config: Config
    """The run's."""
    site: str
    run: str
    """Whose, and to which run."""
    round: int = 0
    """To which round; 0: to the join request."""
    received: NDArray[Any] | None = None
    """Shape (layout.size,). The shared tensors that a round began with."""
    moments: Arrays = field(default_factory=dict)
    """Their moments, where these are averaged."""
    steps: int = 0
    """How many a round had."""

    @cached_property
    def layout(self) -> Layout:
        """Of the shared tensors."""
        return task_layout(self.config, self.site)

    @property
    def codec(self) -> Codec:
        """How the shared tensors travel that a round ended with."""
        return find_codec(self.config.codec)

    def reference(self) -> NDArray[Any]:
        """Return what a round began with.

        Raises
        ------
        PolicyError
            If it is unknown: no round was asked for, and no weights leave.
        """
        if self.received is None or self.received.shape != (self.layout.size,):
            raise PolicyError(
                "what the round began with is unknown (policy: largest-update, clip-update)"
            )
        return self.received


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
        _judge_info(decode(SiteInfo, content), expected, policy)
    elif SHARED in content:
        before = expected.reference()
        reply = decode(RoundReply, content, lambda arrays: expected.codec.decode(arrays, before))
        _judge_header(reply, expected, policy)
        _judge_weights(reply, expected, policy)
        _judge_prototypes(reply.prototypes, expected, policy)
        _judge_added(reply.parts, expected, policy)
        _judge_moments(reply.moments, expected, policy)
        return noise_in(reply, policy)
    else:
        _judge_header(decode(SiteReply, content), expected, policy)
    return None


def parts_of(content: RecordDict, layout: Layout) -> tuple[LedgerPart, ...]:
    """List all that a message holds; the shared tensors each by itself."""
    found = []
    for name, record in content.items():
        arrays = isinstance(record, ArrayRecord)
        held: Any
        for key, held in record.items():
            held = held.numpy() if arrays else held
            if name not in (SHARED, METHOD, MOMENTS) or np.shape(held) != (layout.size,):
                found.append(part_of(name, key, held))
                continue
            of = "" if name == SHARED else f"{key}/"
            ends = np.cumsum([math.prod(shape) for shape in layout.shapes])
            tensors = zip(layout.names, layout.shapes, np.split(held, ends[:-1]), strict=False)
            found += [part_of(name, f"{of}{n}", t.reshape(shape)) for n, shape, t in tensors]
    return tuple(found)


def part_of(record: str, name: str, value: Any) -> LedgerPart:
    """Return a tensor, a number or a text of a message as the ledger has it."""
    shape: tuple[int, ...] = ()
    kind = type(value).__name__
    if isinstance(value, np.ndarray):
        shape, kind = value.shape, str(value.dtype)
        data = value.tobytes()
    elif isinstance(value, str):
        kind, data = "text", value.encode()
    elif isinstance(value, float | int):
        data = np.asarray(value).tobytes()
    else:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return LedgerPart(record, name, shape, kind, len(data), hashlib.sha256(data).hexdigest())


def _judge_info(info: SiteInfo, expected: ExpectedMessage, policy: Policy) -> None:
    _same("site", info.site, expected.site)
    _same("site of the split", info.leakage.site, expected.site)
    _same("layout", info.layout, expected.layout.digest())
    _same("number of classes", len(info.class_counts), len(expected.config.class_names))
    if info.statistics is None:
        return
    if not expected.config.site_statistics:
        raise PolicyError("the run asks for no statistics (site-statistics)")
    if (reason := why_no_statistics(info, policy)) is not None:
        raise PolicyError(reason)
    _same("number of images behind the statistics", info.statistics.images, info.train_images)


def _judge_header(reply: SiteReply, expected: ExpectedMessage, policy: Policy) -> None:
    _same("site", reply.site, expected.site)
    _same("run", reply.run, expected.run)
    _same("round", reply.round, expected.round)
    unlisted = [name for name in reply.metrics if not may_leave(policy, name)]
    if unlisted:
        raise PolicyError(
            f"the figures {', '.join(sorted(unlisted))} are not listed (policy: figures)"
        )


def _judge_weights(reply: RoundReply, expected: ExpectedMessage, policy: Policy) -> None:
    if "weights" not in policy.may_leave:
        raise PolicyError("weights may not leave (policy: may-leave)")
    _same("layout of the weights", reply.layout, expected.layout)
    _same("shape of the weights", reply.shared.shape, (expected.layout.size,))
    _same("type of the weights", str(reply.shared.dtype), expected.layout.dtype)
    if not (policy.largest_update or policy.clip_update):
        return
    if policy.clip_update and not expected.codec.exact:
        raise PolicyError(f"{expected.codec.about} cannot be clipped exactly (policy: clip-update)")
    received = expected.reference()
    change = change_of(reply.shared, received)
    limits = {}
    if policy.update_noise:
        limits["update-noise"] = noised_range(received, policy)
    elif policy.clip_update:
        limits["clip-update"] = (0.0, policy.clip_update * (1 + 1e-9))
    if policy.largest_update:
        limits["largest-update"] = (0.0, policy.largest_update)
    for key, (least, most) in limits.items():
        # A change that is no number is too large.
        if not least <= change <= most:
            bound = f"less than {least:.4g}" if change < least else f"more than {most:.4g}"
            raise PolicyError(f"the weights changed by {change:.4g}, {bound} (policy: {key})")


def _judge_prototypes(found: Prototypes, expected: ExpectedMessage, policy: Policy) -> None:
    if found.classes.size and "prototypes" not in policy.may_leave:
        raise PolicyError("prototypes may not leave (policy: may-leave)")
    fewest = "min-prototype-images", policy.min_prototype_images
    config = expected.config
    size, rank, classes = projection_width(config), config.prototype_rank, len(config.class_names)
    fault = found.fault(size, rank, classes, fewest=fewest)
    if fault is not None:
        raise PolicyError(fault)


def _judge_added(parts: Arrays, expected: ExpectedMessage, policy: Policy) -> None:
    """Judge what methods send besides: as the run says, and not where noise protects the rest."""
    check_parts(parts, methods_of(expected.config).forms(expected.config, expected.layout))
    if not parts:
        return
    names = ", ".join(parts)
    if METHOD not in policy.may_leave:
        raise PolicyError(f"method may not leave: '{names}' (policy: may-leave)")
    _refuse_beside_limits(f"'{names}' tells", policy)


def _judge_moments(sent: Arrays, expected: ExpectedMessage, policy: Policy) -> None:
    """Judge the optimizer's moments: those of the shared tensors, where the run averages them."""
    if not expected.config.averages_moments:
        only(sent, [])
        return
    codec = expected.config.codec_moments
    decode_round(sent, expected.moments, expected.steps, codec, expected.layout)
    if MOMENTS not in policy.may_leave:
        raise PolicyError("moments may not leave (policy: may-leave)")
    _refuse_beside_limits("moments tell", policy)


def _refuse_beside_limits(what: str, policy: Policy) -> None:
    if policy.clip_update or policy.largest_update:
        raise PolicyError(
            f"{what} of the weights' change what no limit holds of "
            "(policy: largest-update, clip-update)"
        )


def _same(what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise PolicyError(f"the {what} is not the one expected")
