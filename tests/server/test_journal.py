import math
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from common.console.progress import ProgressListener
from common.exchange.messages import SiteReply
from common.files import read_json
from common.models.network import build_network
from common.models.sharing import shared_layout
from common.runs.result import read_result
from common.tensor_files import load_tensors
from server.exchange import Exchange
from server.journal import Ending, Journal, rows_of, say_final, say_round
from server.metrics import read_rows
from server.participants import RunContext
from server.run_folder import RunFolder
from server.state import RunState, figures_by_site, validation_auc
from simulations.local import train_pooled
from tests.federation.hospitals import federate, run_of, tiny_config
from tests.server.answers import context, reply

METRICS = {"test/accuracy": 0.75, "test/auc": 0.5, "test/images": 8.0, "validation/auc": 0.25}


def evaluated(site: str, **metrics: float) -> SiteReply:
    return SiteReply("run", 2, site, "f", {**METRICS, **metrics})


STATE = RunState(
    round=2,
    shared=np.zeros(8, np.float32),
    figures={
        "north": {
            "train/loss": 0.5,
            "train/cross_entropy": 0.3,
            "train/contrastive": 0.2,
            "bytes/down": 70,
            "bytes/up": 50,
        },
        "south": {"bytes/down": 71, "bytes/up": 0},
    },
    images_seen={"north": 24},
    seconds=1.5,
)


def test_a_row_holds_a_round_s_training_and_what_is_said_of_its_average() -> None:
    rows = rows_of(context("north", "south"), STATE, {"north": evaluated("north")})
    assert [(row.site, row.subset) for row in rows] == [("north", "test"), ("north", "validation")]
    test, validation = rows
    # Round 2 of 4 steps each ends with step 8.
    assert (test.round, test.step, test.figures["accuracy"], test.figures["auc"]) == (
        2,
        8,
        0.75,
        0.5,
    )
    assert (test.train_loss, test.train_cross_entropy, test.train_contrastive) == (0.5, 0.3, 0.2)
    assert (test.images_seen, test.seconds, test.bytes_down, test.bytes_up) == (24, 1.5, 70, 50)
    assert all(
        math.isnan(value)
        for value in (test.figures["f1"], test.figures["loss"], validation.figures["accuracy"])
    )
    assert validation.figures["auc"] == 0.25


def test_the_last_round_s_row_ends_with_the_last_step_though_it_is_shorter() -> None:
    (row, _) = rows_of(context("north"), replace(STATE, round=3), {"north": evaluated("north")})
    assert row.step == 10


def test_a_site_left_out_of_a_round_has_its_bytes_and_no_loss() -> None:
    (row, _) = rows_of(context("north", "south"), STATE, {"south": evaluated("south")})
    assert math.isnan(row.train_loss)
    assert (row.images_seen, row.bytes_down, row.bytes_up) == (0, 71, 0)


def test_figures_are_told_by_subset_and_counts_are_whole() -> None:
    metrics = {**METRICS, "train/loss": 1.0, "seconds": 2.0, "test/loss": math.nan}
    (found,) = figures_by_site("north", metrics).values()
    assert set(found) == {"test", "validation"}
    assert repr(found["test"]) == "{'accuracy': 0.75, 'auc': 0.5, 'images': 8, 'loss': nan}"


def test_a_participant_that_holds_several_sites_speaks_for_each() -> None:
    metrics = {"train/loss": 0.5, "train/images": 96.0, "a/test/auc": 0.25, "b/test/auc": 0.75}
    assert figures_by_site("pooled", {**metrics, "b/validation/auc": 1.0}) == {
        "a": {"test": {"auc": 0.25}},
        "b": {"test": {"auc": 0.75}, "validation": {"auc": 1.0}},
    }
    assert figures_by_site("pooled", {"train/loss": 0.5}) == {"pooled": {}}
    both = replace(evaluated("pooled"), metrics=metrics)
    state = replace(STATE, figures={"pooled": {"train/loss": 0.5}}, images_seen={"pooled": 96})
    # 96 images in batches of as many of either site.
    assert [
        (row.site, row.train_loss, row.images_seen, row.figures["auc"])
        for row in rows_of(context("pooled"), state, {"pooled": both})
    ] == [("a", 0.5, 48, 0.25), ("b", 0.5, 48, 0.75)]
    assert validation_auc({"pooled": replace(both, metrics={"a/validation/auc": 0.5})}) == 0.5
    said = say_final({"pooled": both}, "final weights")
    assert said == "final weights: a AUC 0.250; b AUC 0.750"
    exchange = Exchange(
        {"pooled": reply("pooled", round=2, metrics=metrics)}, {}, {"pooled": (0, 0)}
    )
    alone = replace(context("pooled"), exchanges=False)
    assert say_round(alone, replace(STATE, round=2), exchange, 5) == (
        "round 2/3: pooled loss 0.5000 (after round 1: a AUC 0.250; b AUC 0.750); 5 s left"
    )


def test_a_round_s_line_names_losses_figures_bytes_and_who_is_left_out() -> None:
    metrics = {"train/loss": 0.51239, "test/accuracy": 0.75, "test/auc": math.nan}
    first = Exchange(
        {"north": reply("north", metrics={"train/loss": 0.51239})},
        {"south": "it answered twice"},
        {"north": (2_500_000, 2_400_000), "south": (2_500_000, 0)},
    )
    after = RunState(1, np.zeros(8))
    assert say_round(context("north", "south"), after, first, 3725) == (
        "round 1/3: north loss 0.5124; south LEFT OUT: it answered twice; 5.0 MB down, 2.4 MB up; "
        "1 h 2 min left"
    )
    again = Exchange({"north": reply("north", round=3, metrics=metrics)}, {}, {"north": (1, 1)})
    said = say_round(context("north"), replace(after, round=3), again, 0)
    assert "(after round 2: accuracy 0.750)" in said


def test_the_last_line_names_every_site_s_figures() -> None:
    found = {"north": evaluated("north"), "south": evaluated("south", **{"test/auc": 1.0})}
    assert say_final(found, "final weights") == (
        "final weights: north accuracy 0.750, AUC 0.500; south accuracy 0.750, AUC 1.000"
    )


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    config = tiny_config(tmp_path)
    network = build_network(config, config.site_names)
    layout = shared_layout(network)
    held: RunContext = replace(context("north", "south"), config=config, layout=layout)
    return Journal(RunFolder.create(config, "federated", tmp_path / "runs"), held, network, print)


def weights(journal: Journal) -> NDArray[np.float32]:
    """Return shared tensors of the journal's network, shape (layout.size,)."""
    return np.linspace(-1, 1, journal.context.layout.size, dtype=np.float32)


def test_initial_weights_have_no_row(journal: Journal) -> None:
    initial = RunState(0, weights(journal))
    journal.note_figures(initial, {"north": evaluated("north")})
    assert read_rows(journal.folder.path / "metrics.csv") == []


def test_a_round_that_is_noted_again_replaces_its_rows(journal: Journal) -> None:
    journal.note_figures(STATE, {"north": evaluated("north")})
    again = evaluated("north", **{"test/auc": 1.0})
    journal.note_figures(STATE, {"north": again})
    rows = read_rows(journal.folder.path / "metrics.csv")
    assert [(row.round, row.subset, row.figures["auc"]) for row in rows] == [
        (2, "test", 1.0),
        (2, "validation", 0.25),
    ]


def test_the_chosen_weights_are_the_average_that_validation_saw(journal: Journal) -> None:
    """A choice made with round 3's replies is of round 2's average, which they tell of."""
    averaged = weights(journal) + np.float32(0.5)
    before = RunState(2, averaged, best_round=0)
    after = RunState(3, averaged + np.float32(1), best_round=2)
    path = journal.folder.path / "best-shared.safetensors"
    journal.note_best(before, replace(after, best_round=0))
    assert not path.exists()
    journal.note_best(before, after)
    tensors, _ = load_tensors(path)
    found = np.concatenate(
        [t.flatten() for t in (tensors[n] for n in journal.context.layout.names)]
    )
    assert found.tobytes() == averaged.tobytes() == journal.chosen().tobytes()
    # An older choice that stands is not written again.
    path.unlink()
    journal.note_best(replace(before, best_round=2), after)
    assert not path.exists()


def test_a_finished_run_holds_the_last_average_and_null_for_what_is_undefined(
    journal: Journal,
) -> None:
    shared = weights(journal) * np.float32(2)
    state = replace(STATE, shared=shared, best_round=1, best_auc=0.25, bytes_down=9, bytes_up=8)
    final = {"north": evaluated("north", **{"test/loss": math.nan})}
    journal.finish(Ending(state, final, {"north": evaluated("north")}))
    result = read_json(journal.folder.path / "result.json")
    assert result["status"] == "completed"
    assert result["metrics"]["north"]["test"]["loss"] is None
    assert result["metrics"]["north"]["validation"] == {"auc": 0.25}
    assert result["best"]["north"]["round"] == 1
    assert result["best"]["north"]["validation_auc"] == 0.25
    assert result["best"]["north"]["test"]["images"] == 8
    assert (result["bytes"], result["seconds"]) == ({"down": 9, "up": 8}, 1.5)
    assert result["budget"]["images_per_site"] == 40
    assert result["weights_digest"] == {"shared": sha256(shared.tobytes()).hexdigest()}
    tensors, _ = load_tensors(journal.folder.path / "shared.safetensors")
    assert set(tensors) == set(journal.context.layout.names)


def shape_of(value: Any) -> Any:
    """Return keys and kinds of value; a whole and a decimal number are of one kind, as is null."""
    if isinstance(value, dict):
        return {key: shape_of(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape_of(value[0])] if value else []
    return "number" if value is None or isinstance(value, int | float) else type(value).__name__


def test_a_federated_result_has_the_shape_of_a_local_one(tmp_path: Path) -> None:
    """Reports and comparisons read both; device and digests are told for what each mode has."""
    config = tiny_config(tmp_path, epochs=1, validation_fraction=0.3)
    federate(config)
    pooled = train_pooled(config.changed(run_name="pooled"), tmp_path / "runs", ProgressListener())
    found, expected = read_result(run_of(config)), read_result(pooled)
    assert found["bytes"]["down"] > found["bytes"]["up"] / 2 > 0
    assert (found["budget"], found["leakage"]) == (expected["budget"], expected["leakage"])
    assert set(found["shared"]) == set(expected["shared"])
    assert set(found["private"]) == set(expected["private"])
    for result in (found, expected):
        assert all(isinstance(digest, str) for digest in result.pop("weights_digest").values())
    expected.pop("device")
    assert shape_of(found) == shape_of(expected)
