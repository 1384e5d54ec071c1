"""The soak sees what grows, and forgives only what may grow."""

from pathlib import Path

import pytest

from simulations.evidence.benchmarks.soak import Allowance, judge_growth, size_of, tell

ROUNDS = range(1, 101)


def test_what_is_steady_is_steady_and_a_rise_at_the_start_is_no_growth() -> None:
    values = {number: 5.0 if number <= 10 else 50.0 for number in ROUNDS}
    verdict = judge_growth(values, Allowance(1.0))
    assert (verdict.early, verdict.late, verdict.slope) == (50.0, 50.0, 0.0)
    assert verdict.fine
    assert verdict.said == "steady"


def test_growth_beyond_the_allowance_is_seen() -> None:
    values = {number: 2.0 * number for number in ROUNDS}
    # Medians of the rounds 11 to 20 and 91 to 100: 15.5 and 95.5, which are 80 rounds apart.
    verdict = judge_growth(values, Allowance(1.0))
    assert (verdict.early, verdict.late) == (31.0, 191.0)
    assert verdict.slope == pytest.approx(2.0)
    assert not verdict.fine
    assert not judge_growth(values, Allowance(1.0, 1.98, "by design")).fine
    assert judge_growth(values, Allowance(1.0, 1.99, "by design")).said == "by design"


def test_a_leak_of_handles_fails_the_whole_and_a_growing_ledger_does_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen = {n: {"open files, a": 10.0, "disk, a's ledger (MB)": 0.04 * n} for n in ROUNDS}
    assert tell(seen)
    assert "a line a message" in capsys.readouterr().out
    leaking = {n: {**values, "open files, a": 10.0 + n} for n, values in seen.items()}
    assert not tell(leaking)
    assert "GROWS" in capsys.readouterr().out


def test_files_are_counted_by_pattern(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "link.db-wal").write_bytes(b"12345")
    (tmp_path / "below" / "b").write_bytes(b"123")
    (tmp_path / "below" / "c").symlink_to(tmp_path / "link.db-wal")
    assert (size_of(tmp_path), size_of(tmp_path, "*"), size_of(tmp_path, "*.db*")) == (8, 5, 5)
