"""A site and a server work from xsite's base alone, without what its extras bring."""

import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from pydicom.uid import JPEGLosslessSV1, JPEGLSLossless, RLELossless

from common.errors import EXTRAS
from tests.common.data.dicom_files import grey_file
from tests.simulations.tiny import SETTINGS, write_site

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WITHOUT = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        missing = name.partition(".")[0] in FORBIDDEN
        return None if missing else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Without, sys.meta_path)
from simulations.cli import main
main()
"""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(requirements: list[str]) -> set[str]:
    """Return the distributions that requirements bring, as they are installed here."""
    wanted, seen = [Requirement(text) for text in requirements], set()
    while wanted:
        one = wanted.pop()
        for extra in one.extras or {""}:
            if (key := (canonical(one.name), extra)) in seen:
                continue
            seen.add(key)
            try:
                further = map(Requirement, requires(one.name) or [])
            except PackageNotFoundError:
                continue
            wanted += [r for r in further if not r.marker or r.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}


def forbidden() -> set[str]:
    """Return the modules that the base does not bring, and those that only torch happens to."""
    base = closure(PROJECT["dependencies"])
    others = {
        module
        for module, distributions in packages_distributions().items()
        if not base & {canonical(name) for name in distributions}
    }
    ours = {"common", "clients", "server", "simulations"}
    return (others | set(EXTRAS) | {"tensorboard"}) - ours - set(sys.stdlib_module_names)


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_site(folder / "data" / "a")
    write_site(folder / "data" / "b", images=12, shift=20)
    return folder


def call(folder: Path, command: str) -> "subprocess.CompletedProcess[str]":
    program = f"FORBIDDEN = {forbidden()!r}\n{WITHOUT}"
    arguments = [sys.executable, "-c", program, *shlex.split(command)]
    environment = {"PYTHONPATH": str(ROOT), "XSITE_HOME": str(folder / "home"), "COLUMNS": "200"}
    return subprocess.run(
        arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=280
    )


def test_every_extra_s_package_is_forbidden_and_known_by_its_extra() -> None:
    assert {"ray", "matplotlib", "jinja2", "opacus", "tensorboard", "torchcam"} <= forbidden()
    assert not {"torch", "flwr", "sklearn", "scipy", "rich", "typer", "numpy"} & forbidden()
    extras = PROJECT["optional-dependencies"]
    brought = {
        canonical(Requirement(requirement).name): extra
        for extra in ("research", "privacy")
        for requirement in extras[extra]
    }
    for package in {*EXTRAS} - {"markupsafe", "ray"}:
        assert brought[package] == EXTRAS[package]


@pytest.mark.slow
def test_a_site_and_a_server_work_from_the_base_alone(hospitals: Path) -> None:
    settings = " ".join(f"--set {key.replace('_', '-')}={value}" for key, value in SETTINGS.items())
    consortium = ROOT / "configs" / "consortium.toml"
    for command in (
        f"train federated --backend in-process --data data --name one {settings}",
        "ledger show runs/one/sites/a --output ledger.html",
        "ledger verify runs/one/sites/a",
        "check-site data/a",
        "preview data/b/covid/p00.png --output view.png",
        "predict one data/b/covid --site a --device cpu",
        "onboard one --site new=data/b --device cpu",
        "approve runs/one/sites/a",
        f"deploy init {consortium} --output consortium",
        "config alpha",
        "methods",
        "version",
    ):
        done = call(hospitals, command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert "<h2" in (hospitals / "ledger.html").read_text()
    run = hospitals / "runs" / "one"
    assert "pip install 'xsite[research]' brings TensorBoard" in (run / "log.txt").read_text()
    assert not (run / "tensorboard").exists()


@pytest.mark.slow
def test_a_decoder_that_is_missing_is_named_with_its_extra(hospitals: Path) -> None:
    values = np.arange(32 * 32).reshape(32, 32)
    write_site(hospitals / "data" / "c")
    for syntax in (RLELossless, JPEGLosslessSV1, JPEGLSLossless):
        file = hospitals / "data" / "c" / "covid" / f"{syntax.keyword}.dcm"
        file.write_bytes(grey_file(values, 12, syntax=syntax, InstanceNumber=len(syntax)))
    done = call(hospitals, "check-site data/c")
    assert done.returncode == 1
    problems = [line for line in done.stdout.splitlines() if line.startswith("Problem: ")]
    assert len(problems) == 2
    for line, name in zip(sorted(problems), ("JPEG-LS Lossless", "JPEG Lossless"), strict=True):
        assert f"is compressed ({name}" in line
        assert "A decoder is missing: pip install 'xsite[dicom]'." in line


@pytest.mark.slow
@pytest.mark.parametrize("command", ["demo", "train federated --data data"])
def test_what_needs_an_extra_says_which(hospitals: Path, command: str) -> None:
    done = call(hospitals, command)
    assert done.returncode in (1, 2)
    assert "pip install 'xsite[research]'" in done.stderr and "Traceback" not in done.stderr
