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


def texts_without_encoding(file: Path) -> list[str]:
    """Return the calls of a file that read or write text as the machine's locale has it."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        modes = [ast.unparse(value)[1:-1] for value in node.args if isinstance(value, ast.Constant)]
        mode = given.get("mode", "'r'")[1:-1]
        binary = "b" in mode or any(set(one) <= set("rwaxb+") and "b" in one for one in modes)
        method = name.rpartition(".")[2]
        opens = method in ("open", "fdopen") and name not in (
            "os.open",
            "Image.open",
            "super().open",
        )
        makes = method in ("NamedTemporaryFile", "TemporaryFile") and bool(modes)
        runs = given.get("text") == "True"
        is_text = method in ("read_text", "write_text") or runs
        if (is_text or ((opens or makes) and not binary)) and "encoding" not in given:
            found.append(f"line {node.lineno}: {name}")
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_no_text_is_read_or_written_as_the_locale_has_it(package: str) -> None:
    """Files are UTF-8 at a hospital whose machine says otherwise, too."""
    for file in sources(package):
        assert not texts_without_encoding(file), file.relative_to(ROOT)


def test_a_text_without_an_encoding_would_be_seen(tmp_path: Path) -> None:
    file = tmp_path / "wrong.py"
    lines = (
        "path.read_text()",
        "path.write_text(text)",
        "path.open()",
        'open(path, "a")',
        'path.open("w", newline="")',
        'os.fdopen(1, "w")',
        'tempfile.NamedTemporaryFile("w")',
        "subprocess.run(command, text=True)",
        'path.open("rb")',
        'os.fdopen(1, mode="wb")',
        'path.open(encoding="utf-8")',
        "Image.open(path)",
        "os.open(path, flags)",
    )
    file.write_text("\n".join(lines), encoding="utf-8")
    assert [found.split()[1] for found in texts_without_encoding(file)] == [
        f"{number}:" for number in range(1, 9)
    ]


def test_every_lock_is_taken_in_one_place() -> None:
    """There it is said what to do on a disk without locks."""
    takers = [
        file.relative_to(ROOT).as_posix()
        for package in MAY_IMPORT
        for file in sources(package)
        if "fcntl" in imported_packages(file)
    ]
    assert takers == ["common/files.py"]


def test_no_room_is_too_large() -> None:
    for package in MAY_IMPORT:
        for file in sources(package):
            assert len(file.read_text().splitlines()) <= 400, f"{file} is two rooms"
