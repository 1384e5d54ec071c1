"""SCAFFOLD: control variates by hand, and sites that differ reach their common optimum."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from common.config.schema import Config
from common.errors import ConfigError
from common.learning.loop import train
from common.learning.objective import Batch
from common.learning.optimiser import make_optimizer
from common.methods.method import Averaged, Local
from common.methods.registry import Methods, methods_of
from common.methods.scaffold import Scaffold
from common.models.network import Network, Output
from common.models.sharing import Layout, pack, parameter_mask, shared_layout
from common.tensor_files import load_tensors
from server.checkpoints import load_checkpoint
from tests.common import small_training
from tests.federation.hospitals import federate, run_of, tiny_config
from tests.federation.test_invariants_reproducible import outcome
from tests.federation.test_invariants_resume import Killed, killing

LAYOUT = Layout(("weight", "running_mean"), ((1,), (1,)), "float64", 2)
PLAIN: dict[str, Any] = {
    "algorithm": "scaffold",
    "optimizer": "sgd",
    "alpha": 0.0,
    "normalisation": "shared",
}
EMPTY = Batch(torch.empty(0), {}, (), Output(*[torch.empty(0)] * 3))


def config(**values: Any) -> Config:
    return small_training.config(**PLAIN, schedule="constant", **values)


class Point(nn.Module):
    """One weight and one running statistic."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.register_buffer("running_mean", torch.full((1,), 7.0, dtype=torch.float64))


def local_of(point: nn.Module, **values: Any) -> Local:
    settings = config(learning_rate=0.1)
    return Local(settings, cast(Network, point), small_training.CPU64, 100, range(2), **values)


def test_a_site_s_control_variate_by_hand() -> None:
    """0.3 − 0.5 + (1 − 0.6) / (2 · 0.1) = 1.8; a running statistic has none."""
    told = Scaffold().after_round(
        local_of(
            Point(),
            received=np.array([1.0, 5.0]),
            trained=np.array([0.6, 7.0]),
            parts={"c": np.array([0.5, 0.0])},
            memory={"c": np.array([0.3, 0.0])},
        )
    )
    assert dict(told.parts) == {}
    np.testing.assert_allclose(told.memory["c"], [1.8, 0.0], rtol=1e-14)


def test_the_server_s_control_variate_by_hand() -> None:
    """(1 − 0.8) / 0.2 = 1; then one of two answers: 1 + ½ · ((0.8 − 0.7) / 0.2 − 1) = 0.75."""
    mask, own = np.array([True, False]), config(learning_rate=0.1)
    both: dict[str, Any] = {"a": {}, "b": {}}

    def after(received: list[float], shared: list[float], **values: Any) -> Any:
        arrays = np.array(received), np.array(shared)
        return Scaffold().combine(
            Averaged(own, LAYOUT, mask, *arrays, steps=range(2), total_steps=100, **values)
        )

    shared, memory = after([1.0, 5.0], [0.8, 7.0], replies=both)
    np.testing.assert_array_equal(shared, [0.8, 7.0])
    np.testing.assert_allclose(memory["c"], [1.0, 0.0], rtol=1e-14)
    _, memory = after([0.8, 7.0], [0.7, 9.0], replies={"a": {}}, memory=memory)
    np.testing.assert_allclose(memory["c"], [0.75, 0.0], rtol=1e-14)


def test_under_a_schedule_the_rates_of_the_round_s_steps_add_up() -> None:
    """½ + ½ · ½ · (1 + cos(π/4)) of the rate at the first two of four steps: 0.1 + 0.0853553."""
    settings = small_training.config(**PLAIN, learning_rate=0.1)
    local = Local(
        settings,
        cast(Network, Point()),
        small_training.CPU64,
        4,
        range(2),
        received=np.array([1.0, 0.0]),
        trained=np.array([0.0, 0.0]),
    )
    variate = Scaffold().after_round(local).memory["c"]
    np.testing.assert_allclose(variate, [1 / (0.1 + 0.05 * (1 + np.sqrt(0.5))), 0.0], rtol=1e-14)


def test_a_step_goes_along_the_corrected_gradient() -> None:
    """With c − cᵢ = 2 everywhere, one step of rate 0.01 ends 0.02 below the step without."""
    settings = config(learning_rate=0.01, clip_norm=0.0, weight_decay=0.0)
    ends = []
    for factor in (0.0, 2.0):
        network = small_training.network("a", dtype=torch.float64)
        size, site = (
            shared_layout(network).size,
            small_training.site("a", device=small_training.CPU64),
        )
        local = Local(
            settings,
            network,
            small_training.CPU64,
            8,
            range(1),
            (site,),
            parts={"c": np.full(size, 3 * factor)},
            memory={"c": np.full(size, 2 * factor)},
        )
        optimizer, terms = make_optimizer(network, settings), Scaffold().terms(local)
        assert len(terms) == (factor > 0)
        train(network, optimizer, [site], settings, range(1), 8, terms=terms)
        ends.append(pack(network))
    moved = ends[1] - ends[0]
    np.testing.assert_allclose(moved[parameter_mask(network)], -0.02, atol=1e-12)
    np.testing.assert_array_equal(moved[~parameter_mask(network)], 0.0)


def test_sites_that_differ_reach_their_common_optimum() -> None:
    """½(w − 1)² and 2(w + 2)²: the sum is least at (1 − 8) / 5 = −1.4, where FedAvg does not end.

    FedAvg's fixed point: with 5 steps of rate 0.1 a site moves 1 − 0.9⁵ and 1 − 0.6⁵ of its way
    to its own optimum, so w = (0.40951 · 1 − 0.92224 · 2) / (0.40951 + 0.92224) = −1.0775.
    """
    curvature, optimum = {"a": 1.0, "b": 4.0}, {"a": 1.0, "b": -2.0}

    def trained(methods: Methods) -> float:
        x, memory, held = np.array([0.0, 7.0]), {}, {"a": {}, "b": {}}
        for round in range(60):
            steps, replies, ends = range(5 * round, 5 * round + 5), {}, []
            for site in "ab":
                point = Point()
                point.weight.data.fill_(x[0])
                local = Local(
                    settings,
                    cast(Network, point),
                    small_training.CPU64,
                    300,
                    steps,
                    received=x,
                    parts=methods.broadcast(settings, memory),
                    memory=held[site],
                )
                terms = methods.terms(local)
                for step in steps:
                    loss = curvature[site] / 2 * (point.weight - optimum[site]).square().sum()
                    loss = loss + sum(term.weight(step) * term.value(EMPTY) for term in terms)
                    (gradient,) = torch.autograd.grad(loss, [point.weight])
                    point.weight.data -= 0.1 * gradient
                ends.append(np.array([point.weight.item(), 7.0]))
                outcome = methods.after_round(Local(**(vars(local) | {"trained": ends[-1]})))
                held[site], replies[site] = outcome.memory, outcome.parts
            average = np.mean(ends, axis=0)
            x, memory = methods.combine(
                Averaged(
                    *(settings, LAYOUT, np.array([True, False]), x, average, replies, memory),
                    steps=steps,
                    total_steps=300,
                )
            )
        return float(x[0])

    settings = config(learning_rate=0.1)
    assert trained(Methods((Scaffold(),))) == pytest.approx(-1.4, abs=1e-9)
    assert trained(Methods(())) == pytest.approx(-1.0775, abs=1e-4)


def test_adam_is_refused() -> None:
    with pytest.raises(ConfigError, match="which optimizer = 'adam' scales: set optimizer = 'sgd'"):
        methods_of(small_training.config(algorithm="scaffold"))


def test_the_server_has_the_mean_of_the_sites_control_variates(tmp_path: Path) -> None:
    """As in the paper, c is the mean of the cᵢ; with neither of them sent to the server."""
    settings = tiny_config(tmp_path, **PLAIN)
    with pytest.raises(Killed):
        federate(settings, before=killing("train", 5))
    state = load_checkpoint(
        run_of(settings) / "checkpoint",
        {"north": 12, "south": 8},
        settings.digest(),
    )
    assert state is not None and state.round == 2
    variates = [
        memory_of(run_of(settings) / "sites" / site / "store" / "round-0002.safetensors")
        for site in settings.site_names
    ]
    server = state.methods["scaffold/c"]
    assert np.abs(server).max() > 0.01
    np.testing.assert_allclose(server, np.mean(variates, axis=0), rtol=1e-3, atol=1e-5)


def memory_of(path: Path) -> Any:
    return load_tensors(path)[0]["memory/scaffold/c"].numpy()


def test_control_variates_are_resumed(tmp_path: Path) -> None:
    expected = tiny_config(tmp_path, run_name="unharmed", **PLAIN)
    federate(expected)
    killed = tiny_config(tmp_path, run_name="killed", **PLAIN)
    with pytest.raises(Killed):
        federate(killed, before=killing("train", 5))
    federate(killed.changed(resume=True))
    assert outcome(killed) == outcome(expected)
