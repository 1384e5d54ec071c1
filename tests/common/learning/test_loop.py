import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import Optimizer

import common.learning.loop as training
from common.config.schema import Config
from common.data.augment import augment
from common.data.cache import SiteData
from common.data.folder import CLASS
from common.device import Device
from common.errors import ConfigError, RunError
from common.learning.batches import batch_indices
from common.learning.local_site import LocalSite, TrainingSite
from common.learning.loop import StepReport, TrainSummary
from common.learning.objective import Batch, Term, contrastive_term, objective
from common.learning.optimiser import learning_rate, make_optimizer
from common.learning.prototypes import RemotePrototypes
from common.models.network import Network, build_network
from common.models.sharing import private_names, shared_names
from common.randomness import torch_generator
from tests.common.small_training import CPU, CPU64, changed, config, network, same, site, state


def train(
    network: Network,
    optimizer: Optimizer,
    sites: Sequence[TrainingSite],
    settings: Config,
    device: Device,
    steps: range,
    total_steps: int,
    remote: RemotePrototypes | None = None,
    **others: Any,
) -> TrainSummary:
    """Train with the contrastive term."""
    terms = [contrastive_term(settings, total_steps, sites[0].name, remote)]
    sites = [replace(site, device=device) for site in sites]
    return training.train(network, optimizer, sites, settings, steps, total_steps, terms, **others)


def trained(
    *names: str, steps: int = 4, device: Device = CPU, dropout: float = 0.0, **values: object
) -> tuple[Network, TrainSummary]:
    settings = config(**values)
    made = network(*names, dtype=device.images_dtype, dropout=dropout)
    optimizer = make_optimizer(made, settings)
    sites = [site(name) for name in names]
    return made, train(made, optimizer, sites, settings, device, range(steps), 8)


def test_the_learning_rate_falls_along_half_a_cosine() -> None:
    values = config(learning_rate=0.5)
    rates = [learning_rate(values, step, 8) for step in (0, 2, 4, 7)]
    expected = [0.5, 0.25 + math.sqrt(2) / 8, 0.25, 0.25 * (1 + math.cos(7 * math.pi / 8))]
    assert rates == pytest.approx(expected, rel=1e-12)
    assert learning_rate(config(learning_rate=0.5, schedule="constant"), 7, 8) == 0.5


def test_the_contrastive_weight_rises_over_its_share_of_the_steps() -> None:
    values = config(alpha=2.0, contrastive_warmup=0.4)
    weights = [contrastive_term(values, 10).weight(step) for step in (0, 1, 3, 4, 9)]
    assert weights == pytest.approx([0.5, 1, 2, 2, 2], rel=1e-12)
    assert contrastive_term(config(alpha=2.0), 10).weight(0) == 2.0


def test_a_step_is_what_its_parts_say() -> None:
    values = config(
        optimizer="sgd", clip_norm=0.05, learning_rate=0.5, weight_decay=0.0, crop_scale_max=1.5
    )
    places = [site("a", balance=0.25), site("b", 23)]
    made = network("a", "b", dtype=torch.float64)
    before = state(made)
    vectors = torch.stack([torch.eye(4)[:2], torch.full((2, 4), 0.1)], dim=1).double()
    remote = RemotePrototypes(vectors, torch.tensor([0, 1]), torch.ones(2).double(), 1)
    summary = train(
        made, make_optimizer(made, values), places, values, CPU64, range(3, 4), 8, remote
    )
    own = network("a", "b", dtype=torch.float64)
    images, labels = [], []
    for place in places:
        chosen = batch_indices(place.train, 8, 3, values.seed, place.name)
        generator = torch_generator(values.seed, place.name, 3, "augment")
        images.append(augment(place.images[chosen], 16, (0.5, 1.5), True, generator).double())
        labels.append(place.targets[CLASS][chosen])
    slices = [("a", 8), ("b", 8)]
    batch = Batch(
        torch.cat(images), {CLASS: torch.cat(labels)}, slices, own(torch.cat(images), slices), 3
    )
    loss = objective(batch, values, [contrastive_term(values, 8, "a", remote)], 3)
    gradients = torch.autograd.grad(loss.total, list(own.parameters()))
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    assert norm > 0.05, "nothing to clip"
    rate = learning_rate(values, 3, 8)
    for (name, _), gradient in zip(own.named_parameters(), gradients, strict=True):
        expected = before[name] - rate * 0.05 / (norm + 1e-6) * gradient
        torch.testing.assert_close(made.get_parameter(name), expected, rtol=1e-9, atol=1e-12)
    for name, buffer in own.named_buffers():
        torch.testing.assert_close(made.get_buffer(name), buffer, rtol=1e-12, atol=1e-12)
    found = (summary.loss, summary.cross_entropy, summary.contrastive)
    parts = (loss.total.item(), loss.cross_entropy.item(), loss.contrastive.item())
    assert found == pytest.approx(parts, rel=1e-12)
    assert (summary.steps, summary.images, summary.next_step) == (1, 16, 4)


def test_training_learns() -> None:
    made, first = trained("a", "b", steps=2, alpha=0.1)
    sites, values = [site("a"), site("b")], config(alpha=0.1)
    later = train(made, make_optimizer(made, values), sites, values, CPU, range(2, 42), 80)
    last = train(made, make_optimizer(made, values), sites, values, CPU, range(42, 46), 80)
    assert last.cross_entropy < 0.5 * first.cross_entropy
    assert later.steps == 40 and later.images == 40 * 16


def test_pooled_plain_steps_are_the_mean_of_the_sites_steps() -> None:
    """What must hold, 3: a private gradient counts 1/2, since the joint mean has two sites."""
    values = config(optimizer="sgd", clip_norm=0.0, alpha=0.0, weight_decay=0.0, learning_rate=0.1)
    places = {"a": site("a", balance=0.3), "b": site("b", 25)}
    pooled = network("a", "b", dtype=torch.float64)
    optimizer = make_optimizer(pooled, values)
    train(pooled, optimizer, list(places.values()), values, CPU64, range(5), 5)
    own = {name: network(name, dtype=torch.float64) for name in places}
    for name, made in own.items():
        for private in set(private_names(made)) & {n for n, _ in made.named_parameters()}:
            made.get_parameter(private).register_hook(lambda gradient: gradient / 2)
        assert set(private_names(made)) <= set(private_names(pooled)), name
    for step in range(5):
        for name, made in own.items():
            one = make_optimizer(made, values)
            train(made, one, [places[name]], values, CPU64, range(step, step + 1), 5)
        for shared in shared_names(pooled):
            mean = sum(made.state_dict()[shared] for made in own.values()) / len(own)
            for made in own.values():
                made.state_dict()[shared].copy_(mean)
    for made in own.values():
        for tensor, value in made.state_dict().items():
            torch.testing.assert_close(pooled.state_dict()[tensor], value, rtol=1e-9, atol=1e-12)


def test_a_network_that_was_evaluated_is_trained_in_train_mode() -> None:
    made = network("a", dropout=0.5).eval()
    train(made, make_optimizer(made, config()), [site("a")], config(), CPU, range(4), 8)
    assert made.training
    assert same(state(made), state(trained("a", dropout=0.5)[0]))


@pytest.mark.parametrize("values", [{}, {"optimizer": "sgd"}])
def test_going_on_gives_the_same_weights_bit_for_bit(values: dict[str, str]) -> None:
    whole, _ = trained("a", "b", steps=6, dropout=0.5, **values)
    settings = config(**values)
    parts = network("a", "b", dropout=0.5)
    optimizer = make_optimizer(parts, settings)
    for steps in (range(0, 1), range(1, 4), range(4, 6)):
        torch.manual_seed(steps.start)  # whatever others draw
        train(parts, optimizer, [site("a"), site("b")], settings, CPU, steps, 8)
    assert same(state(whole), state(parts))


def test_global_randomness_is_neither_used_nor_touched() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, _ = trained("a", dropout=0.5)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert same(state(first), state(trained("a", dropout=0.5)[0]))
    assert not same(state(first), state(trained("a", dropout=0.5, seed=1)[0]))


def test_prototypes_and_alpha_reach_the_loss() -> None:
    def run(remote: RemotePrototypes | None, **values: float) -> TrainSummary:
        settings = config(**values)
        made = network("a")
        optimizer = make_optimizer(made, settings)
        return train(made, optimizer, [site("a")], settings, CPU, range(2), 4, remote=remote)

    vectors = torch.stack([torch.eye(4)[:2], torch.zeros(2, 4)], dim=1)
    remote = RemotePrototypes(vectors, torch.tensor([0, 1]), torch.tensor([4.0, 4.0]), 1)
    assert run(None).contrastive != run(remote).contrastive
    off = run(remote, alpha=0.0)
    assert off.contrastive == 0 and off.loss == off.cross_entropy
    half = run(None, contrastive_warmup=1.0, alpha=2.0)
    # Weights 2 · 1/4 and 2 · 2/4 over the two steps.
    assert half.cross_entropy < half.loss < half.cross_entropy + 2 * half.contrastive


def test_a_site_absent_from_the_batch_keeps_its_normalisation() -> None:
    made = network("a", "b")
    before = state(made)
    train(made, make_optimizer(made, config()), [site("a")], config(), CPU, range(2), 4)
    moved = changed(before, state(made))
    assert not any(".sites.b." in name for name in moved)
    assert {name for name in before if ".sites.a." in name} <= moved
    assert set(shared_names(made)) <= moved


def stop_after(calls: int) -> Callable[[], bool]:
    left = iter([False] * calls)
    return lambda: next(left, True)


def test_it_stops_between_steps_and_says_where_to_go_on() -> None:
    whole, _ = trained("a", steps=4)
    made = network("a")
    optimizer = make_optimizer(made, config())
    first = train(
        made, optimizer, [site("a")], config(), CPU, range(4), 8, should_stop=stop_after(3)
    )
    assert (first.stopped, first.next_step, first.steps, first.images) == (True, 3, 3, 24)
    rest = train(made, optimizer, [site("a")], config(), CPU, range(3, 4), 8)
    assert (rest.stopped, rest.next_step, rest.steps) == (False, 4, 1)
    assert same(state(whole), state(made))
    nothing = train(
        made, optimizer, [site("a")], config(), CPU, range(4, 8), 8, should_stop=stop_after(0)
    )
    assert (nothing.stopped, nothing.next_step, nothing.steps, nothing.loss) == (True, 4, 0, 0)
    done = train(made, optimizer, [site("a")], config(), CPU, range(8, 8), 8)
    assert (done.stopped, done.next_step) == (False, 8)


def test_reports_hold_the_means_since_the_last_and_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(every: float) -> tuple[list[StepReport], TrainSummary]:
        monkeypatch.setattr(training, "REPORT_SECONDS", every)
        made, reports = network("a"), list[StepReport]()
        optimizer = make_optimizer(made, config())
        summary = train(
            made, optimizer, [site("a")], config(), CPU, range(2, 6), 8, on_step=reports.append
        )
        return reports, summary

    each, summary = run(0)
    assert [(r.step, r.total_steps, r.images) for r in each] == [
        (2, 8, 8),
        (3, 8, 16),
        (4, 8, 24),
        (5, 8, 32),
    ]
    losses = [report.loss for report in each]
    assert summary.loss == pytest.approx(np.mean(losses), rel=1e-12)
    assert len(set(losses)) == 4
    rarely, unread = run(1e9)
    assert [r.step for r in rarely] == [5]
    assert rarely[0].loss == summary.loss == unread.loss


@pytest.mark.parametrize("every", [0, 1e9])
def test_a_loss_that_is_not_finite_names_the_sites_and_the_first_step(
    every: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "REPORT_SECONDS", every)
    made = network("a", "b")
    steps = iter(range(10))

    def poison() -> bool:
        if next(steps) == 2:
            torch.nn.init.constant_(made.head.weight, math.nan)
        return False

    optimizer = make_optimizer(made, config())
    with pytest.raises(RunError, match=r"no longer finite at a, b, step 3 of 8\..* clip-norm\.$"):
        sites = [site("a"), site("b")]
        train(made, optimizer, sites, config(), CPU, range(5), 8, should_stop=poison)


def test_adam_decays_weights_through_the_gradient_as_the_released_code_does() -> None:
    made = network("a")
    weight = made.get_parameter("head.weight")
    optimizer = make_optimizer(made, config(weight_decay=0.1, learning_rate=0.01))
    before = weight.detach().clone()
    for parameter in made.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    # Adam's first step is the sign of gradient + decay, not the decay's size.
    torch.testing.assert_close(weight, before - 0.01 * before.sign(), rtol=1e-4, atol=1e-6)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in made.parameters()}


def test_mixed_precision_trains_weights_of_single_precision() -> None:
    mixed = Device(torch.device("cpu"), torch.bfloat16)
    made, summary = trained("a", device=mixed)
    assert {p.dtype for p in made.parameters()} == {torch.float32}
    assert math.isfinite(summary.loss)
    assert not same(state(made), state(trained("a")[0]))


def test_batches_come_in_the_order_asked_for() -> None:
    place = site("a", 30)
    chosen = np.array([17, 3, 3, 29])
    images, targets = place.batch(chosen)
    labels = targets[CLASS]
    assert images.dtype == torch.uint8
    np.testing.assert_array_equal(images, place.images.numpy()[chosen])
    np.testing.assert_array_equal(labels, place.targets[CLASS].numpy()[chosen])


def test_a_sites_images_stay_where_the_cache_has_them() -> None:
    images = site("a", 10).images.numpy()
    images.flags.writeable = False
    data = SiteData(
        "a",
        Path("a"),
        ("n", "p"),
        ("f",) * 10,
        {CLASS: np.arange(10) % 2},
        (None,) * 10,
        (),
        images=images,
        scale=None,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        place = LocalSite.of(data, config(), CPU)
    assert place.images.data_ptr() == images.__array_interface__["data"][0]
    assert place.targets[CLASS].tolist() == [0, 1] * 5
    assert place.train.tolist() == place.split.train.tolist()


def test_the_papers_network_takes_the_same_loop() -> None:
    values: Config = config(width=0.125, image_size=64, projection_size=16)
    made = build_network(values, ["a", "b"])
    before = state(made)
    sites = [site("a", size=72), site("b", size=72)]
    summary = train(made, make_optimizer(made, values), sites, values, CPU, range(2), 2)
    assert changed(before, state(made)) == set(before), "something is never trained"
    assert summary.contrastive > 0


def test_balanced_batches_are_drawn_by_class_in_every_step() -> None:
    """Of 40 images 4 are positive: a batch of 8 holds 4 of each class all the same."""
    seen: list[list[int]] = []

    def note(batch: Batch) -> torch.Tensor:
        seen.append(torch.bincount(batch.labels).tolist())
        return batch.output.logits.sum() * 0

    values = config(batches="balanced", alpha=0.0)
    whole, halves = network("a"), network("a")
    for made, parts in ((whole, [range(4)]), (halves, [range(2), range(2, 4)])):
        optimizer, place = make_optimizer(made, values), site("a", balance=0.1)
        for steps in parts:
            terms = [Term.constant("note", note, 1.0)]
            training.train(made, optimizer, [place], values, steps, 4, terms)
    assert seen == [[4, 4]] * 8
    assert same(state(whole), state(halves))


BFLOAT16 = Device(torch.device("cpu"), torch.bfloat16)


def test_of_a_loss_that_is_not_finite_in_bfloat16_the_precision_is_named() -> None:
    made = network("a")
    torch.nn.init.constant_(made.head.weight, math.nan)
    with pytest.raises(
        RunError, match=r"clip-norm, or precision = 'float32' \(here it is bfloat16"
    ):
        train(made, make_optimizer(made, config()), [site("a")], config(), BFLOAT16, range(2), 8)


@pytest.mark.parametrize(
    ("device", "size", "refused"),
    [
        (BFLOAT16, 16, True),
        (BFLOAT16, 17, False),
        (CPU, 16, False),
    ],
)
def test_images_that_bfloat16_gets_wrong_are_refused_before_the_first_step(
    device: Device, size: int, refused: bool
) -> None:
    """At 16 pixels a convolution with a stride meets maps of one pixel in ResNet-18."""
    settings = config(backbone="torchvision:resnet18", width=1.0, image_size=size)
    made = build_network(settings, ["a"])
    optimizer = make_optimizer(made, settings)
    before = state(made)
    if not refused:
        train(made, optimizer, [site("a")], settings, device, range(1), 1)
        return
    with pytest.raises(ConfigError, match=r"Set image-size = 17 or more, or precision = 'float32'"):
        train(made, optimizer, [site("a")], settings, device, range(1), 1)
    assert same(before, state(made))


def test_each_site_changes_its_images_by_the_step() -> None:
    """The network meets what became of them, and each site's by its own change."""
    met: list[Batch] = []

    def look(batch: Batch) -> torch.Tensor:
        met.append(batch)
        return batch.images.new_zeros(())

    values, places = config(), [site("a"), site("b")]
    changing = replace(places[1], change=lambda images, step: images * step - 1)
    for chosen in (places, [places[0], changing]):
        made = network("a", "b")
        terms = [Term.constant("look", look)]
        training.train(
            made, make_optimizer(made, values), chosen, values, range(2, 3), 8, terms=terms
        )
    plain, found = (batch.images for batch in met)
    assert torch.equal(found[:8], plain[:8])
    torch.testing.assert_close(found[8:], plain[8:] * 2 - 1)
    assert not torch.equal(met[0].output.logits, met[1].output.logits)
