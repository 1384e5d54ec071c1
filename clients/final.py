"""A site's last answers: the figures of the final and of the chosen weights, and its own files."""

from collections.abc import Mapping
from dataclasses import replace

from clients.round import (
    behind_figures,
    evaluate_sites,
    fill,
    flatten,
    is_own,
    receive,
    what_methods_see,
    with_changed_images,
)
from clients.site import OpenSite, SiteImages, note
from clients.store import PrivateState
from common.exchange.fingerprint import code_fingerprint
from common.exchange.messages import RoundOrder, SiteReply
from common.files import write_atomic
from common.learning.evaluation import Predictions
from common.methods.registry import methods_of
from common.models.network import Network
from common.runs.predictions import write_predictions
from common.runs.weights import Which, save_private, save_shared, weights_name
from common.tasks.figures import AUC_BOUNDS, auc_interval


def evaluate_last(site: OpenSite, order: RoundOrder) -> SiteReply:
    """Evaluate the weights of an order at the site; write its predictions and normalisation.

    Parameters
    ----------
    site : OpenSite
        The site.
    order : RoundOrder
        Of purpose ``"final"`` or ``"best"``.

    Returns
    -------
    SiteReply
        The figures; the predictions stay.

    Raises
    ------
    StoreError
        If the private state that belongs to the weights is not there.
    """
    site = with_changed_images(site, order.parts)
    network = site.network()
    store = site.store()
    which: Which = "best" if order.purpose == "best" else "final"
    state: PrivateState | None
    if which == "best":
        state = store.load_evaluated(order.round)
        fill(network, order.shared, state)
    else:
        _, state = receive(site, order, network, store)
    local = what_methods_see(site, order, network, state)
    evaluated = methods_of(site.config).evaluated(local)
    predictions = evaluate_sites(site, evaluated)
    told: dict[str, dict[str, Predictions]] = {}
    for one in site.sites:
        _write_files(site, one, evaluated, predictions[one.name], which)
        # Simulated sites have the one in the run's folder; this one is a site's own.
        if site.nodes == 0 or is_own(evaluated, local):
            save_shared(one.own / weights_name("shared", which), evaluated, site.config)
        told[one.name] = {}
        for subset, said in predictions[one.name].items():
            interval = auc_interval(said.labels, said.probabilities, site.config.seed)
            bounds = dict(zip(AUC_BOUNDS, interval, strict=True))
            told[one.name][subset] = replace(said, figures={**said.figures, **bounds})
    if which == "final":
        kept = behind_figures(evaluated, local)
        if any("validation" in found for found in predictions.values()):
            store.save_evaluated(order.round, kept, order.best)
        if order.previous:
            store.settle(order.previous, kept.memory)
    note(site.own, f"run {order.run}: evaluated the {which} weights; sent figures")
    return SiteReply(
        run=order.run,
        round=order.round,
        site=site.name,
        fingerprint=code_fingerprint(),
        metrics=flatten(site, told),
    )


def _write_files(
    site: OpenSite,
    one: SiteImages,
    network: Network,
    predictions: Mapping[str, Predictions],
    which: Which,
) -> None:
    name = "predictions.csv" if which == "final" else "best-predictions.csv"
    write_predictions(one.own / name, predictions)
    private = one.own / weights_name("private", which)
    save_private(private, network, one.name, site.config, one.data.scale)
    if site.nodes == 0:
        settings = site.config.changed(run_name=site.run, resume=False)
        write_atomic(site.own.parents[1] / "config.toml", settings.to_toml().encode())
