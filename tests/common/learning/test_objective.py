import math
import os
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import NTXentLoss
from torch import Tensor

from common.data.folder import CLASS
from common.learning.objective import Batch, contrastive, contrastive_term, objective
from common.learning.prototypes import (
    Constants,
    RemotePrototypes,
    make_prototypes,
    remote_prototypes,
)
from common.models.network import Output
from common.randomness import torch_generator
from tests.common.small_training import CPU64, config, normal

ROOT = Path(__file__).parents[3]
GOLDEN = Path(os.environ.get("XSITE_GOLDEN", ROOT.parent / "shared" / "golden")) / "covidnet.npz"
Denominator = Literal["nt-xent", "eq4"]
BOTH: tuple[Denominator, ...] = ("nt-xent", "eq4")


def batch(images: int, classes: int, seed: int, size: int = 5) -> tuple[Tensor, Tensor]:
    x = torch.from_numpy(normal(images, size, seed=seed))
    return x.requires_grad_(), torch.from_numpy(
        np.random.default_rng(seed).integers(0, classes, images)
    )


def constants(images: int, classes: int, seed: int, size: int = 5) -> Constants:
    x, labels = batch(images, classes, seed + 1000, size)
    counts = torch.from_numpy(np.random.default_rng(seed).uniform(0.2, 9, images))
    return Constants(x.detach(), labels, counts)


def oracle(
    x: Tensor,
    labels: Tensor,
    tau: float,
    denominator: str,
    others: Constants | None,
    anchors: bool = True,
    within: bool = True,
) -> Tensor:
    """The definition, pair by pair: no matrix, no logarithm of a sum in disguise."""
    vectors, classes, weights = list(x), labels.tolist(), [1.0] * len(x)
    if others is not None:
        vectors += list(others.vectors)
        classes += others.labels.tolist()
        weights += others.multiplicity.tolist()
    losses, total = torch.zeros((), dtype=x.dtype), 0.0
    for i in range(len(vectors) if anchors else len(x)):
        e = [torch.exp(F.cosine_similarity(vectors[i], v, dim=0) / tau) for v in vectors]
        negative = [weights[k] * e[k] for k in range(len(e)) if classes[k] != classes[i]]
        if denominator == "eq4" and not negative:
            continue
        for p in range(len(vectors)):
            local = i < len(x) and p < len(x)
            if p != i and classes[p] == classes[i] and (within or not local):
                weight = weights[i] * weights[p]
                below = sum(negative) + (e[p] if denominator == "nt-xent" else 0)
                losses = losses - weight * torch.log(e[p] / below)
                total += weight
    return losses / total if total else losses


@pytest.mark.skipif(not GOLDEN.exists(), reason="golden vectors absent; XSITE_GOLDEN names them")
def test_the_released_codes_loss_and_gradient() -> None:
    with np.load(GOLDEN) as golden:
        x = torch.tensor(np.random.Generator(np.random.PCG64(77)).standard_normal((32, 128)))
        x.requires_grad_()
        labels = torch.from_numpy(golden["ntxent_labels"]).long()
        loss = contrastive(x, labels, 0.05)
        loss.backward()
        assert loss.item() == pytest.approx(float(golden["ntxent_loss"]), rel=1e-13)
        np.testing.assert_allclose(x.grad, golden["ntxent_grad"], rtol=1e-9, atol=1e-15)
        paper = contrastive(x, labels, 0.05, "eq4").item()
        assert paper == pytest.approx(float(golden["eq4_mean_over_pairs"]), rel=1e-13)


def test_numbers_by_hand() -> None:
    # Two of class 0 along x, one of class 1 along y, τ = 1/2: e⁺ = e², and one negative, e⁰ = 1.
    x = torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1])
    assert contrastive(x, labels, 0.5).item() == pytest.approx(math.log(1 + math.exp(-2)), 1e-14)
    assert contrastive(x, labels, 0.5, "eq4").item() == pytest.approx(-2, rel=1e-14)
    # One image, a constant beside it that counts twice and one of class 1 across that counts three
    # times: two pairs, each −log(e² / (e² + 3)). The first constant has the same as an anchor.
    others = Constants(x[1:], labels[1:], torch.tensor([2.0, 3.0], dtype=torch.float64))
    expected = math.log(1 + 3 * math.exp(-2))
    for anchors in (True, False):
        found = contrastive(x[:1], labels[:1], 0.5, constants=others, anchors=anchors)
        assert found.item() == pytest.approx(expected)
    # Another constant of its class, across: as anchors they meet each other, twice the weight.
    across = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    others = Constants(across, labels[:2], torch.tensor([2.0, 3.0], dtype=torch.float64))
    opposite = torch.tensor([[-1.0, 0.0]], dtype=torch.float64)
    found = contrastive(opposite, torch.tensor([1]), 0.5, "eq4", others).item()
    # Of class 0 there are pairs 2 · 3, twice, with one negative: −1 and 0 away from it.
    assert found == pytest.approx(((-2 - 0) * 6 + (0 - 0) * 6) / 12)


@pytest.mark.parametrize("denominator", BOTH)
@pytest.mark.parametrize("images, classes, remote", [(7, 2, 0), (9, 3, 4), (2, 2, 6), (1, 2, 5)])
@pytest.mark.parametrize("anchors, within", [(True, True), (False, True), (True, False)])
def test_the_definition_and_its_gradient(
    denominator: Denominator, images: int, classes: int, remote: int, anchors: bool, within: bool
) -> None:
    for seed in range(3):
        x, labels = batch(images, classes, seed)
        others = constants(remote, classes, seed) if remote else None
        got = contrastive(x, labels, 0.3, denominator, others, anchors, within)
        expected = oracle(x, labels, 0.3, denominator, others, anchors, within)
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
        (gradient,) = torch.autograd.grad(got, x)
        if expected.requires_grad:
            (wanted,) = torch.autograd.grad(expected, x)
            torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-12)


def test_the_public_library_agrees() -> None:
    for seed in range(3):
        x, labels = batch(12, 3, seed)
        expected = NTXentLoss(temperature=0.2)(x, labels)
        torch.testing.assert_close(contrastive(x, labels, 0.2), expected, rtol=1e-9, atol=1e-12)


def test_a_multiplicity_is_that_many_images() -> None:
    x, labels = batch(5, 2, 3)
    once = constants(2, 2, 3)
    once = Constants(once.vectors, torch.tensor([0, 1]), torch.tensor([3.0, 2.0]).double())
    many = torch.tensor([0, 0, 0, 1, 1])
    repeated = Constants(once.vectors[many], once.labels[many], torch.ones(5).double())
    for denominator in BOTH:
        got = contrastive(x, labels, 0.1, denominator, once, anchors=False)
        expected = contrastive(x, labels, 0.1, denominator, repeated, anchors=False)
        torch.testing.assert_close(got, expected, rtol=1e-13, atol=0)


# Images of each class in every site's batch: alike, unlike, a class that one site lacks.
BALANCES = [[[8, 8], [8, 8]], [[3, 13], [10, 6], [12, 4]], [[5, 3, 2], [0, 6, 4], [9, 0, 1]]]


@pytest.mark.parametrize("balance", BALANCES)
@pytest.mark.parametrize("denominator", BOTH)
def test_where_the_others_projections_are_met_the_sites_gradients_add_up_to_the_pooled_one(
    balance: list[list[int]], denominator: Denominator
) -> None:
    """Cross entropy and term together, of weights that all sites share."""
    sites, heat, alpha = len(balance), 0.05, 0.7
    shared = [torch.from_numpy(normal(7, 5, seed=n)).requires_grad_() for n in (98, 99)]
    batches = [
        (torch.from_numpy(normal(sum(own), 7, seed=number)), _labels(own))
        for number, own in enumerate(balance)
    ]

    def entropy(images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(images @ shared[0], labels)

    def term(images: Tensor, labels: Tensor, others: Constants | None = None) -> Tensor:
        return contrastive((images @ shared[1]).tanh(), labels, heat, denominator, others)

    def joint(batches: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        return torch.cat([x for x, _ in batches]), torch.cat([labels for _, labels in batches])

    everything = joint(batches)
    pooled = term(*everything)
    expected = torch.autograd.grad(entropy(*everything) + alpha * pooled, shared)
    found = [torch.zeros_like(one) for one in shared]
    for number, own in enumerate(batches):
        images, labels = joint(batches[:number] + batches[number + 1 :])
        met = Constants((images @ shared[1]).tanh(), labels, torch.ones(len(labels)).double())
        local = term(*own, met)
        assert local.item() == pytest.approx(pooled.item(), rel=1e-12)
        gradients = torch.autograd.grad(entropy(*own) + sites * alpha * local, shared)
        found = [sum_ + one / sites for sum_, one in zip(found, gradients, strict=True)]
    for got, wanted in zip(found, expected, strict=True):
        assert (got - wanted).norm() < 1e-10 * wanted.norm()


def _labels(counts: list[int]) -> Tensor:
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


def remote(*vectors: list[list[float]], sites: int = 1) -> RemotePrototypes:
    """Prototypes of classes 0, 1, ..., each of 3 images more than the one before."""
    n = len(vectors)
    counts = torch.arange(3, 3 + n).double()
    return RemotePrototypes(torch.tensor(vectors).double(), torch.arange(n), counts, sites)


def test_without_spread_the_term_is_that_of_the_means() -> None:
    x, labels = batch(6, 2, 4, size=2)
    narrow = remote([[0.6, 0.8], [0.0, 0.0]], [[-1.0, 0.0], [0.0, 0.0]])
    for count, anchors in ((16, False), (1, True)):
        drawn = narrow.draw(count, torch_generator(0, "any"))
        assert drawn.multiplicity.sum() == 7
        got = contrastive(x, labels, 0.05, constants=drawn, anchors=anchors)
        expected = contrastive(x, labels, 0.05, constants=narrow.means(), anchors=anchors)
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)


def test_a_site_draws_anew_at_every_step_and_weighs_the_term_by_the_number_of_sites() -> None:
    x, labels = batch(8, 2, 1, size=2)
    output = Output(x, x, x)
    values = config(alpha=0.5, prototype_draws=8, temperature=0.2, seed=5)
    wide = remote([[0.6, 0.0], [0.0, 0.8]], [[-0.6, 0.0], [0.0, 0.8]], sites=3)
    term = contrastive_term(values, 10, "a", wide)
    assert term.weight(0) == 0.5 * 4
    found = []
    for step in (3, 4):
        drawn = wide.draw(8, torch_generator(5, "a", step, "prototypes"))
        found.append(term.value(Batch(torch.empty(0), {CLASS: labels}, (), output, step)))
        assert found[-1] == contrastive(x, labels, 0.2, constants=drawn)
    assert found[0] != found[1]
    means = contrastive_term(values.changed(prototype_draws=0), 10, "a", wide)
    given = Batch(torch.empty(0), {CLASS: labels}, (), output, 3)
    assert means.value(given) == contrastive(x, labels, 0.2, constants=wide.means())


def test_the_means_of_many_draws_approach_the_term_of_the_images_themselves() -> None:
    """In expectation a drawn batch pulls as one of the site's own images does."""
    generator = np.random.default_rng(3)
    centres = np.array([[0.5, 0, 0, 0, 0, 0], [0, 0.4, 0, 0, 0, 0]])
    labels = torch.arange(2).repeat_interleave(400)
    images = torch.from_numpy(centres[labels] + generator.normal(size=(800, 6)))
    made = make_prototypes("b", images.numpy(), labels.numpy(), 1)
    found = remote_prototypes("a", [made], {"b": [400, 400]}, config(batch_size=16), CPU64)
    assert found is not None
    x = torch.from_numpy(centres[[0, 1] * 8] + generator.normal(size=(16, 6))).requires_grad_()
    own = torch.tensor([0, 1] * 8)

    def gradient(constants: Constants, anchors: bool = True) -> Tensor:
        term = contrastive(x, own, 0.05, constants=constants, anchors=anchors)
        return torch.autograd.grad(term, x)[0].flatten()

    def sampled(number: int) -> Constants:
        which = torch.from_numpy(np.random.default_rng(number).permutation(800)[:16])
        return Constants(images[which], labels[which], torch.ones(16).double())

    pooled = torch.stack([gradient(sampled(n)) for n in range(200)]).mean(0)
    drawn = torch.stack([gradient(found.draw(32, torch_generator(0, n))) for n in range(50)])
    means = gradient(found.means(), anchors=False)
    alike = F.cosine_similarity(torch.stack([drawn.mean(0), means]), pooled)
    lengths = torch.stack([drawn.mean(0), means]).norm(dim=1) / pooled.norm()
    assert alike[0] > 0.96 and 0.7 < lengths[0] < 1.3
    assert alike[1] < 0.92 and lengths[1] > 2


def test_prototypes_get_no_gradient() -> None:
    x, labels = batch(6, 2, 0)
    others = constants(4, 2, 0)
    others.vectors.requires_grad_()
    others.multiplicity.requires_grad_()
    contrastive(x, labels, 0.05, constants=others).backward()
    assert others.vectors.grad is None
    assert others.multiplicity.grad is None
    assert x.grad is not None and x.grad.abs().max() > 0


@pytest.mark.parametrize("denominator", BOTH)
def test_single_precision_stands_a_small_temperature(denominator: Denominator) -> None:
    # Cosines of ±1 at τ = 0.01 are logits of ±100: exp(200) overflows float32.
    x, labels = batch(12, 2, 5, size=2)
    exact = contrastive(x, labels, 0.01, denominator)
    (wanted,) = torch.autograd.grad(exact, x)
    single = x.detach().float().requires_grad_()
    got = contrastive(single, labels, 0.01, denominator)
    (gradient,) = torch.autograd.grad(got, single)
    assert exact.abs() > 10
    torch.testing.assert_close(got.double(), exact, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient.double(), wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("denominator", BOTH)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_loss_that_is_nearly_nothing_keeps_its_digits(
    denominator: Denominator, dtype: torch.dtype
) -> None:
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], dtype=dtype)
    loss = contrastive(x, torch.tensor([0, 0, 1]), 0.05, denominator).item()
    expected = math.log1p(math.exp(-40)) if denominator == "nt-xent" else -40.0
    assert loss == pytest.approx(expected, rel=1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("denominator", BOTH)
@pytest.mark.parametrize("labels", [[0], [0, 1], [0, 1, 2]])
def test_without_a_positive_pair_there_is_nothing_to_learn(
    denominator: Denominator, labels: list[int]
) -> None:
    x, _ = batch(len(labels), 2, 0)
    loss = contrastive(x, torch.tensor(labels), 0.05, denominator)
    loss.backward()
    assert loss.item() == 0
    assert x.grad is not None and torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize("denominator", BOTH)
@pytest.mark.parametrize("remote", [False, True])
def test_without_a_negative_there_is_nothing_to_learn(
    denominator: Denominator, remote: bool
) -> None:
    x, _ = batch(3, 2, 0)
    vectors = torch.ones(2, 5, dtype=torch.float64)
    # A prototype that stands for no image is no negative either.
    others = Constants(vectors, torch.tensor([1, 0]), torch.tensor([4.0, 0.0]).double())
    labels = torch.ones(3, dtype=torch.int64)
    loss = contrastive(x, labels, 0.05, denominator, others if remote else None)
    loss.backward()
    assert loss.item() == 0
    assert x.grad is not None and torch.equal(x.grad, torch.zeros_like(x))


def test_mixed_precision_does_not_round_the_cosines() -> None:
    x, labels = batch(16, 2, 8, size=64)
    single = x.detach().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = contrastive(single, labels, 0.05)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), contrastive(x, labels, 0.05), rtol=1e-5, atol=0)
    assert contrastive(single.bfloat16(), labels, 0.05).dtype == torch.float32


def test_the_objective_is_cross_entropy_and_the_weighted_term() -> None:
    x, labels = batch(8, 2, 1)
    logits = torch.from_numpy(normal(8, 2, seed=9)).requires_grad_()
    output = Output(logits, x, x)
    values = config(temperature=0.2, denominator="eq4")
    given = Batch(torch.empty(0), {CLASS: labels}, (), output)
    values = values.changed(alpha=0.5)
    loss = objective(given, values, [contrastive_term(values, 10)], 3)
    term = contrastive(x, labels, 0.2, "eq4")
    entropy = -logits.log_softmax(1)[torch.arange(8), labels].mean()
    torch.testing.assert_close(loss.total, entropy + 0.5 * term, rtol=1e-13, atol=0)
    torch.testing.assert_close(loss.cross_entropy, entropy.detach(), rtol=1e-13, atol=0)
    torch.testing.assert_close(loss.contrastive, term.detach(), rtol=1e-13, atol=0)
    assert not loss.cross_entropy.requires_grad and not loss.contrastive.requires_grad


def test_without_weight_the_projections_are_left_alone() -> None:
    x, labels = batch(8, 2, 1)
    logits = torch.from_numpy(normal(8, 2, seed=9)).requires_grad_()
    given = Batch(torch.empty(0), {CLASS: labels}, (), Output(logits, x, x))
    values = config(alpha=0.0)
    loss = objective(given, values, [contrastive_term(values, 10)], 3)
    loss.total.backward()
    assert loss.contrastive.item() == 0 and x.grad is None and logits.grad is not None
