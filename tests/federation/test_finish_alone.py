"""The last part of the steps at each site alone: whose network is whose, and what still leaves."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.config.schema import Config
from common.console.progress import ProgressListener
from common.exchange.wire import PROTOTYPES, SHARED
from common.learning.evaluation import predict
from common.learning.local_site import LocalSite, open_site
from common.runs.predictions import read_predictions
from common.runs.result import read_result
from common.runs.weights import load_run_network
from common.tensor_files import load_tensors
from server.app import app
from server.metrics import read_rows
from simulations.local import train_single
from simulations.runtime.in_process import run_server
from tests.federation.hospitals import federate, make_grid, run_of, tiny_config
from tests.federation.test_invariants_reproducible import outcome
from tests.federation.test_invariants_resume import Killed, killing

# Of nine steps two rounds of two are exchanged, and five taken alone.
ALONE: dict[str, Any] = {"local_steps": 2, "finish_alone": 0.5}
# Of eight, four and four; the site remembers for its codec and its optimizer, too.
CODED = {"codec": "int8-deltas", "codec_down": "int8-deltas", "optimizer_state": "average"}
CHOSEN: dict[str, Any] = ALONE | CODED | {"validation_fraction": 0.3, "epochs": 4}


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_tensors(path)[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config]:
    folder = tmp_path_factory.mktemp("finished")
    config = tiny_config(folder, run_name="finished", seed=3, **CHOSEN)
    federate(config)
    return folder, config


DITTO: dict[str, Any] = {"algorithm": "ditto", "alpha": 0.0, "normalisation": "shared"}


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    ("sites", "method"),
    [
        (["north"], {"optimizer_state": "average"}),
        (["north", "south"], DITTO | {"algorithm_options": "weight = 0"}),
    ],
)
def test_who_never_met_another_finishes_as_in_single_site_training_bit_for_bit(
    tmp_path: Path, sites: list[str], method: dict[str, Any]
) -> None:
    """What must hold, 4: one site, and two with Ditto's own models that nothing pulls.

    In single-site training the key changes nothing.
    """
    config = tiny_config(tmp_path, sites, **ALONE | method)
    federate(config)
    alone = config.changed(run_name="single", algorithm="", algorithm_options="")
    single = train_single(alone, tmp_path / "runs", ProgressListener())
    for part in [f"{site}/{part}.safetensors" for site in sites for part in ("shared", "private")]:
        own, expected = (tensors(run / "sites" / part) for run in (run_of(config), single))
        assert own.keys() == expected.keys()
        assert all(torch.equal(own[name], expected[name]) for name in own)


def test_what_stays_at_the_server_is_the_average_of_the_last_exchange(tmp_path: Path) -> None:
    """FedAvgM's moments would move it once more."""
    config = tiny_config(tmp_path, algorithm="fedavgm", **ALONE)
    federate(config)
    longer = config.changed(run_name="longer", finish_alone=0.0)
    with pytest.raises(Killed):
        federate(longer, before=killing("train", 5))
    checkpoint = tensors(run_of(longer) / "checkpoint" / "round-0002.safetensors")
    average = tensors(run_of(config) / "shared.safetensors")
    flat = np.concatenate([average[name].numpy().ravel() for name in average])
    # Stored by name, and flat in the network's order.
    assert sorted(flat.tolist()) == sorted(checkpoint["shared"].tolist())
    for site in config.site_names:
        own = tensors(run_of(config) / "sites" / site / "shared.safetensors")
        filters = [name for name in own if own[name].ndim == 4]
        assert filters and not any(torch.equal(own[name], average[name]) for name in filters)


# With the first seed validation likes the first average best, with the other the networks that the
# sites finished.
@pytest.mark.parametrize(("seed", "best"), [(0, 1), (3, 3)])
def test_figures_predictions_and_files_are_of_each_site_s_own_network(
    finished: tuple[Path, Config], seed: int, best: int
) -> None:
    folder, config = finished
    if seed != config.seed:
        config = tiny_config(folder, run_name=f"seed-{seed}", seed=seed, **CHOSEN)
        federate(config)
    run = run_of(config)
    result, rows = read_result(run), read_rows(run / "metrics.csv")
    assert {one["round"] for one in result["best"].values()} == {best}
    for site in config.site_names:
        for which, name in (("final", "predictions.csv"), ("best", "best-predictions.csv")):
            network, settings = load_run_network(run, site, which)
            opened = LocalSite.of(open_site(config, site), settings)
            found, _ = predict(network, opened, opened.split.test, settings)
            written = read_predictions(run / "sites" / site / name, "test")
            np.testing.assert_allclose(found, written.probabilities, atol=2e-6)
            accuracy = np.mean(written.probabilities.argmax(axis=1) == written.labels)
            said = result["metrics" if which == "final" else "best"][site]["test"]
            assert said["accuracy"] == pytest.approx(accuracy)
    # The average that the sites went on from has figures of its own.
    steps = {row.round: row.step for row in rows if row.subset == "validation"}
    assert steps == {1: 2, 2: 4, 3: 8}


def test_nothing_but_figures_leaves_in_the_last_round(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **ALONE)
    records: dict[str, set[str]] = {}

    def note(question: Any, reply: Any) -> list[Any]:
        if question.metadata.message_type == "train":
            records.setdefault(question.metadata.group_id, set()).update(reply.content)
        return [reply]

    grid = make_grid(config, tamper=note)
    run_server(app, grid)
    assert {SHARED, PROTOTYPES} <= records["1"] & records["2"]
    assert records["3"] == {"reply", "metrics"}
    result = read_result(run_of(config))
    assert result["images_seen"] == {"north": 36, "south": 36}
    wire = grid.wire()
    for site in config.site_names:
        own = tensors(run_of(config) / "sites" / site / "shared.safetensors")
        assert not any(own[name].numpy().tobytes() in wire for name in own if own[name].ndim == 4)
    rows = [row for row in read_rows(run_of(config) / "metrics.csv") if row.subset == "test"]
    assert [row.bytes_up < 2000 for row in rows] == [row.round == 3 for row in rows]


@pytest.mark.parametrize(("kind", "number"), [("train", 6), ("evaluate", 2)])
def test_a_run_killed_while_the_sites_finish_is_resumed(
    finished: tuple[Path, Config], kind: str, number: int
) -> None:
    _, config = finished
    killed = config.changed(run_name=f"killed-{kind}-{number}")
    with pytest.raises(Killed):
        federate(killed, before=killing(kind, number))
    federate(killed.changed(resume=True))
    assert outcome(killed) == outcome(config)
