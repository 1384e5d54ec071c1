"""Studies of real cells: what is done is kept, whatever happens to the others."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from common.console.progress import ProgressListener
from common.errors import ConfigError, RunError, SiteError
from common.files import alone_in
from simulations.study.plan import plan_study, read_file
from simulations.study.publish import publish
from simulations.study.run import Study, open_study, refuse_failures, run_study
from tests.simulations.tiny import SETTINGS, write_site

pytestmark = pytest.mark.slow

METHODS = ["joint", "sepnorm"]


class Told:
    """Keeps what a study tells."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.done: list[int] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def update(self, done: int, total: int, running: object, left: float) -> None:
        self.done.append(done)

    def close(self) -> None:
        pass

    def count(self, beginning: str) -> int:
        return sum(text.startswith(beginning) for text in self.messages)


def write_file(folder: Path, methods: list[str], **settings: str | int | float) -> Path:
    data = folder / "data"
    if not data.exists():
        write_site(data / "a")
        write_site(data / "b", images=12, shift=20)
    values = SETTINGS | {"data": str(data), "sites": "a,b", "cache_dir": str(folder / "cache")}
    lines = [
        f"{key.replace('_', '-')} = {json.dumps(value)}"
        for key, value in (values | settings).items()
    ]
    path = folder / "study.toml"
    path.write_text(
        f"methods = {json.dumps(methods)}\nfolds = [0, 1]\nseeds = [0]\n[run]\n" + "\n".join(lines)
    )
    return path


def opened(folder: Path, methods: list[str] | None = None, **settings: str | int | float) -> Study:
    path = write_file(folder, methods or METHODS, **settings)
    file = read_file(path)
    return open_study(plan_study(file, str(path), file.run), folder / "runs", ProgressListener())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    study = opened(folder)
    told = Told()
    run_study(study, 2, told)  # type: ignore[arg-type]
    publish(study, ProgressListener())
    assert told.count("Done:") == 4
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished study, whose images lie where they did."""
    shutil.copytree(finished / "runs", tmp_path / "runs")
    for name in ("data", "cache"):
        (tmp_path / name).symlink_to(finished / name)
    return tmp_path


def reopened(finished: Path, copied: Path, methods: list[str], **settings: str | int) -> Study:
    """Open the copy with the configuration of the original, so that the keys are the same."""
    path = write_file(copied, methods, **settings)
    path.write_text(path.read_text().replace(str(copied), str(finished)))
    file = read_file(path)
    return open_study(plan_study(file, str(path), file.run), copied / "runs", ProgressListener())


def run(study: Study) -> Told:
    told = Told()
    run_study(study, 2, told)  # type: ignore[arg-type]
    return told


def test_a_finished_study_computes_nothing_again(finished: Path, copied: Path) -> None:
    study = reopened(finished, copied, METHODS)
    told = run(study)
    assert told.messages == ["4 of 4 cells are done already."]
    before = (copied / "runs" / "study.md").read_text()
    publish(study, ProgressListener())
    assert (copied / "runs" / "study.md").read_text() == before


def test_another_method_adds_its_cells_alone(finished: Path, copied: Path) -> None:
    told = run(reopened(finished, copied, [*METHODS, "series-adapters"]))
    assert told.messages[0] == "4 of 6 cells are done already."
    begun = [text for text in told.messages if text.startswith("Begun:")]
    assert begun == [f"Begun: Series adapters, fold {fold}, seed 0" for fold in (0, 1)]


def test_a_damaged_cell_is_set_aside_and_computed_again_the_same(
    finished: Path, copied: Path
) -> None:
    study = reopened(finished, copied, METHODS)
    path = study.path(list(study.keys)[1])
    weights = path / "shared.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    told = run(study)
    assert "shared.safetensors is not what the run wrote" in told.messages[0]
    assert told.count("Done:") == 1
    before, after = (load(data) for data in (whole, weights.read_bytes()))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (path.with_name(f"{path.name}.damaged-1") / "config.toml").exists()


def test_cells_of_another_configuration_stay_and_take_no_part(finished: Path, copied: Path) -> None:
    study = reopened(finished, copied, METHODS[:1], epochs=1)
    cells = copied / "runs" / "cells"
    before = {path.name for path in cells.iterdir()}
    told = run(study)
    assert "2 cells" in told.messages[0]
    assert "another configuration" in told.messages[0]
    assert told.count("Done:") == 2
    assert before < {path.name for path in cells.iterdir()}
    page = publish(study, ProgressListener())[0].read_text()
    assert not any(name in page for name in before)


def test_other_images_are_another_study(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "data", tmp_path / "data")
    before = opened(tmp_path).keys
    image = next((tmp_path / "data" / "a" / "covid").iterdir())
    image.write_bytes((tmp_path / "data" / "b" / "covid" / "p00.png").read_bytes())
    assert set(opened(tmp_path).keys.values()).isdisjoint(before.values())


def test_a_failed_cell_is_named_and_the_others_go_on(finished: Path, copied: Path) -> None:
    path = write_file(copied, [*METHODS, "mine"])
    text = path.read_text().replace(str(copied), str(finished))
    path.write_text(
        f'{text}\n[[method]]\nname = "mine"\nlabel = "Mine"\nmode = "pooled"\n'
        f'settings = {{ pretrained = "{copied}/nothing.pth" }}\n'
    )
    file = read_file(path)
    study = open_study(plan_study(file, str(path), file.run), copied / "runs", ProgressListener())
    told = run(study)
    assert told.count("Failed:") == 2
    with pytest.raises(RunError, match="2 of 6 cells failed, the others are kept") as caught:
        refuse_failures(study)
    assert "nothing.pth" in str(caught.value)
    page = publish(study, ProgressListener())[0].read_text()
    assert "failed: " in page
    assert "nothing.pth" in page


def test_two_studies_do_not_write_one_folder(finished: Path, copied: Path) -> None:
    study = reopened(finished, copied, METHODS)
    with (
        alone_in(study.folder, "the study"),
        pytest.raises(RunError, match="Another process is writing the study"),
    ):
        run(study)


def test_a_site_with_fewer_images_than_folds_is_refused_before_anything_runs(
    tmp_path: Path,
) -> None:
    write_site(tmp_path / "data" / "a")
    write_site(tmp_path / "data" / "b", images=12, shift=20)
    # Two images of each class at site a are fewer than three folds.
    for folder in (tmp_path / "data" / "a").iterdir():
        for image in sorted(folder.iterdir())[2:]:
            image.unlink()
    path = write_file(tmp_path, METHODS, split="image")
    path.write_text(path.read_text().replace("folds = [0, 1]\n", "folds = [0, 1, 2]\n"))
    file = read_file(path)
    with pytest.raises(SiteError, match="Site 'a'"):
        open_study(plan_study(file, str(path), file.run), tmp_path / "runs", ProgressListener())


def test_the_folder_of_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "config.toml").touch()
    with pytest.raises(RunError, match="is the folder of a run"):
        opened(tmp_path)


@pytest.mark.timeout(900)
def test_killed_at_three_moments_it_ends_with_the_same_tables(
    finished: Path, tmp_path: Path
) -> None:
    path = write_file(finished, METHODS)
    command = [
        *(sys.executable, "-c", "from simulations.cli import main; main()"),
        *("study", str(path), "--runs", str(tmp_path), "--name", "killed", "--jobs", "2"),
    ]
    cells = tmp_path / "killed" / "cells"

    def some_step_done() -> bool:
        return any(file.stat().st_size > 200 for file in cells.glob("*/metrics.csv"))

    def begun(count: int) -> bool:
        return len(list(cells.glob("*/config.toml"))) >= count

    def done(count: int) -> bool:
        return len(list(cells.glob("*/cell.json"))) >= count

    for reached in (lambda: begun(1), some_step_done, lambda: done(2) and begun(3)):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        latest = time.monotonic() + 120
        while not reached() and process.poll() is None and time.monotonic() < latest:
            time.sleep(0.05)
        assert process.poll() is None, "it ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        # Its cells see that their parent is gone and end by themselves.
        while _writing(cells) and time.monotonic() < latest:
            time.sleep(0.1)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=250)
    assert not list(cells.glob("*.damaged-*")), "a cell was begun anew instead of gone on with"
    ours = (tmp_path / "killed" / "study.md").read_text()
    assert _figures(ours) == _figures((finished / "runs" / "study.md").read_text())


def _writing(cells: Path) -> bool:
    """Say whether some process still holds the folder of a cell."""
    for lock in cells.glob("*/.lock"):
        try:
            with alone_in(lock.parent):
                pass
        except RunError:
            return True
    return False


def _figures(text: str) -> str:
    """Return what does not depend on how long it took: all tables but those of cost."""
    return text.partition("## Figures")[2].partition("## Cost")[0]


def test_a_plan_without_the_image_folder_says_so(tmp_path: Path) -> None:
    path = write_file(tmp_path, METHODS)
    shutil.rmtree(tmp_path / "data")
    file = read_file(path)
    with pytest.raises((SiteError, ConfigError), match="data"):
        open_study(plan_study(file, str(path), file.run), tmp_path / "runs", ProgressListener())
