from typing import Any

import numpy as np
import pytest
import torch

from common.config.schema import Config
from common.data.folder import CLASS
from common.errors import StoreError
from common.learning.latest import LatestEmbeddings
from common.learning.objective import Batch
from common.models.network import Output

CONFIG = Config(batch_size=2, prototype_images=5)


def batch(*values: float, width: int = 3) -> Batch:
    """Two images: numbers, classes and embeddings that tell them apart."""
    embeddings = torch.tensor(values)[:, None].expand(2, width)
    numbers = torch.tensor(values).long()
    output = Output(torch.empty(2, 2), embeddings, torch.empty(2, 4))
    return Batch(torch.empty(2, 3, 1, 1), {CLASS: numbers % 2}, (), output, 0, numbers)


def test_the_latest_whole_batches_are_kept_also_from_one_round_to_the_next() -> None:
    whole, first = LatestEmbeddings(CONFIG, {}), LatestEmbeddings(CONFIG, {})
    for own in (batch(0, 1), batch(2, 3), batch(4, 5)):
        whole.add(own)
    first.add(batch(0, 1))
    first.add(batch(2, 3))
    then = LatestEmbeddings(CONFIG, first.arrays())
    then.add(batch(4, 5))
    for found in (whole.arrays(), then.arrays()):
        # Of five images, two batches of two.
        assert found["images"].tolist() == [2, 3, 4, 5]
        assert found["labels"].tolist() == [0, 1, 0, 1]
        assert found["embeddings"].tolist() == [[2] * 3, [3] * 3, [4] * 3, [5] * 3]
        assert found["embeddings"].dtype == np.float32
    assert LatestEmbeddings(CONFIG, {}).arrays() == {}


def test_no_more_is_held_than_can_be_asked_for() -> None:
    latest = LatestEmbeddings(CONFIG, {})
    for number in range(0, 40, 2):
        latest.add(batch(number, number + 1))
    assert len(latest.kept) == 2
    assert latest.arrays()["images"].tolist() == [36, 37, 38, 39]


@pytest.mark.parametrize(
    "change, said",
    [
        ({"images": None}, "it holds embeddings, labels, expected"),
        ({"more": np.ones(2)}, "it holds embeddings, images, labels, more"),
        ({"embeddings": np.ones((2, 3))}, "float64, int64, int64"),
        ({"embeddings": np.ones(2, np.float32)}, "float32, int64, int64"),
        ({"labels": np.array([0])}, "of different lengths"),
        ({"labels": np.array([0, 2])}, "its classes are none of the run"),
        ({"embeddings": np.full((2, 3), np.nan, np.float32)}, "not finite"),
    ],
)
def test_damaged_ones_are_refused(change: dict[str, Any], said: str) -> None:
    latest = LatestEmbeddings(CONFIG, {})
    latest.add(batch(0, 1))
    arrays = {key: held for key, held in (latest.arrays() | change).items() if held is not None}
    with pytest.raises(StoreError, match=said):
        LatestEmbeddings(CONFIG, arrays)


def test_those_of_another_network_are_refused() -> None:
    latest = LatestEmbeddings(CONFIG, {})
    latest.add(batch(0, 1))
    then = LatestEmbeddings(CONFIG, latest.arrays())
    with pytest.raises(StoreError, match="of another network"):
        then.add(batch(2, 3, width=4))
