"""A site, opened on this machine: its images, their split, and both as networks read them."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.config.schema import Config
from common.data.cache import SiteData, load_site
from common.data.decode_all import Progress
from common.data.folder import read_site
from common.data.folds import Leakage, Split, leakage, split_site
from common.data.open import cache_folder, site_root
from common.device import Device, choose_device
from common.tasks.task import task_of

ImageChange = Callable[[Tensor, int | None], Tensor]
"""What a method makes of images before a network sees them: shape (batch, 3, height, width) to the
same, at the training step of that number or, with None, in evaluation."""


def unchanged(images: Tensor, step: int | None) -> Tensor:
    """Return images as they are."""
    return images


@dataclass(frozen=True)
class TrainingSite:
    """A site's images as the loop reads them."""

    name: str
    """The site."""
    images: Tensor
    """Of uint8, shape (n, size, size, channels). On the GPU as a whole where they fit, else over
    the memory-mapped cache."""
    targets: Mapping[str, Tensor]
    """Each of shape (n, …). What is to be learnt of each image, on the training device."""
    train: NDArray[np.int64]
    """Which of them are for training."""
    device: Device
    """Where to compute, and in which precision."""
    change: ImageChange = field(default=unchanged, kw_only=True)
    """What the run's method makes of the images, once they are of the network's size."""

    def batch(self, indices: NDArray[np.int64]) -> tuple[Tensor, dict[str, Tensor]]:
        """Bring some images to the training device.

        Parameters
        ----------
        indices : ndarray of int64, shape (b,)
            Which of the site's images, in which order.

        Returns
        -------
        images : Tensor of uint8, shape (b, size, size, channels)
        targets : dict of str to Tensor, each of shape (b, …)
        """
        chosen = torch.from_numpy(indices)
        # index_select: `images[chosen]` is 300 times slower over bytes on the CPU.
        images = self.images.index_select(0, chosen.to(self.images.device, non_blocking=True))
        if self.device.on_gpu and not images.is_cuda:
            # Only from pinned memory does a copy not hold up the processor.
            images = images.pin_memory().to(self.device.device, non_blocking=True)
        chosen = chosen.to(self.device.device, non_blocking=True)
        return images, {name: held.index_select(0, chosen) for name, held in self.targets.items()}


def open_site(
    config: Config,
    name: str,
    root: Path | None = None,
    progress: Progress | None = None,
) -> SiteData:
    """Return a site's decoded images, and what the task learns of them.

    Parameters
    ----------
    config : Config
        Data, classes and decode settings.
    name : str
        The site.
    root : Path, optional
        Its folder where the site itself knows it; else the configuration's. A synthetic hospital
        is written into the cache folder the first time.
    progress : callable, optional
        Told how many of how many images are made or decoded.

    Raises
    ------
    SiteError
        If the folder or one of its files is unfit.
    RunError
        If the cache cannot be written.
    ConfigError
        If the hospital is a synthetic one and their painter is not installed.
    """
    folder = root or site_root(config, name, progress)
    site = read_site(name, folder, config.class_names, config.own_class_names)
    site = replace(site, targets=task_of(config).targets(site))
    return load_site(site, config, cache_folder(config), progress=progress)


@dataclass(frozen=True)
class LocalSite(TrainingSite):
    """A site and what is needed to train and evaluate at it."""

    data: SiteData
    """Its images, as they lie in the cache."""
    split: Split
    """Which of them are for what."""

    @classmethod
    def of(
        cls,
        data: SiteData,
        config: Config,
        device: Device | None = None,
    ) -> Self:
        """Split a site whose images are decoded, and bring them to where the loop reads them.

        Parameters
        ----------
        data : SiteData
            The memory-mapped cache and targets.
        config : Config
            The run's.
        device : Device, optional
            Without it, the configuration's. On a GPU, the whole set is copied there if it takes
            less than a quarter of the free memory.

        Raises
        ------
        SiteError
            If there are too few images to split.
        ConfigError
            If the device is not there.
        """
        device, split = device or choose_device(config), split_site(data, config)
        with warnings.catch_warnings():
            # torch has no read-only tensors; nothing here writes to the images.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            images = torch.from_numpy(np.asarray(data.images))
        if device.on_gpu and images.nbytes < torch.cuda.mem_get_info(device.device)[0] / 4:
            images = images.to(device.device)
        targets = {
            name: torch.from_numpy(np.asarray(values)).to(device.device)
            for name, values in data.targets.items()
        }
        return cls(data.name, images, targets, split.train, device, data, split)

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Training images of each class, in label order."""
        labels = self.data.labels[self.split.train]
        return tuple(np.bincount(labels, minlength=len(self.data.classes)).tolist())

    @property
    def leakage(self) -> Leakage:
        """Who falls on both sides of the split."""
        return leakage(self.data, self.split)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know of the site and its split."""
        return self.data.warnings + self.split.warnings
