"""Training on one machine without an exchange: all sites pooled, or each site alone.

Both go through the loop, the rounds, the budget and the files of federated training.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from common.config.schema import Config
from common.config.toml_model import key_of
from common.console.progress import ProgressListener, StepCounter
from common.device import Device, choose_device, limited_threads
from common.errors import ConfigError
from common.files import alone_in
from common.learning.local_site import LocalSite
from common.learning.schedule import Plan, make_plan
from common.models.network import Network
from common.models.sharing import private_names, shared_names
from common.runs.folder import RunFolder, read_run_config, record_end, refuse_taken
from common.runs.result import TrainingResult, subset_figures
from common.runs.weights import weights_digest
from common.signals import stop_between_steps
from common.tasks.task import task_network
from simulations.local_rounds import (
    Figures,
    RunContext,
    evaluate,
    load_weights,
    run_rounds,
    save_weights,
)

Mode = Literal["pooled", "single"]


@dataclass(frozen=True)
class Outcome:
    """What one network's training came to."""

    metrics: dict[str, Any]
    best: dict[str, Any]
    shared: tuple[str, ...]
    private: tuple[str, ...]
    digest: str
    seconds: float


def train_pooled(config: Config, base: Path, listener: ProgressListener) -> Path:
    """Train one network on the images of all sites: the reference for everything else.

    Parameters
    ----------
    config : Config
        The configuration; ``resume`` goes on with the run ``run-name`` bit for bit.
    base : Path
        The folder of all runs.
    listener : ProgressListener
        Told of progress.

    Returns
    -------
    Path
        The run's folder.

    Raises
    ------
    XsiteError
        Whatever makes the run impossible, in one sentence.
    KeyboardInterrupt
        If it was stopped; the run can be resumed from after the step of that moment.
    """
    return _train(config, "pooled", base, listener)


def train_single(config: Config, base: Path, listener: ProgressListener) -> Path:
    """Train a network of its own for every site, each with the steps of a run of all sites.

    Parameters, result and errors are those of :func:`train_pooled`.
    """
    return _train(config, "single", base, listener)


def _train(config: Config, mode: Mode, base: Path, listener: ProgressListener) -> Path:
    _refuse_federated_parts(config, mode)
    refuse_taken(config, base)
    config = _with_threads(config, base)
    device = choose_device(config)
    names = config.site_names
    groups = [names] if mode == "pooled" else [(name,) for name in names]
    with limited_threads(config):
        # Built first: a network that cannot be is told before an hour of decoding.
        network = task_network(config, groups[0])
        sites = {name: open_local_site(config, name, device, listener) for name in names}
        folder = RunFolder.create(config, mode, base)
        if folder.result.get("status") == "completed":
            listener.message(f"The run {folder.path} is complete already.")
            return folder.path
        with (
            alone_in(folder.path),
            record_end(folder, "stopped by hand"),
            stop_between_steps() as should_stop,
        ):
            listener.message(f"{folder.path}: {network.description}, on {device.describe()}")
            for site in sites.values():
                for warning in site.warnings:
                    folder.log(warning)
            plan = make_plan(config, [len(site.split.train) for site in sites.values()])
            # Nothing is exchanged: a round is what lies between two evaluations.
            plan = replace(plan, round_steps=max(plan.round_steps, plan.epoch_steps))
            outcomes = []
            for group in groups:
                # The first network is built already; the others only when it is their turn.
                network = network if group is groups[0] else task_network(config, group)
                course = RunContext(
                    folder=folder,
                    config=folder.config,
                    device=device,
                    plan=plan,
                    network=network.to(device.device),
                    sites={name: sites[name] for name in group},
                    owner=group[0] if mode == "single" else None,
                )
                outcomes.append(_train_network(course, listener, should_stop))
            result = _result(folder.config, device, plan, sites, network, outcomes)
            folder.finish(result.as_dict())
            shutil.rmtree(folder.path / "checkpoint", ignore_errors=True)
    return folder.path


def _refuse_federated_parts(config: Config, mode: Mode) -> None:
    """Refuse keys that would do nothing without an exchange."""
    for key in ("proximal", "model_contrast", "prototype_pull"):
        if value := getattr(config, key):
            raise ConfigError(
                f"{key_of(key)} is {value:g}, but it is for federated training: in {mode} training "
                "nothing is received. Leave it out."
            )
    if config.exchange != "weights":
        raise ConfigError(
            f"exchange is '{config.exchange}', but {mode} training exchanges nothing."
        )


def _with_threads(config: Config, base: Path) -> Config:
    """Fix the number of threads, on which sums depend: a resumed run keeps the one it had."""
    if config.threads:
        return config
    if config.resume:
        stored = base / config.run_name
        return config.changed(threads=read_run_config(stored).threads)
    return config.changed(threads=len(os.sched_getaffinity(0)))


def open_local_site(
    config: Config, name: str, device: Device, listener: ProgressListener
) -> LocalSite:
    """Decode a site's images, or find them decoded, and split them.

    Raises
    ------
    SiteError
        If the site is not fit for training.
    """
    counter = StepCounter(listener, f"preparing the images of {name}")
    site = LocalSite.open(config, name, device=device, progress=counter)
    listener.close()
    data, split = site.data, site.split
    listener.message(
        f"{name}: {len(data)} images, {len(split.train)} for training, {len(split.test)} for "
        f"testing{f', {len(split.validation)} for validation' if len(split.validation) else ''}"
    )
    for text in (site.leakage.sentence(), *site.warnings):
        listener.message(f"  {text}")
    return site


def _train_network(
    course: RunContext, listener: ProgressListener, should_stop: Callable[[], bool]
) -> Outcome:
    """Train one network, write its weights and predictions, and say how good it is."""
    position, figures = run_rounds(course, listener, should_stop)
    save_weights(course, "final")
    digest = weights_digest(course.network)
    metrics = _told(course, figures, "predictions.csv")
    best: dict[str, Any] = {}
    if position.best_round:
        load_weights(course, "best")
        told = _told(course, evaluate(course), "best-predictions.csv")
        chosen = {"round": position.best_round, "validation_auc": position.best_auc}
        best = {name: chosen | by_subset for name, by_subset in told.items()}
    elif course.config.validation_fraction:
        listener.message(
            "No site's validation images hold every class, so validation chose no weights."
        )
    return Outcome(
        metrics,
        best,
        shared_names(course.network),
        private_names(course.network),
        digest,
        position.seconds,
    )


def _told(course: RunContext, figures: Figures, file: str) -> dict[str, Any]:
    """Write predictions and return the figures for ``result.json``, by site and subset."""
    told: dict[str, Any] = {}
    for name, by_subset in figures.predictions.items():
        for subset, said in by_subset.items():
            files = [course.sites[name].data.files[index] for index in said.indices]
            course.folder.write_predictions(
                name,
                files,
                said.labels,
                said.probabilities,
                course.config.class_names,
                subset,
                file,
                [course.sites[name].data.patients[index] for index in said.indices],
                said.further(),
            )
            measured = figures.metrics[name][subset]
            figure = subset_figures(said.labels, said.probabilities, course.config.seed, measured)
            told.setdefault(name, {})[subset] = figure
    return told


def _result(
    config: Config,
    device: Device,
    plan: Plan,
    sites: dict[str, LocalSite],
    network: Network,
    outcomes: Sequence[Outcome],
) -> TrainingResult:
    budget = plan.budget(config.batch_size)
    return TrainingResult(
        metrics={name: told for one in outcomes for name, told in one.metrics.items()},
        best={name: told for one in outcomes for name, told in one.best.items()},
        budget=budget,
        images_seen=dict.fromkeys(sites, budget["images_per_site"]),
        train_images={name: len(site.split.train) for name, site in sites.items()},
        leakage=[site.leakage for site in sites.values()],
        network=network.description,
        shared=outcomes[0].shared,
        private=[name for one in outcomes for name in one.private],
        seconds=sum(one.seconds for one in outcomes),
        weights_digest={name: one.digest for one in outcomes for name in one.metrics},
        device=device.describe(),
    )
