"""A configuration as a run's processes get it: complete, and the same wherever they work."""

from pathlib import Path

from common.config.schema import SYNTHETIC, Config
from common.errors import RunError
from common.runs.folder import read_run_config, run_folder_name
from simulations.runtime.placement import Placement, place


def resolve_config(config: Config, base: Path, placement: Placement | None = None) -> Config:
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
    sites = []
    for entry in config.sites.split(","):
        name, named, site_folder = entry.strip().partition("=")
        sites.append(f"{name.strip()}={_absolute(site_folder.strip())}" if named else name)
    return config.changed(
        data=config.data if config.data in ("", SYNTHETIC) else _absolute(config.data),
        sites=",".join(sites),
        pretrained=_absolute(config.pretrained),
        cache_dir=_absolute(config.cache_dir),
        runs_dir=str(base),
        run_name=run_folder_name(config, "federated", base),
        threads=threads,
        # Ray shows a site its own GPUs alone, numbered from 0.
        device="cuda" if config.device.startswith("cuda:") else config.device,
    )


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute()) if path else ""
