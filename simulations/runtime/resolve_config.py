"""A configuration as a run's processes get it: complete, and the same wherever they work."""

from pathlib import Path

from common.config.load import make_config, with_absolute_paths
from common.config.schema import Config
from common.errors import RunError
from common.runs.folder import run_folder_name
from common.runs.result import read_run_config
from simulations.runtime.placement import Placement, place


def resolve_config(
    config: Config, base: Path, placement: Placement | None = None, apart: bool = True
) -> Config:
    """Return the configuration as the run's processes get it, wherever they work.

    Paths are made absolute, since sites are simulated in an empty folder; the run gets its name;
    the number of threads and the device are fixed.

    Parameters
    ----------
    config : Config
        The configuration as it was asked for.
    base : Path
        The folder of all runs.
    placement : Placement, optional
        Whose threads are taken.
    apart : bool
        Whether every site has processes of its own.

    Raises
    ------
    RunError
        If the run to resume is not there.
    """
    base = base.absolute()
    threads = config.threads
    if config.resume:
        if not (base / config.run_name / "config.toml").exists():
            raise RunError(f"There is no run '{config.run_name}' in {base} to go on with.")
        # Another number of threads would not go on with the run bit for bit.
        threads = threads or read_run_config(base / config.run_name).threads
    if threads == 0:
        threads = (placement or place(config)).threads
    settled = {
        "runs-dir": str(base),
        "run-name": run_folder_name(config, "federated", base),
        "threads": threads,
        # Ray shows a site its own GPUs alone, numbered from 0.
        "device": "cuda" if apart and config.device.startswith("cuda:") else config.device,
    }
    return make_config(with_absolute_paths(config.to_run_config()) | settled)
