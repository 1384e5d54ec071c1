"""A site's private files, looked up in its ledger, to tell whether anything of them left.

The ledger has the SHA-256 of every tensor that left, and the private tensors lie on the site's own
disk; so this can be looked up, and need not be believed.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clients.egress.ledger import Entry
from clients.store import MOMENT, PRIVATE
from common.tensor_files import load_tensors

FILES = ("store/*.safetensors", "private*.safetensors", "best-private*.safetensors")


@dataclass(frozen=True)
class Audit:
    """One private file, looked up in the ledger."""

    file: Path
    """The file."""
    tensors: int
    """Private tensors in it that were looked up."""
    skipped: int
    """Tensors of one value throughout, such as counters and what is still at its start: others are
    equal to them without having come from them."""
    left: tuple[str, ...]
    """Names of those that did leave: none, if all is well."""


def audit(state: Path, ledger: Iterable[Entry]) -> list[Audit]:
    """Look up every private tensor below a site's folder in its ledger.

    Parameters
    ----------
    state : Path
        The site's ``state-dir``, or the folder of its files in a simulated run.
    ledger : iterable of Entry
        What left.

    Returns
    -------
    list of Audit
        One a file, by path.

    Raises
    ------
    CheckpointError
        If a file cannot be read.
    """
    digests = {part.sha256 for entry in ledger for part in entry.parts}
    places = [pattern for one in FILES for pattern in (one, f"*/sites/*/{one}")]
    files = sorted({path for pattern in places for path in state.glob(pattern)})
    return [_look_up(path, digests) for path in files]


def _look_up(path: Path, digests: set[str]) -> Audit:
    private, _ = load_tensors(path)
    if path.parent.name == "store":
        # The store also keeps what the site sent, if its objective looks back at it.
        private = {n: tensor for n, tensor in private.items() if n.startswith((PRIVATE, MOMENT))}
    telling = {
        name: hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
        for name, tensor in private.items()
        if tensor.numel() > 1 and bool((tensor != tensor.flatten()[0]).any())
    }
    left = tuple(name for name, digest in telling.items() if digest in digests)
    return Audit(path, len(telling), len(private) - len(telling), left)
