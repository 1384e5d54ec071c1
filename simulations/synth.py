"""Synthetic hospitals as ordinary site folders."""

from collections.abc import Sequence
from pathlib import Path

from common.config.schema import Config
from common.config.sites import SITE_NAME
from common.console.progress import ProgressListener, StepCounter
from common.errors import ConfigError, RunError
from simulations.synthetic import write_hospital

MOST = 26
FEWEST_PATIENTS = 8


def hospital_names(text: str) -> tuple[str, ...]:
    """Return names for ``"3"`` (hospital-a, hospital-b, hospital-c) or those of ``"north,south"``.

    Raises
    ------
    ConfigError
        If the number is not 1 to 26, or a name cannot be a site's.
    """
    if text.strip().lstrip("-").isdigit():
        count = int(text)
        if not 1 <= count <= MOST:
            raise ConfigError(f"--sites is {count}; between 1 and {MOST} hospitals can be made.")
        return tuple(f"hospital-{chr(ord('a') + index)}" for index in range(count))
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    wrong = [name for name in names if not SITE_NAME.fullmatch(name)]
    if not names or wrong or len(set(names)) < len(names):
        raise ConfigError(
            f"--sites is '{text}'; expected a number, or different names of lower-case letters, "
            "digits, '-' and '_', separated by commas."
        )
    return names


def write_hospitals(
    folder: Path,
    names: Sequence[str],
    patients: int,
    seed: int,
    size: int,
    listener: ProgressListener,
) -> None:
    """Write one site folder for each name.

    Parameters
    ----------
    folder : Path
        New or empty.
    names : sequence of str
        The hospitals; their order chooses how each one's images look.
    patients : int
        Patients at each.
    seed : int
        Seed of everything random.
    size : int
        Height and width in pixels.
    listener : ProgressListener
        Told of progress.

    Raises
    ------
    ConfigError
        If a number is out of range.
    RunError
        If the folder holds anything, or cannot be written.
    """
    if patients < FEWEST_PATIENTS or not 64 <= size <= 1024 or seed < 0:
        raise ConfigError(
            f"Expected at least {FEWEST_PATIENTS} patients, a size of 64 to 1024 pixels and a "
            f"seed of 0 or more; found {patients}, {size} and {seed}."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise RunError(f"{folder} is not empty; name a new folder, so that nothing mixes.")
    except OSError as error:
        raise RunError(f"Cannot write to {folder}: {error.strerror}.") from error
    classes = Config().class_names
    for index, name in enumerate(names):
        counter = StepCounter(listener, f"{name}: drawing {patients} patients")
        write_hospital(folder / name, name, index, patients, classes, seed, size, progress=counter)
        listener.close()
