"""FedRDN: statistics and normalisation by NumPy, and what a federation makes of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Message
from numpy.typing import NDArray
from torch import Tensor

from common.config.schema import Config
from common.data.augment import prepare
from common.exchange.messages import RoundOrder
from common.exchange.wire import decode
from common.learning.evaluation import evaluate_site
from common.learning.local_site import LocalSite, TrainingSite, open_site
from common.methods.fedrdn import LEAST, FedRDN, channel_statistics
from common.methods.method import Averaged
from common.models.sharing import Layout
from common.runs.predictions import read_predictions
from common.runs.weights import load_run_network
from tests.common import small_training
from tests.federation.hospitals import federate, run_of, tiny_config

FEDRDN: dict[str, Any] = {"algorithm": "fedrdn", "normalisation": "shared", "alpha": 0.0}
OTHER = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
UNTOLD = np.zeros((2, 3))


def config(**values: Any) -> Config:
    return small_training.config(**FEDRDN, **values)


def place() -> TrainingSite:
    """A site of 70 images, more than a batch, of which 66 are for training."""
    whole = small_training.site("a", images=70, size=16)
    return replace(whole, train=np.arange(4, 70))


def by_numpy(site: TrainingSite) -> NDArray[np.float64]:
    """Return what the site tells, where its images have the network's size."""
    inputs = (site.images.numpy()[site.train] / 255 - 0.5) / 0.25
    of_image = np.stack([inputs.mean(axis=(1, 2)), inputs.std(axis=(1, 2))])
    return np.broadcast_to(of_image.mean(axis=1), (2, 3))


def test_a_site_s_statistics_are_means_over_its_training_images() -> None:
    site = place()
    found = channel_statistics(site, config())
    np.testing.assert_allclose(found, by_numpy(site), rtol=1e-6)
    # Not the deviation of all pixels together, which the bright halves of some images widen.
    assert found[1, 0] < ((site.images.numpy()[site.train] / 255 - 0.5) / 0.25).std() * 0.999


def test_channels_of_colours_are_told_apart_and_blank_images_have_a_deviation() -> None:
    colours = torch.tensor([0, 51, 255], dtype=torch.uint8).expand(5, 16, 16, 3)
    found = channel_statistics(replace(place(), images=colours, train=np.arange(5)), config())
    np.testing.assert_allclose(found, [[-2.0, -1.2, 2.0], [LEAST] * 3], rtol=1e-6)


def images_of(site: TrainingSite) -> Tensor:
    return prepare(site.images[:40], 16)


def test_evaluation_normalises_by_the_site_s_own() -> None:
    site = place()
    change = FedRDN().images(config(), site, {"statistics": np.stack([OTHER, OTHER])})
    mean, deviation = by_numpy(site)[..., None, None]
    expected = (images_of(site).numpy() - mean) / deviation
    np.testing.assert_allclose(change(images_of(site), None).numpy(), expected, atol=1e-5)


def test_a_step_normalises_each_image_by_a_site_drawn_for_it() -> None:
    site = place()
    told = np.stack([by_numpy(site), UNTOLD, OTHER])
    change = FedRDN().images(config(), site, {"statistics": told})
    images = images_of(site)
    candidates = [
        (images.numpy() - mean[:, None, None]) / deviation[:, None, None]
        for mean, deviation in (told[0], told[2])
    ]

    def drawn(step: int) -> list[int]:
        found = change(images, step).numpy()
        near = [np.abs(found - one).max(axis=(1, 2, 3)) < 1e-5 for one in candidates]
        # Each is one or the other; a site that has told nothing is none.
        assert (near[0] ^ near[1]).all()
        return near[1].astype(int).tolist()

    first = drawn(3)
    assert 8 <= sum(first) <= 32
    assert drawn(3) == first != drawn(4)


def test_in_the_first_round_there_are_the_site_s_own_alone() -> None:
    site = place()
    change = FedRDN().images(config(), site, {})
    assert torch.equal(change(images_of(site), 0), change(images_of(site), None))


def test_the_server_keeps_what_each_site_told_last() -> None:
    shared = np.arange(3.0)
    layout = Layout(("weight",), ((3,),), "float64", 3)
    after = Averaged(config(), layout, np.ones(3, bool), shared, shared)
    one = {"b": {"statistics": OTHER}}
    result, first = FedRDN().combine(replace(after, replies=one))
    assert result is shared
    np.testing.assert_array_equal(first["statistics"], [UNTOLD, OTHER])
    late = {"a": {"statistics": -OTHER}}
    _, second = FedRDN().combine(replace(after, replies=late, memory=first))
    np.testing.assert_array_equal(second["statistics"], [-OTHER, OTHER])
    np.testing.assert_array_equal(first["statistics"], [UNTOLD, OTHER])


def test_sites_meet_each_other_s_statistics_and_predict_by_their_own(tmp_path: Path) -> None:
    settings = tiny_config(tmp_path, epochs=2, **FEDRDN)
    met: dict[int, NDArray[Any]] = {}

    def watch(question: Message, reply: Message) -> list[Message]:
        if question.metadata.message_type == "train":
            order = decode(RoundOrder, question.content)
            met[order.round] = order.parts.get("fedrdn/statistics", np.empty(0))
        return [reply]

    federate(settings, tamper=watch)
    sites = [LocalSite.of(open_site(settings, name), settings) for name in settings.site_names]
    assert met[1].size == 0
    np.testing.assert_array_equal(met[2], [channel_statistics(one, settings) for one in sites])
    for site in sites:
        network, _ = load_run_network(run_of(settings), site.name)
        own = replace(site, change=FedRDN().images(settings, site, {}))
        said = evaluate_site(network, own, settings)["test"].probabilities
        table = read_predictions(run_of(settings) / "sites" / site.name / "predictions.csv", "test")
        np.testing.assert_allclose(table.probabilities, said, atol=1e-6)
        plain = evaluate_site(network, site, settings)["test"].probabilities
        assert np.abs(plain - said).max() > 1e-4
