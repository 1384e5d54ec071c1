"""Predictions for images without a label, and what happens to images that are none."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from clients.prediction import find_images, predict_images
from common.errors import CheckpointError, RunError
from common.models.network import build_network
from server.run_folder import RunFolder
from simulations.cli import app
from tests.common.runs.written import write_private, write_shared
from tests.simulations.tiny import tiny_config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs"))


def make_run(base: Path, **values: str) -> Path:
    """A run folder with the weights of an untrained network: predictions need no more."""
    config = tiny_config(base, run_name="run", **values)
    folder = RunFolder.create(config, "pooled", base)
    network = build_network(config, ["a", "b"])
    write_shared(folder, network)
    for site in ("a", "b"):
        write_private(folder, network, site)
    return folder.path


def picture(path: Path, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def test_probabilities_do_not_depend_on_which_images_come_along(run: Path, tmp_path: Path) -> None:
    files = [picture(tmp_path / f"{n}.png", n) for n in range(3)]
    together = predict_images(run, "a", files, device="cpu")
    assert together.files == tuple(files)
    np.testing.assert_allclose(together.probabilities.sum(axis=1), 1, atol=1e-12)
    alone = predict_images(run, "a", files[1:2], device="cpu")
    np.testing.assert_allclose(alone.probabilities[0], together.probabilities[1], atol=1e-6)


def test_a_broken_image_is_named_and_the_others_are_classified(run: Path, tmp_path: Path) -> None:
    good, also_good = picture(tmp_path / "good.png"), picture(tmp_path / "too.png", 1)
    broken = tmp_path / "broken.png"
    broken.write_bytes(good.read_bytes()[:60])
    table = tmp_path / "out" / "table.csv"
    command = ["predict", str(run), str(good), str(broken), str(also_good), "--site", "a"]
    done = CliRunner().invoke(app, [*command, "--device", "cpu", "--output", str(table)])
    assert done.exit_code == 1
    assert str(broken) in done.stderr and "Traceback" not in done.output
    assert "Not a medical device" in done.output
    header, *rows = table.read_text().splitlines()
    assert header == "file,non-covid,covid,predicted"
    assert [row.split(",")[0] for row in rows] == [str(good), str(also_good)]
    for row in rows:
        _, negative, positive, decision = row.split(",")
        assert decision == ("covid" if float(positive) > float(negative) else "non-covid")


def test_without_a_broken_image_the_command_ends_well(run: Path, tmp_path: Path) -> None:
    good = picture(tmp_path / "good.png")
    done = CliRunner().invoke(app, ["predict", str(run), str(good), "--site", "b"])
    assert done.exit_code == 0, done.output
    assert "Predicted" in done.output and "covid" in done.output


def test_an_unknown_site_is_told_with_the_known_ones(run: Path, tmp_path: Path) -> None:
    good = picture(tmp_path / "good.png")
    done = CliRunner().invoke(app, ["predict", str(run), str(good), "--site", "c"])
    assert done.exit_code == 1
    assert "'c' is no site of the run" in done.stderr and "a, b" in done.stderr


def test_best_weights_that_a_run_has_not(run: Path, tmp_path: Path) -> None:
    good = picture(tmp_path / "good.png")
    with pytest.raises(CheckpointError, match="validation-fraction = 0"):
        predict_images(run, "a", [good], which="best")


def test_a_network_that_reads_images_by_the_site_s_training_images(tmp_path: Path) -> None:
    run, good = make_run(tmp_path, algorithm="fedrdn"), picture(tmp_path / "good.png")
    with pytest.raises(RunError, match=r"'fedrdn' changes images .* predictions\.csv hold"):
        predict_images(run, "a", [good])


def test_a_folder_stands_for_its_images(tmp_path: Path) -> None:
    inside = [
        picture(tmp_path / "series" / "sub" / "1.PNG"),
        picture(tmp_path / "series" / "0.jpg"),
    ]
    dicom = tmp_path / "series" / "IM000001"
    dicom.write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "series" / "notes.txt").write_text("no image")
    (tmp_path / "series" / ".hidden.png").write_bytes(b"")
    assert set(find_images([tmp_path / "series"])) == {*inside, dicom}
    # Named twice, classified once.
    assert find_images([dicom, tmp_path / "series"]).count(dicom) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="holds no image"):
        find_images([tmp_path / "empty"])
    with pytest.raises(RunError, match="There is no file or folder"):
        find_images([tmp_path / "absent.png"])
