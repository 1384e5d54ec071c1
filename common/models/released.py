"""Starting from weights: the checkpoint that the method's authors released, or one of xsite's.

Theirs are 270 tensors: every layer once, every BatchNorm twice. Names without a suffix (``bn0``)
belong to the COVID-CT site ('ucsd'), those ending in ``new`` to the SARS-CoV-2 site ('new').
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from common.config.schema import Config
from common.errors import CheckpointError
from common.models.backbones.covidnet import BLOCKS
from common.models.dsbn import DomainBatchNorm
from common.models.sharing import load_shared
from common.tensor_files import refuse_misfits

SUFFIX = {"ucsd": "", "new": "new"}
"""The authors' two sites, and what the names of their BatchNorms end in."""
PEPX = ("reduce", "widen", "depthwise", "narrow", "enlarge")
COUNTER = "num_batches_tracked"
LAYERS = {
    "conv1": "backbone.stem",
    "fc1": "head.dense1",
    "fc2": "head.dense2",
    "classifier.0": "head.logits",
    "feature1": "projection.hidden",
    "feature2": "projection.output",
}
NORMS = {
    "bn0": "backbone.stem_norm",
    "bn5": "head.norm1",
    "bn6": "head.norm2",
    "fbn5": "projection.hidden_norm",
    "fbn6": "projection.output_norm",
}


class CheckpointEntry(NamedTuple):
    """One tensor of a released checkpoint: its name there, and its place in our network.

    ``source`` is 'ucsd' or 'new' for a BatchNorm's tensor and None for a layer's.
    """

    name: str
    module: str
    tensor: str
    source: str | None


def released_entries() -> list[CheckpointEntry]:
    """Return all 270 tensors of a released checkpoint."""
    layers, norms = dict(LAYERS), dict(NORMS)
    for stage, blocks in enumerate(BLOCKS):
        layers[f"conv{stage + 1}_1x1"] = f"backbone.stages.{stage}.shortcut"
        norms[f"bn{stage + 1}"] = f"backbone.stages.{stage}.shortcut_norm"
        for block in range(blocks):
            for place, ours in enumerate(PEPX):
                theirs = f"pexp{stage + 1}_{block + 1}.network.{place}"
                layers[theirs] = f"backbone.stages.{stage}.blocks.{block}.{ours}"
    entries = [
        CheckpointEntry(f"{theirs}.{tensor}", ours, tensor, None)
        for theirs, ours in layers.items()
        for tensor in ("weight", "bias")
    ]
    return entries + [
        CheckpointEntry(f"{theirs}{suffix}.0.{tensor}", ours, tensor, source)
        for source, suffix in SUFFIX.items()
        for theirs, ours in norms.items()
        for tensor in ("weight", "bias", "running_mean", "running_var", COUNTER)
    ]


def load_released(network: nn.Module, path: Path, source_of: Mapping[str, str]) -> None:
    """Load the authors' checkpoint, or the part of it that some sites need.

    Parameters
    ----------
    network : Network
        A redesigned COVID-Net of width 1 with two classes, of either variant; changed in place,
        or not at all where the checkpoint does not fit.
    path : Path
        A file with ``{"state_dict": …}``; it is read without running any code in it.
    source_of : mapping of str to str
        Site → 'ucsd' or 'new', whose normalisation it starts from. Sites that are not named keep
        theirs. A network whose sites share their normalisation takes one of the two alone.

    Raises
    ------
    CheckpointError
        If the file cannot be read, or naming the tensors that are missing, additional, misshapen
        or not finite.
    """
    entries, modules = released_entries(), dict(network.named_modules())
    if any(entry.module not in modules for entry in entries):
        raise CheckpointError(
            f"{path} holds the authors' COVID-Net, but the network is another: "
            f"{getattr(network, 'description', type(network).__name__)}."
        )
    theirs = read_checkpoint(path)
    expected: dict[str, Tensor] = {}
    filled: list[tuple[str, Tensor]] = []
    for name, place, tensor, source in entries:
        module = modules[place]
        like, takers = module, [module] if source in (None, *source_of.values()) else []
        if isinstance(module, DomainBatchNorm):
            like = next(iter(module.sites.values()))
            takers = [module.sites[site] for site, its in source_of.items() if its == source]
        # A normalisation that all sites share counts no batches.
        expected[name] = torch.zeros(()) if tensor == COUNTER else getattr(like, tensor)
        filled += [(name, own) for one in takers if (own := getattr(one, tensor)) is not None]
    refuse_misfits(path, theirs, expected)
    with torch.no_grad():
        for name, own in filled:
            own.copy_(theirs[name])


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a PyTorch checkpoint without running any code in it.

    Raises
    ------
    CheckpointError
        If the file is missing, is no PyTorch file, or holds no ``state_dict`` of tensors.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a spoilt pickle can raise almost anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"Cannot read the weights in {path} ({reason}). "
            "Expected a PyTorch checkpoint of tensors alone."
        ) from error
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise CheckpointError(f"{path} holds no 'state_dict' of tensors, as a checkpoint would.")
    return dict(state)


def load_pretrained(network: nn.Module, sites: Sequence[str], config: Config) -> None:
    """Load the weights that a network starts from.

    A ``.safetensors`` file is one of xsite's: its shared tensors are loaded and every site's
    normalisation stays untrained. Any other file is taken for the authors' checkpoint: the
    second site of the run starts from the SARS-CoV-2 site's normalisation, every other one, and a
    normalisation that all sites share, from the COVID-CT site's.

    Parameters
    ----------
    network : Network
        Changed in place, or not at all where the file does not fit.
    sites : sequence of str
        The network's sites.
    config : Config
        Names the file, and all sites of the run in their order, the same at every hospital.

    Raises
    ------
    CheckpointError
        If the file cannot be read or belongs to another network, naming the tensors.
    """
    path, order = Path(config.pretrained).expanduser(), config.site_names
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}, which pretrained names.")
    if path.suffix != ".safetensors":
        own = any(isinstance(module, DomainBatchNorm) for module in network.modules())
        second = order[1] if own and len(order) > 1 else None
        load_released(network, path, {s: "new" if s == second else "ucsd" for s in sites})
    else:
        load_shared(path, network)
