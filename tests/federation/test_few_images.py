"""A limit of training images: every mode trains on the same ones, and says how many they were."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import common.learning.loop
from common.console.progress import ProgressListener
from common.learning.batches import batch_indices
from common.runs.result import read_result
from simulations.local import train_pooled, train_single
from tests.federation.hospitals import federate, run_of, tiny_config


@pytest.mark.usefixtures("interruptible")
def test_every_mode_trains_on_the_same_few_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path, train_images=6, epochs=1, batches="balanced")
    used: dict[str, set[bytes]] = {}

    def noted(indices: Any, size: int, step: int, seed: int, site: str, labels: Any) -> Any:
        used.setdefault(site, set()).add(indices.tobytes())
        assert np.bincount(labels).tolist() == [3, 3]
        return batch_indices(indices, size, step, seed, site, labels)

    monkeypatch.setattr(common.learning.loop, "batch_indices", noted)
    federate(config)
    runs = [run_of(config)]
    for mode, train in (("pooled", train_pooled), ("single", train_single)):
        base = tmp_path / "runs"
        runs.append(train(config.changed(run_name=mode), base, ProgressListener()))
    assert {site: len(sets) for site, sets in used.items()} == {"north": 1, "south": 1}
    for run in runs:
        result = read_result(run)
        assert result["train_images"] == {"north": 6, "south": 6}
        assert result["budget"]["steps"] == 2
        for told in result["site_images"]["sites"].values():
            assert told["class_counts"] == [3, 3]
