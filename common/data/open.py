"""From a configuration and a site's name to its images, whether they lie on disk or are made."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from common.config.schema import Config
from common.config.sections import SYNTHETIC
from common.data.cache import Progress, SiteData, load_site
from common.data.decode import DecodeSettings
from common.data.folder import SiteFolder, read_site
from common.errors import ConfigError
from common.files import locked
from common.randomness import derive_seed

PAINTER = "simulations.synthetic"
"""Module of the synthetic hospitals' painter: what is no hospital's is looked up by name, once.

It comes with a simulation and not with a run over hospitals, so nothing here imports it.
"""
SYNTHETIC_FORMAT = 2
"""Version of the synthetic hospitals' folders; raised whenever they hold something else."""


def home_folder() -> Path:
    """Return where xsite keeps what is no run: ``$XSITE_HOME``, or ``~/.xsite``."""
    return Path(os.environ.get("XSITE_HOME") or Path.home() / ".xsite").expanduser().absolute()


def cache_folder(config: Config) -> Path:
    """Return the folder of decoded images: ``cache-dir``, or ``cache`` in xsite's home."""
    return (
        Path(config.cache_dir).expanduser().absolute()
        if config.cache_dir
        else (home_folder() / "cache")
    )


def open_site(
    config: Config,
    name: str,
    root: Path | None = None,
    progress: Progress | None = None,
    targets: Callable[[SiteFolder], Mapping[str, NDArray[Any]]] | None = None,
) -> SiteData:
    """Return a site's decoded images.

    Parameters
    ----------
    config : Config
        Data, classes and decode settings.
    name : str
        The site.
    root : Path, optional
        Its folder where the site itself knows it; else the configuration's. A synthetic hospital
        is written into the cache folder the first time.
    progress : callable, optional
        Told how many of how many images are made or decoded.
    targets : callable, optional
        What is to be learnt of each image, by a task; without it, its class.

    Returns
    -------
    SiteData

    Raises
    ------
    SiteError
        If the folder or one of its files is unfit.
    RunError
        If the cache cannot be written.
    ConfigError
        If the hospital is a synthetic one and their painter is not installed.
    """
    folder = root or site_root(config, name, progress)
    site = read_site(name, folder, config.class_names)
    if targets is not None:
        site = replace(site, targets=targets(site))
    settings = DecodeSettings.from_config(config)
    return load_site(site, settings, cache_folder(config), progress=progress)


def site_root(config: Config, name: str, progress: Progress | None = None) -> Path:
    """Return the folder of a site's images; a synthetic hospital is written the first time.

    Parameters and errors are those of :func:`open_site`.
    """
    return config.site_folder(name) or _synthetic_folder(
        config, name, cache_folder(config), progress
    )


def _painter() -> Any:
    try:
        return import_module(PAINTER)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"data = '{SYNTHETIC}' needs xsite's own images, and {error.name} is not installed "
            "here: name the folder of the site's images."
        ) from error


def _synthetic_folder(config: Config, name: str, cache: Path, progress: Progress | None) -> Path:
    """Write a synthetic hospital once; its folder is named by all that determines it.

    Its patients do not depend on the run's seed: every run and every method meets the same ones.
    """
    index = config.site_names.index(name)
    settings = (SYNTHETIC_FORMAT, index, config.synthetic_patients, config.classes)
    folder = cache / "synthetic" / f"{name}-{derive_seed(0, repr(settings)):016x}"
    with locked(folder.with_suffix(".lock")):
        if not folder.exists():
            _painter().write_hospital(
                folder,
                name,
                index,
                config.synthetic_patients,
                config.class_names,
                seed=0,
                progress=progress,
            )
    return folder
