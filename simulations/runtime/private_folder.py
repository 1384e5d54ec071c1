"""The folder that Flower and Ray work in during one run: made, held, and removed with the run.

Who is killed removes nothing, so the next run does: what tells the folder of a run that is under
way is a lock in it, which goes with its process, and not a number that another process may have.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.config.schema import Config
from common.errors import RunError
from common.files import alone_in, file_of, why
from simulations.runtime.placement import bytecode_folder
from simulations.runtime.processes import undisturbed

# A path of a Unix socket has 107 bytes, of which Ray's own part takes 66.
LONGEST_FOLDER = 40
PREFIX = "xsite-"


@contextmanager
def private_folder(config: Config) -> Iterator[Path]:
    """Make a folder for one run's Flower and Ray, with a path short enough for their sockets.

    What killed runs of this account left beside it is removed first.

    Raises
    ------
    RunError
        If there is no room for it, or the disk fills up while the run's app is written there.
    """
    usual = tempfile.gettempdir()
    short = Path(usual if len(usual) <= LONGEST_FOLDER - len("/xsite-12345678") else "/tmp")
    remove_abandoned(short.resolve(), config)
    try:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=short)).resolve()
    except OSError as error:
        raise RunError(_cannot_use(short, error)) from error
    try:
        with alone_in(folder, "the temporary files"):
            yield folder
    except OSError as error:
        if not (file_of(error) or folder).is_relative_to(folder):
            raise
        raise RunError(_cannot_use(short, error)) from error
    finally:
        with undisturbed():
            _remove(folder, config)


def remove_abandoned(place: Path, config: Config) -> None:
    """Remove the folders of this account's runs whose process is gone.

    Parameters
    ----------
    place : Path
        Where they lie.
    config : Config
        For the folder of caches, which may hold the compiled code of each.
    """
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError, RunError):
            # Neither a link nor what another account has put there.
            ours = not folder.is_symlink() and folder.stat().st_uid == os.geteuid()
            if ours and (folder / ".lock").is_file():
                with alone_in(folder):
                    _remove(folder, config)


def _remove(folder: Path, config: Config) -> None:
    # The run's copy of the code was compiled under its own path.
    compiled = bytecode_folder(config) / folder.relative_to("/")
    for used in (folder, compiled):
        shutil.rmtree(used, ignore_errors=True)


def _cannot_use(place: Path, error: OSError) -> str:
    return (
        f"Cannot write temporary files in {place}: {why(error, place)} The variable TMPDIR names "
        "it."
    )
