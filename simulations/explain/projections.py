"""Where test images lie in the space of projections, before training and after.

Does the disease cluster, or the hospital?
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from threadpoolctl import threadpool_limits

from common.config.schema import Config
from common.data.augment import prepare
from common.data.cache import SiteData
from common.data.folds import split_site
from common.device import choose_device
from common.errors import RunError
from common.learning.evaluation import estimate_statistics, predict
from common.learning.local_site import LocalSite
from common.methods.registry import methods_of
from common.models.network import Network
from common.randomness import numpy_generator
from common.runs.weights import load_run_network
from common.tasks.task import task_network
from simulations.report.numbers import decimal
from simulations.report.records import RunRecord

When = Literal["before", "after"]


def network_of(record: RunRecord, data: SiteData, when: When) -> Network:
    """Return the network of a run at a site, on the run's device.

    Before training: the weights that every run of the configuration starts from, pooled,
    single-site or federated, since they depend on neither its sites nor its mode. The running
    statistics that a new network is given belong to no image, so the site's own are estimated on
    its training images, as a federated site does when weights arrive.

    Parameters
    ----------
    record : RunRecord
        The run; for its network after training, a completed one.
    data : SiteData
        The site.
    when : {'before', 'after'}
        Which network.

    Raises
    ------
    RunError, CheckpointError
        If the run has no such network.
    """
    if when == "after":
        network, config = load_run_network(record.path, data.name, record.weights)
        return network.to(choose_device(config).device)
    config = record.config
    local = site_of(data, config)
    network = task_network(config, [data.name]).to(local.device.device)
    estimate_statistics(network, local, config)
    return network


def site_of(data: SiteData, config: Config) -> LocalSite:
    """Return a site whose images are, in evaluation, as the run's method has them."""
    local = LocalSite.of(data, config)
    return replace(local, change=methods_of(config).images(config, local, {}))


def prepared_images(data: SiteData, indices: NDArray[np.int64], config: Config) -> torch.Tensor:
    """Return images of the network's size, (n, 3, size, size), on the CPU."""
    return prepare(torch.from_numpy(np.array(data.images[indices])), config.image_size)


def network_images(data: SiteData, indices: NDArray[np.int64], config: Config) -> torch.Tensor:
    """Return images as the network sees them in evaluation, (n, 3, size, size), on the CPU."""
    return site_of(data, config).change(prepared_images(data, indices, config), None)


MOST = 150
COMPONENTS = 50
PERPLEXITY = 30.0
# Okabe and Ito's colours, which most eyes tell apart.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000")
MARKERS = ("o", "^", "s", "D", "v", "P", "X")


@dataclass(frozen=True)
class Clustering:
    """Silhouette coefficients over cosine distances, -1 to 1; NaN where there is one group."""

    by_class: float
    """Above 0 where images of a class lie closer to each other than to other classes."""
    by_site: float
    """The same of sites: near 0 where hospitals cannot be told apart."""


@dataclass(frozen=True)
class ProjectionMap:
    """Test images of all sites in the space of projections, before and after training."""

    sites: tuple[str, ...]
    classes: tuple[str, ...]
    """Names."""
    site_of: NDArray[np.int64]
    labels: NDArray[np.int64]
    """Shape (n,). Site and class of each image, as positions in ``sites`` and ``classes``."""
    places: dict[When, NDArray[np.float64]]
    """Shape (n, 2). On a map of either; the two maps share no axes."""
    clustering: dict[When, Clustering]
    """On the projections themselves."""


def projection_map(record: RunRecord, sites: Sequence[SiteData]) -> ProjectionMap:
    """Project test images of all sites with a run's network, before training and after.

    At most :data:`MOST` images of a site, drawn by the run's seed.

    Parameters
    ----------
    record : RunRecord
        A completed run, pooled or federated.
    sites : sequence of SiteData
        Its sites.

    Raises
    ------
    RunError
        If the run is a single-site one of several sites: their networks never met, so their
        projections lie in spaces that have nothing to do with each other.
    CheckpointError
        If the run has no weights.
    """
    if record.mode == "single" and len(sites) > 1:
        raise RunError(
            f"The run {record.path} trained a network for each site alone. Their projections lie "
            "in different spaces and make no common map; give one site, or another run."
        )
    chosen = [_chosen(record, data) for data in sites]
    labels = np.concatenate(
        [data.labels[indices] for data, indices in zip(sites, chosen, strict=True)]
    )
    site_of = np.repeat(np.arange(len(sites)), [len(indices) for indices in chosen])
    places: dict[When, NDArray[np.float64]] = {}
    clustering: dict[When, Clustering] = {}
    moments: tuple[When, ...] = ("before", "after")
    for when in moments:
        vectors = np.concatenate(
            [
                _project(record, data, indices, when)
                for data, indices in zip(sites, chosen, strict=True)
            ]
        )
        places[when] = embed(vectors)
        clustering[when] = Clustering(silhouette(vectors, labels), silhouette(vectors, site_of))
    names = tuple(data.name for data in sites)
    return ProjectionMap(names, record.config.class_names, site_of, labels, places, clustering)


def _chosen(record: RunRecord, data: SiteData) -> NDArray[np.int64]:
    """Draw test images of a site; the same for every method that meets the same fold and seed."""
    test = split_site(data, record.config).test
    generator = numpy_generator(record.config.seed, data.name, "projection map")
    return np.sort(generator.permutation(test)[:MOST])


def _project(
    record: RunRecord, data: SiteData, indices: NDArray[np.int64], when: When
) -> NDArray[np.float64]:
    """Return projections (n, size) of unit length."""
    local = site_of(data, record.config)
    network = network_of(record, data, when)
    _, found = predict(network, local, indices, record.config)
    vectors = found.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0))


def silhouette(vectors: NDArray[np.float64], groups: NDArray[np.int64]) -> float:
    """Return the mean silhouette coefficient over cosine distances, NaN without two groups.

    Parameters
    ----------
    vectors : ndarray, shape (n, size)
    groups : ndarray, shape (n,)
    """
    if not 2 <= len(np.unique(groups)) < len(groups):
        return float("nan")
    return float(silhouette_score(vectors, groups, metric="cosine"))


def embed(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lay vectors out in a plane so that neighbours stay neighbours: PCA, then t-SNE.

    Distances between clusters, and their sizes, mean nothing on such a map; the silhouette
    coefficients are taken from the vectors themselves.

    Parameters
    ----------
    vectors : ndarray, shape (n, size)
        Of unit length, so that Euclidean neighbours are neighbours by angle.

    Returns
    -------
    ndarray of float64, shape (n, 2)
        The same for the same vectors; zeros where there are fewer than four.
    """
    if len(vectors) < 4:
        return np.zeros((len(vectors), 2))
    components = min(COMPONENTS, *vectors.shape)
    # Several threads gain little on so few points, and wait for each other on a busy machine.
    with threadpool_limits(1), warnings.catch_warnings():
        # Projections of a network that gives one answer have no variance to explain.
        warnings.simplefilter("ignore", RuntimeWarning)
        reduced = PCA(components, svd_solver="full").fit_transform(vectors)
        spread = TSNE(
            perplexity=min(PERPLEXITY, (len(vectors) - 1) / 3),
            init="random" if components < 2 else "pca",
            random_state=0,
        ).fit_transform(reduced)
    return np.asarray(spread, dtype=np.float64)


def draw_projections(shown: ProjectionMap) -> Figure:
    """Draw both maps side by side: colour tells the site, marker the class."""
    figure = Figure(figsize=(8.4, 4.6))
    for axes, (when, title) in zip(
        figure.subplots(1, 2),
        (("before", "Before training"), ("after", "After training")),
        strict=True,
    ):
        _draw_map(axes, shown, when, title)  # type: ignore[arg-type]
    keys = [
        Line2D([], [], color=_at(COLOURS, place), marker="o", linestyle="", ms=5, label=site)
        for place, site in enumerate(shown.sites)
    ] + [
        Line2D([], [], color="#777777", marker=_at(MARKERS, place), linestyle="", ms=5, label=name)
        for place, name in enumerate(shown.classes)
    ]
    figure.legend(handles=keys, loc="lower center", ncols=len(keys), frameon=False, fontsize=8)
    figure.subplots_adjust(left=0.02, right=0.98, top=0.86, bottom=0.1, wspace=0.05)
    return figure


def _draw_map(axes: Axes, shown: ProjectionMap, when: When, title: str) -> None:
    found = shown.clustering[when]
    axes.set_title(
        f"{title}\nsilhouette by class {decimal(found.by_class)}, by site {decimal(found.by_site)}",
        fontsize=9,
    )
    for site in range(len(shown.sites)):
        for label in range(len(shown.classes)):
            group = shown.places[when][(shown.site_of == site) & (shown.labels == label)]
            axes.scatter(
                group[:, 0],
                group[:, 1],
                s=16,
                color=_at(COLOURS, site),
                marker=_at(MARKERS, label),
                alpha=0.75,
                linewidths=0,
            )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="datalim")


def _at(values: Sequence[str], place: int) -> str:
    return values[place % len(values)]
