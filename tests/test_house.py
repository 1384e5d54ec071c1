"""The house itself: which way imports go, what Flower is told, what every folder may hold."""

import ast
import tomllib
from pathlib import Path

import pytest

from common.config.schema import Config

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "common": {"common"},
    "clients": {"common", "clients"},
    "server": {"common", "server"},
    "simulations": {"common", "clients", "server", "simulations"},
}
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


def test_flower_has_every_key_with_the_schema_s_default() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["flwr"]["app"]["config"] == Config().to_run_config()


def test_no_room_is_too_large() -> None:
    for package in MAY_IMPORT:
        for file in sources(package):
            assert len(file.read_text().splitlines()) <= 400, f"{file} is two rooms"
