from pathlib import Path

import pytest
import torch

from common.config.schema import Config
from common.learning.local_site import LocalSite, open_site
from simulations.evidence.fidelity import Fidelity, fidelity, train_pooled
from tests.federation.hospitals import tiny_config


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return tiny_config(tmp_path, temperature=0.2, prototype_images=64, width=0.1)


def sites(config: Config) -> list[LocalSite]:
    return [LocalSite.of(open_site(config, name), config) for name in config.site_names]


def test_a_cosine_and_a_length_by_hand() -> None:
    found = Fidelity.of(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 10.0]))
    assert found == pytest.approx((0.8, 0.5))


def test_without_a_term_of_its_own_the_sites_gradient_is_the_pooled_one(config: Config) -> None:
    trained = train_pooled(config, sites(config), 2, 2)
    whole, _ = fidelity(trained, config.changed(alpha=1e-12), range(2, 4))
    assert whole == pytest.approx((1, 1), abs=1e-3)


def test_draws_come_nearer_to_the_pooled_gradient_than_no_exchange(config: Config) -> None:
    trained = train_pooled(config, sites(config), 16, 16)
    before = {name: tensor.clone() for name, tensor in trained.network.state_dict().items()}
    (_, drawn), (_, alone) = (
        fidelity(trained, config.changed(prototypes=what), range(16, 20))
        for what in ("site", "none")
    )
    assert drawn.cosine > alone.cosine + 0.02
    after = trained.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
