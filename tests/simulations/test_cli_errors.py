"""Bad input: one sentence on standard error, no traceback, an exit code that is not 0."""

import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from common.models.network import build_network
from server.run_folder import RunFolder
from simulations.cli import app
from tests.common.runs.written import write_shared
from tests.simulations.tiny import SETTINGS, tiny_config, write_site

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


def fails(*arguments: str) -> Result:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code not in (0, 70), done.output
    assert "Traceback" not in done.output
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("epoch=3", "Did you mean 'epochs'?"),
        ("epochs=three", "'epochs'"),
        ("epochs=0", "'epochs'"),
        ("flip=1", "'flip'"),
        ("alpha=nan", "'alpha'"),
        ("fold=3", "folds = 3 allows 0 to 2"),
        ("sites=a,a", "names one site twice"),
        ("run-name=a/b", "'run-name'"),
        ("run-name=..", ".."),
        ("backbone=alexnet", "backbone is 'alexnet'"),
        ("backbone=torchvision:resnet18", "width"),
        ("data=/absent", "Cannot read the data folder /absent"),
        ("pretrained=absent.pth", "absent.pth"),
        ("device=cuda:99", "cuda:99"),
    ],
)
@pytest.mark.parametrize("mode", ["pooled", "single"])
def test_a_wrong_setting(mode: str, setting: str, sentence: str, tmp_path: Path) -> None:
    done = fails("train", mode, *TINY, "--set", setting)
    assert sentence in done.stderr
    assert not list(tmp_path.glob("runs/*"))
    if setting.startswith("epoch"):
        assert done.exit_code == 2


def test_configuration_files(tmp_path: Path) -> None:
    assert "Cannot read" in fails("train", "pooled", "--config", "absent.toml").stderr
    (tmp_path / "bad.toml").write_text("epochs = ")
    assert "bad.toml is not TOML" in fails("train", "pooled", "--config", "bad.toml").stderr
    (tmp_path / "typo.toml").write_text("epoch = 3")
    assert "typo.toml" in fails("train", "pooled", "--config", "typo.toml").stderr


def test_data_that_is_not_there_or_not_fit(tmp_path: Path) -> None:
    told = fails("train", "pooled", *TINY, "--site", f"a={tmp_path / 'absent'}").stderr
    assert "absent" in told
    write_site(tmp_path / "data" / "a")
    (tmp_path / "data" / "a" / "covid" / "p00.png").write_bytes(b"no image")
    told = fails("train", "single", *TINY, "--data", "data").stderr
    assert "p00.png" in told
    assert not (tmp_path / "runs").exists()


def test_runs_that_exist_or_do_not(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, run_name="first")
    RunFolder.create(config, "pooled", tmp_path / "runs")
    assert "exists already" in fails("train", "pooled", *TINY, "--name", "first").stderr
    told = fails("train", "pooled", "--resume", "first", "--set", "alpha=2", "--seed", "5").stderr
    assert "alpha (1.0 there, 2.0 here)" in told and "seed (0 there, 5 here)" in told
    assert "not single" in fails("train", "single", "--resume", "first").stderr
    assert "no run 'second'" in fails("train", "pooled", "--resume", "second").stderr
    (tmp_path / "runs" / "file").write_text("")
    assert "exists already" in fails("train", "pooled", *TINY, "--name", "file").stderr


def test_weights_of_another_network(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, run_name="narrow")
    folder = RunFolder.create(config, "pooled", tmp_path)
    write_shared(folder, build_network(config, ["a"]))
    weights = f"pretrained={folder.path / 'shared.safetensors'}"
    told = fails("train", "pooled", *TINY, "--set", "width=0.1", "--set", weights).stderr
    assert "shared.safetensors" in told and "misshapen" in told


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tiny_config(tmp_path)
    (tmp_path / "taken").write_text("a file")
    told = fails("train", "pooled", *TINY, "--data", "data", "--runs", "taken").stderr
    assert "taken" in told


def test_predictions_and_sites() -> None:
    assert "no run 'absent'" in fails("predict", "absent", "x.png", "--site", "a").stderr
    assert "--sites is" in fails("synth", "made", "--sites", "0").stderr
    assert "at least 8 patients" in fails("synth", "made", "--patients", "2").stderr
    assert "no configuration key" in fails("config", "zzz").stderr.lower()
    assert "--folds is" in fails("compare", "--folds", "x").stderr


@pytest.mark.parametrize("begun", [False, True])
def test_what_nobody_foresaw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool) -> None:
    config = tiny_config(tmp_path)

    def explode(_config: object, base: Path, _report: object) -> Path:
        if begun:
            RunFolder.create(config.changed(run_name="run"), "pooled", base)
        raise ValueError("too many cooks")

    monkeypatch.setattr("simulations.local.train_pooled", explode)
    done = CliRunner().invoke(app, ["train", "pooled", "--name", "run", "--data", "data"])
    assert done.exit_code == 70
    assert "ValueError (too many cooks)" in done.stderr and "Traceback" not in done.stderr
    path = Path(done.stderr.strip().rpartition("traceback is in ")[2].rstrip("."))
    assert (path == tmp_path / "runs" / "run" / "log.txt") == begun
    assert "Traceback" in path.read_text() and "too many cooks" in path.read_text()
    if not begun:
        path.unlink()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "This machine has too little free memory. Lower batch-size"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate"), "too little free"),
        (
            OSError(28, "No space left on device"),
            "Cannot use a file: No space left on device. Free",
        ),
        (OSError(28, "No space left on device", "/here/a", None, "/b"), "Cannot use /b: No space"),
        (PermissionError(13, "Permission denied", "/c"), "Cannot use /c: Permission denied. Let"),
    ],
)
def test_what_a_machine_lacks_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def explode(*_: object) -> Path:
        raise error

    tiny_config(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("simulations.local.train_pooled", explode)
    assert said in fails("train", "pooled", "--name", "run", "--data", "data").stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("absent.toml",), "Cannot read the study absent.toml"),
        (("study.toml", "--methods", "fedporx"), "Did you mean 'fedprox'?"),
        (("study.toml", "--folds", "9"), "There is no fold 9"),
        (("study.toml", "--seeds", "one"), "--seeds is 'one'"),
        (("study.toml", "--set", "seed=3"), "give seeds = […] above [run]"),
        (("study.toml", "--set", "epoch=3"), "Did you mean 'epochs'?"),
        (("study.toml", "--jobs", "-1"), "--jobs"),
        (("study.toml", "--data", "/absent"), "/absent"),
    ],
)
def test_a_wrong_study(arguments: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text('methods = ["joint"]\nfolds = [0]\nseeds = [0]\n[run]\n')
    done = fails("study", *arguments)
    assert sentence in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--backend", "rey"], "No backend is called 'rey'. Did you mean 'ray'"),
        (["--backend", "in-process", "--ray-address", "a:1"], "--ray-address are Ray's"),
    ],
)
def test_a_wrong_backend(options: list[str], sentence: str, tmp_path: Path) -> None:
    done = fails("train", "federated", *TINY, *options)
    assert sentence in " ".join(done.stderr.split())
    assert not list(tmp_path.glob("runs/*"))
