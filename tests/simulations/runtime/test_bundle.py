import io
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from flwr.common.config import get_metadata_from_config, validate_config

from common.config.schema import Config
from simulations.runtime.bundle import ROOT, app_project, make_bundle, write_app
from simulations.runtime.flower_inside import build_fab_from_disk

TEN_MEGABYTES = 10 * 2**20


def content(bundle: bytes) -> set[str]:
    return set(zipfile.ZipFile(io.BytesIO(bundle)).namelist())


def code_of(root: Path) -> set[str]:
    return {
        file.relative_to(root).as_posix()
        for package in ("common", "clients", "server", "simulations/synthetic")
        for file in (root / package).rglob("*.py")
    } | {"simulations/__init__.py"}


def test_the_bundle_holds_three_packages_and_the_painter_and_nothing_else(tmp_path: Path) -> None:
    write_app(tmp_path)
    bundle = build_fab_from_disk(tmp_path)
    assert content(bundle) == code_of(ROOT) | {"pyproject.toml", ".info/CONTENT"}
    archive = zipfile.ZipFile(io.BytesIO(bundle))
    for name in code_of(ROOT):
        assert archive.read(name) == (tmp_path / name).read_bytes(), name


def test_what_is_shipped_to_hospitals_has_no_painter(tmp_path: Path) -> None:
    shipped = content(make_bundle(tmp_path, painter=False))
    assert {name.partition("/")[0] for name in shipped} == {
        "common",
        "clients",
        "server",
        "pyproject.toml",
        ".info",
    }
    assert shipped < code_of(ROOT) | {"pyproject.toml", ".info/CONTENT"}


def test_flower_accepts_the_generated_project_and_finds_every_key(tmp_path: Path) -> None:
    write_app(tmp_path)
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())
    valid, errors, warnings = validate_config(project, check_module=False)
    assert (valid, errors, warnings) == (True, [], [])
    assert project["tool"]["flwr"]["app"]["config"] == Config().to_run_config()
    assert get_metadata_from_config(project)[0] == "xsite/xsite"


def test_the_generated_project_names_the_apps_that_the_repository_s_does() -> None:
    repository = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    generated = app_project("1.0")["tool"]["flwr"]["app"]
    for key in ("publisher", "components", "config"):
        assert generated[key] == repository[key], key


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout's tracked and new files, with images, runs and an environment."""
    copy = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if listed.returncode:
        pytest.skip("not a checkout")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    for folder in ("data/hospital-a/covid", "runs/federated-1", ".venv/lib", "notes"):
        (copy / folder).mkdir(parents=True)
        for suffix in ("json", "toml", "md", "yaml", "py", "png", "csv"):
            (copy / folder / f"patient-17.{suffix}").write_text("secret")
    (copy / "runs/federated-1/large.json").write_bytes(b"0123456789abcdef" * (2**20))
    return copy


def test_a_plain_flwr_run_ships_code_only(checkout: Path) -> None:
    bundle = build_fab_from_disk(checkout)
    assert len(bundle) < TEN_MEGABYTES / 10
    assert content(bundle) == code_of(checkout) | {"pyproject.toml", ".info/CONTENT"}


def test_the_check_of_the_checkout_would_see_shipped_images(checkout: Path) -> None:
    project = checkout / "pyproject.toml"
    told = project.read_text()
    line = told[told.index("fab-include") : told.index("[tool.flwr.app.components]")]
    try:
        project.write_text(told.replace(line, ""))
        shipped = content(build_fab_from_disk(checkout))
    finally:
        project.write_text(told)
    assert "notes/patient-17.json" in shipped


def test_the_packages_are_found_beside_the_launcher_and_not_where_the_command_is_given(
    tmp_path: Path,
) -> None:
    (tmp_path / "clients").mkdir()
    (tmp_path / "clients" / "__init__.py").touch()
    (tmp_path / "clients" / "app.py").write_text("decoy = True\n")
    script = (
        "import sys, pathlib; sys.path.insert(0, ''); sys.path.append(sys.argv[1]); "
        "from simulations.runtime.bundle import write_app; write_app(pathlib.Path('made'))"
    )
    subprocess.run([sys.executable, "-c", script, str(ROOT)], cwd=tmp_path, check=True, timeout=120)
    assert not (tmp_path / "made" / "clients" / "decoy.py").exists()
    for file in ("clients/__init__.py", "common/config/load.py"):
        assert (tmp_path / "made" / file).read_bytes() == (ROOT / file).read_bytes()
    made = {path.name for path in (tmp_path / "made" / "clients").rglob("*.py")}
    assert made == {path.name for path in (ROOT / "clients").rglob("*.py")}
