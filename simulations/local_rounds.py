"""One network's way through its rounds: train, checkpoint, evaluate, keep the best; resumable.

Without an exchange, a round is the time between two evaluations: an epoch, or ``local-steps``
optimizer steps if these are more. A run can be resumed from its end.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch.optim import Optimizer

from common.config.schema import Config
from common.console.progress import ProgressListener
from common.device import Device
from common.files import load_tensors
from common.learning.evaluation import Predictions, evaluate_site
from common.learning.local_site import LocalSite
from common.learning.loop import StepReport, make_optimizer, train
from common.learning.schedule import Plan
from common.models.network import Network
from common.models.sharing import load_private
from common.runs.folder import MetricsRow, RunFolder
from common.runs.weights import Which, load_shared, weights_name
from common.tasks.figures import is_better, mean_defined
from simulations.local_checkpoint import (
    Position,
    RoundLosses,
    load_checkpoint,
    save_checkpoint,
)


@dataclass(frozen=True)
class RunContext:
    """What one network's training consists of.

    Attributes
    ----------
    folder : RunFolder
        Where figures and weights go.
    config : Config
        The run's configuration.
    device : Device
        Where to compute.
    plan : Plan
        Steps and rounds.
    network : Network
        On the device.
    sites : mapping of str to LocalSite
        All sites in pooled training, one in single-site training.
    owner : str or None
        In single-site training the site, in whose folder the shared tensors go.
    """

    folder: RunFolder
    config: Config
    device: Device
    plan: Plan
    network: Network
    sites: Mapping[str, LocalSite]
    owner: str | None

    @property
    def title(self) -> str:
        """What is being trained, for a person."""
        return f"single-site training of {self.owner}" if self.owner else "pooled training"

    @property
    def checkpoints(self) -> Path:
        """Folder of this network's checkpoints."""
        folder = self.folder.path / "checkpoint"
        return folder / self.owner if self.owner else folder


@dataclass(frozen=True)
class Figures:
    """What the last evaluation of a network found, by site and subset."""

    metrics: Mapping[str, Mapping[str, Mapping[str, float]]]
    predictions: Mapping[str, Mapping[str, Predictions]]


def evaluate(course: RunContext) -> Figures:
    """Evaluate a network at each of its sites, on test and validation images."""
    found = {
        name: evaluate_site(course.network, site.training, site.split, course.config, course.device)
        for name, site in course.sites.items()
    }
    return Figures(
        {name: metrics for name, (metrics, _) in found.items()},
        {name: predictions for name, (_, predictions) in found.items()},
    )


def run_rounds(
    course: RunContext, listener: ProgressListener, should_stop: Callable[[], bool]
) -> tuple[Position, Figures]:
    """Train a network to its last step, from its newest checkpoint if it has one.

    Parameters
    ----------
    course : RunContext
        Its network is trained in place.
    listener : ProgressListener
        Told of progress.
    should_stop : callable
        Asked before each step.

    Returns
    -------
    tuple of Position and Figures
        Where it ended, and the figures of the last step's weights.

    Raises
    ------
    KeyboardInterrupt
        If it was stopped, after a checkpoint.
    RunError
        If the loss is no longer finite or the disk is full.
    """
    digest = course.config.digest()
    optimizer = make_optimizer(course.network, course.config)
    position = load_checkpoint(course.checkpoints, course.network, optimizer, digest)
    listener.start(course.title, course.plan.total_steps)
    try:
        while True:
            # Saved before the evaluation, which can take long and repeats itself if interrupted.
            position = _train_round(course, optimizer, position, listener, should_stop)
            if should_stop():
                raise KeyboardInterrupt
            started = time.monotonic()
            figures = evaluate(course)
            seconds = position.seconds + time.monotonic() - started
            position = _note_round(course, replace(position, seconds=seconds), figures)
            told = f"round {position.evaluated}: {_sentence(figures)}"
            listener.message(told)
            course.folder.log(told)
            if position.evaluated == course.plan.rounds:
                return position, figures
    finally:
        listener.close()


def _train_round(
    course: RunContext,
    optimizer: Optimizer,
    position: Position,
    listener: ProgressListener,
    should_stop: Callable[[], bool],
) -> Position:
    """Take the rest of a round's steps and write a checkpoint."""
    steps = range(position.next_step, course.plan.end(position.evaluated + 1))

    def tell(step: StepReport) -> None:
        listener.step(step.step + 1, step.loss, step.images / max(step.seconds, 1e-9))

    summary = train(
        course.network,
        optimizer,
        [site.training for site in course.sites.values()],
        course.config,
        course.device,
        steps,
        course.plan.total_steps,
        on_step=tell,
        should_stop=should_stop,
    )
    position = replace(
        position,
        next_step=summary.next_step,
        losses=position.losses.after(summary),
        seconds=position.seconds + summary.seconds,
    )
    if summary.steps:
        digest = course.config.digest()
        save_checkpoint(course.checkpoints, course.network, optimizer, position, digest)
    return position


def _note_round(course: RunContext, position: Position, figures: Figures) -> Position:
    """Write a round's figures and keep its weights if validation likes them best so far."""
    round = position.evaluated + 1
    auc = validation_auc(figures)
    if is_better(auc, position.best_round, position.best_auc):
        position = replace(position, best_round=round, best_auc=auc)
        save_weights(course, "best")
    rows = [
        MetricsRow(
            round=round,
            step=position.next_step,
            site=name,
            subset=subset,
            figures=metrics,
            train_loss=position.losses.loss,
            train_cross_entropy=position.losses.cross_entropy,
            train_contrastive=position.losses.contrastive,
            images_seen=position.next_step * course.config.batch_size,
            seconds=position.seconds,
        )
        for name, by_subset in figures.metrics.items()
        for subset, metrics in by_subset.items()
    ]
    course.folder.add_metrics(rows, round, sites=list(course.sites))
    return replace(position, evaluated=round, losses=RoundLosses())


def _sentence(figures: Figures) -> str:
    """Say accuracy and AUC on the test images of every site."""
    parts = []
    for name, by_subset in figures.metrics.items():
        test = by_subset["test"]
        auc = f" AUC {test['auc']:.3f}" if np.isfinite(test["auc"]) else ""
        parts.append(f"{name} accuracy {test['accuracy']:.3f}{auc}")
    return "; ".join(parts)


def validation_auc(figures: Figures) -> float:
    """Return the mean AUC on validation images over the sites where it is defined, else NaN."""
    aucs = [by["validation"]["auc"] for by in figures.metrics.values() if "validation" in by]
    return mean_defined(aucs)


def save_weights(course: RunContext, which: Which) -> None:
    """Write shared tensors and every site's private ones."""
    course.folder.save_shared(course.network, weights_name("shared", which), site=course.owner)
    for name in course.sites:
        course.folder.save_private(course.network, name, weights_name("private", which))


def load_weights(course: RunContext, which: Which) -> None:
    """Load what :func:`save_weights` wrote back into the network."""
    folder = course.folder.site(course.owner) if course.owner else course.folder.path
    load_shared(folder / weights_name("shared", which), course.network)
    for name in course.sites:
        tensors, _ = load_tensors(course.folder.site(name) / weights_name("private", which))
        load_private(course.network, tensors)
