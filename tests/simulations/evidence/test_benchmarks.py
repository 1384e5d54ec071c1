"""The benchmarks run: what they measure is for a machine that has nothing else to do."""

from pathlib import Path

import pytest

from clients.egress.budget import epsilon
from simulations.evidence.benchmarks.privacy import federate_under, policy_text
from simulations.evidence.benchmarks.training import main
from tests.federation.hospitals import tiny_config


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


def test_weights_and_prototypes_spend_half_of_the_budget_each(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, epochs=2)
    folders = {site: tmp_path / "data" / site for site in config.site_names}
    found = federate_under(policy_text(1e-3, 0.7, len(config.class_names)), config, folders)
    # Twice as many releases as of the weights alone, or one with 1/√2 of the noise.
    assert found["epsilon"] == pytest.approx(epsilon({0.7 / 2**0.5: 2}, 1e-5), rel=1e-9)
    assert 0 <= found["auc"] <= 1
    # Weights that moved by hundreds of times themselves are no network.
    exploding = config.changed(run_name="exploding")
    policy = policy_text(1e3, 1e3, len(config.class_names))
    assert federate_under(policy, exploding, folders) == {}
