import math

import numpy as np
import pytest

from common.exchange.messages import SiteReply
from server.state import RunState, advance, choose, validation_auc
from tests.server.answers import prototypes, reply


def evaluated(site: str, **metrics: float) -> SiteReply:
    return SiteReply("run", 1, site, "f", {k.replace("_", "/"): v for k, v in metrics.items()})


def test_validation_is_the_mean_over_the_sites_where_it_is_defined() -> None:
    def auc(*values: float) -> float:
        return validation_auc(
            {str(k): evaluated(str(k), validation_auc=v) for k, v in enumerate(values)}
        )

    assert auc(0.5, 1.0) == 0.75
    assert auc(0.5, math.nan) == 0.5
    assert math.isnan(auc(math.nan, math.nan))
    assert math.isnan(validation_auc({"a": evaluated("a", test_auc=1.0)}))


@pytest.mark.parametrize(
    ("round", "best_round", "best_auc", "auc", "expected"),
    [
        (0, 0, 0.0, 0.9, (0, 0.0)),  # initial weights are nobody's choice
        (1, 0, 0.0, 0.2, (1, 0.2)),
        (1, 0, 0.0, 0.0, (1, 0.0)),  # even an AUC of 0 is the best of one
        (2, 1, 0.6, 0.7, (2, 0.7)),
        (2, 1, 0.6, 0.6, (1, 0.6)),  # of equals the earlier one
        (2, 1, 0.6, 0.5, (1, 0.6)),
        (2, 1, 0.6, math.nan, (1, 0.6)),
        (2, 0, 0.0, math.nan, (0, 0.0)),
    ],
)
def test_validation_chooses_the_first_of_the_best_rounds(
    round: int, best_round: int, best_auc: float, auc: float, expected: tuple[int, float]
) -> None:
    state = RunState(round, np.zeros(1), best_round=best_round, best_auc=best_auc)
    found = choose(state, {"a": evaluated("a", validation_auc=auc, test_auc=1.0)})
    assert (found.best_round, found.best_auc) == expected


def test_a_round_moves_on_what_it_replied_to_and_leaves_the_rest() -> None:
    before = RunState(
        round=2,
        shared=np.zeros(8, np.float32),
        prototypes={"north": prototypes("north"), "south": prototypes("south")},
        completed={"north": 2, "south": 1},
        figures={"north": {"train/loss": 9.0}},
        images_seen={"north": 24, "south": 12},
        best_round=1,
        best_auc=0.7,
        bytes_down=100,
        bytes_up=50,
        seconds=10.0,
    )
    newer = prototypes("north", counts=np.array([5, 5]))
    answer = reply("north", round=3, prototypes=newer)
    after = advance(before, {"north": answer}, "uniform", {"north": (7, 5), "south": (7, 0)}, 2.5)
    assert (after.round, after.best_round, after.best_auc) == (3, 1, 0.7)
    assert after.shared.tolist() == list(range(8))
    assert after.prototypes == {"north": newer, "south": before.prototypes["south"]}
    assert after.completed == {"north": 3, "south": 1}
    assert after.images_seen == {"north": 36, "south": 12}
    assert (after.bytes_down, after.bytes_up, after.seconds) == (114, 55, 12.5)
    assert after.figures == {
        "north": {"bytes/down": 7, "bytes/up": 5, "train/loss": 0.5, "train/images": 12.0},
        "south": {"bytes/down": 7, "bytes/up": 0},
    }
    assert before.round == 2
    assert before.completed == {"north": 2, "south": 1}
