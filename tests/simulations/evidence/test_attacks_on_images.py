"""Attacks find what is there, and nothing where nothing is."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.config.schema import Config
from common.data.cache import SiteData
from common.data.folder import CLASS
from common.data.folds import Split
from common.learning.loop import train
from common.learning.optimiser import make_optimizer
from common.models.network import Network, build_network
from simulations.evidence.attacks.inversion import (
    draw,
    gradient,
    invert,
    matched,
    psnr,
    shared_parameters,
    small_network,
)
from simulations.evidence.attacks.membership import (
    Shadows,
    Target,
    auc,
    confidence,
    estimated,
    found_at,
    likelihood_attack,
    success,
    threshold_attack,
)
from simulations.evidence.attacks.prototypes import candidate_auc, send
from tests.federation.hospitals import CLASSES, TINY

IMAGES = 60
SIZE = 8


@pytest.fixture(scope="module")
def config() -> Config:
    return Config().changed(
        **{**TINY, "crop_scale": 1.0, "flip": False, "alpha": 0.0, "batch_size": 10}
    )


@pytest.fixture(scope="module")
def target(config: Config) -> Target:
    """Images of noise with labels drawn for them: whoever knows a label has learnt it by heart."""
    generator = np.random.default_rng(0)
    data = SiteData(
        images=generator.integers(0, 256, (2 * IMAGES, 32, 32, 1), dtype=np.uint8),
        name="north",
        root=Path("north"),
        classes=CLASSES,
        files=tuple(f"{number}.png" for number in range(2 * IMAGES)),
        targets={CLASS: generator.permutation(np.arange(2 * IMAGES) % 2)},
        patients=tuple(f"patient-{number}" for number in range(2 * IMAGES)),
        warnings=(),
    )
    order = generator.permutation(2 * IMAGES)
    nobody = np.empty(0, np.int64)
    split = Split(np.sort(order[:IMAGES]), nobody, np.sort(order[IMAGES:]), "patient")
    return replace(Target.of(data, config), train=split.train, split=split)


def auc_of(network: Network, target: Target, config: Config) -> float:
    scores = threshold_attack(confidence(network, target, config), target)
    return auc(scores[target.members], scores[~target.members])


def untrained(target: Target, config: Config) -> Network:
    return estimated(build_network(config, [target.name]), target, config)


def test_of_an_untrained_network_membership_is_chance(target: Target, config: Config) -> None:
    # Mann and Whitney's deviation of an AUC between n and n that are alike: 0.053 for 60.
    deviation = math.sqrt((2 * IMAGES + 1) / (12 * IMAGES**2))
    assert abs(auc_of(untrained(target, config), target, config) - 0.5) < 3 * deviation


def test_of_a_network_that_learnt_by_heart_membership_is_plain(
    target: Target, config: Config
) -> None:
    network = build_network(config, ["north"])
    steps = 80
    optimizer = make_optimizer(network, config)
    train(network, optimizer, [target], config, range(steps), steps)
    # It is right of every member and of half of the others, as sure of these at most: an AUC of
    # 3/4, give or take the deviation of which half.
    assert auc_of(network, target, config) > 0.75 - 0.053
    # The same network, asked about members and others that it has never met alike: chance.
    strangers = replace(target, split=replace(target.split, train=target.split.test[::2]))
    strangers = replace(strangers, split=replace(strangers.split, test=target.split.test[1::2]))
    deviation = math.sqrt((IMAGES + 1) / (12 * (IMAGES / 2) ** 2))
    assert abs(auc_of(network, strangers, config) - 0.5) < 3 * deviation


def test_a_few_false_alarms_are_a_few() -> None:
    others = np.arange(100.0)
    # One of a hundred is above 98, five are above 94.
    members = np.array([98.5, 99.5, 95.0, 94.0])
    assert found_at(0.01, members, others) == 0.5
    assert found_at(0.05, members, others) == 0.75
    assert auc(members, others) == pytest.approx((99 + 100 + 95.5 + 94.5) / 400)


def test_patients_are_resampled_and_not_their_slices() -> None:
    scores = np.random.default_rng(0).normal(size=40)
    members = np.arange(40) < 20
    one_each = np.where(members, "m", "o")
    value, low, high = success(scores, members, one_each, seed=0, draws=20)[0]
    assert low == value == high
    many = np.arange(40).astype(str)
    value, low, high = success(scores, members, many, seed=0, draws=200)[0]
    assert low < value < high


def test_shadows_tell_an_image_that_was_trained_on() -> None:
    # Four shadows: trained on an image they say 3 of it, else 0, give or take 1.
    inside = np.array([[True, False], [False, True], [True, False], [False, True]])
    noise = np.array([[1.0, 1.0], [1.0, 1.0], [-1.0, -1.0], [-1.0, -1.0]])
    shadows = Shadows(inside, {"own": np.where(inside, 3.0, 0.0) + noise})
    # The log ratio of normal densities of deviation 1 about 3 and 0 is 3x − 4.5.
    ratios = likelihood_attack(np.array([2.0, 1.0]), shadows, "own")
    assert ratios == pytest.approx([1.5, -1.5])


def smooth_image() -> torch.Tensor:
    """Return a bright disc on dark ground, (1, 1, SIZE, SIZE)."""
    places = torch.linspace(-1, 1, SIZE)
    distance = places[:, None] ** 2 + places[None] ** 2
    return (1.5 - 3 * (distance > 0.6).float())[None, None]


def test_one_image_comes_back_from_its_gradient_and_not_from_another_direction() -> None:
    network = small_network(SIZE, 2, "north", 4, seed=0).train()
    image, label = smooth_image(), torch.tensor([1])
    update = gradient(network, image, label, graph=False)
    found = invert(network, update, label, SIZE, steps=120, seed=0)
    # Whoever knows nothing says grey: the error of an image of ±1.5 is then 1.5 of 4.
    blind = float(psnr(torch.zeros_like(image), image)[0, 0])
    assert blind == pytest.approx(-20 * math.log10(1.5 / 4))
    assert float(psnr(found, image)[0, 0]) > blind + 6
    generator = torch.Generator().manual_seed(0)
    nothing = [torch.randn(one.shape, generator=generator) for one in update]
    null = invert(network, nothing, label, SIZE, steps=120, seed=0)
    assert float(psnr(null, image)[0, 0]) < blind + 1


def test_what_leaves_is_attacked_and_nothing_else() -> None:
    network = small_network(SIZE, 2, "north", 4, seed=0)
    norms = 4
    assert len(shared_parameters(network)) == len(list(network.parameters())) - norms


def test_psnr_is_ten_for_each_tenth_of_the_squared_range() -> None:
    black, white = torch.full((1, 1, 4, 4), -2.0), torch.full((1, 1, 4, 4), 2.0)
    assert psnr(black, white)[0, 0] == pytest.approx(0)
    assert psnr(black, black + 0.4)[0, 0] == pytest.approx(20)
    grey = torch.zeros_like(black)
    places, quality = matched(torch.cat([white, black, grey]), torch.cat([black, grey, white]))
    assert places.tolist() == [1, 2, 0] and quality.tolist() == [100, 100, 100]


def test_a_prototype_of_one_image_names_it(target: Target, config: Config) -> None:
    network = untrained(target, config)
    sent = send(network, target, config, images=1, noise=0.0, number=0)
    assert sent.behind[0] in target.split.train and sent.others[0] in target.split.test
    assert candidate_auc(network, target, config, sent) == 1.0
    noisy = send(network, target, config, images=1, noise=0.5, number=0)
    assert noisy.behind == sent.behind
    assert not np.allclose(noisy.vector, sent.vector, atol=0.05)
    assert np.linalg.norm(noisy.vector) == pytest.approx(1)


def test_a_picture_is_written(tmp_path: Path) -> None:
    draw(tmp_path / "rows.png", [("true", smooth_image()), ("found", smooth_image())])
    assert (tmp_path / "rows.png").stat().st_size > 100
