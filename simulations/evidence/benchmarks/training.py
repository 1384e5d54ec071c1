"""How fast xsite trains, against a plain loop, on this machine: images per second.

The plain loop is what one writes first: PNG files decoded and augmented image by image (Pillow
and torchvision), one forward pass a site, float32, contiguous tensors. xsite's decodes once,
augments a batch at a time on the device, passes all sites through the network together, channels
last, in bfloat16 where the processor computes it natively. Network, loss, optimizer, clipping and
batch size are the same; the two take turns, and medians are reported.

    python -m simulations.evidence training --steps 4 --rounds 5
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from common.config.load import make_config
from common.config.schema import Config
from common.data.cache import load_site
from common.data.decode import DecodeSettings
from common.data.folder import CLASS, SiteFolder
from common.data.folds import Split
from common.device import Device, choose_device, limited_threads
from common.learning.local_site import TrainingSite, training_site
from common.learning.loop import make_optimizer, train
from common.learning.objective import Batch, contrastive_term, objective
from common.models.network import Network, Output, build_network
from server.environment import describe_environment
from simulations.evidence.benchmarks.two_sites import CLASSES, SITES, write_site


@dataclass(frozen=True)
class Contender:
    """A loop under test: what it is, and how to take a number of further steps of it."""

    name: str
    take: Callable[[int], None]


class PlainImages(Dataset[tuple[Tensor, int]]):
    """A site's PNG files, decoded and augmented one at a time."""

    def __init__(self, folder: SiteFolder, size: int, crop_scale: float) -> None:
        self.folder = folder
        self.transform = transforms.Compose(
            [
                transforms.Resize(round(size * 8 / 7)),
                transforms.RandomResizedCrop(size, scale=(crop_scale, 1.0)),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize([0.5] * 3, [0.25] * 3),
            ]
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.folder.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return one image (3, size, size) and its label."""
        with Image.open(self.folder.root / self.folder.files[index]) as image:
            pixels: Tensor = self.transform(image.convert("RGB"))
        return pixels, int(self.folder.labels[index])


def endless(loader: DataLoader[Any]) -> Iterator[Any]:
    """Yield a loader's batches for ever."""
    while True:
        yield from loader


def plain_loop(
    folders: list[SiteFolder], config: Config, device: Device, workers: int
) -> Contender:
    """Return the plain loop."""
    network = build_network(config, SITES).to(memory_format=torch.contiguous_format)
    network.to(device.device).train()
    optimizer = make_optimizer(network, config)
    loaders = [
        DataLoader(
            PlainImages(folder, config.image_size, config.crop_scale),
            batch_size=config.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.on_gpu,
        )
        for folder in folders
    ]
    batches = [endless(loader) for loader in loaders]

    def take(steps: int) -> None:
        for _ in range(steps):
            outputs, labels = [], []
            for site, batch in zip(SITES, batches, strict=True):
                images, own = next(batch)
                images = images.to(device.device, non_blocking=True)
                outputs.append(network(images, [(site, len(images))]))
                labels.append(own.to(device.device, non_blocking=True))
            joint = Output(
                torch.cat([output.logits for output in outputs]),
                torch.cat([output.embedding for output in outputs]),
                torch.cat([output.projection for output in outputs]),
            )
            given = Batch(torch.empty(0), {CLASS: torch.cat(labels)}, (), joint)
            loss = objective(given, config, [contrastive_term(config, 1)], 0).total
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
            optimizer.step()
        loss.item()

    return Contender("plain loop, float32", take)


def own_loop(sites: list[TrainingSite], config: Config, device: Device) -> Contender:
    """Return xsite's training loop."""
    network: Network = build_network(config, SITES).to(device.device)
    optimizer = make_optimizer(network, config)
    done = 0

    def take(steps: int) -> None:
        nonlocal done
        these, total = range(done, done + steps), 10**6
        terms = [contrastive_term(config, total)]
        train(network, optimizer, sites, config, device, these, total, terms)
        done += steps

    return Contender(f"xsite, {str(device.dtype).removeprefix('torch.')}", take)


def rates(
    contenders: list[Contender], steps: int, rounds: int, images_per_step: int
) -> list[list[float]]:
    """Let the contenders take turns and return images per second of each, round by round."""
    found: list[list[float]] = [[] for _ in contenders]
    for contender in contenders:
        contender.take(1)  # allocators, kernels' choice, loader processes
    for number in range(rounds):
        for contender, measured in zip(contenders, found, strict=True):
            started = time.perf_counter()
            contender.take(steps)
            measured.append(steps * images_per_step / (time.perf_counter() - started))
        told = ", ".join(f"{c.name}: {m[-1]:.2f}" for c, m in zip(contenders, found, strict=True))
        typer.echo(f"  round {number + 1} of {rounds}, images/s: {told}")
    return found


def main(
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps in a turn.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each loop.")] = 5,
    size: Annotated[int, typer.Option(min=32, help="Height and width of images.")] = 224,
    batch: Annotated[int, typer.Option(min=2, help="Images of each of two sites in a step.")] = 16,
    width: Annotated[float, typer.Option(help="Multiplier of the network's width.")] = 1.0,
    source: Annotated[int, typer.Option(min=32, help="Height and width of PNG files.")] = 512,
    images: Annotated[int, typer.Option(min=32, help="PNG files of each site.")] = 64,
    workers: Annotated[int, typer.Option(help="Loader processes of the plain loop.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads; 0: all that may be used.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")] = "auto",
) -> None:
    """Measure training on synthetic PNG files and print images per second of both loops."""
    config = make_config(
        {
            "sites": ",".join(SITES),
            "classes": ",".join(CLASSES),
            "image-size": size,
            "batch-size": batch,
            "width": width,
            "variant": "released",
            "threads": threads,
            "device": device,
        }
    )
    chosen = choose_device(config)
    single = Device(chosen.device, torch.float32)
    with limited_threads(config) as used, tempfile.TemporaryDirectory() as place:
        typer.echo(
            f"{describe_environment()['cpu']}, {used} threads; training on {chosen.describe()}"
        )
        folders = [write_site(Path(place), name, images, source) for name in SITES]
        started = time.perf_counter()
        sites = [cached(folder, config, Path(place) / "cache", chosen) for folder in folders]
        seconds = time.perf_counter() - started
        typer.echo(f"decoded {2 * images} files once: {seconds:.2f} s, in no rate below")
        contenders = [
            plain_loop(folders, config, single, workers),
            own_loop(sites, config, chosen),
            own_loop(sites, config, single),
        ]
        if chosen.dtype == torch.float32:
            contenders.pop()
        found = rates(contenders, steps, rounds, 2 * batch)
    report(contenders, [statistics.median(measured) for measured in found])


def cached(folder: SiteFolder, config: Config, cache: Path, device: Device) -> TrainingSite:
    """Decode a site's files once, as xsite does; all of its images are for training."""
    data = load_site(folder, DecodeSettings.from_config(config), cache)
    nothing = np.empty(0, dtype=np.int64)
    return training_site(data, Split(np.arange(len(data)), nothing, nothing, "image"), device)


def report(contenders: list[Contender], medians: list[float]) -> None:
    """Print the medians and their ratios."""
    for contender, median in zip(contenders, medians, strict=True):
        typer.echo(f"{contender.name:24} {median:8.2f} images/s (median)")
    typer.echo(f"end to end:              {medians[1] / medians[0]:8.2f} times the plain loop")
    typer.echo(f"float32 against float32: {medians[-1] / medians[0]:8.2f} times the plain loop")
