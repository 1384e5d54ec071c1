"""Where a simulation's sites compute: threads, CPUs, GPUs, the environment and the configuration.

The number of threads is settled here, once, from the configuration and this machine, and travels
in the configuration: floating-point sums depend on it, and must not depend on how many sites Ray
happens to run at once.
"""

import importlib.util
import math
import os
import secrets
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.config.load import make_config
from common.config.schema import Config, Scalar, about_keys
from common.config.sections import SYNTHETIC
from common.config.sites import SiteEntry, parse_sites
from common.data.open import cache_folder, home_folder
from common.errors import RunError
from server.run_folder import run_folder_name

LARGE_PACKAGES = ("torch", "flwr", "ray", "sklearn")
# Of a site, unless the machine has fewer. Where not all sites get as many at once they take turns,
# which is as fast and takes the memory of fewer.
FEWEST_THREADS = 2
LOOPBACK = "127.0.0.1,localhost,::1"


@dataclass(frozen=True)
class Placement:
    """What every site and all sites together may use.

    ``threads`` of one site's training; ``cpus`` of all sites at once, ``cpus_per_site`` of which
    one site takes, so that ``cpus // cpus_per_site`` sites train at a time; ``gpus`` likewise, a
    share of one GPU being allowed; ``ray_address`` of a Ray cluster to use, ``""`` for a private
    one.
    """

    threads: int
    cpus: int
    cpus_per_site: int
    gpus: int = 0
    gpus_per_site: float = 0.0
    ray_address: str = ""

    @property
    def at_once(self) -> int:
        """How many sites train at a time, unless there are fewer."""
        return max(1, self.cpus // self.cpus_per_site)

    def federation_config(self, sites: int) -> dict[str, Scalar]:
        """Return Flower's federation configuration for so many sites."""
        values: dict[str, Scalar] = {
            "num_supernodes": sites,
            "client_resources_num_cpus": self.cpus_per_site,
            "client_resources_num_gpus": self.gpus_per_site,
        }
        if not self.ray_address:
            # A cluster that exists has its own numbers, and Ray refuses others.
            values |= {"init_args_num_cpus": self.cpus, "init_args_num_gpus": self.gpus}
        return values


def place(
    config: Config,
    cpus_per_site: int | None = None,
    gpus_per_site: float | None = None,
    ray_address: str = "",
) -> Placement:
    """Decide what each site may use.

    Parameters
    ----------
    config : Config
        Its ``threads``, if not 0, and its ``device`` decide first.
    cpus_per_site : int, optional
        CPUs that one site takes; without it one per thread, but never more than there are.
    gpus_per_site : float, optional
        GPUs, or the share of one, that a site takes; without it the machine's GPUs are dealt out
        evenly where ``device`` allows them.
    ray_address : str
        Ray cluster to use, as ``host:port``.

    Raises
    ------
    RunError
        If not even one site would fit.
    """
    sites = len(config.site_names)
    available = len(os.sched_getaffinity(0))
    together = min(sites, max(1, available // FEWEST_THREADS))
    threads = config.threads or available // together
    taken = cpus_per_site or min(threads, available)
    if not ray_address and taken > available:
        raise RunError(
            f"A site would take {taken} CPUs, but {available} are available. "
            "Give each site fewer CPUs."
        )
    gpus = 0 if config.device == "cpu" else _count_gpus(config)
    share = _share(gpus, sites) if gpus_per_site is None else gpus_per_site
    return Placement(threads, available, taken, gpus, share, ray_address)


def resolve_config(config: Config, base: Path, placement: Placement, apart: bool = True) -> Config:
    """Return the configuration as the run's processes get it, wherever they work.

    Paths are made absolute, since sites are simulated in an empty folder; the run gets its name;
    the number of threads and the device are fixed.

    Parameters
    ----------
    config : Config
        The configuration as it was asked for.
    base : Path
        The folder of all runs.
    placement : Placement
        Whose threads are taken, unless the configuration says how many.
    apart : bool
        Whether every site has processes of its own.
    """
    base = base.absolute()
    settled = {
        "runs-dir": str(base),
        "run-name": run_folder_name(config, "federated", base),
        "threads": config.threads or placement.threads,
        # Ray shows a site its own GPUs alone, numbered from 0.
        "device": "cuda" if apart and config.device.startswith("cuda:") else config.device,
    }
    return make_config(with_absolute_paths(config.to_run_config()) | settled)


def child_environment(folder: Path, config: Config, placement: Placement) -> dict[str, str]:
    """Return the environment of a simulation's processes.

    Parameters
    ----------
    folder : Path
        A private folder, with a short path: Ray's sockets lie below it, and the path of a socket
        has at most 107 bytes.
    config : Config
        For the folder of caches and the GPU that ``device`` names.
    placement : Placement
        Threads, and the Ray cluster.

    Returns
    -------
    dict
        This process's environment, less what would lead Flower or Ray elsewhere.
    """
    scripts = sysconfig.get_path("scripts")
    # They call nobody but each other, on this machine, to which no proxy leads.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("FLWR_") and not name.lower().endswith("_proxy")
    }
    environment |= dict.fromkeys(("no_proxy", "NO_PROXY"), LOOPBACK)
    environment |= {
        "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        # Sites work in another folder, where a relative path would lead elsewhere.
        "XSITE_HOME": str(home_folder()),
        "FLWR_HOME": str(folder / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        # It goes on asking for tasks all the while, on a processor that the sites compute on.
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Flower gives every worker an environment, which a worker started in advance lacks.
        "RAY_prestart_worker_first_driver": "0",
        "RAY_enable_worker_prestart": "0",
        # Their output goes to files, which are UTF-8.
        "PYTHONIOENCODING": "utf-8:backslashreplace",
        "OMP_NUM_THREADS": str(placement.threads),
        # PyTorch makes this folder as soon as there is an optimizer.
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
    }
    environment |= _ray_cluster(placement.ray_address)
    if config.device.startswith("cuda:"):
        environment["CUDA_VISIBLE_DEVICES"] = _visible_gpu(int(config.device[len("cuda:") :]))
    if not all(_compiled(package) for package in LARGE_PACKAGES):
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment["PYTHONPYCACHEPREFIX"] = str(bytecode_folder(config))
    return environment


def bytecode_folder(config: Config) -> Path:
    """Return where compiled Python goes if it does not lie beside its source.

    It does not where pip compiled nothing and nothing may be written, as in many a container. The
    processes of a run import the same packages, which then takes three times as long in each.
    """
    return cache_folder(config) / "bytecode"


def _ray_cluster(address: str) -> dict[str, str]:
    if address:
        return {"RAY_ADDRESS": address}
    return {
        # Without an address Ray joins any cluster that it finds on this machine.
        "RAY_ADDRESS": "local",
        # Whoever reaches a Ray cluster runs code in it: ours listens on the loopback alone (this
        # variable is what makes it) and wants a secret.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }


def _count_gpus(config: Config) -> int:
    """Return how many GPUs the sites share: those that are there, or the one that is named."""
    import torch

    found = torch.cuda.device_count()
    return min(found, 1) if config.device.startswith("cuda:") else found


def _share(gpus: int, sites: int) -> float:
    """Return the GPUs of one site such that all sites find room at once.

    Ray deals in units of 1/10,000, and a share must not be rounded up.
    """
    if gpus == 0:
        return 0.0
    return 1.0 if gpus >= sites else math.floor(10_000 / math.ceil(sites / gpus)) / 10_000


def _visible_gpu(index: int) -> str:
    visible = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    return visible[index] if index < len(visible) else str(index)


def _compiled(package: str) -> bool:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return False
    return Path(importlib.util.cache_from_source(found.origin)).exists()


def with_absolute_paths(values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Resolve the paths among values against the present folder: a run works in other ones too.

    Parameters
    ----------
    values : mapping
        By kebab-case key; all or some.
    """
    resolved = dict(values)
    for key, about in about_keys().items():
        if about.path and key in resolved and (key, resolved[key]) != ("data", SYNTHETIC):
            resolved[key] = _absolute(str(resolved[key]))
    if isinstance(sites := resolved.get("sites"), str):
        entries = (SiteEntry(site.name, _absolute(site.folder)) for site in parse_sites(sites))
        resolved["sites"] = ",".join(map(str, entries))
    return resolved


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute()) if path else ""
