"""Whether an order of the server can be followed: what no site should have to find out itself."""

from collections.abc import Sequence

import numpy as np

from common.exchange.messages import RoundOrder
from common.learning.prototypes import Prototypes


def fault_of(order: RoundOrder) -> str | None:
    """Say what contradicts itself in an order.

    Parameters
    ----------
    order : RoundOrder
        Each value of its type.

    Returns
    -------
    str or None
        The fault; None if there is none. What only the site knows (the network's size, its own
        store) is checked where it is used.
    """
    steps, training = order.steps, order.purpose == "train"
    # The chosen weights are of a round before the last one, from which the site goes on.
    last = order.round if order.purpose != "best" else max(order.round, order.previous)
    if not 0 <= order.previous <= last or not 0 <= order.best <= order.round:
        return f"round {order.round} after {order.previous}, the best one {order.best}"
    if not 0 <= steps.start <= steps.stop <= order.total_steps or (training and not steps):
        return f"steps {steps.start} to {steps.stop} of {order.total_steps}"
    for one in order.prototypes:
        fault = fault_of_prototypes(one) or _fault_of_classes(one, order.class_counts[one.site])
        if fault is not None:
            return f"prototypes of {one.site}: {fault}"
    return None


def fault_of_prototypes(found: Prototypes) -> str | None:
    """Say what is wrong with the types, shapes or values of prototypes, None if nothing is."""
    count = found.classes.size
    kinds = [str(array.dtype) for array in (found.classes, found.vectors, found.counts)]
    if kinds != ["int64", "float32", "int64"]:
        return f"of types {', '.join(kinds)}"
    shapes = found.classes.shape, found.vectors.shape[:1], found.counts.shape
    if shapes != ((count,),) * 3 or found.vectors.ndim != 2:
        return f"of shapes {found.classes.shape}, {found.vectors.shape}, {found.counts.shape}"
    if not np.isfinite(found.vectors).all():
        return "not finite"
    return None


def _fault_of_classes(found: Prototypes, counts: Sequence[int]) -> str | None:
    known = [label for label, images in enumerate(counts) if images > 0]
    if min(counts, default=0) < 0 or not set(found.classes.tolist()) <= set(known):
        return f"of the classes {found.classes.tolist()}, of which it has {list(counts)} images"
    return None
