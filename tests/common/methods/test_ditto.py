"""Ditto: a site's own model by hand, and that it is what a site reports, keeps and resumes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from common.errors import ConfigError
from common.learning.evaluation import predict
from common.learning.local_site import LocalSite, open_site
from common.learning.loop import train
from common.learning.optimiser import make_optimizer
from common.methods.ditto import Ditto
from common.methods.method import Local
from common.methods.registry import methods_of
from common.models.sharing import pack, parameter_mask
from common.runs.predictions import read_predictions
from common.runs.result import read_result
from common.runs.weights import load_run_network
from common.tensor_files import load_tensors
from tests.common import small_training
from tests.common.small_training import CPU64
from tests.federation.hospitals import federate, run_of, tiny_config
from tests.federation.test_invariants_reproducible import outcome
from tests.federation.test_invariants_resume import Killed, killing

DITTO: dict[str, Any] = {"algorithm": "ditto", "alpha": 0.0, "normalisation": "shared"}
PLAIN = {"optimizer": "sgd", "clip_norm": 0.0, "weight_decay": 0.0, "learning_rate": 0.01}
WEIGHTS = "weights"


def remembered(weight: float, steps: int, memory: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Return what a site remembers after some steps, received the weights of the start."""
    network = small_training.network("a", dtype=torch.float64)
    settings = small_training.config(**DITTO, **PLAIN, algorithm_options=f"weight = {weight}")
    site = (small_training.site("a", device=small_training.CPU64),)
    received = pack(network)
    own = dict(memory)
    if WEIGHTS in own:
        own[WEIGHTS] = received + own[WEIGHTS]
    local = Local(settings, network, CPU64, 8, range(steps), site, received=received, memory=own)
    outcome = Ditto().after_round(local)
    assert dict(outcome.parts) == {}
    np.testing.assert_array_equal(pack(network), received)
    return dict(outcome.memory)


def test_a_model_is_pulled_to_what_was_received_by_hand() -> None:
    """One away from it everywhere, a step of rate 0.01 pulls by 0.01 · λ · 1 = 0.005 at λ = ½."""
    trained = parameter_mask(small_training.network("a", dtype=torch.float64))
    before = remembered(0.0, 0, {})
    away = before | {WEIGHTS: np.where(trained, 1.0, 0.0)}
    free, pulled = remembered(0.0, 1, away), remembered(0.5, 1, away)
    moved = pulled[WEIGHTS] - free[WEIGHTS]
    np.testing.assert_allclose(moved[trained], -0.005, rtol=1e-9)
    np.testing.assert_array_equal(moved[~trained], 0)


def test_without_a_pull_the_first_model_is_that_of_the_site_s_own_steps() -> None:
    network = small_training.network("a", dtype=torch.float64)
    settings = small_training.config(**DITTO, **PLAIN)
    site = small_training.site("a", device=small_training.CPU64)
    train(network, make_optimizer(network, settings), [site], settings, range(3), 8)
    np.testing.assert_array_equal(remembered(0.0, 3, {})[WEIGHTS], pack(network))


def test_an_optimizer_s_moments_are_carried_where_the_run_carries_them() -> None:
    network = small_training.network("a", dtype=torch.float64)
    for state, kept in (("carry", True), ("average", True), ("reset", False)):
        settings = small_training.config(**DITTO, optimizer_state=state)
        local = Local(
            settings,
            network,
            CPU64,
            8,
            range(2),
            (small_training.site("a", device=small_training.CPU64),),
            received=pack(network),
        )
        memory = Ditto().after_round(local).memory
        assert any(name.startswith("moment/") for name in memory) == kept


def test_a_site_s_figures_predictions_and_files_are_its_own_model_s(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **DITTO, validation_fraction=0.3)
    federate(config)
    run, average = run_of(config), load_tensors(run_of(config) / "shared.safetensors")[0]
    said = read_result(run)["metrics"]
    for site in config.site_names:
        for which in ("best", "final"):
            network, settings = load_run_network(run, site, which)
            opened = LocalSite.of(open_site(config, site), settings)
            found, _ = predict(network, opened, opened.split.test, settings)
            name = "predictions.csv" if which == "final" else "best-predictions.csv"
            written = read_predictions(run / "sites" / site / name, "test")
            np.testing.assert_allclose(found, written.probabilities, atol=2e-6)
        accuracy = np.mean(written.probabilities.argmax(axis=1) == written.labels)
        assert said[site]["test"]["accuracy"] == pytest.approx(accuracy)
        own = load_tensors(run / "sites" / site / "shared.safetensors")[0]
        assert own.keys() == average.keys()
        filters = [name for name in own if own[name].ndim == 4]
        assert filters and not any(torch.equal(own[name], average[name]) for name in filters)


def test_a_site_s_own_model_is_resumed(tmp_path: Path) -> None:
    settings = DITTO | {"validation_fraction": 0.3}
    expected = tiny_config(tmp_path, run_name="unharmed", **settings)
    federate(expected)
    for kind, number in (("train", 5), ("evaluate", 1), ("evaluate", 3)):
        killed = tiny_config(tmp_path, run_name=f"killed-{kind}-{number}", **settings)
        with pytest.raises(Killed):
            federate(killed, before=killing(kind, number))
        federate(killed.changed(resume=True))
        assert outcome(killed) == outcome(expected)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"of 'ditto': weight: .*greater than or equal to 0"):
        methods_of(small_training.config(algorithm="ditto", algorithm_options="weight = -1"))
