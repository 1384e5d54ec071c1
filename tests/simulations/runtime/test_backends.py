"""When a run whose server ended is submitted again."""

from pathlib import Path

import pytest

from common.files import write_json
from simulations.runtime.backends import _was_killed
from simulations.runtime.superlink import LinkRunState


@pytest.mark.parametrize(
    ("outcome", "status", "again"),
    [
        ("failed", "running", True),  # kill -9: no word
        ("failed", "interrupted", True),  # the SuperExec died, and Flower stopped the server
        ("stopped", "interrupted", False),  # somebody said flwr stop
        ("failed", "failed", False),  # the server says why
        ("completed", "completed", False),
    ],
)
def test_a_run_goes_on_by_itself_unless_somebody_ended_it(
    tmp_path: Path, outcome: str, status: str, again: bool
) -> None:
    outcome = LinkRunState("finished", outcome, "")
    assert not _was_killed(tmp_path, outcome)
    (tmp_path / "config.toml").touch()
    write_json(tmp_path / "result.json", {"status": status, "mode": "federated"})
    assert _was_killed(tmp_path, outcome) == again
