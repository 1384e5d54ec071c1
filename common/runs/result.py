"""A run's ``config.toml`` and ``result.json``, read back: what it was asked, and how it ended."""

from pathlib import Path
from typing import Any

from common.config.load import load_config
from common.config.schema import Config
from common.errors import RunError
from common.files import read_object


def runs_base(config: Config, default: Path) -> Path:
    """Return the folder of all runs: ``runs-dir``, or ``default`` where that is empty."""
    return Path(config.runs_dir).expanduser().absolute() if config.runs_dir else default.absolute()


def read_result(run: Path) -> dict[str, Any]:
    """Return ``result.json`` of a run's folder.

    Raises
    ------
    CheckpointError
        If it is missing or no JSON object.
    """
    return read_object(run / "result.json")


def read_run_config(run: Path) -> Config:
    """Return the configuration that a run's folder holds.

    Raises
    ------
    RunError
        If the folder holds none.
    """
    path = run / "config.toml"
    if not path.is_file():
        raise RunError(f"{run} is not the folder of a run: it holds no config.toml.")
    return load_config(path)
