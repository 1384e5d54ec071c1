"""Starting from a file of weights: the authors' checkpoint, or one that xsite wrote."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from common.errors import CheckpointError
from common.models.dsbn import DomainBatchNorm
from common.models.released import assign_released
from common.models.sharing import shared_names
from common.tensor_files import load_tensors, refuse_misfits


def load_pretrained(
    network: nn.Module, path: Path, sites: Sequence[str], order: Sequence[str]
) -> None:
    """Load the weights that a network starts from.

    A ``.safetensors`` file is one of xsite's: its shared tensors are loaded and every site's
    normalisation stays untrained. Any other file is taken for the authors' checkpoint: the
    second site of the run starts from the SARS-CoV-2 site's normalisation, every other one, and a
    normalisation that all sites share, from the COVID-CT site's.

    Parameters
    ----------
    network : Network
        Changed in place, or not at all where the file does not fit.
    path : Path
        The file.
    sites : sequence of str
        The network's sites.
    order : sequence of str
        All sites of the run in their order, the same at every hospital.

    Raises
    ------
    CheckpointError
        If the file cannot be read or belongs to another network, naming the tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}, which pretrained names.")
    if path.suffix != ".safetensors":
        own = any(isinstance(module, DomainBatchNorm) for module in network.modules())
        second = order[1] if own and len(order) > 1 else None
        assign_released(network, path, {s: "new" if s == second else "ucsd" for s in sites})
        return
    tensors, _ = load_tensors(path)
    state = network.state_dict()
    refuse_misfits(
        path, tensors, {name: tuple(state[name].shape) for name in shared_names(network)}
    )
    for name, tensor in tensors.items():
        state[name].copy_(tensor)
