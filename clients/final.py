"""A site's last answers: the figures of the final and of the chosen weights, and its own files."""

from collections.abc import Mapping

from clients.round import receive
from clients.site import OpenSite, note
from common.exchange.fingerprint import code_fingerprint
from common.exchange.messages import RoundOrder, SiteReply
from common.files import write_atomic
from common.learning.evaluation import Predictions, evaluate_site
from common.models.network import Network
from common.models.sharing import load_private, private_state, unpack
from common.runs.result import subset_figures
from common.runs.tables import write_predictions
from common.runs.weights import Which, save_private, save_shared, weights_name


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
    network = site.network()
    store = site.store(network)
    which: Which = "best" if order.purpose == "best" else "final"
    if which == "best":
        unpack(network, order.shared)
        load_private(network, store.load_evaluated(order.round))
    else:
        receive(site, order, network, store)
    figures, predictions = evaluate_site(
        network, site.training, site.split, site.config, site.device
    )
    _write_files(site, network, predictions, which)
    if which == "final":
        if "validation" in predictions:
            store.save_evaluated(order.round, private_state(network), order.best)
        if order.previous:
            store.settle(order.previous)
    note(site.own, f"run {order.run}: evaluated the {which} weights; sent figures")
    return SiteReply(
        run=order.run,
        round=order.round,
        site=site.name,
        fingerprint=code_fingerprint(),
        metrics=_figures(figures, predictions, site.config.seed),
    )


def _figures(
    figures: Mapping[str, Mapping[str, float]], predictions: Mapping[str, Predictions], seed: int
) -> dict[str, float]:
    return {
        f"{subset}/{name}": float(value)
        for subset, said in predictions.items()
        for name, value in subset_figures(
            said.labels, said.probabilities, seed, figures[subset]
        ).items()
    }


def _write_files(
    site: OpenSite, network: Network, predictions: Mapping[str, Predictions], which: Which
) -> None:
    name = "predictions.csv" if which == "final" else "best-predictions.csv"
    for subset, said in predictions.items():
        files = [site.data.files[index] for index in said.indices]
        write_predictions(
            site.own / name,
            files,
            said.labels,
            said.probabilities,
            site.config.class_names,
            subset,
            [site.data.patients[index] for index in said.indices],
            said.further(),
        )
    private = site.own / weights_name("private", which)
    save_private(private, network, site.name, site.config)
    if site.nodes == 0:
        # The hospital's own copy of the model; a simulation's lies in the run's folder.
        save_shared(site.own / weights_name("shared", which), network, site.config)
        settings = site.config.changed(run_name=site.run, resume=False)
        write_atomic(site.own.parents[1] / "config.toml", settings.to_toml().encode())
