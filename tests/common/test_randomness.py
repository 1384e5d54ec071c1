import numpy as np
import torch

from common.randomness import derive_seed, numpy_generator, seeded_torch, torch_generator


def test_streams_differ_by_every_part() -> None:
    seeds = {
        derive_seed(0, "a", 1, "order"),
        derive_seed(1, "a", 1, "order"),
        derive_seed(0, "b", 1, "order"),
        derive_seed(0, "a", 2, "order"),
        derive_seed(0, "a", 1, "augment"),
        derive_seed(0, "a", "1", "order"),
        derive_seed(0, "a1", "order"),
    }
    assert len(seeds) == 7
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_same_parts_same_draws() -> None:
    one = numpy_generator(3, "a").standard_normal(4)
    assert np.array_equal(one, numpy_generator(3, "a").standard_normal(4))
    drawn = torch.rand(4, generator=torch_generator(3, "a"))
    assert torch.equal(drawn, torch.rand(4, generator=torch_generator(3, "a")))


def test_the_global_generator_is_left_as_it_was() -> None:
    before = torch.random.get_rng_state()
    with seeded_torch(0, "network"):
        first = torch.rand(3)
    with seeded_torch(0, "network"):
        assert torch.equal(first, torch.rand(3))
    assert torch.equal(before, torch.random.get_rng_state())
