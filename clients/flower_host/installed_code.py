"""The hospital's own ``flwr-clientapp``: it runs the xsite that is installed here, and no other.

Flower ships an app's code with every run, so that whoever can start a run could change what runs
at a hospital. In a hospital's folder this program stands in front of Flower's of the same name.
What is shipped cannot change it: before anything of that is unpacked, every file is compared with
the xsite that the hospital has installed, and so could review. The comparison is of bytes, where
the fingerprint of a reply is of meaning: two releases whose docstrings differ may be averaged, but
what is unpacked here is what was reviewed, to the letter, and no parser has to be trusted for that.
"""

import io
import tomllib
import zipfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from common.errors import PolicyError
from common.exchange.fingerprint import SHIPPED, python_files

PROJECT, CONTENT = "pyproject.toml", ".info/CONTENT"
OURS = "clients.app:app"
INSTALLED = Path(__file__).resolve().parents[2]


def check_bundle(bundle: bytes, installed: Path = INSTALLED) -> None:
    """Refuse an app whose code is not the code that is installed here.

    Parameters
    ----------
    bundle : bytes
        The app as Flower ships it: a ZIP archive.
    installed : Path
        The folder that holds what :data:`common.exchange.fingerprint.SHIPPED` names.

    Raises
    ------
    PolicyError
        Naming the first file that differs. The text leaves the site; it says nothing of its data.
    """
    known = {f.relative_to(installed).as_posix(): f for f in python_files(installed, SHIPPED)}
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            fault = _fault_of(archive, known)
    except zipfile.BadZipFile:
        fault = "it is no ZIP archive"
    if fault:
        raise PolicyError(
            f"This site runs the xsite that it has reviewed, and this app is another: {fault}."
        )


def _fault_of(archive: zipfile.ZipFile, known: Mapping[str, Path]) -> str:
    names = archive.namelist()
    # Of two files of one name the second would be unpacked over the first.
    if len(names) != len(set(names)):
        return "a file is in it twice"
    for name in (name for name in names if name not in (PROJECT, CONTENT)):
        if name not in known:
            return f"{name} is not part of what is installed here"
        if known[name].read_bytes() != archive.read(name):
            return f"{name} is not as it is installed here"
    if PROJECT not in names:
        return ""
    try:
        project = tomllib.loads(archive.read(PROJECT).decode())
        components = project["tool"]["flwr"]["app"]["components"]
    except (ValueError, KeyError, TypeError):
        return f"its {PROJECT} names no app"
    return "" if components.get("clientapp") == OURS else f"its ClientApp is not {OURS}"


def main() -> None:
    """Do what ``flwr-clientapp`` does, with a look at the app before it is unpacked."""
    from flwr.supernode.cli import flwr_clientapp

    # Where Flower has it no more, this fails, and nothing runs.
    flower: Any = import_module("flwr.supernode.runtime.run_clientapp")
    install = flower.install_from_fab

    def install_reviewed(bundle: bytes, *arguments: Any, **named: Any) -> Path:
        check_bundle(bundle)
        installed: Path = install(bundle, *arguments, **named)
        return installed

    flower.install_from_fab = install_reviewed
    flwr_clientapp()
