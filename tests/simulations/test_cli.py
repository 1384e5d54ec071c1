"""The command line: what adds up to a configuration, what is printed, how a run is stopped."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from common.config.load import describe
from common.config.schema import about_keys
from common.errors import ConfigError, RunError
from common.runs.result import read_result, read_run_config
from server.run_folder import RunFolder
from simulations.cli import app
from simulations.commands.options import CliOptions, gather_config, numbers
from simulations.comparison import METHODS
from simulations.synth import hospital_names
from tests.simulations.tiny import SETTINGS, tiny_config, write_site

ROOT = Path(__file__).parents[2]
TINY = [
    part
    for key, value in SETTINGS.items()
    for part in ("--set", f"{key.replace('_', '-')}={value}")
]


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XSITE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XSITE_DATA", raising=False)


def test_options_win_over_set_and_set_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("epochs = 3\nalpha = 0.5\nseed = 7\n")
    asked = CliOptions(file=file, settings=["alpha=0.25", "seed=8"], seed=9)
    config = gather_config(asked)
    assert (config.epochs, config.alpha, config.seed) == (3, 0.25, 9)


def test_a_method_wins_over_the_file_and_set_over_the_method(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("alpha = 0.5\nproximal = 3.0\nadapters = 'series'\n")
    asked = CliOptions(file=file, method="fedprox", settings=["proximal=0.25"])
    config = gather_config(asked, "federated")
    assert (config.alpha, config.proximal, config.normalisation) == (0, 0.25, "shared")
    # What belongs to another method is unset; the weight of xsite's own term is the file's.
    config = gather_config(CliOptions(file=file, method="xsite"), "federated")
    assert (config.alpha, config.proximal, config.adapters) == (0.5, 0, "none")


@pytest.mark.parametrize(
    ("name", "mode", "sentence"),
    [
        ("fedporx", "federated", "No method is called 'fedporx'. Did you mean 'fedprox'?"),
        ("fedprox", "pooled", "is for federated training: xsite train federated --method fedprox"),
    ],
)
def test_a_method_that_is_not_there_or_not_of_this_mode(
    name: str, mode: str, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        gather_config(CliOptions(method=name), mode)


def test_every_method_makes_a_configuration_and_is_listed() -> None:
    listed = CliRunner().invoke(app, ["methods"], env={"COLUMNS": "200"}).output
    made = {}
    for method in METHODS.values():
        config = gather_config(CliOptions(method=method.name), method.mode)
        made[method.mode, config.digest()] = method.name
        assert f"{method.name}  {method.label} ({method.mode})" in listed
    assert "    option weight = 0.1: λ: the larger, the nearer a site's own model stays" in listed
    # Two methods that are one would be compared with each other.
    assert len(made) == len(METHODS)


def test_the_folders_below_data_are_the_sites_unless_some_are_named(tmp_path: Path) -> None:
    for name in ("north", "south", ".cache", "_old"):
        (tmp_path / "data" / name).mkdir(parents=True)
    (tmp_path / "data" / "README.md").write_text("")
    found = gather_config(CliOptions(data=Path("data")))
    assert found.site_names == ("north", "south")
    assert found.data == str(tmp_path / "data")
    assert gather_config(CliOptions(data=Path("data"), sites="south")).site_names == ("south",)
    assert gather_config(CliOptions(settings=["data=data"])).site_names == ("north", "south")
    assert gather_config(CliOptions(data=Path("data"), settings=["sites="])).site_names == (
        "north",
        "south",
    )


def test_data_may_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "north").mkdir(parents=True)
    monkeypatch.setenv("XSITE_DATA", str(tmp_path / "data"))
    config = gather_config(CliOptions(settings=['data=""']))
    assert (config.data, config.site_names) == (str(tmp_path / "data"), ("north",))


def test_paths_become_absolute(tmp_path: Path) -> None:
    asked = CliOptions(
        site_folders=["a=one", "b=~/two"],
        runs=Path("here"),
        settings=["pretrained=w.safetensors", "cache-dir=cache"],
    )
    config = gather_config(asked)
    assert config.site_folder("a") == tmp_path / "one"
    assert config.site_folder("b") == Path.home() / "two"
    assert config.runs_dir == str(tmp_path / "here")
    assert config.pretrained == str(tmp_path / "w.safetensors")
    assert config.cache_dir == str(tmp_path / "cache")
    assert gather_config(CliOptions()).data == "synthetic"


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (CliOptions(sites="a", site_folders=["a=x"]), "either --sites or --site"),
        (CliOptions(site_folders=["a"]), "not name=folder"),
        (CliOptions(site_folders=["a=x,y"]), "comma"),
        (CliOptions(resume="x", name="y"), "either --resume or --name"),
        (CliOptions(data=Path("empty")), "holds no folders"),
        (CliOptions(data=Path("absent")), "Cannot read the data folder"),
        (CliOptions(data=Path("spaced")), "North Hospital"),
        (CliOptions(settings=["epochs"]), "not key=value"),
    ],
)
def test_contradictions_are_told(tmp_path: Path, asked: CliOptions, sentence: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "spaced" / "North Hospital").mkdir(parents=True)
    with pytest.raises(ConfigError, match=sentence):
        gather_config(asked)


def test_a_resumed_run_brings_its_configuration(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, run_name="first", alpha=0.125)
    RunFolder.create(config, "pooled", tmp_path / "runs")
    for named in ("first", "runs/first", str(tmp_path / "runs" / "first")):
        resumed = gather_config(CliOptions(resume=named))
        assert resumed.resume and resumed.run_name == "first" and resumed.alpha == 0.125
        assert resumed.runs_dir == str(tmp_path / "runs")
        assert resumed.digest() == config.digest()
    assert (
        gather_config(CliOptions(resume="first", settings=["alpha=1"])).digest() != config.digest()
    )
    with pytest.raises(RunError, match="no run 'second'"):
        gather_config(CliOptions(resume="second"))


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from click.testing import CliRunner; from simulations.cli import app; "
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0; "
        "heavy = {'torch', 'numpy', 'pydantic', 'flwr', 'ray', 'sklearn', 'PIL'} & {*sys.modules}; "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def commands() -> list[list[str]]:
    trains = [["train", mode] for mode in ("federated", "pooled", "single")]
    others = ("train", "compare", "demo", "predict", "check-site", "synth", "config", "version")
    return [[], *trains, *([name] for name in others)]


@pytest.mark.parametrize("command", ["train pooled", "study", "deploy init", "predict", "version"])
def test_a_command_s_help_needs_no_pytorch(command: str) -> None:
    program = (
        "import sys; from click.testing import CliRunner; from simulations.cli import app; "
        f"assert CliRunner().invoke(app, [*{command.split()}, '--help']).exit_code == 0; "
        "heavy = {'torch', 'flwr', 'ray', 'sklearn', 'matplotlib'} & {*sys.modules}; "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_mistyped_command_is_answered_with_the_right_one() -> None:
    done = CliRunner().invoke(app, ["trian"])
    assert done.exit_code == 2 and done.stderr.count("Did you mean 'train'?") == 1


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_help_fits_sixty_columns(command: list[str]) -> None:
    # The runner tells click a width of 80 whatever COLUMNS says.
    done = CliRunner().invoke(app, [*command, "--help"], terminal_width=58)
    assert done.exit_code == 0
    assert max(len(line) for line in done.output.splitlines()) <= 60
    assert "\\[" not in done.output


def test_config_lists_every_key_with_its_default() -> None:
    done = CliRunner().invoke(app, ["config"], env={"COLUMNS": "60"})
    lines = done.output.splitlines()
    assert [line.partition(" = ")[0] for line in lines if not line.startswith(" ")] == list(
        about_keys()
    )
    assert "learning-rate = 0.0001" in lines and 'sites = "hospital-a,hospital-b"' in lines
    assert max(len(line) for line in lines) <= 60
    text = " ".join(" ".join(lines).split())
    for _, _, meaning in describe():
        assert " ".join(meaning.split()) in text


def test_version() -> None:
    assert CliRunner().invoke(app, ["version"]).output.startswith("xsite ")


def test_a_run_prints_its_figures_and_where_it_is(tmp_path: Path) -> None:
    write_site(tmp_path / "data" / "a")
    write_site(tmp_path / "data" / "b", shift=10)
    command = ["train", "pooled", "--data", "data", "--name", "one", *TINY, "--epochs", "1"]
    done = CliRunner().invoke(app, command, env={"COLUMNS": "60"})
    assert done.exit_code == 0, done.output
    table = [line for line in done.output.splitlines() if line.startswith((" a ", " b "))]
    result = read_result(tmp_path / "runs" / "one")
    for site, line in zip("ab", table, strict=True):
        figures = result["metrics"][site]["test"]
        assert f"{figures['accuracy']:.3f}" in line and f"{figures['auc']:.3f}" in line
        assert f"{figures['auc_low']:.2f}–{figures['auc_high']:.2f}" in line
        assert len(line.rstrip()) <= 60
    assert f"Run folder: {tmp_path / 'runs' / 'one'}" in done.output
    stored = read_run_config(tmp_path / "runs" / "one")
    assert stored.epochs == 1 and stored.data == str(tmp_path / "data")
    # A complete run is told, not repeated.
    again = CliRunner().invoke(app, ["train", "pooled", "--resume", "one"])
    assert again.exit_code == 0 and "is complete already" in again.output


@pytest.mark.slow
def test_ctrl_c_ends_with_the_command_that_goes_on(tmp_path: Path) -> None:
    write_site(tmp_path / "data" / "a")
    program = [sys.executable, "-c", "from simulations.cli import main; main()"]
    command = ["train", "single", "--data", "data", "--name", "cut", *TINY, "--epochs", "500"]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    }
    process = subprocess.Popen(
        [*program, *command], env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        table = tmp_path / "runs" / "cut" / "metrics.csv"
        deadline = time.monotonic() + 120
        while not table.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, told.decode()
    sentence = told.decode().strip().splitlines()[-1]
    folder = tmp_path / "runs" / "cut"
    assert sentence == f"Stopped. Go on with: xsite train single --resume {folder}"
    assert "Traceback" not in told.decode()
    # The sentence is a command: with the last step reached, it ends at once.
    arguments = shlex.split(sentence.partition("xsite ")[2])
    resumed = gather_config(CliOptions(resume=arguments[-1]))
    assert resumed.resume and resumed.epochs == 500
    assert json.loads((folder / "result.json").read_text())["status"] == "interrupted"


def test_synth_writes_site_folders_that_check_site_reads(tmp_path: Path) -> None:
    command = ["synth", "made", "--sites", "north,south", "--patients", "24", "--size", "64"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in (tmp_path / "made").iterdir()) == ["north", "south"]
    check = CliRunner().invoke(
        app, ["check-site", "made/north", "--set", "folds=2"], env={"COLUMNS": "60"}
    )
    assert check.exit_code == 0, check.output
    assert "Fit for training: yes" in check.output and "patients known" in check.output
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 1 and "is not empty" in again.stderr


def test_check_site_says_no_with_every_problem(tmp_path: Path) -> None:
    write_site(tmp_path / "site", images=2)
    (tmp_path / "site" / "covid" / "p00.png").write_bytes(b"no image")
    done = CliRunner().invoke(app, ["check-site", "site"])
    assert done.exit_code == 1
    assert "p00.png" in done.output and "Fit for training: no" in done.output


def test_names_of_synthetic_hospitals() -> None:
    assert hospital_names("3") == ("hospital-a", "hospital-b", "hospital-c")
    assert hospital_names("north, south") == ("north", "south")
    for wrong in ("0", "27", "-1", "", "a,a", "North"):
        with pytest.raises(ConfigError, match="--sites is"):
            hospital_names(wrong)


def test_numbers_of_folds_and_seeds() -> None:
    assert numbers("--folds", "0, 1,1") == (0, 1)
    for wrong in ("", "a", "1.5", "-1"):
        with pytest.raises(ConfigError, match="--folds is"):
            numbers("--folds", wrong)
