"""A site that a network was not trained at: what it is given, and that nothing else changes."""

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clients.adapt.adapt import ADAPTATIONS, adapt_to_site, predict_met
from common.data.augment import prepare
from common.data.folder import CLASS
from common.errors import RunError
from common.learning.evaluation import estimate_statistics, predict, site_norms
from common.learning.local_site import TrainingSite
from common.models.adapters import adapt
from common.models.dsbn import DomainBatchNorm
from common.models.network import Network, build_network
from common.models.sharing import private_state, shared_names
from common.randomness import numpy_generator
from tests.common.small_training import CPU64, config, network, normal, same, state
from tests.common.small_training import site as any_site

site = functools.partial(any_site, device=CPU64)


def unlabelled(name: str, like: TrainingSite) -> TrainingSite:
    """A site of the same images without a label: reading one would fail."""
    return dataclasses.replace(like, name=name, targets={CLASS: torch.empty(0)})


def trained(*sites: str, shared: bool = False) -> Network:
    """A network whose sites differ in everything that is a site's own."""
    made = network(*sites, dtype=torch.float64) if not shared else shared_network(*sites)
    for number, tensor in enumerate(made.state_dict().values()):
        if tensor.is_floating_point():
            tensor += 0.2 * torch.from_numpy(np.abs(normal(*tensor.shape, seed=number)))
    return made


def shared_network(*sites: str) -> Network:
    inner = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
    backbone = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), inner, nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    made = Network(backbone, nn.Linear(4, 2), nn.Linear(4, 3), sites, False, "shared")
    return made.double()


def norms(made: Network, name: str) -> list[Any]:
    return [place.sites[name] for place in made.modules() if isinstance(place, DomainBatchNorm)]


def own(made: Network, name: str) -> list[dict[str, Tensor]]:
    return [dict(norm.state_dict()) for norm in norms(made, name)]


def test_nothing_that_was_trained_changes_and_no_label_is_read() -> None:
    made, place = trained("a", "b"), unlabelled("new", site("x", 30))
    before = state(made)
    met = adapt_to_site(made, place, config())
    assert tuple(met.networks) == ADAPTATIONS
    for adapted in met.networks.values():
        predict_met(adapted, place, place.train, config())
        after = state(adapted)
        assert adapted.sites == ("a", "b", "new")
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
        added = after.keys() - before.keys()
        assert added and all(".sites.new." in name for name in added)
    assert same(before, state(made)) and made.sites == ("a", "b")


def test_averages_are_those_of_the_trained_sites() -> None:
    made = trained("a", "b", "c")
    met = adapt_to_site(made, site("new", 30), config())
    for name, only in (("averaged", None), ("re-estimated", ("weight", "bias"))):
        for new, *others in zip(
            own(met.networks[name], "new"), *(own(made, s) for s in "abc"), strict=True
        ):
            for key in only or ("weight", "bias", "running_mean", "running_var"):
                mean = np.mean([other[key].numpy() for other in others], axis=0)
                np.testing.assert_allclose(new[key], mean, rtol=1e-14)


def test_statistics_of_the_first_layer_by_hand() -> None:
    made, place = trained("a", "b"), site("new", 40)
    met = adapt_to_site(made, place, config())
    # 40 images are one batch: mean and unbiased variance over images and places.
    maps = made.backbone[0](prepare(place.images, 16).double()).detach()
    norm = norms(met.networks["re-estimated"], "new")[0]
    torch.testing.assert_close(norm.running_mean, maps.mean((0, 2, 3)), rtol=1e-12, atol=0)
    torch.testing.assert_close(norm.running_var, maps.var((0, 2, 3)), rtol=1e-12, atol=0)


def test_the_images_of_a_trained_site_bring_its_own_statistics_back() -> None:
    made, place = network("a", "b", dtype=torch.float64), site("a", 50)
    for name in ("a", "b"):  # alike in what is averaged, and trained
        for number, norm in enumerate(norms(made, name)):
            norm.weight.data += 0.3 * torch.from_numpy(normal(len(norm.weight), seed=number))
    estimate_statistics(made, place, config())
    estimate_statistics(made, site("b", 60), config())
    met = adapt_to_site(made, unlabelled("new", place), config())
    for new, old in zip(own(met.networks["re-estimated"], "new"), own(made, "a"), strict=True):
        for key in ("running_mean", "running_var"):
            torch.testing.assert_close(new[key], old[key], rtol=1e-9, atol=1e-12)
    assert met.distances.nearest == "a"
    assert met.distances.to["a"] < 1e-9 < 1e-3 < met.distances.to["b"]
    expected, _ = predict(made, place, place.train, config())
    found = predict_met(met.networks["nearest"], unlabelled("new", place), place.train, config())
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    for new, old in zip(own(met.networks["nearest"], "new"), own(made, "a"), strict=True):
        assert all(torch.equal(new[key], old[key]) for key in new)


def test_a_test_batch_is_normalised_by_itself_in_random_batches_alike_in_size() -> None:
    made, place = trained("a", "b"), site("new", 70)
    met = adapt_to_site(made, place, config())
    adapted = met.networks["test-batch"]
    found = predict_met(adapted, place, place.train, config())
    by_train_mode = adapt_to_site(made, place, config()).networks["averaged"]
    for norm in site_norms(by_train_mode, "new"):
        norm.train()
    order = numpy_generator(0, "new", "test batches").permutation(70)
    assert set(place.targets[CLASS][order[:35]].tolist()) == {0, 1}
    for part in (order[:35], order[35:]):
        images = prepare(place.images[part], 16).double()
        by_train_mode.projection.eval()
        expected = by_train_mode(images, [("new", 35)]).logits.softmax(1).detach()
        np.testing.assert_allclose(found[part], expected, rtol=1e-9)
    # 65 images would leave one alone after a batch of 64, and one has no variance.
    predict_met(adapted, place, place.train[:65], config())


def test_adapters_are_averaged_too() -> None:
    made = network("a", "b", dtype=torch.float64)
    adapt(made.backbone, made.sites, made.routing, "parallel")
    made.double()
    for number, (name, tensor) in enumerate(made.state_dict().items()):
        if ".adapters." in name:
            tensor += torch.from_numpy(normal(*tensor.shape, seed=number))
    met = adapt_to_site(made, site("new", 30), config())
    adapters = {n: t for n, t in met.networks["re-estimated"].state_dict().items() if "adap" in n}
    means = [n for n in adapters if ".sites.new." in n]
    assert means
    for name in means:
        a, b = (adapters[name.replace(".new.", f".{s}.")] for s in "ab")
        torch.testing.assert_close(adapters[name], (a + b) / 2, rtol=1e-14, atol=0)
        assert not torch.equal(a, b)


def test_ms_net_s_branches_come_along_and_no_prediction_reads_them() -> None:
    small = config(image_size=32, width=0.05, auxiliary=True, precision="float64")
    made = build_network(small, ["a", "b"])
    met = adapt_to_site(made, site("new", 20, size=36), small)
    adapted = met.networks["re-estimated"]
    place = site("new", 20, size=36)
    before = predict_met(adapted, place, place.train, small)
    assert adapted.auxiliary is not None
    for tensor in adapted.auxiliary.sites["new"].state_dict().values():
        tensor.zero_()
    np.testing.assert_array_equal(before, predict_met(adapted, place, place.train, small))


def test_shared_normalisation_is_kept_or_re_estimated_in_a_copy() -> None:
    made, place = trained("a", "b", shared=True), unlabelled("new", site("x", 40))
    before = state(made)
    expected, _ = predict(made, dataclasses.replace(site("x", 40), name="a"), place.train, config())
    met = adapt_to_site(made, place, config())
    assert same(before, state(made)) and not private_state(made)
    for name in ("averaged", "nearest"):
        found = predict_met(met.networks[name], place, place.train, config())
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    maps = made.backbone[0](prepare(place.images, 16).double()).detach()
    adapted = met.networks["re-estimated"]
    norm = norms(adapted, "new")[0]
    torch.testing.assert_close(norm.running_mean, maps.mean((0, 2, 3)), rtol=1e-12, atol=0)
    torch.testing.assert_close(norms(adapted, "a")[0].running_mean, made.backbone[1].running_mean)
    assert set(shared_names(adapted)) < set(before)
    assert met.distances.among == {} and not met.distances.is_far


def test_what_cannot_be_met_is_refused() -> None:
    made = trained("a", "b")
    with pytest.raises(RunError, match="modules for site 'a' already"):
        adapt_to_site(made, site("a"), config())
    with pytest.raises(RunError, match="1 images to adapt to; statistics need two"):
        adapt_to_site(made, site("new", 1), config())
