"""A run's folder: what was asked, with what, what came out, and what can be gone on with.

::

    config.toml  environment.json  log.txt  metrics.csv  result.json  tensorboard/<site>/
    shared.safetensors  best-shared.safetensors  checkpoint/
    sites/<site>/predictions.csv  private.safetensors  best-private.safetensors

Every file is whole at any moment: a kill leaves the old one or the new one.
"""

import os
import platform
import shutil
import subprocess
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import psutil

from common.config.schema import Config
from common.errors import RunError, XsiteError
from common.exchange.fingerprint import code_fingerprint
from common.files import read_object, why, write_atomic, write_json
from common.runs.result import read_result, read_run_config
from server.metrics import (
    TENSORBOARD,
    EventWriter,
    MetricsRow,
    append_rows,
    read_rows,
    write_rows,
)

Status = Literal["failed", "interrupted"]
PACKAGES = ("torch", "torchvision", "flwr", "numpy", "safetensors", "scikit-learn", "scipy")
ROOT = Path(__file__).resolve().parents[1]


def run_folder_name(config: Config, mode: str, base: Path) -> str:
    """Return ``run-name``, or a name of mode and time that no folder in ``base`` has yet."""
    if config.run_name:
        return config.run_name
    stem = f"{mode}-{datetime.now():%Y%m%d-%H%M%S}"
    taken = (f"{stem}-{number}" for number in range(2, 1000))
    return next(name for name in (stem, *taken) if not (base / name).exists())


def refuse_taken(config: Config, base: Path) -> None:
    """Refuse a new run's name that is taken, before anything that takes time.

    Raises
    ------
    RunError
        If ``run-name`` is the name of a folder and ``resume`` is off, or can be no new folder's.
    """
    if config.run_name in {".", ".."}:
        raise RunError(f"run-name is '{config.run_name}', which is no name of a new folder.")
    if config.run_name and not config.resume and (base / config.run_name).exists():
        raise RunError(
            f"A run called '{config.run_name}' exists already in {base}. Choose another name, "
            "or go on with that run (--resume)."
        )


def clear_unbegun(path: Path) -> bool:
    """Say whether a run has begun in a folder; remove what a kill left of one being made."""
    begun = (path / "config.toml").exists()
    if path.exists() and not begun:
        shutil.rmtree(path)
    return begun


def differing_keys(stored: Config, wanted: Config) -> list[str]:
    """Return ``key (stored, wanted)`` for the differing keys that determine a run's result."""
    found = []
    for field, key in zip(type(stored).model_fields, stored.to_run_config(), strict=True):
        before, after = getattr(stored, field), getattr(wanted, field)
        if stored.model_copy(update={field: after}).digest() != stored.digest():
            found.append(f"{key} ({before!r} there, {after!r} here)")
    return found


def read_begun(config: Config, mode: str, base: Path) -> tuple[Config, dict[str, Any]]:
    """Return configuration and result of the run ``run-name``, which is to be gone on with.

    Raises
    ------
    RunError
        If it is not there, or belongs to another mode or configuration: the differing keys are
        named.
    """
    path = base.absolute() / config.run_name
    if not path.is_dir():
        raise RunError(f"There is no run '{path.name}' in {path.parent} to go on with.")
    stored, result = read_run_config(path), read_result(path)
    if result.get("mode") != mode:
        raise RunError(f"The run {path} is {result.get('mode')} training, not {mode}.")
    # Where the number of threads is left open, it stays what it was.
    wanted = config.changed(threads=config.threads or stored.threads)
    if differing := differing_keys(stored, wanted):
        raise RunError(
            f"Cannot go on with the run {path}: its configuration differs in "
            f"{'; '.join(differing)}. Resume without changing these, or start a new run."
        )
    return stored, result


class RunFolder:
    """One run's folder. Made by :meth:`create`; written by one process at a time.

    Parameters
    ----------
    path : Path
        The folder, which exists.
    config : Config
        The run's configuration.
    """

    def __init__(self, path: Path, config: Config) -> None:
        self.path = path
        self.config = config
        self._rows: list[MetricsRow] | None = None
        self._events: dict[str, EventWriter] = {}

    @classmethod
    def create(cls, config: Config, mode: str, base: Path) -> "RunFolder":
        """Make the folder of a new run, or open the one that is resumed.

        Parameters
        ----------
        config : Config
            With ``resume``, the folder ``run-name`` must exist and hold the same configuration.
        mode : str
            ``"federated"``, ``"pooled"`` or ``"single"``.
        base : Path
            The folder of all runs.

        Raises
        ------
        RunError
            If a new run's folder exists, if a resumed one does not or belongs to another mode or
            configuration (the differing keys are named), or if nothing can be written.
        """
        refuse_taken(config, base)
        name = run_folder_name(config, mode, base)
        path = base.absolute() / name
        if config.resume:
            stored, result = read_begun(config, mode, base)
            # A damaged table is told now and not after an hour's round.
            read_rows(path / "metrics.csv")
            folder = cls(path, stored)
            if result.get("status") != "completed":
                folder._write_result(result | {"status": "running"})
                folder._note_changed_environment()
            return folder
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()
        except OSError as error:
            raise RunError(f"Cannot make the run's folder {path}: {why(error, path)}") from error
        write_json(path / "environment.json", describe_environment())
        folder = cls(path, config.changed(run_name=name, resume=False))
        folder._write_result({"status": "running", "mode": mode, "started": _now()})
        # config.toml is what makes a folder a run, so it comes last.
        write_atomic(path / "config.toml", folder.config.to_toml().encode())
        folder.log(f"{mode} run '{name}' started")
        if not TENSORBOARD:
            folder.log("no curves: pip install 'xsite[research]' brings TensorBoard")
        return folder

    def _note_changed_environment(self) -> None:
        before = read_object(self.path / "environment.json")
        now = describe_environment()
        changed = [key for key in now if before.get(key) != now[key]]
        note = f"; other than at the start: {', '.join(changed)}" if changed else ""
        self.log(f"resumed{note}")

    @property
    def result(self) -> dict[str, Any]:
        """What ``result.json`` says now."""
        return read_result(self.path)

    def site(self, name: str) -> Path:
        """Return the folder of one site's files within the run."""
        return self.path / "sites" / name

    def log(self, text: str) -> None:
        """Append a line with the time to ``log.txt``.

        Raises
        ------
        RunError
            If the disk is full.
        """
        try:
            log = self.path / "log.txt"
            # A traceback may name a file whose name is no text.
            with log.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{_now()}  {text}\n")
        except OSError as error:
            raise _cannot_write(self.path / "log.txt", error) from error

    def add_metrics(
        self, rows: Sequence[MetricsRow], round: int, sites: Sequence[str] | None = None
    ) -> None:
        """Add a round's figures to ``metrics.csv`` and to TensorBoard's curves.

        Parameters
        ----------
        rows : sequence of MetricsRow
            The round's rows.
        round : int
            Rows of this round and later ones that are there already are dropped first: they come
            from before a resumption.
        sites : sequence of str, optional
            Drop only these sites' rows (single-site training goes through its sites in turn).

        Raises
        ------
        RunError
            If the disk is full.
        """
        table = self.path / "metrics.csv"
        held = read_rows(table) if self._rows is None else self._rows
        kept = [
            row
            for row in held
            if row.round < round or (sites is not None and row.site not in sites)
        ]
        try:
            if self._rows is None or len(kept) < len(held):
                write_rows(table, [*kept, *rows])
            else:
                append_rows(table, rows)
            for row in rows if TENSORBOARD else ():
                folder = self.path / "tensorboard" / row.site
                writer = self._events.setdefault(row.site, EventWriter(folder))
                writer.add(row.round, row.scalars())
        except OSError as error:
            raise _cannot_write(table, error) from error
        self._rows = [*kept, *rows]

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the run's result and call it completed."""
        self._write_result(
            self.result | dict(result) | {"status": "completed", "finished": _now(), "reason": ""}
        )
        self.log("completed")

    def fail(self, status: Status, reason: str) -> None:
        """Write that the run ended early, and why; what it wrote so far stays."""
        self._write_result(self.result | {"status": status, "finished": _now(), "reason": reason})
        self.log(f"{status}: {reason}")

    def _write_result(self, result: Mapping[str, Any]) -> None:
        about = {
            "config_digest": self.config.digest(),
            "seed": self.config.seed,
            "fold": self.config.fold,
            "split": self.config.split,
        }
        write_json(self.path / "result.json", about | dict(result))


def _cannot_write(path: Path, error: OSError) -> RunError:
    return RunError(
        f"Cannot write {path}: {why(error, path)} Then resume the run; what was written before is "
        "unharmed."
    )


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


@contextmanager
def record_end(folder: RunFolder, stopped: str) -> Iterator[None]:
    """Write into a run's folder why a block ended early, if it does.

    Parameters
    ----------
    folder : RunFolder
        The run's.
    stopped : str
        What to write if it was neither an error nor the end: a Ctrl-C, a signal.

    Raises
    ------
    BaseException
        What the block raised, unchanged.
    """
    try:
        yield
    except BaseException as error:
        # The disk may be what failed; the error that matters is the first one.
        with suppress(XsiteError):
            if not isinstance(error, Exception):
                folder.fail("interrupted", stopped)
            else:
                if not isinstance(error, XsiteError):
                    folder.log("".join(traceback.format_exception(error)))
                folder.fail("failed", str(error) or type(error).__name__)
        raise


def describe_environment() -> dict[str, Any]:
    """Return what ``environment.json`` holds.

    Returns
    -------
    dict
        Versions, git revision of the source, fingerprint of the code, operating system,
        processor, cores that this process may use, memory in GiB and GPU names. The host's name,
        its user and its paths are left out: a run's folder is handed on.
    """
    # A run's folder is read without PyTorch; only a new one asks what GPUs there are.
    import torch

    return {
        "python": platform.python_version(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "cuda": torch.version.cuda,
        "code_fingerprint": code_fingerprint(),
        "git": _git_revision(ROOT),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def package_version(package: str) -> str | None:
    """Return an installed package's version without importing it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_revision(root: Path) -> dict[str, Any] | None:
    """Return revision and dirtiness of the repository whose top is ``root``, or None."""
    top = _git(root, "rev-parse", "--show-toplevel")
    # An installed copy may lie inside somebody else's repository, whose revision says nothing.
    if top is None or Path(top) != root:
        return None
    revision = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain")
    return None if revision is None else {"revision": revision, "dirty": changes != ""}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")
