"""Whatever a machine's locale: the command ends as it would, and writes the same files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulations.tiny import tiny_config, write_site

ROOT = Path(__file__).parents[2]
COMMAND = "from simulations.cli import main; main()"
# Python's UTF-8 mode is what saves it under LC_ALL=C, unless it is switched off.
PLAIN = {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}


def run(*arguments: str | Path, **variables: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a command of Python in a process of its own, in an environment of these variables."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG"))}
    environment = plain | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"} | variables
    return subprocess.run(
        [sys.executable, *map(str, arguments)], env=environment, capture_output=True, timeout=120
    )


@pytest.mark.parametrize(
    "variables",
    [{"PYTHONIOENCODING": name} for name in ("ascii", "latin-1", "cp1252")] + [PLAIN],
)
def test_what_cannot_be_printed_ends_no_command(tmp_path: Path, variables: dict[str, str]) -> None:
    variables = {**variables, "XSITE_HOME": str(tmp_path / "home")}
    folder = tmp_path / "hôpital"
    write_site(folder)
    (folder / "covid" / "p00.png").rename(folder / "covid" / "hôpital – Ελλάδα.png")
    done = run("-c", COMMAND, "check-site", folder, "--name", "a", **variables)
    assert done.returncode == 0, done.stderr
    assert b"Site 'a': " in done.stdout and b"Fit for training: yes" in done.stdout
    # An unfit one, whose sentence names a file.
    (folder / "covid" / "β.png").write_bytes(b"no image")
    done = run("-c", COMMAND, "check-site", folder, "--name", "a", **variables)
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert b"Fit for training: no" in done.stdout


def test_a_run_ends_and_its_files_are_the_same(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, epochs=1, run_name="run")
    for image in sorted((tmp_path / "data" / "a" / "covid").iterdir()):
        image.rename(image.with_stem(f"{image.stem} – Ελλάδα"))
    (tmp_path / "config.toml").write_text(config.to_toml(), encoding="utf-8")
    words = ("-c", COMMAND, "train", "pooled", "--config", tmp_path / "config.toml", "--runs")
    for name, variables in (("here", {"PYTHONUTF8": "1"}), ("there", PLAIN)):
        done = run(*words, tmp_path / name, **variables)
        assert done.returncode == 0, done.stderr
    here, there = (tmp_path / name / "run" for name in ("here", "there"))
    tables = [f"sites/{site}/predictions.csv" for site in config.site_names]
    written = [b"".join((run / table).read_bytes() for table in tables) for run in (here, there)]
    assert written[0] == written[1] and "Ελλάδα".encode() in written[0]


def test_the_makers_of_evidence_can_be_listed_in_ascii() -> None:
    done = run("-m", "simulations.evidence", "--help", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and b"? and AUC" in done.stdout
