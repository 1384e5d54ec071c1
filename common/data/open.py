"""Where a site's images lie, or are made, and where they are kept once they are decoded."""

import os
from importlib import import_module
from pathlib import Path

from common.config.schema import Config
from common.config.sections import SYNTHETIC
from common.data.decode_all import Progress
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


def site_root(config: Config, name: str, progress: Progress | None = None) -> Path:
    """Return the folder of a site's images; a synthetic hospital is written the first time.

    The folder of a synthetic hospital is named by all that determines it. Its patients do not
    depend on the run's seed: every run and every method meets the same ones.

    Raises
    ------
    ConfigError
        If the hospital is a synthetic one and their painter is not installed.
    """
    if (named := config.site_folder(name)) is not None:
        return named
    index = config.site_names.index(name)
    settings = (SYNTHETIC_FORMAT, index, config.synthetic_patients, config.classes)
    made = f"{name}-{derive_seed(0, repr(settings)):016x}"
    folder = cache_folder(config) / "synthetic" / made
    with locked(folder.with_suffix(".lock")):
        if not folder.exists():
            try:
                write_hospital = import_module(PAINTER).write_hospital
            except ModuleNotFoundError as error:
                raise ConfigError(
                    f"data = '{SYNTHETIC}' needs xsite's own images, and {error.name} is not "
                    "installed here: name the folder of the site's images."
                ) from error
            classes, patients = config.class_names, config.synthetic_patients
            write_hospital(folder, name, index, patients, classes, seed=0, progress=progress)
    return folder
