"""A run's tables and curves: exact, and without a seam where a run was resumed."""

import math
from pathlib import Path

import pytest

from common.config.schema import Config
from server.metrics import EventWriter, MetricsRow, append_rows, read_rows, write_rows
from server.run_folder import RunFolder

CONFIG = Config(run_name="run")


def row(round: int, site: str = "a", auc: float = 0.5, subset: str = "test") -> MetricsRow:
    return MetricsRow(round, round * 4, site, subset, {"auc": auc}, images_seen=round * 64)


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [
        MetricsRow(1, 4, "a", "test", {"accuracy": 1 / 3}, images_seen=2**40, seconds=0.1),
        row(2),
    ]
    write_rows(tmp_path / "m.csv", rows[:1])
    append_rows(tmp_path / "m.csv", rows[1:])
    found = read_rows(tmp_path / "m.csv")
    assert [repr(r) for r in found] == [repr(r) for r in rows]
    assert math.isnan(found[0].figures["auc"]) and isinstance(found[0].images_seen, int)
    assert read_rows(tmp_path / "absent.csv") == []


def test_a_table_of_before_a_figure_was_measured_is_read_and_goes_on(tmp_path: Path) -> None:
    folder = RunFolder.create(CONFIG, "federated", tmp_path)
    table = folder.path / "metrics.csv"
    table.write_text(
        "round,step,site,subset,accuracy,f1,sensitivity,precision,auc,loss,train_loss,"
        "train_cross_entropy,train_contrastive,images_seen,seconds,bytes_down,bytes_up\n"
        "1,4,a,test,0.75,0.5,0.25,1.0,0.875,0.5,0.5,0.5,0.0,64,1.5,10,20\n"
    )
    (old,) = read_rows(table)
    assert math.isnan(old.figures["specificity"])
    assert (old.figures["auc"], old.train_loss, old.bytes_up) == (0.875, 0.5, 20)
    # A resumed run writes the column, and the old rows have an empty place in it.
    resumed = RunFolder.create(CONFIG.changed(resume=True), "federated", tmp_path)
    new = MetricsRow(2, 8, "a", "test", {"specificity": 0.25, "auc": 0.5})
    resumed.add_metrics([new], 2)
    found = read_rows(table)
    assert [row.figures["auc"] for row in found] == [0.875, 0.5]
    assert math.isnan(found[0].figures["specificity"])
    assert found[1].figures["specificity"] == 0.25


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    table = tmp_path / "m.csv"
    write_rows(table, [row(1), row(2)])
    table.write_bytes(table.read_bytes()[:-9])
    assert [r.round for r in read_rows(table)] == [1]


def test_rounds_that_are_done_again_replace_the_old_ones(tmp_path: Path) -> None:
    folder = RunFolder.create(CONFIG, "federated", tmp_path)
    for number in (1, 2, 3):
        folder.add_metrics([row(number), row(number, "b")], number)
    table = folder.path / "metrics.csv"
    table.write_bytes(table.read_bytes()[:-5])
    resumed = RunFolder.create(CONFIG.changed(resume=True), "federated", tmp_path)
    resumed.add_metrics([row(2, auc=0.7)], 2)
    resumed.add_metrics([row(3, auc=0.8)], 3)
    found = [(r.round, r.site, r.figures["auc"]) for r in read_rows(table)]
    # b does not take part in the second round any more: its old rows are gone with the others.
    assert found == [(1, "a", 0.5), (1, "b", 0.5), (2, "a", 0.7), (3, "a", 0.8)]


def test_sites_that_train_in_turn_keep_each_other_s_rows(tmp_path: Path) -> None:
    folder = RunFolder.create(CONFIG, "single", tmp_path)
    for site in "ab":
        for number in (1, 2):
            folder.add_metrics([row(number, site)], number, sites=[site])
    folder.add_metrics([row(2, "a", auc=0.9)], 2, sites=["a"])
    found = sorted(
        (r.site, r.round, r.figures["auc"]) for r in read_rows(folder.path / "metrics.csv")
    )
    assert found == [("a", 1, 0.5), ("a", 2, 0.9), ("b", 1, 0.5), ("b", 2, 0.5)]


def curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_tensorboard_shows_one_curve_over_a_resumption(tmp_path: Path) -> None:
    first = EventWriter(tmp_path)
    for step in (1, 2, 3):
        first.add(step, {"test/auc": step / 8})
    # A kill within a record: what later processes write must be seen all the same.
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-3])
    second = EventWriter(tmp_path)
    second.add(2, {"test/auc": 0.75})
    second.add(3, {"test/auc": 0.875})
    assert curve(tmp_path, "test/auc") == [(1, 0.125), (2, 0.75), (3, 0.875)]


def test_every_site_has_curves_without_undefined_points(tmp_path: Path) -> None:
    folder = RunFolder.create(CONFIG, "federated", tmp_path)
    folder.add_metrics([row(1), row(1, "b", auc=math.nan), row(1, "b", subset="validation")], 1)
    assert curve(folder.path / "tensorboard" / "a", "test/auc") == [(1, 0.5)]
    assert curve(folder.path / "tensorboard" / "b", "validation/auc") == [(1, 0.5)]
    with pytest.raises(KeyError):
        curve(folder.path / "tensorboard" / "b", "test/auc")
