"""How near a federated gradient is to the pooled one: its cosine and its length.

A small network is trained for some steps on all sites pooled. Then batches of each site are taken,
and two gradients with respect to the shared parameters: the site's own, for which the others'
prototypes stand in, and its share of the pooled gradient, for which the others' images are there.
Both are means over what can be drawn of the others. A cosine and a length of 1 would be the pooled
gradient itself. The term alone is the stricter measure: of the cross entropy the two are the same.

    python -m simulations.evidence fidelity --set prototype-rank=0
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, NamedTuple

import torch
import torch.nn.functional as F
import typer
from numpy.typing import NDArray
from torch import Tensor

from common.config.load import load_config, parse_override
from common.config.schema import Config, Scalar
from common.config.sections import SYNTHETIC
from common.console.options import ConfigFile, Settings
from common.device import limited_threads
from common.errors import XsiteError
from common.learning.latest import LatestEmbeddings, prototypes_of
from common.learning.local_site import LocalSite, open_site
from common.learning.loop import joint_batch, labels_of, train
from common.learning.objective import Batch, contrastive, contrastive_term, objective
from common.learning.optimiser import make_optimizer
from common.learning.prototypes import Constants, remote_prototypes
from common.models.network import Network, build_network
from common.models.sharing import shared_names
from server.run_folder import describe_environment

GROUND = Path(__file__).with_suffix(".toml")
TEMPERATURES = (0.05, 0.2)
DRAWS = 16
PARTS: Mapping[str, Mapping[str, Scalar]] = {
    "as configured": {},
    "spread along axes alone": {"prototype_rank": 0},
    "met as others alone": {"prototype_anchors": False},
    "means alone": {"prototype_draws": 0},
    "means, as others alone": {"prototype_draws": 0, "prototype_anchors": False},
    "no exchange": {"prototypes": "none"},
}
"""What is measured beside the configuration: the same without one part or two."""


class Fidelity(NamedTuple):
    """A federated gradient beside the pooled one."""

    cosine: float
    """Of the angle between them."""
    length: float
    """The federated one's, as a multiple of the pooled one's."""

    @classmethod
    def of(cls, federated: Tensor, pooled: Tensor) -> "Fidelity":
        """Compare two gradients, each of shape (parameters,)."""
        cosine = F.cosine_similarity(federated, pooled, dim=0)
        return cls(float(cosine), float(federated.norm() / pooled.norm()))


@dataclass(frozen=True)
class Trained:
    """A network after some steps on all sites pooled."""

    network: Network
    sites: Sequence[LocalSite]
    latest: Mapping[str, Mapping[str, NDArray[Any]]]
    """What each site trained on last, as :class:`LatestEmbeddings` has it."""
    said: Mapping[str, Sequence[Constants]]
    """Projections of batches of each site: what a joint batch can hold of it."""


def train_pooled(config: Config, sites: Sequence[LocalSite], steps: int, others: int) -> Trained:
    """Train a network for so many steps of a run that is twice as long.

    Parameters
    ----------
    config : Config
        Network, objective and training.
    sites : sequence of LocalSite
        All sites.
    steps : int
        How many.
    others : int
        Batches of every site that the pooled gradient of another one is a mean over.
    """
    network = build_network(config, config.site_names).to(sites[0].device.device)
    latest = {site.name: LatestEmbeddings(config, {}) for site in sites}

    def see(batch: Batch) -> None:
        for site, own in _by_site(batch):
            latest[site].add(own)

    optimizer, terms = make_optimizer(network, config), [contrastive_term(config, 2 * steps)]
    train(network, optimizer, sites, config, range(steps), 2 * steps, terms, on_batch=see)
    later = range(2 * steps, 2 * steps + others)
    with torch.no_grad():
        said = {
            site.name: [
                _as_constants(batch) for batch in training_batches(network, site, config, later)
            ]
            for site in sites
        }
    return Trained(network, sites, {name: own.arrays() for name, own in latest.items()}, said)


def _by_site(batch: Batch) -> Iterator[tuple[str, Batch]]:
    """Yield each site's part of a joint batch, with its embeddings alone of what is said."""
    start = 0
    for site, count in batch.site_slices:
        own = slice(start, start + count)
        assert batch.indices is not None
        said = batch.output._replace(embedding=batch.output.embedding[own])
        targets = {name: held[own] for name, held in batch.targets.items()}
        yield site, Batch(batch.images[own], targets, (), said, batch.step, batch.indices[own])
        start += count


def training_batches(
    network: Network, site: LocalSite, config: Config, steps: range
) -> Iterator[Batch]:
    """Yield a site's batches as training has them; running statistics are left as they are."""
    before = {name: tensor.clone() for name, tensor in network.named_buffers()}
    labels = [labels_of(site, config)]
    network.train()
    for step in steps:
        images, targets, slices, indices = joint_batch([site], labels, config, step)
        yield Batch(images, targets, slices, network(images, slices), step, indices)
    for name, tensor in network.named_buffers():
        tensor.copy_(before[name])


def _as_constants(batch: Batch) -> Constants:
    ones = torch.ones(len(batch.labels), device=batch.labels.device)
    return Constants(batch.output.projection, batch.labels, ones)


def fidelity(trained: Trained, config: Config, steps: range) -> tuple[Fidelity, Fidelity]:
    """Compare the gradients of batches of all sites.

    Parameters
    ----------
    trained : Trained
        A network and its sites.
    config : Config
        How prototypes are made and met.
    steps : range
        Global steps, of whose batches the mean is taken.

    Returns
    -------
    objective, term : Fidelity
        Mean over the batches, of the whole objective and of the contrastive term alone.
    """
    sites, network = trained.sites, trained.network
    counts = {site.name: site.class_counts for site in sites}
    made = [prototypes_of(name, own, network, config) for name, own in trained.latest.items()]
    shared = set(shared_names(network))
    parameters = [tensor for name, tensor in network.named_parameters() if name in shared]
    found: list[tuple[Fidelity, Fidelity]] = []
    for site in sites:
        remote = None
        if config.prototypes != "none":
            remote = remote_prototypes(site.name, made, counts, config, site.device)
        term = contrastive_term(config, steps.stop, site.name, remote)
        others = [trained.said[other.name] for other in sites if other is not site]
        joint = [
            Constants(*map(torch.cat, zip(*each, strict=True)))
            for each in zip(*others, strict=True)
        ]
        for batch in training_batches(network, site, config, steps):
            projections = batch.output.projection.detach().requires_grad_()
            apart = batch._replace(output=batch.output._replace(projection=projections))
            drawn = [term.value(apart._replace(step=draw)) for draw in range(DRAWS)]
            met = [
                contrastive(projections, batch.labels, config.temperature, config.denominator, one)
                for one in joint
            ]
            losses = (
                term.weight(batch.step) * torch.stack(drawn).mean(),
                len(sites) * config.alpha * torch.stack(met).mean(),
            )
            pulls = [torch.autograd.grad(loss, projections) for loss in losses]
            of_term = [_gradient(batch.output.projection, parameters, pull) for pull in pulls]
            of_task = _gradient(objective(batch, config, (), batch.step).total, parameters)
            of_all = [of_task + gradient for gradient in of_term]
            found.append((Fidelity.of(*of_all), Fidelity.of(*of_term)))
    whole, alone = (
        Fidelity(*(mean(values) for values in zip(*column, strict=True)))
        for column in zip(*found, strict=True)
    )
    return whole, alone


def _gradient(
    value: Tensor, parameters: Sequence[Tensor], of_value: Sequence[Tensor] | None = None
) -> Tensor:
    """Return the gradient with respect to all parameters, shape (parameters,)."""
    found = torch.autograd.grad(
        value, parameters, of_value, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return torch.cat([one.reshape(-1) for one in found])


def _grounds(file: Path | None, settings: Mapping[str, Scalar]) -> dict[str, Config]:
    """Return what is measured by name: what the user names, else synthetic and real sites."""

    def config(*layers: Mapping[str, Scalar]) -> Config:
        return load_config(None, {key: value for layer in layers for key, value in layer.items()})

    def written(path: Path) -> dict[str, Scalar]:
        return load_config(path).model_dump(by_alias=True, exclude_unset=True)

    base, named = written(GROUND), written(file) if file else {}
    if {"data", "sites"} & (named.keys() | settings.keys()):
        return {"sites": config(base, named, settings)}
    grounds: dict[str, Mapping[str, Scalar]] = {"synthetic": {"data": SYNTHETIC}}
    real = Path(os.environ.get("XSITE_DATA", "../shared/data")).absolute()
    if real.is_dir():
        grounds["CT"] = {"data": str(real), "sites": "covid-ct,sars-cov-2"}
    else:
        typer.echo(f"No real sites are in {real}; XSITE_DATA names their folder.")
    return {name: config(base, own, named, settings) for name, own in grounds.items()}


def main(
    config: ConfigFile = None,
    settings: Settings = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of training beforehand.")] = 96,
    batches: Annotated[int, typer.Option(min=1, help="Batches of each site.")] = 8,
    others: Annotated[
        int, typer.Option(min=1, help="Batches of others that each meets in the pooled term.")
    ] = 96,
) -> None:
    """Print cosine and length of the federated against the pooled gradient."""
    asked = dict(parse_override(one) for one in settings or ())
    heats = [float(asked["temperature"])] if "temperature" in asked else list(TEMPERATURES)
    worst: list[Fidelity] = []
    try:
        for name, ground in _grounds(config, asked).items():
            with limited_threads(ground):
                sites = [LocalSite.of(open_site(ground, one), ground) for one in ground.site_names]
                for heat in heats:
                    own = ground.changed(temperature=heat)
                    trained = train_pooled(own, sites, steps, others)
                    typer.echo(f"{f'{name}, τ = {heat:g}':<32}objective      term alone")
                    for part, change in PARTS.items():
                        chosen = own.changed(**change)
                        found = fidelity(trained, chosen, range(steps, steps + batches))
                        worst += () if change else found
                        told = "    ".join(f"{one.cosine:.3f}  {one.length:.2f}" for one in found)
                        typer.echo(f"  {part:<30}{told}")
                    typer.echo("")
    except XsiteError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    typer.echo(f"Cosine and length of the pooled gradient are 1. {describe_environment()['cpu']}.")
    lengths = [one.length for one in worst]
    least = min(one.cosine for one in worst)
    typer.echo(f"worst: cosine {least:.3f}, length {min(lengths):.2f} to {max(lengths):.2f}")


if __name__ == "__main__":
    typer.run(main)
