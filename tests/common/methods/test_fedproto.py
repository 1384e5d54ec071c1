import torch
from torch import Tensor

from common.learning.prototypes import Constants
from common.methods.fedproto import pull


def test_the_pull_is_the_squared_distance_on_the_sphere() -> None:
    projections = torch.tensor(
        [[3.0, 0.0], [0.0, 2.0], [1.0, 1.0]], dtype=torch.float64, requires_grad=True
    )
    labels = torch.tensor([0, 1, 2])  # nobody sent a prototype of class 2
    constants = Constants(
        torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]], dtype=torch.float64),
        torch.tensor([0, 1, 1]),
        torch.tensor([5.0, 3.0, 1.0], dtype=torch.float64),
    )
    found = pull(projections, labels, constants)
    # Class 0: (1, 0) from (0, 1) is 2. Class 1: three times 0 and once 2, of four.
    assert abs(found.item() - (2.0 + 0.5) / 2) < 1e-12
    found.backward()  # type: ignore[no-untyped-call]
    assert isinstance(projections.grad, Tensor)
    assert not projections.grad[2].any()


def test_without_a_prototype_of_any_class_there_is_no_pull() -> None:
    projections = torch.ones(2, 3, requires_grad=True)
    constants = Constants(torch.eye(3)[:1], torch.tensor([1]), torch.ones(1))
    found = pull(projections, torch.tensor([0, 0]), constants)
    found.backward()  # type: ignore[no-untyped-call]
    assert found.item() == 0
    assert isinstance(projections.grad, Tensor) and not projections.grad.any()
