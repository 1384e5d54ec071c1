"""The server's state on disk: atomic, the last two rounds kept, resumed bit for bit."""

import json
from collections.abc import Mapping
from dataclasses import fields, make_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.errors import CheckpointError
from common.files import remove_parts
from common.formatting.from_json import from_json
from common.learning.moments import moments_fault
from common.learning.prototypes import Prototypes
from common.tensor_files import below, load_tensors, number_of, numbered, save_tensors
from server.state import RunState

KEPT = 2
ARRAYS = ("shared", "sent", "memory", "prototypes", "moments", "methods")
SHARED, SENT = "shared", "sent"
MEMORY, PROTOTYPES, MOMENTS, METHODS = "memory/", "prototypes/", "moments/", "methods/"
Numbers = make_dataclass(
    "Numbers", [(k, v) for k, v in get_type_hints(RunState).items() if k not in ARRAYS]
)
"""What of a state is written as text."""


def save_checkpoint(folder: Path, state: RunState, config_digest: str) -> None:
    """Write a checkpoint of a round, and remove all but the last two.

    Parameters
    ----------
    folder : Path
        Where checkpoints lie; made where it is missing.
    state : RunState
        The state after a round.
    config_digest : str
        Digest of the run's configuration.

    Raises
    ------
    RunError
        If the disk is full; the checkpoints that were there are unharmed.
    """
    tensors = {name: torch.from_numpy(array) for name, array in _arrays_of(state).items()}
    numbers = {f.name: getattr(state, f.name) for f in fields(state) if f.name not in ARRAYS}
    about = {
        "config": config_digest,
        "state": json.dumps(numbers),
        # JSON keeps the order of the sites, which safetensors does not.
        "prototypes": json.dumps(list(state.prototypes)),
    }
    save_tensors(folder / f"round-{state.round:04d}.safetensors", tensors, about)
    remove_parts(folder)
    for old in checkpoints(folder)[:-KEPT]:
        if not old.is_dir():
            old.unlink()


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first."""
    return numbered(folder, "round-")


def load_checkpoint(
    folder: Path, train_images: Mapping[str, int], config_digest: str
) -> RunState | None:
    """Return the state of the newest checkpoint that is whole, None where there is none.

    Parameters
    ----------
    folder : Path
        Where checkpoints lie.
    train_images : mapping of str to int
        Training images of the sites that are there now.
    config_digest : str
        Digest of the run's configuration.

    Raises
    ------
    CheckpointError
        If none can be read, or one belongs to another configuration or to other data: it names
        the site whose images changed.
    """
    broken: CheckpointError | None = None
    for path in reversed(checkpoints(folder)):
        try:
            return _load(path, train_images, config_digest)
        except _DamagedError as error:
            broken = error
    if broken is not None:
        raise broken
    return None


class _DamagedError(CheckpointError):
    """A damaged file, instead of which the one before it may serve."""


def _load(path: Path, train_images: Mapping[str, int], config_digest: str) -> RunState:
    try:
        tensors, about = load_tensors(path)
    except CheckpointError as error:
        raise _DamagedError(str(error)) from error
    if about.get("config") != config_digest:
        raise CheckpointError(
            f"The checkpoint {path} belongs to another configuration. Resume the run with the "
            "configuration that it was started with, or start a new run."
        )
    try:
        state = _state_of(tensors, about)
        if state.round != number_of(path):
            raise ValueError(f"it is of round {state.round}")
    except (KeyError, ValueError) as error:
        raise _DamagedError(
            f"The checkpoint {path} is damaged, or another version of xsite wrote it ({error}). "
            "Resume the run with the version that it was started with, or start a new run."
        ) from error
    for site, before in state.began_with.items():
        if (images := train_images.get(site, before)) != before:
            raise CheckpointError(
                f"{site} has {images} training images; at the start of the run it had {before}. "
                "Restore its folder, or start a new run."
            )
    return state


def _arrays_of(state: RunState) -> dict[str, NDArray[Any]]:
    """Return a state's arrays, each by a name of its own."""
    held = {MEMORY: state.memory, MOMENTS: state.moments, METHODS: state.methods}
    held |= {f"{PROTOTYPES}{site}/": own.arrays() for site, own in state.prototypes.items()}
    arrays = {f"{prefix}{key}": array for prefix, of in held.items() for key, array in of.items()}
    return arrays | {SHARED: state.shared} | ({} if state.sent is None else {SENT: state.sent})


def _state_of(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> RunState:
    sites = from_json(list[str], about["prototypes"])

    def held(prefix: str) -> dict[str, NDArray[Any]]:
        return {name: tensor.numpy() for name, tensor in below(prefix, tensors).items()}

    numbers = vars(from_json(Numbers, about["state"]))
    state = RunState(
        shared=tensors[SHARED].numpy(),
        sent=tensors[SENT].numpy() if SENT in tensors else None,
        memory=held(MEMORY),
        prototypes={site: Prototypes.of(site, held(f"{PROTOTYPES}{site}/")) for site in sites},
        moments=held(MOMENTS),
        methods=held(METHODS),
        **numbers,
    )
    if (fault := _fault_of(state)) is not None or set(tensors) != set(_arrays_of(state)):
        raise ValueError(fault or "it holds tensors that are none of a run's")
    return state


def _fault_of(state: RunState) -> str | None:
    """Say what no state of a run can be, None if there is nothing."""
    rounds = (state.best_round, *state.completed.values())
    if not all(0 <= one <= state.round for one in rounds):
        return f"it is of round {state.round} and knows later ones, or some before the first"
    shared, sent = state.shared, state.sent
    if shared.ndim != 1 or shared.dtype.kind != "f" or not np.isfinite(shared).all():
        return f"its weights are {shared.dtype} of shape {shared.shape}, or not finite"
    if sent is not None and (sent.shape, sent.dtype) != (shared.shape, shared.dtype):
        return f"what the sites have is {sent.dtype} of shape {sent.shape}"
    if state.moments and (fault := moments_fault(state.moments)) is not None:
        return f"it holds {fault}"
    faults = (own.fault() for own in state.prototypes.values())
    return next((fault for fault in faults if fault is not None), None)
