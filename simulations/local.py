"""Training on one machine without an exchange: all sites pooled, or each site alone.

Both go through the rounds, the budget and the files of federated training: a network has one
participant, in this process, which holds all of the network's sites. A round is what lies between
two evaluations: an epoch, or ``local-steps`` optimizer steps if these are more.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import torch

from clients.site import OpenSite, SiteImages
from clients.store import Owner, open_store
from common.config.schema import Config
from common.config.toml_model import key_of
from common.console.progress import ProgressListener, StepCounter
from common.device import Device, choose_device, limited_threads
from common.errors import ConfigError, RunError
from common.exchange.fingerprint import code_fingerprint
from common.files import alone_in
from common.learning.local_site import LocalSite, open_site
from common.methods.registry import methods_of
from common.models.network import Network
from common.models.sharing import (
    load_private,
    pack,
    parameter_mask,
    shared_layout,
    unpack,
)
from common.runs.result import read_run_config
from common.runs.weights import weights_digest, weights_name
from common.tasks.task import task_network
from common.tensor_files import load_tensors
from server.app import train as train_rounds
from server.checkpoints import load_checkpoint
from server.images import describe_images, record_images
from server.journal import Journal, tell_leakage
from server.participants import Participants, RunContext
from server.run_folder import RunFolder, record_end, refuse_taken
from server.schedule import make_plan
from server.state import RunState
from server.strategy import SiteAverage
from simulations.local_participant import LocalRun, app_of, info_of, infos_of, take_steps
from simulations.runtime.in_process import FIRST_NODE, InProcessGrid, flower_output_to
from simulations.runtime.processes import stop_between_steps

Mode = Literal["pooled", "single"]


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
    if not config.threads:
        # Sums depend on their number: a resumed run keeps the one it had.
        stored = read_run_config(base / config.run_name) if config.resume else None
        threads = stored.threads if stored else len(os.sched_getaffinity(0))
        config = config.changed(threads=threads)
    device = choose_device(config)
    names = config.site_names
    owners = [None] if mode == "pooled" else list(names)
    with limited_threads(config):
        # Built first: a network that cannot be is told before an hour of decoding.
        network = task_network(config, names if mode == "pooled" else names[:1])
        opened = {name: _open(config, name, device, listener) for name in names}
        _refuse_earlier_checkpoints(config, base)
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
            sites = {
                name: SiteImages(**vars(site), own=folder.site(name))
                for name, site in opened.items()
            }
            for site in sites.values():
                for warning in site.warnings:
                    folder.log(warning)
            images = [len(site.split.train) for site in sites.values()]
            plan = make_plan(config.changed(finish_alone=0.0), images)
            plan = replace(plan, round_steps=max(plan.round_steps, plan.epoch_steps))
            run = LocalRun(folder, device, plan, sites, listener, should_stop)
            infos = infos_of(run)
            for line in describe_images(infos, config.class_names):
                listener.message(line)
                folder.log(line)
            results = [_train_network(run, owner) for owner in owners]
            folder.finish(_together(results) | {"site_images": record_images(infos)})
            shutil.rmtree(folder.path / "checkpoint", ignore_errors=True)
    return folder.path


def _refuse_federated_parts(config: Config, mode: Mode) -> None:
    """Refuse keys that would do nothing without an exchange."""
    for method in methods_of(config).members:
        if method.federated:
            value = getattr(config, method.key)
            said = f"'{value}'" if isinstance(value, str) else f"{value:g}"
            raise ConfigError(
                f"{key_of(method.key)} is {said}, but it is for federated training: in {mode} "
                "training nothing is received. Leave it out."
            )
    for key in ("share", "codec", "codec_down"):
        if (value := getattr(config, key)) != Config.model_fields[key].default:
            raise ConfigError(f"{key_of(key)} is '{value}', but {mode} training exchanges nothing.")


def _refuse_earlier_checkpoints(config: Config, base: Path) -> None:
    """Refuse to go on with what an earlier version of xsite has begun."""
    run = base / config.run_name
    if config.resume and any((run / "checkpoint").rglob("step-*.safetensors")):
        raise RunError(
            f"The run {run} was begun by an earlier version of xsite, whose checkpoints this one "
            "cannot go on with. Finish it with that version, or start a new run."
        )


def _open(config: Config, name: str, device: Device, listener: ProgressListener) -> LocalSite:
    """Decode a site's images, or find them decoded, and split them.

    Raises
    ------
    SiteError
        If the site is not fit for training.
    """
    counter = StepCounter(listener, f"preparing the images of {name}")
    site = LocalSite.of(open_site(config, name, progress=counter), config, device)
    listener.close()
    data, split = site.data, site.split
    listener.message(
        f"{name}: {len(data)} images, {len(split.train)} for training, {len(split.test)} for "
        f"testing{f', {len(split.validation)} for validation' if len(split.validation) else ''}"
    )
    if data.left_out:
        listener.message(f"  left out by classes-map: {data.left_out}")
    for text in (site.leakage.sentence(), *site.warnings):
        listener.message(f"  {text}")
    return site


def _train_network(run: LocalRun, owner: str | None) -> dict[str, Any]:
    """Train the network of all sites, or of the one that owns it."""
    config, folder, listener = run.config, run.folder, run.listener
    images = tuple(run.sites.values()) if owner is None else (run.sites[owner],)
    names = [one.name for one in images]
    network = task_network(config, names).to(run.device.device)
    site = _participant(run, owner, images, network)
    participants = Participants((site.name,))
    participants.add(FIRST_NODE, info_of(site))
    context = RunContext(
        site.run,
        config,
        participants,
        run.plan,
        shared_layout(network),
        code_fingerprint(),
        parameter_mask(network),
        exchanges=False,
    )

    def say(text: str) -> None:
        listener.message(text)
        folder.log(text)

    with torch.device("meta"):
        # Only its shapes are needed, to write weights by.
        journal = Journal(
            folder, context, task_network(config.changed(pretrained=""), names), say, owner
        )
    state = load_checkpoint(journal.checkpoints, run.train_images, config.digest())
    state = state or RunState(0, pack(network), run.train_images)
    strategy = SiteAverage(journal, state, lambda: None)
    del state
    nodes: dict[int, dict[str, Any]] = {FIRST_NODE: {}}
    grid = InProcessGrid(app_of(site, run.should_stop), nodes, config.to_run_config())
    title = f"single-site training of {owner}" if owner else "pooled training"
    listener.start(title, run.plan.total_steps)
    try:
        with flower_output_to(StringIO()):
            ending = train_rounds(grid, strategy)
    finally:
        listener.close()
    journal.save_final(ending.state)
    if config.validation_fraction and not ending.best:
        listener.message(
            "No site's validation images hold every class, so validation chose no weights."
        )
    unpack(network, ending.state.shared)
    return _result(run, images, network, journal.result(ending))


def _participant(
    run: LocalRun, owner: str | None, images: tuple[SiteImages, ...], network: Network
) -> OpenSite:
    """Return who holds the sites of a network; its folder is removed with the run's checkpoint."""
    name, title = owner or "pooled", run.folder.path.name
    place = run.folder.path / "checkpoint" / (owner or "")
    unfinished = open_store(place / "unfinished", Owner(name, title, run.config.digest()))
    return OpenSite(
        name=name,
        run=title,
        own=place / "participant",
        config=run.config,
        device=run.device,
        sites=images,
        nodes=1,
        take_steps=partial(take_steps, run, images, unfinished),
        kept=network,
    )


def _result(
    run: LocalRun, images: tuple[SiteImages, ...], network: Network, told: dict[str, Any]
) -> dict[str, Any]:
    """Return what ``result.json`` says of one network; its last weights are loaded into it."""
    for one in images:
        load_private(network, load_tensors(one.own / weights_name("private", "final"))[0])
    digest = weights_digest(network)
    return told | {
        "images_seen": dict.fromkeys(run.sites, told["budget"]["images_per_site"]),
        "train_images": run.train_images,
        "leakage": [tell_leakage(one.leakage) for one in run.sites.values()],
        "weights_digest": {one.name: digest for one in images},
        "device": run.device.describe(),
    }


def _together(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the result of a run whose sites have networks of their own."""
    by_site = ("metrics", "best", "weights_digest")
    return results[0] | {
        **{key: {name: v for one in results for name, v in one[key].items()} for key in by_site},
        "private": [name for one in results for name in one["private"]],
        "seconds": sum(one["seconds"] for one in results),
    }
