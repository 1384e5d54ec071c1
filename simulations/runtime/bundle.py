"""The app that a run ships: the code of three packages, and the painter of synthetic hospitals.

Flower bundles every text file below an app's folder, at most 10 MB of them. A run is therefore
not submitted from the checkout, which may hold images and runs, but from a folder made here; so a
run from a checkout and one from an installed wheel ship the same files.
"""

import shutil
from pathlib import Path
from typing import Any

import tomli_w

from common.config.schema import Config
from common.exchange.fingerprint import DEPLOYED, SHIPPED, python_files
from server.run_folder import package_version
from simulations.runtime.flower_inside import build_fab_from_disk

# Found beside this file and never by name: the folder in which a command is given may hold
# packages of these names.
ROOT = Path(__file__).resolve().parents[2]


def app_project(version: str) -> dict[str, Any]:
    """Return what the app's ``pyproject.toml`` says.

    Parameters
    ----------
    version : str
        Version of xsite.

    Returns
    -------
    dict
        Name, publisher, the two apps, and every configuration key with its default.
    """
    return {
        "project": {
            "name": "xsite",
            "version": version,
            "description": "Federated training across hospitals",
            "license": "Apache-2.0",
            # The environment that simulates has them all; Flower installs nothing.
            "dependencies": [],
        },
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "xsite",
                    "components": {"serverapp": "server.app:app", "clientapp": "clients.app:app"},
                    "config": Config().to_run_config(),
                }
            }
        },
    }


def write_app(folder: Path, painter: bool = True) -> None:
    """Write the app: the Python files that a run needs at the server and at its sites.

    Parameters
    ----------
    folder : Path
        A new or empty folder, which becomes the app's.
    painter : bool
        With the painter of synthetic hospitals, which no hospital needs.
    """
    for source in python_files(ROOT, SHIPPED if painter else DEPLOYED):
        target = folder / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    (folder / "pyproject.toml").write_text(
        tomli_w.dumps(app_project(package_version("xsite") or "0.0.0")), encoding="utf-8"
    )


def make_bundle(folder: Path, painter: bool = True) -> bytes:
    """Write xsite's own app into a new or empty folder, as :func:`write_app`, and bundle it.

    Returns
    -------
    bytes
        What Flower ships (a FAB): a ZIP archive.
    """
    write_app(folder, painter)
    return build_fab_from_disk(folder)
