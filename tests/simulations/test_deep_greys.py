"""A run on images of 16 bits and of several frames, from training to a prediction of one alone."""

import csv
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from common.config.schema import Config
from common.console.progress import ProgressListener
from simulations.cli import app
from simulations.federated import train_federated
from simulations.runtime.in_process import IN_PROCESS
from tests.common.data.dicom_files import grey_file
from tests.simulations.tiny import SETTINGS


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Site 'a' with 12 bits in 16-bit PNG files, 'b' with DICOM files of three frames."""
    folder = tmp_path_factory.mktemp("deep")
    generator = np.random.default_rng(0)
    for label, bright in (("non-covid", 0), ("covid", 3000)):
        for site in ("a", "b"):
            (folder / "data" / site / label).mkdir(parents=True)
        for number in range(9):
            values = generator.integers(0, 900, (3, 32, 32))
            values[:, 8:20, 8:20] += bright
            image = Image.fromarray(values[0].astype(np.uint16))
            image.save(folder / "data" / "a" / label / f"p{number}.png")
            patient = f"{label}-{number}"
            content = grey_file(values, 12, PatientID=patient)
            (folder / "data" / "b" / label / f"p{number}.dcm").write_bytes(content)
    places = {"data": str(folder / "data"), "cache_dir": str(folder / "cache")}
    return Config().changed(sites="a,b", runs_dir=str(folder / "runs"), **places, **SETTINGS)


@pytest.fixture(scope="module")
def run(config: Config) -> Path:
    named = config.changed(run_name="run", epochs=1)
    runs = Path(config.runs_dir)
    return train_federated(named, runs, ProgressListener(), backend=IN_PROCESS)


def test_an_image_alone_is_predicted_as_in_its_site(config: Config, run: Path) -> None:
    """By the site's scale: the image's own would show it darker or brighter."""
    for site in ("a", "b"):
        folder, table = Path(config.data) / site, run / f"{site}.csv"
        known = {row["file"]: row for row in rows_of(run / "sites" / site / "predictions.csv")}
        # Its own values would fit 10 bits; those of its site take 12.
        name = next(name for name in known if name.startswith("non-covid/"))
        file, _, frame = name.partition("#")
        command = ["predict", str(run), str(folder / file), "--site", site]
        done = CliRunner().invoke(app, [*command, "--device", "cpu", "--output", str(table)])
        assert done.exit_code == 0, done.output
        told = rows_of(table)
        assert [row["file"] for row in told] == (
            [f"{folder / file}#{n}" for n in (1, 2, 3)] if frame else [str(folder / file)]
        )
        for row in told:
            expected = known[Path(row["file"]).relative_to(folder).as_posix()]
            assert float(row["covid"]) == pytest.approx(float(expected["covid"]), abs=1e-5)
    frames = {row["file"] for row in rows_of(run / "sites" / "b" / "predictions.csv")}
    assert frames and all("#" in name for name in frames)
    # The frames of a file are one patient's: all of them are tested, or none.
    assert len(frames) == 3 * len({name.partition("#")[0] for name in frames})


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_where_no_image_can_be_read_none_is_predicted(run: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    done = CliRunner().invoke(app, ["predict", str(run), str(broken), "--site", "a"])
    assert done.exit_code == 1
    assert "broken.png is not an image" in done.stderr and "Traceback" not in done.output
