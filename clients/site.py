"""A site, open: its images, their split, the device, and the folder of its own files."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from torch.optim import Optimizer

from clients.identity import Identity
from clients.store import Owner, PrivateStore, open_store
from common.config.schema import Config
from common.data.pictures import ImageStatistics, image_statistics
from common.device import Device, choose_device
from common.errors import XsiteError
from common.exchange.fingerprint import code_fingerprint
from common.exchange.messages import RoundOrder, SiteInfo
from common.files import write_json
from common.learning.local_site import LocalSite, open_site
from common.learning.loop import StepReport, TrainSummary
from common.learning.objective import Term
from common.methods.registry import methods_of
from common.models.network import Network
from common.tasks.task import task_layout, task_network

PROGRESS_SECONDS = 1.0


TakeSteps = Callable[[Network, Optimizer, RoundOrder, Sequence[Term]], TrainSummary]
"""Takes the steps of an order with a network and its optimizer."""


@dataclass(frozen=True, kw_only=True)
class SiteImages(LocalSite):
    """A site that is open, and where its files go."""

    own: Path
    """The folder of the site's files in this run."""


@dataclass(frozen=True)
class OpenSite:
    """What a participant works with while it answers a message: a site, of federated training.

    Where nothing is exchanged, the one participant holds every site of the network: all of them in
    pooled training. It meets nobody's prototypes, and its optimizer goes on from round to round.
    """

    name: str
    run: str
    """Names of the participant and of the run."""
    own: Path
    """The folder of the participant's files in this run."""
    config: Config
    """The run's configuration on this machine."""
    device: Device
    """Where to compute."""
    sites: tuple[SiteImages, ...]
    """What it holds; a federated site: itself."""
    nodes: int
    """Nodes of the simulation; 0 in a deployment."""
    take_steps: TakeSteps | None = None
    """Where nothing is exchanged: takes the steps of a round."""
    kept: Network | None = None
    """Where nothing is exchanged: the network, on the device, kept from message to message."""

    @property
    def alone(self) -> SiteImages:
        """The site that it is, where it holds one."""
        (only,) = self.sites
        return only

    @property
    def meets_prototypes(self) -> bool:
        """Whether other participants' prototypes are met, and its own by them."""
        others = self.take_steps is None and len(self.config.site_names) > 1
        return others and methods_of(self.config).meets_prototypes(self.config)

    @property
    def carries_moments(self) -> bool:
        """Whether its optimizer goes on from round to round."""
        return self.take_steps is not None or self.config.optimizer_state != "reset"

    @property
    def averages_moments(self) -> bool:
        """Whether that of the shared tensors goes on from the participants' average."""
        return self.take_steps is None and self.config.averages_moments

    def trains_alone(self, order: RoundOrder) -> bool:
        """Whether a round is the last one, which it trains for itself (``finish-alone``)."""
        asked = self.take_steps is None and self.config.finish_alone > 0
        return asked and order.purpose == "train" and order.last_step == order.total_steps

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Training images of each class, in label order."""
        return tuple(map(sum, zip(*(site.class_counts for site in self.sites), strict=True)))

    def network(self) -> Network:
        """Build the network as this participant sees it, untrained, on the device."""
        if self.kept is not None:
            return self.kept
        names = [site.name for site in self.sites]
        return task_network(self.config, names).to(self.device.device)

    def store(self) -> PrivateStore:
        """Open the site's private store of this run."""
        return open_store(self.own / "store", Owner(self.name, self.run, self.config.digest()))


def open_identity(identity: Identity, run: str) -> OpenSite:
    """Open a site: decode its images, or find them decoded, and split them.

    Raises
    ------
    SiteError
        If the site's folder, or a file in it, is unfit for training.
    ConfigError
        If the device is not there.
    """
    config, own = identity.config, identity.own(run)
    # Before minutes go into decoding.
    device = choose_device(config)
    data = open_site(config, identity.site, identity.images)
    images = SiteImages(**vars(LocalSite.of(data, config, device)), own=own)
    return OpenSite(identity.site, run, own, config, device, (images,), identity.nodes)


def make_site_info(site: OpenSite) -> SiteInfo:
    """Return the site's answer to a join request."""
    if site.alone.data.left_out:
        note(site.own, f"Left out by classes-map: {site.alone.data.left_out}")
    for warning in site.alone.warnings:
        note(site.own, warning)
    return SiteInfo(
        site=site.name,
        fingerprint=code_fingerprint(),
        config=site.config.digest(),
        layout=task_layout(site.config, site.name).digest(),
        class_counts=site.class_counts,
        nodes=site.nodes,
        leakage=site.alone.leakage,
        statistics=site_statistics(site.alone) if site.config.site_statistics else None,
    )


def site_statistics(site: LocalSite) -> ImageStatistics:
    """Return the statistics of a site's training images."""
    return image_statistics(site.data.images, site.split.train)


def note(own: Path, text: str) -> None:
    """Append lines with the time to the site's own log; a full disk stops nothing."""
    with suppress(OSError):
        own.mkdir(parents=True, exist_ok=True)
        # A file's name may be no text; what cannot be written down must not stop a refusal either.
        with (own / "log.txt").open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')}  {text}\n")


def progress_writer(own: Path, round: int, steps: range) -> Callable[[StepReport], None]:
    """Return a function that writes ``progress.json``, at most once a second and at the end."""
    written = -PROGRESS_SECONDS

    def write(report: StepReport) -> None:
        nonlocal written
        now = time.monotonic()
        if now - written < PROGRESS_SECONDS and report.step + 1 < steps.stop:
            return
        written = now
        # Progress is a courtesy; the run does not depend on it.
        with suppress(XsiteError):
            write_json(
                own / "progress.json",
                {
                    "round": round,
                    "step": report.step + 1,
                    "total_steps": report.total_steps,
                    "loss": report.loss,
                    "images_per_second": report.images / max(report.seconds, 1e-9),
                },
            )

    return write
