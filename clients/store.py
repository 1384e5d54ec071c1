"""A site's private store: what it goes on from in the next round, and what never leaves it.

::

    store/manifest.json            whose state this is
    store/round-0003.safetensors   normalisation and optimizer moments at the end of round 3, and
                                   what methods and codecs remember
    store/evaluated-0003.safetensors   normalisation under the average of round 3, while
                                       validation may still choose that round, and what
                                       methods remembered then that evaluate a network of their own

Flower keeps nothing of a site on disk, and a site's process may be new at every message. The
server says from which round to go on, so that a site which is a round ahead of a resumed server
goes back with it. Files are readable by their owner alone.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.errors import CheckpointError, StoreError
from common.files import read_json, remove_parts, write_json
from common.tensor_files import below, load_tensors, number_of, numbered, save_tensors

OWNER_ONLY = 0o600
PRIVATE, MOMENT, MEMORY = "private/", "moment/", "memory/"


@dataclass(frozen=True)
class Owner:
    """Whose state a store holds."""

    site: str
    run: str
    """Names of the site and of the run."""
    config: str
    """Digest of the configuration. Whether the tensors are the network's is seen where they are
    loaded into it."""


@dataclass(frozen=True)
class PrivateState:
    """What a site goes on from."""

    private: Mapping[str, Tensor]
    """Its private tensors."""
    moments: Mapping[str, Tensor]
    """Its optimizer's state; of private tensors alone where that of the others is averaged."""
    sent: str
    """Digest of the shared tensors that it sent."""
    memory: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """What the methods and the codecs remember."""


@dataclass(frozen=True)
class PrivateStore:
    """The store in a folder; made by :func:`open_store`."""

    folder: Path
    owner: Owner

    def load(self, round: int) -> PrivateState:
        """Return the state of the end of a round.

        Raises
        ------
        StoreError
            If the store lacks it, or its file is damaged or somebody else's.
        """
        path = self._round(round)
        if round not in self.rounds():
            there = ", ".join(str(number) for number in self.rounds()) or "none"
            raise StoreError(
                f"Site '{self.owner.site}' shall go on from round {round}, but its private store "
                f"{self.folder} holds the rounds: {there}. If it cannot be restored from a copy, "
                "start a new run."
            )
        return self._state(path)

    def save(self, round: int, state: PrivateState, previous: int) -> None:
        """Write the state of the end of a round, atomically.

        The round that it went on from, ``previous``, is kept, since the server may go back to it.
        Older ones are removed.
        """
        self._write(self._round(round), state)
        for old in self.rounds():
            if old < round and old != previous:
                self._round(old).unlink(missing_ok=True)

    def settle(self, round: int, memory: Mapping[str, NDArray[Any]]) -> None:
        """Keep of a finished run what its last evaluation needs: no moments, no other rounds."""
        state = self.load(round)
        if state.moments or state.memory.keys() != memory.keys():
            self._write(self._round(round), replace(state, moments={}, memory=memory))
        for other in self.rounds():
            if other != round:
                self._round(other).unlink(missing_ok=True)

    def save_evaluated(self, round: int, state: PrivateState, best: int) -> None:
        """Keep the state with which a round's average was evaluated.

        Its statistics are estimated under that average. The round that validation likes best so
        far, ``best``, is kept; others are removed.
        """
        self._write(self._evaluated(round), state)
        for path in self.folder.glob("evaluated-*.safetensors"):
            if path not in (self._evaluated(round), self._evaluated(best)):
                path.unlink(missing_ok=True)

    def load_evaluated(self, round: int) -> PrivateState:
        """Return what :meth:`save_evaluated` kept of a round.

        Raises
        ------
        StoreError
            If the store lacks it, or its file is damaged or somebody else's.
        """
        path = self._evaluated(round)
        if not path.exists():
            raise StoreError(
                f"Validation chose round {round}, but the private store {self.folder} of site "
                f"'{self.owner.site}' has kept nothing of it."
            )
        return self._state(path)

    def rounds(self) -> list[int]:
        """Return the rounds whose state is there, in order."""
        return [number_of(path) for path in numbered(self.folder, "round-")]

    def _round(self, round: int) -> Path:
        return self.folder / f"round-{round:04d}.safetensors"

    def _evaluated(self, round: int) -> Path:
        return self.folder / f"evaluated-{round:04d}.safetensors"

    def _write(self, path: Path, state: PrivateState) -> None:
        tensors = {f"{PRIVATE}{name}": tensor for name, tensor in state.private.items()}
        tensors |= {f"{MOMENT}{name}": tensor for name, tensor in state.moments.items()}
        tensors |= {f"{MEMORY}{name}": torch.from_numpy(a) for name, a in state.memory.items()}
        about = asdict(self.owner) | {"sent": state.sent}
        save_tensors(path, tensors, about, mode=OWNER_ONLY)

    def _state(self, path: Path) -> PrivateState:
        try:
            tensors, about = load_tensors(path)
        except CheckpointError as error:
            raise StoreError(
                f"The private state in {path} cannot be read; restore it from a copy, or start a "
                f"new run. ({error})"
            ) from error
        _refuse_other(about, self.owner, path)
        memory = {name: tensor.numpy() for name, tensor in below(MEMORY, tensors).items()}
        private, moments = below(PRIVATE, tensors), below(MOMENT, tensors)
        return PrivateState(private, moments, about.get("sent", ""), memory)


def open_store(folder: Path, owner: Owner) -> PrivateStore:
    """Open a site's private store of a run, or begin it.

    Parameters
    ----------
    folder : Path
        Made where it is missing, for its owner alone.
    owner : Owner
        Who opens it.

    Raises
    ------
    StoreError
        If the folder holds another site's, run's or configuration's state.
    """
    manifest = folder / "manifest.json"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if manifest.exists():
        try:
            found = read_json(manifest)
        except CheckpointError as error:
            raise StoreError(f"The private store's {manifest} is damaged. ({error})") from error
        _refuse_other(found if isinstance(found, dict) else {}, owner, folder)
    elif any(folder.glob("*.safetensors")):
        raise StoreError(
            f"{folder} holds private tensors, but no manifest.json says whose they are. "
            "Name another state-dir, or move these files away."
        )
    else:
        write_json(manifest, asdict(owner))
    # What a killed process was writing; the site's lock keeps every other one away.
    remove_parts(folder)
    return PrivateStore(folder, owner)


def digest_of(shared: NDArray[Any]) -> str:
    """Return a SHA-256 over shared tensors and their type."""
    digest = hashlib.sha256(str(shared.dtype).encode())
    digest.update(np.ascontiguousarray(shared).view(np.uint8).data)
    return digest.hexdigest()


def _refuse_other(found: Mapping[str, Any], owner: Owner, path: Path) -> None:
    for key, own in asdict(owner).items():
        if found.get(key) != own:
            said, mine = found.get(key, "unknown"), own
            if key == "config":
                said, mine = f"{str(said)[:12]}…", f"{mine[:12]}…"
            what = {"config": "configuration"}.get(key, key)
            raise StoreError(
                f"{path} holds the private state of {what} '{said}', not of '{mine}'. "
                "Name another state-dir or run, or move that folder away."
            )
