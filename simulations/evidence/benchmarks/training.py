"""How fast xsite trains, against a plain loop, on this machine: images per second.

The plain loop is what one writes first: PNG files decoded and augmented image by image (Pillow
and torchvision), one forward pass a site, float32, contiguous tensors. xsite's decodes once,
augments a batch at a time on the device, passes all sites through the network together, channels
last, in bfloat16 where the processor computes it natively. Network, loss, optimizer, clipping and
batch size are the same; the two take turns, and medians are reported.

    python -m simulations.evidence training --steps 4 --rounds 5
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from common.config.schema import Config
from common.data.folder import CLASS
from common.device import Device, choose_device, limited_threads
from common.learning.local_site import LocalSite, TrainingSite, open_site
from common.learning.loop import train
from common.learning.objective import Batch, contrastive_term, objective
from common.learning.optimiser import make_optimizer
from common.models.network import Output, build_network
from server.run_folder import describe_environment
from simulations.evidence.benchmarks.two_sites import SITES, two_sites

Loop = Callable[[int], None]
"""Takes a number of further steps."""


def endless(loader: DataLoader[Any]) -> Iterator[Any]:
    """Yield a loader's batches for ever."""
    while True:
        yield from loader


def plain_loop(config: Config, device: Device, workers: int) -> Loop:
    """Return the plain loop."""
    network = build_network(config, SITES).to(memory_format=torch.contiguous_format)
    network.to(device.device).train()
    optimizer = make_optimizer(network, config)
    size = config.image_size
    transform = transforms.Compose(
        [
            transforms.Resize(round(size * 8 / 7)),
            transforms.RandomResizedCrop(size, scale=(config.crop_scale, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.25] * 3),
        ]
    )
    loaders = [
        DataLoader(
            ImageFolder(Path(config.data) / site, transform),
            batch_size=config.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.on_gpu,
        )
        for site in SITES
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

    return take


def own_loop(sites: Sequence[TrainingSite], config: Config) -> Loop:
    """Return xsite's training loop."""
    network = build_network(config, SITES).to(sites[0].device.device)
    optimizer = make_optimizer(network, config)
    done = 0

    def take(steps: int) -> None:
        nonlocal done
        these, total = range(done, done + steps), 10**6
        terms = [contrastive_term(config, total)]
        train(network, optimizer, sites, config, these, total, terms)
        done += steps

    return take


def rates(
    loops: Mapping[str, Loop], steps: int, rounds: int, images_per_step: int
) -> dict[str, float]:
    """Let the loops take turns and return each one's median of images per second."""
    found: dict[str, list[float]] = {name: [] for name in loops}
    for take in loops.values():
        take(1)  # allocators, kernels' choice, loader processes
    for number in range(rounds):
        for name, take in loops.items():
            started = time.perf_counter()
            take(steps)
            found[name].append(steps * images_per_step / (time.perf_counter() - started))
        told = ", ".join(f"{name}: {measured[-1]:.2f}" for name, measured in found.items())
        typer.echo(f"  round {number + 1} of {rounds}, images/s: {told}")
    return {name: median(measured) for name, measured in found.items()}


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
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
        config = two_sites(
            folder,
            (images, images),
            source,
            image_size=size,
            batch_size=batch,
            width=width,
            variant="released",
            threads=threads,
            device=device,
        )
        chosen = choose_device(config)
        held.enter_context(limited_threads(config))
        single = Device(chosen.device, torch.float32)
        typer.echo(
            f"{describe_environment()['cpu']}, {torch.get_num_threads()} threads; "
            f"training on {chosen.describe()}"
        )
        started = time.perf_counter()
        sites = [LocalSite.of(open_site(config, name), config) for name in SITES]
        seconds = time.perf_counter() - started
        typer.echo(f"decoded {2 * images} files once: {seconds:.2f} s, in no rate below")
        loops = {
            "plain loop, float32": plain_loop(config, single, workers),
            f"xsite, {str(chosen.dtype).removeprefix('torch.')}": own_loop(sites, config),
        }
        if chosen.dtype != torch.float32:
            in_single = [replace(site, device=single) for site in sites]
            loops["xsite, float32"] = own_loop(in_single, config)
        medians = rates(loops, steps, rounds, 2 * batch)
    for name, rate in medians.items():
        typer.echo(f"{name:24} {rate:8.2f} images/s (median)")
    plain, end_to_end, *_ = medians.values()
    typer.echo(f"end to end:              {end_to_end / plain:8.2f} times the plain loop")
    last = medians["xsite, float32"]
    typer.echo(f"float32 against float32: {last / plain:8.2f} times the plain loop")
