"""Small federations of synthetic hospitals in this process, to be attacked or measured."""

import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from common.config.load import load_config
from common.config.schema import Config
from common.config.sites import SiteEntry
from common.console.progress import ProgressListener
from common.runs.result import read_run_config
from simulations.runtime.in_process import Tamper, run_federation, simulated_nodes
from simulations.study.cells import is_completed
from simulations.synth import write_hospitals

Nodes = Mapping[int, Mapping[str, Any]]
SIZE = 64
"""Height and width of the hospitals' images, in pixels."""
SETTINGS = Path(__file__).parent / "federation.toml"


def small_config(folder: Path, sites: Mapping[str, Path], seed: int, **values: Any) -> Config:
    """Return the configuration of a federation whose files all lie in a folder.

    Parameters
    ----------
    folder : Path
        Of all files.
    sites : mapping of str to Path
        The hospitals' images.
    seed : int
        Of the run.
    **values
        What else differs from the defaults and :data:`SETTINGS`.
    """
    return load_config(SETTINGS).changed(
        sites=",".join(str(SiteEntry(site, str(path))) for site, path in sites.items()),
        runs_dir=str(folder / "runs"),
        cache_dir=str(folder / "cache"),
        seed=seed,
        **values,
    )


def make_hospitals(
    folder: Path, names: tuple[str, ...], patients: int, seed: int, listener: ProgressListener
) -> dict[str, Path]:
    """Write hospitals, or find them written, and return their folders by name."""
    folder = folder / f"hospitals-{patients}-{seed}"
    missing = [name for name in names if not (folder / name).is_dir()]
    if missing:
        # A hospital's place among the names decides how its images look: all or none are kept.
        shutil.rmtree(folder, ignore_errors=True)
        write_hospitals(folder, names, patients, seed, SIZE, listener)
    return {name: folder / name for name in names}


def federate(
    config: Config,
    compared: bool = True,
    tamper: Tamper | None = None,
    nodes: Nodes | None = None,
) -> Path:
    """Train a federation in this process, unless its run is there and complete.

    Parameters
    ----------
    config : Config
        With a ``run-name`` and an absolute ``runs-dir``.
    compared : bool
        Whether the server compares the sites' steps with each other.
    tamper : callable, optional
        What becomes of replies.
    nodes : mapping of int to mapping, optional
        Number of a node → its configuration; without it the sites are simulated.

    Returns
    -------
    Path
        The run's folder.

    Raises
    ------
    RunError
        If the server ends the run early, as it may where somebody lies: weights that explode, or
        too few good replies.
    """
    run = Path(config.runs_dir) / config.run_name
    if not is_completed(run) or read_run_config(run).digest() != config.digest():
        shutil.rmtree(run, ignore_errors=True)
        with ExitStack() as held:
            if not compared:
                # Its comparison of steps is switched off.
                held.enter_context(patch("server.exchange.far_from_the_others", lambda *_: {}))
            # The run's own log has what Flower says of every round.
            run_federation(config, nodes or simulated_nodes(config), StringIO(), tamper=tamper)
    return run
