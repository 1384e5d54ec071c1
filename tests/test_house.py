"""The house itself: which way imports go, what Flower is told, what every folder may hold."""

import ast
import tomllib
from pathlib import Path

import pytest
from setuptools import find_packages

from common.config.schema import Config
from common.exchange.fingerprint import SHIPPED

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "common": {"common"},
    "clients": {"common", "clients"},
    "server": {"common", "server"},
    "simulations": {"common", "clients", "server", "simulations"},
}
FLOORS_OF_COMMON = (
    {"errors"},
    {"files", "randomness", "signals"},
    {"formatting"},
    {"config"},
    {"device", "tensor_files"},
    {"data"},
    {"models"},
    {"tasks"},
    {"runs"},
    {"learning", "methods"},
    {"exchange"},
    {"console"},
)
"""From the ground up; what stands on a floor imports from it and from those below."""
NEVER_IN_COMMON = {"flwr", "ray", "socket", "http", "urllib", "requests", "httpx"}


def imported_packages(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            found.add((node.module or "").partition(".")[0])
    return found


def imported_rooms(file: Path, package: str) -> set[str]:
    """Return the folders and files at the top of a package that a file of it imports from."""
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith(f"{package}.")}
    return rooms


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_one_way(package: str) -> None:
    assert sources(package)
    for file in sources(package):
        foreign = (imported_packages(file) & MAY_IMPORT.keys()) - MAY_IMPORT[package]
        assert not foreign, f"{file.relative_to(ROOT)} imports {foreign}"


def test_common_knows_neither_flower_nor_ray_nor_the_network() -> None:
    for file in sources("common"):
        assert not imported_packages(file) & NEVER_IN_COMMON, file


def test_an_import_the_wrong_way_would_be_seen(tmp_path: Path) -> None:
    file = tmp_path / "wrong.py"
    file.write_text("def f():\n    from server.app import app\n    import flwr.app\n")
    assert imported_packages(file) == {"server", "flwr"}


def test_the_floors_of_common_hold() -> None:
    floors = {room: floor for floor, rooms in enumerate(FLOORS_OF_COMMON) for room in rooms}
    for file in sources("common"):
        if file != ROOT / "common" / "__init__.py":
            own = file.relative_to(ROOT / "common").with_suffix("").parts[0]
            above = {room for room in imported_rooms(file, "common") if floors[room] > floors[own]}
            assert not above, f"{file.relative_to(ROOT)} imports from above: {above}"


def test_an_import_from_a_floor_above_would_be_seen(tmp_path: Path) -> None:
    file = tmp_path / "wrong.py"
    file.write_text("def f():\n    from common.runs.folder import x\n    from common import data\n")
    assert imported_rooms(file, "common") == {"runs", "data"}


def test_evidence_is_neither_installed_nor_shipped_nor_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found = find_packages(str(ROOT), **project["tool"]["setuptools"]["packages"]["find"])
    assert "simulations.runtime" in found and "simulations.synthetic" in found
    assert not [name for name in found if "evidence" in name]
    shipped = {
        place.split("**")[0].strip("/") for place in project["tool"]["flwr"]["app"]["fab-include"]
    }
    assert shipped == set(SHIPPED)
    for package in MAY_IMPORT:
        for file in sources(package):
            if "evidence" not in file.parts:
                assert "evidence" not in imported_rooms(file, "simulations"), file


def test_flower_has_every_key_with_the_schema_s_default() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["flwr"]["app"]["config"] == Config().to_run_config()


def test_no_room_is_too_large() -> None:
    for package in MAY_IMPORT:
        for file in sources(package):
            assert len(file.read_text().splitlines()) <= 400, f"{file} is two rooms"
