import pytest

from common.config.schema import Config
from common.errors import ConfigError
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


def test_the_sites_take_the_last_steps_alone_after_whole_rounds() -> None:
    """Of 9 steps 0.6 are 5.4: two rounds of two, and five steps alone."""
    config = Config().changed(epochs=3, batch_size=4, local_steps=2, finish_alone=0.4)
    plan = make_plan(config, [5, 9])
    assert plan == Plan(total_steps=9, round_steps=2, epoch_steps=3, alone_steps=5)
    assert [plan.steps(number) for number in (1, 2, 3)] == [range(2), range(2, 4), range(4, 9)]
    assert [plan.alone(number) for number in range(plan.rounds + 1)] == [False, False, False, True]
    assert [plan.evaluated(number) for number in (1, 2, 3)] == [False, True, True]
    # The only average there is, though after two steps no epoch of three has ended.
    assert Plan(9, 2, 3, alone_steps=7).evaluated(1)
    assert plan.budget(4)["images_per_site"] == 36


def test_a_share_that_is_a_whole_number_of_rounds_is_one() -> None:
    """(1 − 0.9) · 100 / 10 is 0.9999999999999998 in float64."""
    config = Config().changed(epochs=10, batch_size=2, local_steps=10, finish_alone=0.9)
    assert make_plan(config, [20]) == Plan(100, 10, 10, alone_steps=90)
    assert (1 - 0.9) * 100 / 10 < 1


def test_the_smallest_share_is_a_round_of_its_own() -> None:
    """As the sites have it, who ask whether there is a share at all."""
    config = Config().changed(epochs=10, batch_size=2, local_steps=10, finish_alone=1e-12)
    assert make_plan(config, [20]) == Plan(100, 10, 10, alone_steps=10)


def test_finishing_alone_needs_a_round_before_it() -> None:
    config = Config().changed(epochs=3, batch_size=4, local_steps=0, finish_alone=0.7)
    with pytest.raises(
        ConfigError, match=r"= 0\.7 leaves less than a round of 3 steps .* of 9 for"
    ):
        make_plan(config, [9])


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
