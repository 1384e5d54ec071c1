"""The server's state on disk: atomic, the last two rounds kept, resumed bit for bit."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import torch

from common.errors import CheckpointError
from common.files import load_tensors, remove_parts, save_tensors
from common.prototypes import Prototypes
from server.state import RunState

KEPT = 2
ARRAYS = ("shared", "prototypes")


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
    tensors = {"shared": torch.from_numpy(state.shared)}
    for site, own in state.prototypes.items():
        for part in ("classes", "vectors", "counts"):
            tensors[f"prototypes/{site}/{part}"] = torch.from_numpy(getattr(own, part))
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
        old.unlink()


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first."""
    return sorted(folder.glob("round-*.safetensors"), key=lambda path: int(path.stem[6:]))


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
    except (KeyError, TypeError, ValueError) as error:
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


def _state_of(tensors: Mapping[str, torch.Tensor], about: Mapping[str, str]) -> RunState:
    prototypes = {
        site: Prototypes(
            site,
            *(
                tensors[f"prototypes/{site}/{part}"].numpy()
                for part in ("classes", "vectors", "counts")
            ),
        )
        for site in json.loads(about["prototypes"])
    }
    numbers = json.loads(about["state"])
    return RunState(shared=tensors["shared"].numpy(), prototypes=prototypes, **numbers)
