"""The cells of a study: what determines one, where it lies, whether it is done and unharmed.

A cell's folder carries a key, the hash of everything that determines its result. So a study whose
configuration has changed finds other folders, and leaves those of before alone.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from common.config.schema import Config, keys_of
from common.config.sections import Role
from common.data.cache import SiteData
from common.data.folder import CLASS
from common.errors import CheckpointError, XsiteError
from common.exchange.fingerprint import code_fingerprint
from common.files import read_object, write_json
from common.methods.method import Variant
from common.runs.result import read_result

RECORD = "cell.json"
# Files that tell of a run, rather than hold what came of it.
_NOT_IN_DIGEST = {"log.txt", ".lock", RECORD, "tensorboard", "checkpoint"}


@dataclass(frozen=True)
class Cell:
    """One run of a study, to be done or done."""

    method: Variant
    """What is trained."""
    fold: int
    seed: int
    """On which fold, with which seed."""
    without: str = ""
    """The site that training does not see, '' if it sees all."""

    def __hash__(self) -> int:
        """Hash by name: a method's settings are a mapping."""
        return hash(self.name)

    @property
    def name(self) -> str:
        """Its name, which says in a word what it is."""
        left_out = f"-without-{self.without}" if self.without else ""
        return f"{self.method.name}{left_out}-fold{self.fold}-seed{self.seed}"

    def __str__(self) -> str:
        """Say what it is, for a person."""
        left_out = f" without {self.without}" if self.without else ""
        return f"{self.method.label}{left_out}, fold {self.fold}, seed {self.seed}"


def site_digest(site: SiteData) -> str:
    """Hash everything of a site that training and evaluation see.

    Parameters
    ----------
    site : SiteData
        Decoded; images, targets, patients and the files' names count.
    """
    digest = hashlib.sha256()
    about = [site.files, site.labels.tolist(), site.patients, site.classes, site.images.shape]
    digest.update(json.dumps(about).encode())
    for name in sorted(site.targets.keys() - {CLASS}):
        digest.update(name.encode() + site.targets[name].tobytes())
    for start in range(0, len(site), 256):
        digest.update(site.images[start : start + 256].tobytes())
    return digest.hexdigest()


def cell_key(cell: Cell, config: Config, sites: Mapping[str, str]) -> str:
    """Hash what determines a cell's result.

    Parameters
    ----------
    cell : Cell
        Fold, seed and mode.
    config : Config
        Of its run; where the images and the run lie is left out.
    sites : mapping of str to str
        What :func:`site_digest` says of every site; all count, as a site left out is met too.

    Returns
    -------
    str
        SHA-256, in hexadecimal. xsite's version counts; the code's fingerprint does not, since it
        changes with every release: it stands in the cell's record, and a report tells of cells
        that other code computed.
    """
    # Where the images lie does not matter, only what they are; fold and seed are the cell's own.
    beside = keys_of(Role.FOLDERS, Role.CELL)
    values = {k: v for k, v in config.result_keys().items() if k not in beside}
    about = {
        "version": metadata.version("xsite"),
        "mode": cell.method.mode,
        "fold": cell.fold,
        "seed": cell.seed,
        "without": cell.without,
        "sites": sorted(sites.items()),
        "order": config.site_names,
        "config": values,
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def read_cell(path: Path, key: str) -> Mapping[str, Any] | None:
    """Return the record of a cell that is done; None if it is not.

    Parameters
    ----------
    path : Path
        Its folder.
    key : str
        What it must have been computed with.

    Raises
    ------
    CheckpointError
        If it is damaged, with what is wrong.
    """
    if not ((path / "config.toml").exists() and (path / RECORD).exists()):
        return None
    try:
        record = read_object(path / RECORD)
        written, found = dict(record["files"]), file_digests(path)
    except (CheckpointError, KeyError, TypeError, ValueError, OSError) as error:
        raise CheckpointError(f"its record cannot be read ({error})") from error
    if record.get("key") != key:
        raise CheckpointError("its record names another key")
    for file, digest in written.items():
        if file not in found:
            raise CheckpointError(f"{file} is missing")
        if found[file] != digest:
            raise CheckpointError(f"{file} is not what the run wrote")
    return record


def file_digests(path: Path) -> dict[str, str]:
    """Return SHA-256 by file of what a run left, without its logs and curves."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    kept = [file for file in files if not _NOT_IN_DIGEST.intersection(file.relative_to(path).parts)]
    return {
        file.relative_to(path).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in kept
    }


def write_record(
    path: Path, cell: Cell, key: str, seconds: float | None, memory: int
) -> Mapping[str, Any]:
    """Write down that a cell is done, what it took and what its files must be; return that.

    Parameters
    ----------
    path : Path
        Its folder.
    cell, key
        What it is.
    seconds : float or None
        By the clock, start of all processes included; None if it was resumed.
    memory : int
        Largest memory of all its processes together, in bytes (pages that they share count once).

    Raises
    ------
    RunError
        If it cannot be written.
    """
    record = {
        "key": key,
        "method": cell.method.name,
        "label": cell.method.label,
        "mode": cell.method.mode,
        "fold": cell.fold,
        "seed": cell.seed,
        "without": cell.without,
        "code_fingerprint": code_fingerprint(),
        "seconds": seconds,
        "peak_memory_bytes": memory,
        "files": file_digests(path),
    }
    write_json(path / RECORD, record)
    return record


def set_aside(path: Path) -> Path:
    """Move a damaged cell out of the way, under a name that says so, and return its new place."""
    places = (path.with_name(f"{path.name}.damaged-{number}") for number in range(1, 1000))
    place = next(place for place in places if not place.exists())
    path.rename(place)
    return place


def is_completed(path: Path) -> bool:
    """Say whether a run ended as it should, whoever was there to write that down."""
    try:
        return read_result(path).get("status") == "completed"
    except XsiteError:
        return False
