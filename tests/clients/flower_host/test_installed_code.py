"""What a hospital runs of what it is sent: the xsite that is installed there, and nothing else."""

import io
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from clients.flower_host.installed_code import check_bundle
from common.errors import PolicyError
from simulations.runtime.bundle import ROOT, write_app
from simulations.runtime.flower_inside import build_fab_from_disk


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("app")
    write_app(folder)
    return build_fab_from_disk(folder)


def changed(bundle: bytes, files: Mapping[str, bytes], *more: tuple[str, bytes]) -> bytes:
    """Return the bundle with files in place of those of these names, or added."""
    found = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(bundle)) as old, zipfile.ZipFile(found, "w") as new:
        whole = {name: old.read(name) for name in old.namelist()} | dict(files)
        for name, content in [*whole.items(), *more]:
            new.writestr(name, content)
    return found.getvalue()


def test_the_app_of_this_very_xsite_is_run(bundle: bytes) -> None:
    check_bundle(bundle)


def test_so_is_the_one_that_flwr_run_makes_of_the_source() -> None:
    check_bundle(build_fab_from_disk(ROOT))


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"clients/round.py": b"import os"}, "clients/round.py is not as it is installed here"),
        ({"clients/round.py": b""}, "clients/round.py is not as it is installed here"),
        ({"clients/thief.py": b"pass"}, "clients/thief.py is not part of"),
        ({"torch/__init__.py": b"pass"}, "torch/__init__.py is not part of"),
        ({"sitecustomize.py": b"pass"}, "sitecustomize.py is not part of"),
        ({"clients/../../evil.py": b"pass"}, r"clients/\.\./\.\./evil.py is not part of"),
        ({"/etc/evil.py": b"pass"}, "/etc/evil.py is not part of"),
        ({"simulations/thief.py": b"pass"}, "simulations/thief.py is not part of"),
        ({"simulations/cli.py": b"pass"}, "simulations/cli.py is not part of"),
        ({"simulations/synthetic/body.py": b""}, "body.py is not as it is installed here"),
        ({"clients/data.json": b"{}"}, "clients/data.json is not part of"),
        ({"pyproject.toml": b"[tool]"}, "pyproject.toml names no app"),
        ({"pyproject.toml": b"\xff"}, "pyproject.toml names no app"),
        (
            {"pyproject.toml": b'[tool.flwr.app.components]\nclientapp = "os:system"'},
            "its ClientApp is not clients.app:app",
        ),
    ],
)
def test_an_app_with_other_code_is_refused(
    bundle: bytes, files: Mapping[str, bytes], told: str
) -> None:
    with pytest.raises(PolicyError, match=f"^This site runs the xsite .*{told}"):
        check_bundle(changed(bundle, files))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_second_file_of_one_name_cannot_hide_behind_the_first(bundle: bytes) -> None:
    with pytest.raises(PolicyError, match="a file is in it twice"):
        check_bundle(changed(bundle, {}, ("clients/app.py", b"import os")))


def test_a_docstring_of_another_wording_is_other_code(bundle: bytes) -> None:
    """The fingerprint would be the same."""
    reviewed = (ROOT / "clients" / "__init__.py").read_bytes()
    reworded = reviewed.replace(b"What runs", b"All that runs")
    assert reworded != reviewed
    with pytest.raises(PolicyError, match=r"clients/__init__\.py is not as it is installed here"):
        check_bundle(changed(bundle, {"clients/__init__.py": reworded}))


def test_what_is_no_archive_is_refused() -> None:
    with pytest.raises(PolicyError, match="it is no ZIP archive"):
        check_bundle(b"nothing of the kind")


def test_an_installation_of_another_version_refuses_this_one(bundle: bytes, tmp_path: Path) -> None:
    for package in ("common", "clients", "server", "simulations/synthetic"):
        shutil.copytree(ROOT / package, tmp_path / package)
    shutil.copy(ROOT / "simulations" / "__init__.py", tmp_path / "simulations")
    check_bundle(bundle, tmp_path)
    with (tmp_path / "common" / "learning" / "objective.py").open("a") as file:
        file.write("# mended\n")
    with pytest.raises(
        PolicyError, match=r"common/learning/objective\.py is not as it is installed here"
    ):
        check_bundle(bundle, tmp_path)
