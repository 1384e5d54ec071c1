"""What a report says in sentences: the result, what was compared, what to keep in mind."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.config.schema import Config
from common.formatting import numbers
from simulations.report import provenance
from simulations.report.records import LABELS, RunRecord, modes_of, sites_of
from simulations.report.statistics import ALL_SITES, REFERENCE, Comparison


@dataclass(frozen=True)
class Card:
    """One mode's result: its AUC, and how far that is from pooled training."""

    mode: str
    label: str
    value: str
    text: str


@dataclass(frozen=True)
class Headline:
    """The result in short: what the cards show, and the cards."""

    lead: str
    cards: tuple[Card, ...]


def headline(comparison: Comparison) -> Headline:
    """Return each mode's AUC and its distance to pooled training, over all sites."""
    site = comparison.sites[-1] if comparison.sites else ""
    cards = tuple(
        Card(mode, LABELS[mode], f"{numbers.percent(summary.mean)} %", _distance(comparison, key))
        for mode in comparison.modes
        for key in [(site, mode, "auc")]
        for summary in [comparison.summaries[key]]
        if summary.n
    )
    where = f"mean of {len(comparison.sites) - 1} sites" if site == ALL_SITES else site
    runs = {comparison.summaries[site, card.mode, "auc"].n for card in cards}
    told = numbers.listed([str(count) for count in sorted(runs)])
    noun = "run" if runs == {1} else "runs"
    return Headline(f"AUC on the test images, {where}, {told} {noun} of each mode.", cards)


def _distance(comparison: Comparison, key: tuple[str, str, str]) -> str:
    difference = comparison.differences.get(key)
    if difference is None:
        return "the reference" if key[1] == REFERENCE else "no pooled training to compare with"
    if not math.isfinite(difference.mean):
        return f"not compared with pooled training: {difference.reason}"
    amount = numbers.points(abs(difference.mean)).removeprefix("+")
    unit = "point" if amount == "1.0" else "points"
    side = "above" if difference.mean > 0 else "below"
    text = "level with pooled" if amount == "0.0" else f"{amount} {unit} {side} pooled"
    if not math.isfinite(difference.p):
        return f"{text}; no test, since {difference.reason}"
    bounds = numbers.interval(difference.low, difference.high)
    p = numbers.p_value(difference.p)
    return f"{text}; 95 % interval {bounds}, {p}, {difference.n} pairs of runs"


def facts(records: Sequence[RunRecord], pending: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return what was compared, as (what, answer)."""
    if not records:
        return [("Runs", f"none of {len(pending)} has begun")]
    config = records[0].config
    folds = sorted({record.config.fold for record in records})
    seeds = sorted({record.config.seed for record in records})
    done = sum(record.completed for record in records)
    rounds = f"{config.local_steps} steps" if config.local_steps else "one epoch"
    network = config.backbone if config.backbone != "covidnet" else f"covidnet ({config.variant})"
    return [
        ("Modes", numbers.listed([LABELS[mode].lower() for mode in modes_of(records)])),
        ("Sites", numbers.listed(sites_of(records))),
        ("Classes", f"{', '.join(config.class_names)}"),
        ("Folds", f"{_list(folds)} of {config.folds} (counted from 0), split by {config.split}"),
        ("Seeds", _list(seeds)),
        ("Runs", f"{done} completed of {len(records) + len(pending)}"),
        (
            "Network",
            f"{network}, width {config.width:g}, {config.image_size} pixels, "
            f"normalisation {_normalisation(config.normalisation)}{_own_modules(config)}",
        ),
        ("Objective", _objective(config)),
        ("Training", training(config)),
        ("A round", f"{rounds}{_EXCHANGED[config.exchange]}"),
        ("Weights", f"{_weights(records)}; nothing was chosen on test images"),
    ]


def training(config: Config) -> str:
    """Return how long and with what was trained."""
    return (
        f"{config.epochs} epochs, {config.batch_size} images of each site a step, "
        f"{config.optimizer}, learning rate {config.learning_rate:g} ({config.schedule})"
    )


_EXCHANGED = {
    "weights": "",
    "half-deltas": ", after which a site sends the change of its weights in half precision",
    "prototypes": ", after which prototypes are exchanged and no weights",
}


def _objective(config: Config) -> str:
    weight = "" if config.alpha == 1 else f"{config.alpha:g} × "
    kind = {"site": "", "average": " with averaged prototypes", "none": " within a site"}
    met, heat = kind[config.prototypes], f"τ\u00a0=\u00a0{config.temperature:g}"
    parts = (
        (config.alpha, f"{weight}contrastive term{met} ({heat})"),
        (config.auxiliary, "the sites' own branches and what they hand on (MS-Net)"),
        (
            config.proximal,
            f"{config.proximal / 2:g} × squared distance from the received weights (FedProx)",
        ),
        (config.model_contrast, f"{config.model_contrast:g} × model-contrastive term (MOON)"),
        (
            config.prototype_pull,
            f"{config.prototype_pull:g} × squared distance from prototypes (FedProto)",
        ),
    )
    return " + ".join(["cross entropy", *(told for there, told in parts if there)])


def _own_modules(config: Config) -> str:
    told = "" if config.adapters == "none" else f", {config.adapters} adapters of each site's own"
    return told + (", a branch of each site's own" if config.auxiliary else "")


def _normalisation(kind: str) -> str:
    return "of each site's own (DSBN)" if kind == "dsbn" else "shared by all sites"


def _weights(records: Sequence[RunRecord]) -> str:
    if records[0].weights == "final":
        return "the last step's"
    share = numbers.percent(records[0].config.validation_fraction)
    return f"those of the round with the best AUC on the validation images ({share} % of training)"


def _list(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def leaks(records: Sequence[RunRecord]) -> bool:
    """Whether a patient is, or may be, on both sides of a split."""
    entries = [entry for record in records for entry in record.result.get("leakage", ())]
    return not entries or any(entry["shared_patients"] or entry["unknown"] for entry in entries)


def leakage_sentences(records: Sequence[RunRecord]) -> list[str]:
    """Say of every site whether patients are on both sides, over all folds that were run."""
    by_site: dict[str, dict[int, Mapping[str, Any]]] = {}
    for record in records:
        for entry in record.result.get("leakage", ()):
            by_site.setdefault(str(entry["site"]), {})[record.config.fold] = entry
    if not by_site:
        return ["No run says yet whether patients are in both training and test."]
    return [_leakage_sentence(site, folds) for site, folds in by_site.items()]


def _leakage_sentence(site: str, folds: Mapping[int, Mapping[str, Any]]) -> str:
    entries = list(folds.values())
    if len(entries) == 1:
        return str(entries[0]["sentence"])
    told = f"{site}: split by {entries[0]['unit']}, "
    patients, unknown = entries[0]["patients"], entries[0]["unknown"]
    if patients:
        told += (
            f"{numbers.span(entry['shared_patients'] for entry in entries)} of "
            f"{numbers.count(patients)} patients are in both training and test "
            f"({numbers.span(entry['shared_images'] for entry in entries)} test images) "
            f"in each of the {len(folds)} folds"
        )
    else:
        told += "no patient ids are known"
    if unknown:
        told += (
            f"; {numbers.count(unknown)} images carry no patient id, so slices of one patient "
            "may be on both sides"
        )
    return f"{told}."


def warnings(records: Sequence[RunRecord], pending: Mapping[str, str]) -> list[str]:
    """Return what keeps the figures from being taken at face value."""
    told = []
    unfinished = [record.name for record in records if not record.completed]
    if unfinished or pending:
        count = len(unfinished) + len(pending)
        told.append(
            f"{count} of {len(records) + len(pending)} runs are not completed; "
            "the figures are those of the others."
        )
    keys = provenance.differing_configs(records)
    if keys:
        told.append(
            f"The runs' configurations differ in {numbers.listed(keys)}: "
            "the modes were not trained alike."
        )
    if len(provenance.fingerprints(records)) > 1:
        told.append("The runs were computed by different versions of the code (see Environment).")
    named = [(LABELS[record.mode].lower(), record) for record in records]
    for text in provenance.unequal_budgets(named):
        told.append(f"The modes saw different numbers of images at {text}.")
    return told
