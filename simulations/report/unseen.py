"""How a run fares at a hospital that it was trained without: the study's leave-one-site-out."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.adapt.adapt import adapt_to_site, load_trained, predict_met
from clients.adapt.distance import Distances
from clients.adapt.reliability import Reliability, judge_trust, trained_predictions
from common.config.schema import Config
from common.data.cache import SiteData
from common.device import Device, limited_threads
from common.learning.local_site import LocalSite
from common.tasks.figures import measure


@dataclass(frozen=True)
class Unseen:
    """How a trained network fares at a site that it was not trained at.

    Attributes
    ----------
    indices : ndarray of int64, shape (n,)
        The images classified: the site's test part.
    labels : ndarray of int64, shape (n,)
        Their true classes, read for the figures alone.
    probabilities : dict of str to ndarray of float64, shape (n, classes)
        By adaptation.
    distances : Distances
        Of the site to the trained ones.
    trust : Reliability
        What can be said of it without the labels.
    """

    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    probabilities: dict[str, NDArray[np.float64]]
    distances: Distances
    trust: Reliability


def visit(run: Path, data: SiteData, config: Config, device: Device) -> Unseen:
    """Let a completed run's network meet a held-out site whose labels are known.

    It adapts to the images of the site's training part, without their labels, and classifies the
    images of its test part.

    Parameters
    ----------
    run : Path
        As for :func:`load_trained`.
    data : SiteData
        A site that is none of the run's, decoded with the run's settings.
    config : Config
        Which of the site's images are for what: ``split``, ``folds``, ``fold``. All else is the
        run's.
    device : Device
        Where to compute.

    Raises
    ------
    RunError, CheckpointError, SiteError
        As :func:`load_trained`, :func:`meet` and :func:`common.data.folds.split_site`.
    """
    network, own = load_trained(run)
    local = LocalSite.of(data, config, device)
    site, split = local.training, local.split
    with limited_threads(own):
        met = adapt_to_site(network.to(device.device), site, own, device)
        probabilities = {
            name: predict_met(one, site, split.test, own, device)
            for name, one in met.networks.items()
        }
    trust = judge_trust(probabilities, met.distances, trained_predictions(run, own.site_names))
    return Unseen(split.test, data.labels[split.test], probabilities, met.distances, trust)


def evaluate_unseen(
    run: Path, data: SiteData, config: Config, device: Device
) -> dict[str, dict[str, float]]:
    """Return the figures of :func:`visit` as plain values.

    Parameters, errors
        As for :func:`visit`.

    Returns
    -------
    dict
        Adaptation → what :func:`common.tasks.figures.measure` says; ``"distances"`` → distance by
        trained site; ``"trust"`` → the figures of :class:`~clients.adapt.reliability.Reliability`.
        What is undefined is NaN.
    """
    found = visit(run, data, config, device)
    figures: dict[str, dict[str, float]] = {
        name: measure(found.labels, probabilities)
        for name, probabilities in found.probabilities.items()
    }
    return figures | {"distances": dict(found.distances.to), "trust": found.trust.as_dict()}
