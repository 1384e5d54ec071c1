"""The one training loop: pooled, single-site and federated training all go through :func:`train`.

They differ in the sites that a batch is made of and in the terms of the loss. What step s does is a
function of (configuration, weights, optimizer, terms, s) alone, so that a resumed run goes on bit
for bit.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from common.config.schema import Config
from common.data.augment import augment
from common.data.folder import CLASS
from common.device import Device
from common.errors import ConfigError, RunError
from common.learning.batches import batch_indices
from common.learning.local_site import TrainingSite
from common.learning.objective import Batch, Loss, Term, objective
from common.learning.optimiser import clip_gradients, learning_rate
from common.models.network import Network
from common.randomness import seeded_torch, torch_generator

REPORT_SECONDS = 0.5
"""Shortest time between two reports of a step; each makes the processor wait for the device."""


@dataclass(frozen=True)
class StepReport:
    """How training stands after a step; the loss is the mean since the last report."""

    step: int
    total_steps: int
    loss: float
    images: int
    seconds: float


@dataclass(frozen=True)
class TrainSummary:
    """What a call of :func:`train` did; losses are means over its steps.

    ``next_step`` is where to go on: the end of ``steps`` unless ``stopped``.
    """

    steps: int
    images: int
    seconds: float
    loss: float
    cross_entropy: float
    contrastive: float
    stopped: bool
    next_step: int


def train(
    network: Network,
    optimizer: Optimizer,
    sites: Sequence[TrainingSite],
    config: Config,
    steps: range,
    total_steps: int,
    terms: Sequence[Term] = (),
    on_step: Callable[[StepReport], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_batch: Callable[[Batch], None] | None = None,
) -> TrainSummary:
    """Take optimizer steps.

    Each step draws ``batch-size`` images of every site, passes them through the network together
    and takes one step on the mean over the joint batch. So with n sites a site's private gradient
    is 1/n of what that site alone would compute; the shared gradient is the mean over the sites.

    Parameters
    ----------
    network : Network
        On the device; trained in place.
    optimizer : Optimizer
        Of this network; its learning rate is set at each step.
    sites : sequence of TrainingSite
        All of them in pooled training, one otherwise.
    config : Config
        Objective, batch size, schedule, augmentation, seed.
    steps : range
        Global steps to take, for example ``range(120, 240)``.
    total_steps : int
        Steps of the whole run, over which the learning rate falls.
    terms : sequence of Term
        What the method adds to the cross entropy.
    on_step : callable, optional
        Called now and then, and after the last step.
    should_stop : callable, optional
        Asked before each step; True ends the call after what was done.
    on_batch : callable, optional
        Shown each batch and what the network says of it, before the step that it leads to.

    Returns
    -------
    TrainSummary
        Where it ended and the mean losses.

    Raises
    ------
    ConfigError
        If images are so small that a processor gets gradients wrong in bfloat16.
    RunError
        If a loss is not finite, naming the sites and the first such step. Losses are read from
        the device now and then, so a few more steps may have been taken; the weights are void.
    """
    network.train()
    device = sites[0].device
    _refuse_small_images(network, config, device)
    account = _Account(total_steps, on_step, ", ".join(site.name for site in sites), device)
    next_step = steps.start
    labels = [labels_of(site, config) for site in sites]
    for step in steps:
        if should_stop is not None and should_stop():
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step, total_steps)
        images, targets, site_slices, indices = joint_batch(sites, labels, config, step)
        # Dropout knows no generator of its own.
        with seeded_torch(config.seed, *(site.name for site in sites), step, "forward"):
            with sites[0].device.autocast():
                output = network(images, site_slices)
            batch = Batch(images, targets, site_slices, output, step, indices)
            loss = objective(batch, config, terms, step)
        if on_batch is not None:
            on_batch(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.total.backward()  # type: ignore[no-untyped-call]
        clip_gradients(network, config)
        optimizer.step()
        account.add(step, loss, len(images))
        next_step = step + 1
    # Gradients are as large as the network, and what follows needs none.
    optimizer.zero_grad(set_to_none=True)
    return account.close(next_step, stopped=next_step < steps.stop)


def _refuse_small_images(network: Network, config: Config, device: Device) -> None:
    least = getattr(network.backbone, "least_size", config.image_size)
    if config.image_size < least and device.dtype == torch.bfloat16 and not device.on_gpu:
        raise ConfigError(
            f"image-size is {config.image_size}, and below {least} a processor gets some gradients "
            f"of backbone = '{config.backbone}' wrong in bfloat16. Set image-size = {least} or "
            "more, or precision = 'float32'."
        )


def labels_of(site: TrainingSite, config: Config) -> NDArray[np.int64] | None:
    """Return the classes of a site's training images where batches are balanced by them."""
    if config.batches != "balanced":
        return None
    labels: NDArray[np.int64] = site.targets[CLASS].cpu().numpy()[site.train]
    return labels


def joint_batch(
    sites: Sequence[TrainingSite],
    labels: Sequence[NDArray[np.int64] | None],
    config: Config,
    step: int,
) -> tuple[Tensor, dict[str, Tensor], list[tuple[str, int]], Tensor]:
    """Return the batch of one step.

    Parameters
    ----------
    sites : sequence of TrainingSite
        Whose images it holds.
    labels : sequence of ndarray or None
        What :func:`labels_of` returns of each.
    config : Config
        Batch size, augmentation, seed.
    step : int
        Global step, from 0.

    Returns
    -------
    images : Tensor, shape (batch, 3, height, width)
        Augmented.
    targets : dict of str to Tensor, each of shape (batch, …)
        What is to be learnt of each.
    site_slices : list of (str, int)
        The sites, and how many images are of each.
    indices : Tensor of int64, shape (batch,)
        Which of its site's images each is.
    """
    images, targets, site_slices, chosen = [], [], [], []
    for site, own in zip(sites, labels, strict=True):
        indices = batch_indices(site.train, config.batch_size, step, config.seed, site.name, own)
        raw, own_targets = site.batch(indices)
        generator = torch_generator(config.seed, site.name, step, "augment")
        scale = (config.crop_scale, config.crop_scale_max)
        crops = augment(raw, config.image_size, scale, config.flip, generator)
        images.append(site.change(crops, step))
        targets.append(own_targets)
        chosen.append(torch.from_numpy(indices))
        site_slices.append((site.name, len(indices)))
    batch = images[0] if len(images) == 1 else torch.cat(images)
    joint = {name: torch.cat([one[name] for one in targets]) for name in targets[0]}
    return batch.to(sites[0].device.images_dtype), joint, site_slices, torch.cat(chosen)


class _Account:
    """Keeps the losses on the device, and reads, checks and reports them now and then.

    Summed step by step on the processor: how often it reads does not change a bit of the sums.
    """

    def __init__(
        self,
        total_steps: int,
        on_step: Callable[[StepReport], None] | None,
        sites: str,
        device: Device,
    ) -> None:
        self.total_steps, self.on_step, self.sites = total_steps, on_step, sites
        self.coarse = device.dtype == torch.bfloat16
        self.waiting: list[tuple[int, Tensor]] = []
        self.sums = [0.0, 0.0, 0.0]
        self.steps = self.images = 0
        self.started = self.last_read = time.perf_counter()

    def add(self, step: int, loss: Loss, images: int) -> None:
        """Take up the losses of a step over a number of images."""
        losses = torch.stack((loss.total.detach(), loss.cross_entropy, loss.contrastive))
        self.waiting.append((step, losses))
        self.steps += 1
        self.images += images
        if time.perf_counter() - self.last_read >= REPORT_SECONDS:
            self.read()

    def read(self) -> None:
        """Wait for the device, check the waiting losses, and report their means."""
        if not self.waiting:
            return
        rows: list[list[float]] = torch.stack([losses for _, losses in self.waiting]).tolist()
        for (step, _), row in zip(self.waiting, rows, strict=True):
            if not all(map(math.isfinite, row)):
                also = ", or precision = 'float32' (here it is bfloat16)" if self.coarse else ""
                raise RunError(
                    f"The loss is no longer finite at {self.sites}, step {step + 1} of "
                    f"{self.total_steps}. Lower learning-rate, or set clip-norm{also}."
                )
            self.sums = [total + value for total, value in zip(self.sums, row, strict=True)]
        loss = sum(row[0] for row in rows) / len(rows)
        last_step = self.waiting[-1][0]
        self.waiting.clear()
        self.last_read = time.perf_counter()
        if self.on_step is not None:
            seconds = self.last_read - self.started
            self.on_step(StepReport(last_step, self.total_steps, loss, self.images, seconds))

    def close(self, next_step: int, stopped: bool) -> TrainSummary:
        """Read what is left and sum up."""
        self.read()
        seconds = time.perf_counter() - self.started
        loss, cross_entropy, term = (total / max(1, self.steps) for total in self.sums)
        return TrainSummary(
            self.steps, self.images, seconds, loss, cross_entropy, term, stopped, next_step
        )
