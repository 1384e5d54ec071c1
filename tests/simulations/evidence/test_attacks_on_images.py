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
from common.learning.latest import LatestEmbeddings, prototypes_of
from common.learning.loop import train
from common.learning.optimiser import make_optimizer
from common.learning.prototypes import make_prototypes
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
from simulations.evidence.attacks.prototypes import (
    LEAST_VARIANCE,
    MadePrototype,
    candidate_aucs,
    log_likelihood,
    make,
    send,
)
from simulations.evidence.attacks.prototypes import (
    invert as invert_prototypes,
)
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


def made(network: Network, target: Target, config: Config, images: int) -> MadePrototype:
    found = make(network, target, config, images, 0)
    assert found is not None
    return found


def test_a_prototype_of_one_image_names_it(target: Target, config: Config) -> None:
    network = untrained(target, config)
    one = made(network, target, config, 1)
    assert one.behind[0] in target.split.train and one.others[0] in target.split.test
    sent = send(one, 0.0)
    assert candidate_aucs(network, target, config, one, sent) == (1.0, 1.0)
    noisy = send(one, 0.5)
    assert not np.allclose(noisy, sent, atol=0.05)
    assert np.linalg.norm(noisy) == pytest.approx(1)


def test_a_prototype_is_what_training_saw_of_its_images(target: Target, config: Config) -> None:
    network = untrained(target, config)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    several = made(network, target, config, 6)
    own = several.prototype
    labels = target.data.labels
    assert own.counts.tolist() == [6] and own.classes.tolist() == [0]
    assert set(labels[np.concatenate(several[1:])]) == {0}
    parts = [set(part.tolist()) for part in several[1:]]
    assert len(set.union(*parts)) == sum(map(len, parts))
    assert all(tensor.equal(before[name]) for name, tensor in network.state_dict().items())
    # What a round keeps of a hospital that has these images of the class and all of the other, and
    # whose steps are too short to change a weight.
    other = target.split.train[labels[target.split.train] == 1]
    site = replace(target, train=np.sort(np.concatenate([several.behind, other])))
    still = config.changed(prototype_images=260, min_prototype_count=1, learning_rate=1e-30)
    latest = LatestEmbeddings(still, {})
    optimizer = make_optimizer(network, still)
    train(network, optimizer, [site], still, range(26), 26, on_batch=latest.add)
    kept = prototypes_of("north", latest.arrays(), network, still)
    assert np.linalg.norm(own.vectors) == pytest.approx(1)
    np.testing.assert_allclose(own.vectors[0], kept.vectors[0], atol=1e-5)


def test_images_that_were_not_trained_on_are_all_test_images(
    target: Target, config: Config
) -> None:
    network = untrained(target, config)
    several = make(network, target, config, 4, 0, trained=False)
    assert several is not None
    assert set(np.concatenate(several[1:])) <= set(target.split.test)
    assert make(network, target, config, IMAGES, 0, trained=False) is None


def test_a_likelihood_by_hand() -> None:
    # Deviations that give variances of 1 and 4 with the least one, and a factor along the first.
    prototype = np.array(
        [[1.0, 0.0], np.sqrt([1 - LEAST_VARIANCE, 4 - LEAST_VARIANCE]), [2.0, 0.0]]
    )
    # Covariance diag(5, 4): −(1²/5 + 2²/4)/2 − log √20, and the mean itself.
    found = log_likelihood(np.array([[2.0, 2.0], [1.0, 0.0]]), prototype)
    assert found == pytest.approx([-0.6 - math.log(20) / 2, -math.log(20) / 2])


def test_images_are_found_that_have_a_prototypes_mean_and_spread() -> None:
    network = small_network(SIZE, 2, "north", 4, seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(8, 1, SIZE, SIZE, generator=generator) * 3 - 1.5
    with torch.no_grad():
        said = network(images.expand(-1, 3, -1, -1), [("north", 8)]).projection
    labels = np.zeros(8, np.int64)
    wanted = make_prototypes("north", said.numpy(), labels, 1, 4).vectors

    def far(found: torch.Tensor) -> float:
        with torch.no_grad():
            said = network(found[0].expand(-1, 3, -1, -1), [("north", 8)]).projection
        own = make_prototypes("north", said.numpy(), labels, 1, 4).vectors[0]
        return float(
            np.linalg.norm(own[0] - wanted[0, 0])
            + np.linalg.norm(own[2:].T @ own[2:] - wanted[0, 2:].T @ wanted[0, 2:])
        )

    search = [
        far(invert_prototypes(network, torch.from_numpy(wanted), 8, SIZE, steps, seed=0))
        for steps in (1, 30)
    ]
    assert search[1] < 0.5 * search[0]
    one = invert_prototypes(network, torch.from_numpy(wanted), 1, SIZE, 3, seed=0)
    assert one.shape == (1, 1, 1, SIZE, SIZE)


def test_a_picture_is_written(tmp_path: Path) -> None:
    draw(tmp_path / "rows.png", [("true", smooth_image()), ("found", smooth_image())])
    assert (tmp_path / "rows.png").stat().st_size > 100
