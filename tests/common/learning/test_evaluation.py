import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.config.load import make_config
from common.data.augment import prepare
from common.data.cache import SiteData
from common.data.folder import CLASS
from common.data.folds import Split
from common.device import Device
from common.errors import RunError
from common.learning.evaluation import estimate_statistics, evaluate_site, predict
from common.learning.local_site import LocalSite, TrainingSite
from common.models.dsbn import DomainBatchNorm
from common.models.network import Network, build_network
from common.randomness import numpy_generator
from common.tasks.figures import measure
from tests.common.small_training import CPU, CPU64, changed, config, network, same, site, state


def modes(made: nn.Module) -> list[bool]:
    return [module.training for module in made.modules()]


def seen(made: Network, name: str, images: Tensor) -> tuple[Tensor, Tensor]:
    output = made(images, [(name, len(images))])
    return output.logits, output.projection


def test_predictions_are_those_of_eval_mode_in_the_order_asked_for() -> None:
    made, place = network("a", "b", dtype=torch.float64, dropout=0.5), site("a", 150, device=CPU64)
    indices = np.array([140, 3, 3, *range(20, 110)])
    probabilities, projections = predict(made, place, indices, config())
    made.eval()
    logits, expected = seen(made, "a", prepare(place.images[indices], 16).double())
    assert probabilities.dtype == projections.dtype == np.float64
    np.testing.assert_allclose(probabilities, logits.softmax(1).detach(), rtol=1e-12)
    np.testing.assert_allclose(projections, expected.detach(), rtol=1e-10, atol=1e-12)


def test_images_are_changed_as_for_no_step() -> None:
    """Before a site predicts, and before its statistics are estimated."""
    made, place = network("a", dtype=torch.float64), site("a", device=CPU64)
    indices = np.arange(4)

    def darker(images: Tensor, step: int | None) -> Tensor:
        assert step is None
        return images - 1

    changing = replace(place, change=darker)
    expected = made.eval()((prepare(place.images[indices], 16) - 1).double(), [("a", 4)])
    _, projections = predict(made, changing, indices, config())
    np.testing.assert_allclose(projections, expected.projection.detach(), rtol=1e-10, atol=1e-12)
    estimate_statistics(made, place, config())
    plain = state(made)
    estimate_statistics(made, changing, config())
    assert any(name.endswith("running_mean") for name in changed(plain, state(made)))


@pytest.mark.parametrize("device", [CPU, Device(torch.device("cpu"), torch.bfloat16)])
def test_evaluation_touches_nothing(device: Device) -> None:
    """What must hold, 8: bit for bit, also of a network left in train mode or half in it."""
    made, place = network("a", "b", dropout=0.5), site("a", device=device)
    for mode in (True, False):
        made.train(mode)
        made.head.train(not mode)
        before, were, drawn = state(made), modes(made), torch.get_rng_state()
        found, projections = predict(made, place, place.train, config())
        evaluate_site(made, divided(place, split(40)), config())
        assert same(before, state(made))
        assert modes(made) == were
        assert torch.equal(drawn, torch.get_rng_state())
        assert found.dtype == np.float64 and projections.dtype == np.float32
    assert all(p.grad is None for p in made.parameters())
    assert torch.is_grad_enabled() and not torch.is_inference(next(made.parameters()))


def test_the_mode_comes_back_after_a_failure_too() -> None:
    made = network("a").train()
    with pytest.raises(RunError, match="it knows a"):
        predict(made, site("z"), np.arange(4), config())
    assert all(modes(made))


def test_each_site_is_judged_by_its_own_normalisation() -> None:
    made, place = network("a", "b"), site("a")
    before, _ = predict(made, place, place.train, config())
    for norm in places(made, "b"):
        assert norm.bias is not None
        nn.init.constant_(norm.bias, 7)
    after, _ = predict(made, place, place.train, config())
    np.testing.assert_array_equal(before, after)


def test_outputs_that_are_not_finite_name_the_site() -> None:
    made = network("a")
    nn.init.constant_(made.get_parameter("head.weight"), math.nan)
    with pytest.raises(RunError, match="images of a are no longer finite"):
        predict(made, site("a"), np.arange(4), config())


def test_no_images_no_predictions() -> None:
    probabilities, projections = predict(network("a"), site("a"), np.arange(0), config())
    assert probabilities.shape == (0, 2) and len(projections) == 0


def split(images: int, validation: int = 5) -> Split:
    parts = np.split(np.arange(images), [images - 15 - validation, images - 15])
    return Split(parts[0], parts[1], parts[2], "image")


def divided(place: TrainingSite, parts: Split) -> LocalSite:
    targets = {name: held.numpy() for name, held in place.targets.items()}
    files = tuple(f"{number}.png" for number in range(len(place.images)))
    data = SiteData(
        place.name,
        Path(place.name),
        ("n", "p"),
        files,
        targets,
        (None,) * len(files),
        (),
        images=place.images.numpy(),
    )
    return LocalSite(**vars(place), data=data, split=parts)


def test_a_site_is_evaluated_on_its_subsets() -> None:
    made, place = network("a"), site("a", 40, balance=0.9)
    predictions = evaluate_site(made, divided(place, split(40)), config())
    assert list(predictions) == ["test", "validation"]
    assert predictions["test"].files == tuple(f"{number}.png" for number in range(25, 40))
    np.testing.assert_array_equal(predictions["test"].labels, place.targets[CLASS][25:])
    expected, _ = predict(made, place, np.arange(25, 40), config())
    np.testing.assert_array_equal(predictions["test"].probabilities, expected)
    assert predictions["test"].figures == measure(place.targets[CLASS][25:].numpy(), expected)
    assert predictions["validation"].figures["images"] == 5
    assert list(evaluate_site(made, divided(place, split(40, 0)), config())) == ["test"]


def places(made: Network, name: str) -> list[nn.BatchNorm2d]:
    return [m.sites[name] for m in made.modules() if isinstance(m, DomainBatchNorm)]


def test_only_the_sites_own_running_statistics_are_re_estimated() -> None:
    made, place = network("a", "b", dropout=0.5), site("a", 150)
    places(made, "a")[1].momentum = 0.3
    made.train()
    for name in ("a", "b"):  # as training leaves them
        seen(made, name, prepare(place.images[:40], 16))
    made.head.eval()
    before, were, drawn = state(made), modes(made), torch.get_rng_state()
    estimate_statistics(made, place, config())
    expected = {
        name
        for name in before
        if ".sites.a." in name and name.endswith(("running_mean", "running_var", "tracked"))
    }
    assert changed(before, state(made)) == expected
    assert modes(made) == were
    assert [norm.momentum for norm in places(made, "a")] == [0.1, 0.3, 0.1]
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(p.grad is None for p in made.parameters())
    again = network("a", "b", dropout=0.5)
    for norm in places(again, "a"):
        nn.init.constant_(norm.running_mean, 9.0)
        norm.num_batches_tracked += 7
    estimate_statistics(again, place, config())
    for tensor in expected:
        assert torch.equal(again.state_dict()[tensor], made.state_dict()[tensor]), tensor


def test_statistics_are_the_mean_over_equal_batches_of_what_each_layer_meets() -> None:
    made, place = network("a", dtype=torch.float64), site("a", 130, device=CPU64)
    estimate_statistics(made, place, config())
    order = numpy_generator(0, "a", "statistics").permutation(place.train)
    first = made.backbone[0]
    means, variances = [], []
    for batch in (order[:44], order[44:87], order[87:]):
        maps = first(prepare(place.images[batch], 16).double())
        means.append(maps.mean((0, 2, 3)))
        variances.append(maps.var((0, 2, 3)))
    norm = places(made, "a")[0]
    torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(0), rtol=1e-9, atol=0)
    torch.testing.assert_close(norm.running_var, torch.stack(variances).mean(0), rtol=1e-9, atol=0)


def test_deeper_layers_are_estimated_behind_normalised_ones() -> None:
    # Of one batch the estimate is that batch's, so eval mode then gives what train mode gives,
    # but for the unbiased variance: n/(n - 1) with n values behind a channel.
    made, place = network("a", dtype=torch.float64), site("a", 60, device=CPU64)
    estimate_statistics(made, place, config())
    images = prepare(place.images, 16).double()
    values = {16 * 16 * 60 // 4: places(made, "a")[:2], 60: places(made, "a")[2:]}
    for count, norms in values.items():
        for norm in norms:
            assert norm.running_var is not None
            norm.running_var *= (count - 1) / count
    logits, projection = seen(made.eval(), "a", images)
    for got, wanted in zip((logits, projection), seen(made.train(), "a", images), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)


def test_no_more_images_than_asked_for_and_never_a_single_one() -> None:
    few, place = network("a"), site("a", 40)
    estimate_statistics(few, place, config(statistics_images=10))
    more = network("a")
    estimate_statistics(more, place, config())
    assert not same(state(few), state(more))
    order = numpy_generator(0, "a", "statistics").permutation(place.train)
    ten = TrainingSite("a", place.images, place.targets, order[:10], CPU)
    alike = network("a")
    estimate_statistics(alike, ten, config())
    for key, tensor in state(few).items():
        torch.testing.assert_close(alike.state_dict()[key], tensor, rtol=1e-5, atol=1e-6)
    single = TrainingSite("a", place.images, place.targets, order[:1], CPU)
    before = state(alike)
    estimate_statistics(alike, single, config())
    assert same(before, state(alike))


def test_statistics_that_all_sites_share_stay() -> None:
    values = make_config(
        {"width": 0.125, "image-size": 64, "projection-size": 16, "normalisation": "shared"}
    )
    made = build_network(values, ["a"])
    before = state(made)
    estimate_statistics(made, site("a", 8, size=72), values)
    assert same(before, state(made))


def test_a_site_s_own_branch_gets_its_statistics_too() -> None:
    settings = config(image_size=32, width=0.05, projection_hidden=64, auxiliary=True)
    made = build_network(settings, ["a", "b"])
    estimate_statistics(made, site("a", size=36), settings)
    means = {n: t for n, t in made.named_buffers() if "auxiliary" in n and "running_mean" in n}
    assert len(means) == 4
    for name, mean in means.items():
        assert bool(mean.any()) == (".sites.a." in name)
