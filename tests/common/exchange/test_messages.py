import pytest

from common.data.folds import Leakage
from common.exchange.messages import Purpose, RoundOrder, SiteInfo


@pytest.mark.parametrize(("purpose", "received"), [("train", 4), ("final", 5), ("best", 5)])
def test_training_begins_with_the_average_before_and_an_evaluation_with_its_own(
    purpose: Purpose, received: int
) -> None:
    order = RoundOrder("run", purpose, 5, 3, 2, 0, 2, 9, True, {}, False, {}, ())
    assert order.received == received


def test_a_card_s_images_are_those_of_all_classes() -> None:
    leakage = Leakage("north", "patient", 9, 0, 0, 0)
    assert SiteInfo("north", "f", "c", "1", (3, 0, 4), 0, leakage).train_images == 7
