"""Weights of a run on disk: which file holds what, and a network made of them again.

``shared.safetensors`` holds the shared tensors by their names in the network's state dict, a
site's ``private.safetensors`` that site's private ones. Each file's metadata say which network
and configuration it belongs to, a private one's the scale of the site's greys too.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from common.config.schema import Config
from common.data.scale import Scale
from common.errors import CheckpointError, RunError, StoreError
from common.models import dsbn
from common.models.network import Network
from common.models.sharing import load_private, load_shared, private_state, shared_names
from common.runs.result import read_run_config
from common.tasks.task import task_network
from common.tensor_files import load_tensors, save_tensors

Which = Literal["final", "best"]

SCALE = "greys"
"""Key of a private file's metadata: the values that are black and white, as JSON."""
ONBOARDED = "onboarded"
"""Folder within a run's: the private tensors of sites that met its network after training."""


def weights_name(part: Literal["shared", "private"], which: Which) -> str:
    """Return the file name of shared or private tensors, final or best by validation."""
    return f"{part}.safetensors" if which == "final" else f"best-{part}.safetensors"


def save_shared(path: Path, network: Network, config: Config) -> None:
    """Write the shared tensors of a network, atomically."""
    state = network.state_dict()
    save_tensors(
        path, {name: state[name] for name in shared_names(network)}, _about(network, config)
    )


def save_private(
    path: Path, network: Network, site: str, config: Config, scale: Scale | None
) -> None:
    """Write the private tensors of one site, atomically, and the scale of its images' greys."""
    about = _about(network, config) | {"site": site}
    if scale is not None:
        about[SCALE] = json.dumps(scale)
    save_tensors(path, private_state(network, site), about)


def load_scale(run: Path, site: str, which: Which = "final") -> Scale | None:
    """Return the scale of a site's greys in a run; None if its images needed none.

    Parameters and errors as of :func:`load_run_network`, for one site.
    """
    owns, _ = _site_folders(run, [site])
    path = owns[0] / weights_name("private", which)
    _, about = load_tensors(path)
    try:
        return Scale(*map(float, json.loads(about[SCALE]))) if SCALE in about else None
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged: its scale of greys is {about[SCALE]}."
        ) from error


def _about(network: Network, config: Config) -> dict[str, str]:
    return {"network": network.description, "config": config.digest()}


def load_run_network(
    run: Path, site: str | None = None, which: Which = "final"
) -> tuple[Network, Config]:
    """Make the network of a run for one of its sites, or for one that was onboarded later.

    Parameters
    ----------
    run : Path
        The run's folder.
    site : str, optional
        The site whose normalisation is used; without it, all sites of a run of one network:
        pooled, federated, or single-site of one site.
    which : {"final", "best"}
        Weights of the last step, or the best by validation.

    Returns
    -------
    tuple of Network and Config
        A network that knows this one site, or all, and the run's configuration.

    Raises
    ------
    RunError
        If the folder is no run, or the site is not one of its sites.
    CheckpointError
        If the run has no such weights, or they belong to another network.
    """
    config = read_run_config(run)
    sites = config.site_names if site is None else (site,)
    owns, trained = _site_folders(run, sites)
    name = weights_name("shared", which)
    alone = owns[0] / name
    shared = alone if len(owns) == 1 and alone.exists() else run / name
    privates = [own / weights_name("private", which) for own in owns]
    for path in (shared, *privates):
        if not path.exists():
            raise CheckpointError(f"{path} is missing. {_why_missing(which, config, path)}")
    # The run's own weights replace whatever it started from, which may be gone by now.
    network = task_network(config.changed(pretrained=""), sites)
    load_shared(shared, network)
    if not trained and config.normalisation == "shared":
        dsbn.convert(network, network.sites, network.routing)
    for path in privates:
        tensors, _ = load_tensors(path)
        try:
            load_private(network, tensors)
        except StoreError as error:
            raise CheckpointError(
                f"{path} belongs to another network, or is damaged: {error}"
            ) from error
    return network, config


def _site_folders(run: Path, sites: Sequence[str]) -> tuple[list[Path], bool]:
    """Return the folders of sites, and whether the run trained at them or met them afterwards."""
    config = read_run_config(run)
    trained = set(sites) <= set(config.site_names)
    owns = [run / ("sites" if trained else ONBOARDED) / one for one in sites]
    if not trained and not owns[0].is_dir():
        onboarded = sorted({path.parent.name for path in (run / ONBOARDED).glob("*/*.safetensors")})
        known = ", ".join((*config.site_names, *onboarded))
        raise RunError(f"'{sites[0]}' is no site of the run {run}; its sites are {known}.")
    return owns, trained


def _why_missing(which: Which, config: Config, path: Path) -> str:
    if path.parent.parent.name == ONBOARDED:
        return "A site is onboarded with the final weights alone; take those, or onboard it again."
    if which == "best" and config.validation_fraction == 0:
        return "The run had validation-fraction = 0 and chose no best weights; take the final ones."
    if path.name.endswith(weights_name("private", "final")):
        return "A site's private tensors lie at the site alone, or the run has not ended yet."
    return "The run has not ended yet, or it failed; its result.json says which."


def weights_digest(network: Network) -> str:
    """Return a SHA-256 over every tensor of a network: name, type, shape and bytes."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        held = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {held.dtype} {tuple(held.shape)}\n".encode())
        digest.update(held.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
