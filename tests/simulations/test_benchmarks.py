"""The benchmarks run: what they measure is for a machine that has nothing else to do."""

import pytest

from simulations.benchmarks.training import main


def test_training_takes_turns_with_the_plain_loop(capsys: pytest.CaptureFixture[str]) -> None:
    main(
        steps=1,
        rounds=1,
        size=32,
        batch=2,
        width=0.05,
        source=32,
        images=32,
        workers=0,
        threads=1,
        device="cpu",
    )
    told = capsys.readouterr().out
    assert "plain loop, float32" in told
    assert "times the plain loop" in told
