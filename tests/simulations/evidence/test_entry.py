"""Every piece of evidence has a name, and the name makes it."""

import subprocess
import sys
from importlib import import_module

import pytest

from simulations.evidence.__main__ import MAKERS, main


@pytest.mark.parametrize("name", MAKERS)
def test_a_name_is_of_something_that_can_be_made(name: str) -> None:
    module, _, function = MAKERS[name][0].partition(":")
    assert callable(getattr(import_module(f"simulations.evidence.{module}"), function))


def test_without_a_name_all_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, status in ([], 0), (["--help"], 0), (["nothing"], 1):
        monkeypatch.setattr(sys, "argv", ["evidence", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == status
        listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]]
        assert listed == list(MAKERS)


def test_a_name_takes_its_own_options() -> None:
    command = [sys.executable, "-m", "simulations.evidence", "house", "--names"]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "| lines of common | " in table
    assert "Module names of several modules:" in table
