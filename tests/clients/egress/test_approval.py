"""A person's yes: to this run, with this configuration and this code, and to nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from clients.egress.approval import approve, requests, require_approval
from clients.identity import Identity, identify
from common.errors import ApprovalError, PolicyError
from simulations.cli import app
from tests.federation.hospitals import tiny_config


def identity(tmp_path: Path, **values: Any) -> Identity:
    config = tiny_config(tmp_path, **values)
    node = {"site": "north", "data-dir": f"{config.data}/north", "state-dir": str(tmp_path / "s")}
    return identify(node, config.to_run_config())


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["approve", *map(str, words)])


def test_a_run_waits_for_a_yes_and_goes_on_with_it(tmp_path: Path) -> None:
    who = identity(tmp_path)
    for _ in range(2):
        with pytest.raises(ApprovalError, match="Nobody has approved the run 'run' at north"):
            require_approval(who, "run")
    (asked,) = requests(tmp_path / "s")
    assert (asked.run, asked.site, asked.approved) == ("run", "north", "")
    assert approve(tmp_path / "s", "run", "jane").approved_by == "jane"
    require_approval(who, "run")
    # Saying yes again changes nothing.
    assert approve(tmp_path / "s", "run", "john").approved_by == "jane"
    with pytest.raises(ApprovalError):
        require_approval(who, "another")


def test_another_configuration_or_other_code_is_asked_for_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = identity(tmp_path)
    with pytest.raises(ApprovalError):
        require_approval(who, "run")
    approve(tmp_path / "s", "run", "jane")
    with pytest.raises(ApprovalError):
        require_approval(identity(tmp_path, epochs=99), "run")
    assert requests(tmp_path / "s")[0].settings["epochs"] == 99
    approve(tmp_path / "s", "run", "jane")
    require_approval(identity(tmp_path, epochs=99), "run")
    monkeypatch.setattr("clients.egress.approval.code_fingerprint", lambda: "0" * 64)
    with pytest.raises(ApprovalError):
        require_approval(identity(tmp_path, epochs=99), "run")


def test_a_damaged_file_is_named_and_no_yes(tmp_path: Path) -> None:
    who = identity(tmp_path)
    path = tmp_path / "s" / "approvals" / "north.run.json"
    for text in ("{", "[]", json.dumps({"run": "run"})):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        with pytest.raises(PolicyError, match=r"north\.run\.json is damaged"):
            require_approval(who, "run")


def test_the_command_shows_what_is_asked_and_says_yes(tmp_path: Path) -> None:
    assert "was not asked for any run" in call(tmp_path / "s").output
    with pytest.raises(ApprovalError):
        require_approval(identity(tmp_path, epochs=99), "run")
    shown = call(tmp_path / "s").output
    assert "epochs" in shown and "99" in shown and "xsite approve" in shown
    refused = call(tmp_path / "s", "ruin")
    assert refused.exit_code == 1 and "Runs asked for: run" in refused.stderr
    assert "north takes part in the run 'run'" in call(tmp_path / "s", "run").output
    require_approval(identity(tmp_path, epochs=99), "run")
    assert "Say yes" not in call(tmp_path / "s").output
