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
from common.learning.prototypes import RemotePrototypes, make_prototypes, remote_prototypes
from common.models.network import Output
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


def constants(images: int, classes: int, seed: int, size: int = 5) -> RemotePrototypes:
    x, labels = batch(images, classes, seed + 1000, size)
    counts = torch.from_numpy(np.random.default_rng(seed).uniform(0.2, 9, images))
    return RemotePrototypes(x.detach(), labels, counts)


def oracle(
    x: Tensor, labels: Tensor, tau: float, denominator: str, others: RemotePrototypes | None
) -> Tensor:
    """The definition, pair by pair: no matrix, no logarithm of a sum in disguise."""
    vectors, classes, weights = list(x), labels.tolist(), [1.0] * len(x)
    if others is not None:
        vectors += list(others.vectors)
        classes += others.labels.tolist()
        weights += others.multiplicity.tolist()
    losses, total = torch.zeros((), dtype=x.dtype), 0.0
    for i in range(len(x)):
        e = [torch.exp(F.cosine_similarity(x[i], v, dim=0) / tau) for v in vectors]
        negative = [weights[k] * e[k] for k in range(len(e)) if classes[k] != classes[i]]
        if denominator == "eq4" and not negative:
            continue
        for p in range(len(vectors)):
            if p != i and classes[p] == classes[i]:
                below = sum(negative) + (e[p] if denominator == "nt-xent" else 0)
                losses = losses - weights[p] * torch.log(e[p] / below)
                total += weights[p]
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
    # One image, a prototype beside it that counts twice and one of class 1 across that counts
    # three times: two pairs, each −log(e² / (e² + 3)).
    others = RemotePrototypes(x[1:], labels[1:], torch.tensor([2.0, 3.0], dtype=torch.float64))
    expected = math.log(1 + 3 * math.exp(-2))
    assert contrastive(x[:1], labels[:1], 0.5, constants=others).item() == pytest.approx(expected)


@pytest.mark.parametrize("denominator", BOTH)
@pytest.mark.parametrize("images, classes, remote", [(7, 2, 0), (9, 3, 4), (2, 2, 6), (1, 2, 5)])
def test_the_definition_and_its_gradient(
    denominator: Denominator, images: int, classes: int, remote: int
) -> None:
    for seed in range(5):
        x, labels = batch(images, classes, seed)
        others = constants(remote, classes, seed) if remote else None
        got = contrastive(x, labels, 0.3, denominator, others)
        expected = oracle(x, labels, 0.3, denominator, others)
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
    once = RemotePrototypes(once.vectors, torch.tensor([0, 1]), torch.tensor([3.0, 2.0]).double())
    many = torch.tensor([0, 0, 0, 1, 1])
    repeated = RemotePrototypes(once.vectors[many], once.labels[many], torch.ones(5).double())
    for denominator in BOTH:
        got = contrastive(x, labels, 0.1, denominator, once)
        expected = contrastive(x, labels, 0.1, denominator, repeated)
        torch.testing.assert_close(got, expected, rtol=1e-13, atol=0)


# Images of each class in every site's batch: alike, unlike, a class that one site lacks.
BALANCES = [[[8, 8], [8, 8]], [[3, 13], [10, 6], [1, 4]], [[5, 3, 2], [0, 6, 4], [7, 0, 1]]]


def sites_at_their_prototypes(balance: list[list[int]]) -> list[tuple[Tensor, Tensor]]:
    """Every site's images lie on one ray a class, at different lengths."""
    sites = []
    for number, counts in enumerate(balance):
        rays = torch.from_numpy(normal(len(counts), 6, seed=number))
        labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        lengths = torch.linspace(0.5, 4, len(labels), dtype=torch.float64)
        sites.append((rays[labels] * lengths[:, None], labels))
    return sites


def site_terms(
    sites: list[tuple[Tensor, Tensor]], others: list[RemotePrototypes], denominator: Denominator
) -> float:
    """The sites' federated terms, averaged by their positive pairs."""
    terms, pairs = [], []
    for (x, labels), remote in zip(sites, others, strict=True):
        terms.append(contrastive(x, labels, 0.05, denominator, remote).item())
        local = (labels[:, None] == labels).sum() - len(labels)
        pairs.append(
            float(local + ((labels[:, None] == remote.labels) * remote.multiplicity).sum())
        )
    return float(np.average(terms, weights=pairs))


@pytest.mark.parametrize("balance", BALANCES)
@pytest.mark.parametrize("denominator", BOTH)
def test_federated_equals_pooled_where_projections_coincide_with_prototypes(
    balance: list[list[int]], denominator: Denominator
) -> None:
    sites = sites_at_their_prototypes(balance)
    pooled = contrastive(
        torch.cat([x for x, _ in sites]),
        torch.cat([labels for _, labels in sites]),
        0.05,
        denominator,
    )
    others = []
    for number in range(len(sites)):
        remote = [site for other, site in enumerate(sites) if other != number]
        classes = [labels.unique() for _, labels in remote]
        others.append(
            RemotePrototypes(
                torch.cat(
                    [
                        torch.stack([F.normalize(x, dim=1)[labels == c].mean(0) for c in present])
                        for (x, labels), present in zip(remote, classes, strict=True)
                    ]
                ),
                torch.cat(classes),
                torch.cat([labels.bincount()[labels.unique()] for _, labels in remote]).double(),
            )
        )
    assert site_terms(sites, others, denominator) == pytest.approx(pooled.item(), rel=1e-12)


def test_federated_equals_pooled_on_the_way_that_prototypes_really_go() -> None:
    balance = [[3, 13], [10, 6]]
    sites = sites_at_their_prototypes(balance)
    names = ["a", "b"]
    made = [make_prototypes(name, *site, 1) for name, site in zip(names, sites, strict=True)]
    counts = dict(zip(names, balance, strict=True))
    others = []
    for name in names:
        found = remote_prototypes(name, made, counts, config(batch_size=16), CPU64)
        assert found is not None
        others.append(found)
    pooled = contrastive(
        torch.cat([x for x, _ in sites]), torch.cat([labels for _, labels in sites]), 0.05
    )
    # A prototype travels in float32.
    assert site_terms(sites, others, "nt-xent") == pytest.approx(pooled.item(), rel=1e-5)


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
    others = RemotePrototypes(vectors, torch.tensor([1, 0]), torch.tensor([4.0, 0.0]).double())
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
    others = constants(3, 2, 1)
    values = config(temperature=0.2, denominator="eq4")
    given = Batch(torch.empty(0), {CLASS: labels}, (), output)
    values = values.changed(alpha=0.5)
    loss = objective(given, values, [contrastive_term(values, 10, others)], 3)
    term = contrastive(x, labels, 0.2, "eq4", others)
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
