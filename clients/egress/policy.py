"""What a hospital lets leave: a file of its own, that neither the app nor the coordinator writes.

Its SuperNode names it (``--node-config 'policy="/etc/xsite/policy.toml" …'``). Without one
:class:`Policy`'s defaults hold: shared weights, prototypes with counts, the listed figures, the
images' statistics, what the run's method adds, moments where it averages them, and nothing else. A
policy takes away and adds noise; it cannot let anything more leave than that. What it takes away is
taken here, the noise is added by :mod:`clients.egress.noise`, and what that guarantees is counted
by :mod:`clients.egress.budget`.
"""

import fnmatch
import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError

from common.config.toml_model import TomlModel, key_of, read_toml
from common.errors import PolicyError
from common.exchange.messages import RoundReply, SiteInfo, SiteReply
from common.tasks.figures import SUBSET_KEYS

What = Literal["weights", "prototypes", "figures", "statistics", "moments", "method"]
SENDABLE: tuple[What, ...] = get_args(What)
FIGURES = (
    *(f"{subset}/{figure}" for subset in ("validation", "test") for figure in SUBSET_KEYS),
    *(
        f"train/{figure}"
        for figure in ("loss", "cross_entropy", "contrastive", "images", "seconds")
    ),
    "seconds",
)
"""Every figure that a site ever sends: of all of its validation or test images together, and of
the training of a round."""


class Policy(TomlModel):
    """What may leave a site; a key of its file is the field's name in kebab-case."""

    may_leave: list[What] = Field(list(SENDABLE))
    """Parts of a reply: 'weights', 'prototypes' (with counts), 'figures'; 'statistics' of the
    training images' greys, once, as the site joins; 'moments' of the optimizer and what else a
    'method' sends, where the run asks for them. Without weights the site takes no part in
    training."""
    figures: list[str] = Field(["*"])
    """Which figures, as names or patterns: 'test/auc', 'train/*'."""
    min_prototype_images: int = Field(4, ge=1)
    """Fewest images behind a prototype; one with fewer stays."""
    min_statistics_images: int = Field(10, ge=1)
    """Fewest training images behind the statistics, of all classes together and of each that the
    site has; with fewer of one there are none."""
    largest_update: float = Field(0.0, ge=0.0)
    """Largest Euclidean norm of a round's change of the shared weights; 0: any."""
    clip_update: float = Field(0.0, ge=0.0)
    """Euclidean norm to which a round's change of the shared weights is scaled down where it is
    larger; 0: it is not."""
    update_noise: float = Field(0.0, ge=0.0)
    """Noise multiplier: Gaussian noise on every shared value, with a standard deviation of so many
    times 2 · clip-update, the furthest that other images could move what is sent. Noise is drawn
    from the operating system, so that nobody can take it away again, and a run with it is not
    repeatable."""
    prototype_noise: float = Field(0.0, ge=0.0)
    """Standard deviation of the Gaussian noise on every value of a prototype, whose length is 1;
    its noise multiplier is half of that."""
    delta: float = Field(1e-5, gt=0.0, le=1e-3)
    """At which δ the ε of all noise is told; well below 1 by the number of patients."""
    largest_epsilon: float = Field(0.0, ge=0.0)
    """Largest ε of all that ever left with noise; a message that would lead further is held back.
    Nothing without noise may leave then. 0: none is asked for."""
    approve_runs: bool = False
    """Whether a person must approve each run before anything of it leaves (`xsite approve`)."""


def read_policy(path: Path) -> Policy:
    """Read a policy file.

    Raises
    ------
    PolicyError
        If it cannot be read, others than its owner may write it, or it says something that no
        policy can: the file, the key, and what is allowed.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise PolicyError(f"Cannot read the policy {path}: {error.strerror}.") from error
    values = read_toml(path, "the policy", PolicyError)
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PolicyError(
            f"Others than its owner may write the policy {path}: chmod go-w {os.fspath(path)}."
        )
    return make_policy(values, str(path))


def make_policy(values: Mapping[str, Any], source: str) -> Policy:
    """Check values and make a policy of them; errors as of :func:`read_policy`."""
    known = [key_of(name) for name in Policy.model_fields]
    for key in values:
        # A second spelling could contradict the first.
        if key not in known:
            raise PolicyError(
                f"The policy {source} has a key '{key}'; there are {', '.join(known)}."
            )
    try:
        policy = Policy.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        raise PolicyError(f"The policy {source}: {first['loc'][0]}: {first['msg']}.") from None
    for pattern in policy.figures:
        if not fnmatch.filter(FIGURES, pattern):
            raise PolicyError(
                f"The policy {source} lists the figure '{pattern}', which no site sends. There "
                f"are {', '.join(FIGURES)}."
            )
    if said := _contradiction(policy):
        raise PolicyError(f"The policy {source}: {said}.")
    return policy


def _contradiction(policy: Policy) -> str:
    """Say which keys contradict each other; ``""`` where none do."""
    if policy.update_noise and not policy.clip_update:
        return (
            "update-noise is measured by clip-update, which is 0. Set clip-update to the norm that "
            "a round's change shall have at most"
        )
    if policy.update_noise and policy.largest_update:
        return (
            "with update-noise the weights move much further than training moved them, and "
            "largest-update would hold every round back. Leave it at 0: clip-update is the limit"
        )
    if not policy.largest_epsilon:
        return ""
    if "weights" in policy.may_leave and not policy.update_noise:
        return "largest-epsilon holds of no weights without noise: set clip-update and update-noise"
    if "prototypes" in policy.may_leave and not policy.prototype_noise:
        return (
            "largest-epsilon holds of no prototypes without noise: set prototype-noise, or take "
            "'prototypes' out of may-leave"
        )
    if any(may_leave(policy, figure) for figure in FIGURES):
        return (
            "largest-epsilon holds of no figures, which leave exactly: take 'figures' out of "
            "may-leave"
        )
    if "statistics" in policy.may_leave:
        return (
            "largest-epsilon holds of no statistics, which leave exactly: take 'statistics' out of "
            "may-leave"
        )
    return ""


def may_leave(policy: Policy, figure: str) -> bool:
    """Say whether a figure may leave."""
    named = figure in FIGURES and any(fnmatch.fnmatchcase(figure, one) for one in policy.figures)
    return "figures" in policy.may_leave and named


def reduced(reply: SiteReply, policy: Policy) -> tuple[SiteReply, str]:
    """Return a reply without what the policy keeps here, and say what; ``""`` where it is nothing.

    Weights are not left out: without them a round has no reply, and :mod:`clients.egress.gate`
    refuses.
    """
    figures = {name: value for name, value in reply.metrics.items() if may_leave(policy, name)}
    gone = {"figures": len(reply.metrics) - len(figures)}
    left = replace(reply, metrics=figures)
    if isinstance(left, RoundReply):
        before = left.prototypes
        enough = before.counts >= policy.min_prototype_images
        left = replace(left, prototypes=before.chosen(enough & ("prototypes" in policy.may_leave)))
        gone["prototypes"] = len(before.classes) - len(left.prototypes.classes)
    told = " and ".join(f"{count} {what}" for what, count in gone.items() if count)
    return left, f"the policy keeps here: {told}" if told else ""


def reduced_info(info: SiteInfo, policy: Policy) -> tuple[SiteInfo, str]:
    """Return a site info without statistics that may not leave, and why not; ``""`` if it may."""
    if info.statistics is None or (reason := why_no_statistics(info, policy)) is None:
        return info, ""
    return replace(info, statistics=None), reason


def why_no_statistics(info: SiteInfo, policy: Policy) -> str | None:
    """Say why the statistics of a site's training images may not leave; None if they may."""
    if "statistics" not in policy.may_leave:
        return "statistics may not leave (policy: may-leave)"
    fewest = min((count for count in info.class_counts if count), default=0)
    if fewest < policy.min_statistics_images:
        return (
            f"{fewest} images of a class stand behind the statistics, fewer than "
            f"min-statistics-images = {policy.min_statistics_images}"
        )
    return None
