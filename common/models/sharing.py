"""Which tensor is shared and which is private: decided here, and only here.

A tensor is private if it lies in or below a module whose class says ``private = True``, as
:class:`~common.models.per_site.PerSite` does. Every other tensor of the state dict is shared.
The type decides, however the module is called and however deeply it is nested.

Shared tensors are floating point of one type, so that an average of them means something. A
network with a shared integer tensor is refused. (``num_batches_tracked`` of a BatchNorm that all
sites share is taken away when the network is built, since nothing reads it.)
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.errors import CheckpointError, RunError, StoreError
from common.models.per_site import PerSite
from common.tensor_files import faults_of, load_tensors, refuse_misfits

FLOATS = {torch.float32: "float32", torch.float64: "float64"}


def private_names(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the private tensors, as :func:`shared_names` those of the others."""
    return _split(network)[0]


def shared_names(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the shared tensors, in the state dict's order.

    Raises
    ------
    RunError
        If one tensor is reached by a private and by a shared name.
    """
    return _split(network)[1]


def _split(network: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...]]:
    prefixes = tuple(
        f"{name}." if name else ""
        for name, module in network.named_modules(remove_duplicate=False)
        if getattr(type(module), "private", False) is True
    )
    tensors = network.state_dict(keep_vars=True)
    private = tuple(name for name in tensors if name.startswith(prefixes))
    shared = tuple(name for name in tensors if not name.startswith(prefixes))
    owners = {id(tensors[name]): name for name in private}
    for name in shared:
        if id(tensors[name]) in owners:
            raise RunError(
                f"The tensor '{name}' is shared, but it is also the private "
                f"'{owners[id(tensors[name])]}'; untie the two modules."
            )
    return private, shared


@dataclass(frozen=True)
class Layout:
    """How the shared tensors lie in the flat array that travels."""

    names: tuple[str, ...]
    """The shared tensors, in order."""
    shapes: tuple[tuple[int, ...], ...]
    """Their shapes."""
    dtype: str
    """'float32' or 'float64'."""
    size: int
    """Number of values altogether."""

    def to_json(self) -> str:
        """Return the layout as compact JSON; equal layouts give equal text."""
        return json.dumps(
            {"dtype": self.dtype, "tensors": list(zip(self.names, self.shapes, strict=True))},
            separators=(",", ":"),
        )

    def digest(self) -> str:
        """Return a SHA-256 over names, shapes, order and type."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def shared_layout(network: nn.Module) -> Layout:
    """Return the layout of a network's shared tensors.

    Raises
    ------
    RunError
        If a shared tensor is not floating point, naming all such tensors, or if two differ in
        type.
    """
    tensors = network.state_dict()
    names = shared_names(network)
    refused = [name for name in names if tensors[name].dtype not in FLOATS]
    if refused:
        raise RunError(
            f"Shared tensors must be float32 or float64 to be averaged; {', '.join(refused)} "
            "cannot be. Make the modules that hold them private, or drop them."
        )
    types = {FLOATS[tensors[name].dtype] for name in names}
    if len(types) > 1:
        raise RunError("Shared tensors mix float32 and float64; build the network in one type.")
    shapes = tuple(tuple(tensors[name].shape) for name in names)
    size = sum(math.prod(shape) for shape in shapes)
    return Layout(names, shapes, min(types, default="float32"), size)


def parameter_mask(network: nn.Module) -> NDArray[np.bool_]:
    """Return which of the shared values are trained: not those of running statistics.

    Returns
    -------
    ndarray of bool, shape (layout.size,)
        In the order of :func:`pack`.
    """
    layout = shared_layout(network)
    trained = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    sizes = [math.prod(shape) for shape in layout.shapes]
    return np.repeat(np.array([name in trained for name in layout.names], bool), sizes)


def pack(network: nn.Module) -> np.ndarray:
    """Return a copy of all shared tensors as one array.

    Returns
    -------
    ndarray, shape (layout.size,)
        Each tensor in row-major order whatever its memory format, in the layout's order.

    Raises
    ------
    RunError
        As :func:`shared_layout`.
    """
    layout, tensors = shared_layout(network), network.state_dict()
    if not layout.names:
        return np.empty(0, dtype=layout.dtype)
    flat: np.ndarray = torch.cat([tensors[name].reshape(-1) for name in layout.names]).cpu().numpy()
    return flat


def unpack(network: nn.Module, flat: np.ndarray) -> None:
    """Write an array made by :func:`pack` into a network's shared tensors.

    Parameters
    ----------
    network : Module
        Changed in place, or not at all where the array does not fit.
    flat : ndarray, shape (layout.size,)

    Raises
    ------
    RunError
        If length or type differ from the network's layout, or a value is not finite.
    """
    layout = shared_layout(network)
    if flat.shape != (layout.size,) or flat.dtype != np.dtype(layout.dtype):
        raise RunError(
            f"Shared weights of shape ({layout.size},) and type {layout.dtype} were expected; "
            f"found {flat.shape} and {flat.dtype}. Do both ends run the same configuration?"
        )
    if not np.isfinite(flat).all():
        raise RunError("The received shared weights hold values that are not finite.")
    values = torch.from_numpy(flat if flat.flags.writeable else flat.copy())
    tensors = network.state_dict()
    parts = torch.split(values, [math.prod(shape) for shape in layout.shapes])
    for name, shape, part in zip(layout.names, layout.shapes, parts, strict=True):
        tensors[name].copy_(part.view(shape))


def private_state(network: nn.Module, site: str | None = None) -> dict[str, Tensor]:
    """Return copies of the private tensors.

    Parameters
    ----------
    network : Module
    site : str, optional
        Leave out what every other site has of its own.

    Returns
    -------
    dict of str to Tensor
        On the CPU, by name.
    """
    owners = _owners(network)
    tensors = network.state_dict()
    return {
        name: tensors[name].detach().to("cpu", copy=True).contiguous()
        for name, owner in owners.items()
        if site is None or owner in (site, None)
    }


def load_private(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Write what :func:`private_state` returned back into a network.

    Parameters
    ----------
    network : Module
        Changed in place, or not at all where the tensors do not fit.
    tensors : mapping of str to Tensor
        All private tensors, or all but what some sites have of their own.

    Raises
    ------
    StoreError
        Naming the tensors that are missing, additional, of another shape or type, or not finite.
    """
    owners, state = _owners(network), network.state_dict()
    sites = {owners.get(name) for name in tensors} - {None} or set(owners.values())
    expected = {name: state[name] for name, owner in owners.items() if owner in sites | {None}}
    if said := faults_of(tensors, expected, typed=True):
        raise StoreError(
            f"The private tensors belong to another network or site, or are damaged ({said})."
        )
    for name, tensor in expected.items():
        tensor.copy_(tensors[name])


def _owners(network: nn.Module) -> dict[str, str | None]:
    """Return whose each private tensor is, None where no site's, in the state dict's order."""
    owners: dict[str, str | None] = dict.fromkeys(private_names(network))
    for place, module in network.named_modules(remove_duplicate=False):
        if isinstance(module, PerSite):
            for site, own in module.sites.items():
                prefix = f"{place}.sites.{site}.".lstrip(".")
                owners |= {prefix + name: site for name in own.state_dict()}
    return owners


def load_shared(path: Path, network: nn.Module) -> None:
    """Load shared tensors from a file of xsite's into a network, every name and shape checked.

    Parameters
    ----------
    path : Path
        A safetensors file of the shared tensors by their names.
    network : Module
        Changed in place, or not at all where the file does not fit.

    Raises
    ------
    CheckpointError
        Naming the tensors that are missing, additional or of another shape.
    """
    tensors, _ = load_tensors(path)
    state = network.state_dict()
    expected = {name: state[name] for name in shared_names(network)}
    refuse_misfits(path, tensors, expected)
    if not all(tensors[name].is_floating_point() for name in expected):
        raise CheckpointError(f"The weights in {path} do not fit the network (whole numbers).")
    for name, tensor in expected.items():
        tensor.copy_(tensors[name])
