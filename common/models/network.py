"""The network of a run: backbone, classification head, projection head, and their sites."""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from common.config.schema import Config
from common.data.folder import CLASS
from common.errors import ConfigError, RunError
from common.models import adapters, dsbn, released, standardised
from common.models import per_site as own
from common.models.backbones.covidnet import CovidNet, feature_size
from common.models.heads import TORCHVISION, class_head, projection_head
from common.randomness import seeded_torch

if TYPE_CHECKING:
    from common.models.backbones.torchvision_backbone import TorchvisionBackbone

Heads = Callable[[int], Mapping[str, nn.Module]]
"""From the width of the embedding to heads by the name of their target."""


class Output(NamedTuple):
    """What the network says about a batch."""

    logits: Tensor
    """Shape (batch, classes). Under ``variant = 'released'`` the sigmoid of them, on which the
    authors' cross entropy is taken."""
    embedding: Tensor
    """Shape (batch, embedding). The backbone's features."""
    projection: Tensor
    """Shape (batch, :func:`projection_width`). Their image under the projection head, not
    normalised; without one, the embedding."""
    auxiliary: Tensor | None = None
    """Shape (batch, classes). Logits of each image's site's own branch, where there are such
    branches."""
    others: Mapping[str, Tensor] = {}
    """Each of shape (batch, …). What further heads say, by the name of their target."""

    @property
    def heads(self) -> dict[str, Tensor]:
        """What every head says, by the name of its target."""
        return {CLASS: self.logits, **self.others}


class Network(nn.Module):
    """Backbone and heads, with each site's own normalisation or one for all.

    Parameters
    ----------
    backbone : Module
        Images → embedding.
    head : Module
        Embedding → logits.
    projection : Module
        Embedding → projection.
    sites : sequence of str
        Names of the sites.
    own_normalisation : bool
        Whether each site gets its own BatchNorm.
    description : str
        What the network is, for reports and errors.
    auxiliary : mapping of str to Module, optional
        Every site's own branch, embedding → logits (:mod:`common.methods.ms_net`).
    others : mapping of str to Module, optional
        Heads of further targets, embedding → (batch, …).
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        projection: nn.Module,
        sites: Sequence[str],
        own_normalisation: bool,
        description: str,
        auxiliary: Mapping[str, nn.Module] | None = None,
        others: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.head, self.projection = backbone, head, projection
        self.sites = tuple(sites)
        self.description = description
        self.routing = own.SiteRouting()
        self.auxiliary = own.PerSite(auxiliary, self.routing) if auxiliary else None
        self.others = nn.ModuleDict(others or {})
        if own_normalisation:
            dsbn.convert(self, self.sites, self.routing)
        else:
            dsbn.drop_counters(self)

    def forward(self, images: Tensor, site_slices: own.SiteSlices = ()) -> Output:
        """Classify and project a batch.

        Parameters
        ----------
        images : Tensor, shape (batch, 3, height, width)
            Every site's images together.
        site_slices : sequence of (str, int)
            Sites with their number of images, in the batch's order. A network of :meth:`for_site`
            needs none.

        Raises
        ------
        RunError
            If the segments do not add up to the batch or name an unknown site.
        """
        self._route(site_slices, len(images))
        embedding = self.backbone(images)
        branch = None if self.auxiliary is None else self.auxiliary(embedding)
        others = {name: head(embedding) for name, head in self.others.items()}
        return Output(self.head(embedding), embedding, self.projection(embedding), branch, others)

    def project(self, embeddings: Tensor, site_slices: own.SiteSlices = ()) -> Tensor:
        """Return the projections, shape (batch, size), of embeddings of a batch.

        Parameters and errors as of :meth:`forward`, of whose output the embeddings are.
        """
        self._route(site_slices, len(embeddings))
        projections: Tensor = self.projection(embeddings)
        return projections

    def _route(self, site_slices: own.SiteSlices, images: int) -> None:
        if self.sites:
            self._check(site_slices, images)
            self.routing.site_slices = tuple(site_slices)

    def _check(self, site_slices: own.SiteSlices, images: int) -> None:
        """Check that segments name known sites and cover a batch of so many images."""
        counts = [count for _, count in site_slices]
        if sum(counts) != images or any(count < 1 for count in counts):
            raise RunError(
                f"The batch holds {images} images, but its segments are {list(site_slices)}; "
                "every segment needs an image, and together they must cover the batch."
            )
        for site, _ in site_slices:
            if site not in self.sites:
                raise RunError(
                    f"The network has nothing of site '{site}'; it knows {', '.join(self.sites)}."
                )

    def for_site(self, site: str) -> "Network":
        """Return the network as one site has it, in eval mode, for inference: images → output.

        It keeps no state between calls, so that threads can share it, and PyTorch can export it.
        Its tensors are those of this network, so it follows what that learns; its mode is its own.

        Raises
        ------
        RunError
            If the network does not know the site.
        """
        self._check([(site, 1)], 1)
        twin = own.of_site(self, site)
        assert isinstance(twin, Network)
        # There is no choice between sites left, and no prediction reads the branch.
        twin.sites, twin.auxiliary = (), None
        del twin.routing
        return twin.eval()

    def add_site(self, site: str, like: str) -> None:
        """Give a further site modules of its own, copies of those of a site that the network knows.

        Raises
        ------
        RunError
            If the network knows it already.
        """
        if site in self.sites:
            raise RunError(f"The network has modules for site '{site}' already.")
        for place in self.modules():
            if isinstance(place, own.PerSite):
                place.sites[site] = copy.deepcopy(place.sites[like])
        self.sites += (site,)


class PrivateNetwork(Network):
    """A network of which nothing is shared, for sites that exchange prototypes alone."""

    private = True


def build_network(config: Config, sites: Sequence[str], heads: Heads | None = None) -> Network:
    """Build the network that a configuration describes.

    Its shared weights depend on the configuration alone: whatever ``sites``, they are the same.

    Parameters
    ----------
    config : Config
        Backbone, variant, width, normalisation, projection, seed, precision and pretrained.
    sites : sequence of str
        The sites that this network will see: one at a hospital, all in pooled training.
    heads : callable, optional
        Makes a task's heads, that of the class among them; without it, there is that one alone.

    Returns
    -------
    Network
        On the CPU, in training mode, channels last, float32 (float64 if ``precision`` says so).

    Raises
    ------
    ConfigError
        If the backbone is unknown or unfit.
    CheckpointError
        If ``config.pretrained`` cannot be read or belongs to another network.
    """
    with seeded_torch(config.seed, "network"):
        backbone = _backbone(config)
        embedding = backbone.embedding
        made = dict(heads(embedding) if heads else {CLASS: class_head(config, embedding)})
        map_shape = backbone.map_shape if isinstance(backbone, CovidNet) else None
        projection = projection_head(config, embedding, map_shape)
    parts = (backbone, *made.values(), projection)
    if config.normalisation == "none":
        for part in parts:
            standardised.convert(part)
    weights = sum(p.numel() for part in parts for p in part.parameters())
    variant = f" ({config.variant})" if config.backbone == "covidnet" else ""
    kind = PrivateNetwork if config.share == "prototypes" else Network
    head = made.pop(CLASS)
    network = kind(
        backbone,
        head,
        projection,
        sites,
        config.normalisation == "dsbn",
        f"{config.backbone}{variant}, width {config.width:g}, "
        f"{len(config.class_names)} classes, {weights / 1e6:.1f} million weights",
        # Initial weights depend on a site's name and the seed alone, whatever other sites join.
        {s: own.untrained(head, config.seed, s, "auxiliary branch") for s in sites}
        if config.auxiliary
        else None,
        made,
    )
    if config.adapters != "none":
        adapters.adapt(network.backbone, sites, network.routing, config.adapters)
    network.to(torch.float64 if config.precision == "float64" else torch.float32)
    network.to(memory_format=torch.channels_last)
    if config.pretrained:
        released.load_pretrained(network, sites, config)
    return network


# Asked for at every message, and equal configurations have equal networks.
@functools.lru_cache(maxsize=8)
def projection_width(config: Config) -> int:
    """Return the width of :attr:`Output.projection`, and so of prototypes."""
    if config.contrastive_on == "projection":
        return config.projection_size
    # On the device "meta" there are shapes and no values.
    with torch.device("meta"), seeded_torch(config.seed, "network"):
        return _backbone(config).embedding


def _backbone(config: Config) -> "CovidNet | TorchvisionBackbone":
    """Return a backbone, freshly initialised."""
    if config.backbone.startswith(TORCHVISION):
        if config.width != 1:
            raise ConfigError(
                f"width = {config.width:g} is for COVID-Net; torchvision's have their own."
            )
        # A second and 90 MB of every process that imports this file for another network.
        from common.models.backbones.torchvision_backbone import TorchvisionBackbone

        name = config.backbone.removeprefix(TORCHVISION)
        return TorchvisionBackbone(name, len(config.class_names), config.image_size)
    if config.backbone not in ("covidnet", "covidnet-original"):
        raise ConfigError(
            f"backbone is '{config.backbone}', but it must be 'covidnet', 'covidnet-original' or "
            "a torchvision classifier as 'torchvision:resnet18'."
        )
    if feature_size(config.image_size) < 1:
        raise ConfigError(f"image-size is {config.image_size}; COVID-Net needs at least 31.")
    variant = config.variant if config.backbone == "covidnet" else "original"
    return CovidNet(config.width, variant, config.image_size)
