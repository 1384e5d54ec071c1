"""Weights in a run's folder, as training writes them."""

from common.models.network import Network
from common.runs.weights import save_private, save_shared
from server.run_folder import RunFolder


def write_shared(folder: RunFolder, network: Network, site: str | None = None) -> None:
    """Write a network's shared tensors: the run's, or one site's in single-site training."""
    place = folder.site(site) if site else folder.path
    save_shared(place / "shared.safetensors", network, folder.config)


def write_private(folder: RunFolder, network: Network, site: str) -> None:
    """Write one site's private tensors."""
    save_private(folder.site(site) / "private.safetensors", network, site, folder.config, None)
