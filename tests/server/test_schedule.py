import pytest

from common.config.schema import Config
from server.schedule import Plan, make_plan, steps_per_epoch


def test_the_last_round_may_be_shorter() -> None:
    plan = Plan(total_steps=10, round_steps=4, epoch_steps=4)
    assert plan.rounds == 3
    assert [plan.steps(number) for number in (1, 2, 3)] == [range(4), range(4, 8), range(8, 10)]
    assert [plan.end(number) for number in (0, 1, 2, 3)] == [0, 4, 8, 10]


@pytest.mark.parametrize(("total", "a_round"), [(1, 1), (7, 7), (7, 100), (12, 4), (13, 4)])
def test_every_step_is_in_one_round(total: int, a_round: int) -> None:
    plan = Plan(total, a_round, a_round)
    steps = [step for number in range(1, plan.rounds + 1) for step in plan.steps(number)]
    assert steps == list(range(total))
    assert all(len(plan.steps(number)) > 0 for number in range(1, plan.rounds + 1))


def test_the_largest_site_sets_the_length_of_an_epoch_which_is_a_round() -> None:
    config = Config().changed(epochs=3, batch_size=4, local_steps=0)
    # 9 images in batches of 4 are 3 steps; the smaller site is reloaded to keep step.
    assert make_plan(config, [5, 9]) == Plan(total_steps=9, round_steps=3, epoch_steps=3)
    assert make_plan(config, [5, 9]).rounds == 3


def test_local_steps_divide_the_run_and_not_the_epoch() -> None:
    config = Config().changed(epochs=3, batch_size=4, local_steps=2)
    plan = make_plan(config, [5, 9])
    assert plan == Plan(total_steps=9, round_steps=2, epoch_steps=3)
    assert (plan.rounds, plan.steps(5)) == (5, range(8, 9))


@pytest.mark.parametrize(
    ("a_round", "evaluated"),
    [
        (1, [3, 6, 8]),  # exactly where an epoch of three steps ends
        (2, [2, 3, 4]),  # after 4, 6 and 8 steps: the first round to end in another epoch
        (3, [1, 2, 3]),
        (5, [1, 2]),
        (100, [1]),
    ],
)
def test_figures_are_taken_once_an_epoch_and_at_the_end(a_round: int, evaluated: list[int]) -> None:
    plan = Plan(total_steps=8, round_steps=a_round, epoch_steps=3)
    rounds = range(1, plan.rounds + 1)
    assert [number for number in rounds if plan.evaluated(number)] == evaluated


def test_an_epoch_is_a_pass_over_the_largest_site() -> None:
    assert steps_per_epoch([559, 1860], 16) == 117  # 1860 / 16 = 116.25
    assert steps_per_epoch([32], 16) == 2
