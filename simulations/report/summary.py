"""What a report says in sentences: the result, what was compared, what to keep in mind."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from common.config.schema import Config
from common.exchange.codecs.registry import find_codec
from common.formatting import numbers
from common.methods.registry import methods_of
from simulations.report import provenance
from simulations.report.numbers import interval, p_value, percent, points, span
from simulations.report.records import RunRecord
from simulations.report.results import SPECIFICITY, StudyResults
from simulations.report.site_images import told_images
from simulations.report.statistics import ALL_SITES
from simulations.report.tables import summary_cell

BINARY_ALONE = (
    f"DeLong's tests and intervals, the {SPECIFICITY} and the activation inside the lesions are "
    "defined for two classes alone, and left out of this study of more."
)
NAMED = 4
"""So many methods are named where all are meant."""


def lead(results: StudyResults) -> str:
    """Return the result in a sentence or two: the reference, and the best of either kind."""
    if not results.records:
        return "No run is completed yet."
    place = results.places[-1]
    found = {
        method.name: results.summary(method.name, place, "auc") for method in results.plan.methods
    }
    done = {name: summary for name, summary in found.items() if summary.n}
    if results.plan.reference not in done:
        return ""

    def auc(name: str) -> str:
        return f"{summary_cell(done[name]).partition(chr(10))[0]}\u00a0%"

    where = "on the mean of the sites" if place == ALL_SITES else f"at {place}"
    told = [f"{results.label(results.plan.reference)}: AUC {auc(results.plan.reference)} {where}."]
    for federated, kind in ((False, "without an exchange"), (True, "among the federated methods")):
        rivals = [
            method.name
            for method in results.others
            if (method.mode == "federated") == federated and method.name in done
        ]
        if rivals:
            best = max(rivals, key=lambda name: done[name].mean)
            told.append(f"The best other {kind}: {results.label(best)}, {auc(best)}.")
    return " ".join(told)


def cards(results: StudyResults) -> list[tuple[str, str, str, str]]:
    """Return each mode, its label, its AUC and its distance to the reference, over all sites."""
    place = results.places[-1] if results.places else ""
    found = [
        (method, results.summary(method.name, place, "auc")) for method in results.plan.methods
    ]
    return [
        (
            method.mode,
            method.label,
            f"{percent(summary.mean)} %",
            _distance(results, method.name, place),
        )
        for method, summary in found
        if summary.n
    ]


def _distance(results: StudyResults, method: str, place: str) -> str:
    if method == results.plan.reference:
        return "the reference"
    if not results.others:
        return "no pooled training to compare with"
    name = results.label(results.plan.reference).lower()
    difference = results.difference(method, place, "auc")
    if not math.isfinite(difference.mean):
        return f"not compared with {name} training: {difference.reason}"
    amount = points(abs(difference.mean)).removeprefix("+")
    unit = "point" if amount == "1.0" else "points"
    side = "above" if difference.mean > 0 else "below"
    text = f"level with {name}" if amount == "0.0" else f"{amount} {unit} {side} {name}"
    if not math.isfinite(difference.p):
        return f"{text}; no test, since {difference.reason}"
    bounds = interval(difference.low, difference.high)
    p = p_value(difference.p)
    return f"{text}; 95 % interval {bounds}, {p}, {difference.n} pairs of runs"


def facts(results: StudyResults) -> list[tuple[str, str]]:
    """Return what was compared, as (what, answer); of what methods differ in, nothing."""
    labels = [method.label for method in results.plan.methods]
    wanted = len(results.records) + len(results.missing)
    if not results.plan.comparison:
        wanted = len(labels) * len(results.plan.folds) * len(results.plan.seeds)
    told = [
        ("Methods", numbers.listed(labels) if len(labels) <= NAMED else str(len(labels))),
        ("Cells", f"{len(results.records)} done of {wanted} (methods × folds × seeds)"),
    ]
    records = list(results.records.values())
    if not records:
        return told
    config = records[0].config
    configs = [record.config for record in records]
    folds, seeds = (", ".join(map(str, some)) for some in (results.plan.folds, results.plan.seeds))
    few = f"; at most {config.train_images} training images a site" if config.train_images else ""
    balanced = ", as many of every class" if {o.batches for o in configs} == {"balanced"} else ""
    backbones = sorted({one.backbone for one in configs})
    alike = (
        ("Variant", {one.variant for one in configs if one.backbone == "covidnet"}),
        ("Normalisation", {_normalisation(one) for one in configs}),
        (
            "Objective",
            {" + ".join(["cross entropy", *methods_of(one).describe(one)[0]]) for one in configs},
        ),
        ("A round", {_round(one) for one in configs}),
    )
    return [
        *told,
        ("Sites", numbers.listed(results.sites)),
        ("Classes", ", ".join(config.class_names)),
        ("Folds", f"{folds} of {config.folds} (counted from 0), split by {config.split}{few}"),
        ("Seeds", seeds),
        (
            "Network",
            f"{numbers.listed(backbones)}, width {config.width:g}, {config.image_size} pixels",
        ),
        *((what, *answers) for what, answers in alike if len(answers) == 1),
        (
            "Training",
            f"{config.epochs} epochs, {config.batch_size} images of each site a step{balanced}, "
            f"{config.optimizer}, learning rate {config.learning_rate:g} ({config.schedule})",
        ),
        ("Weights", f"{_weights(records)}; nothing was chosen on test images"),
    ]


def _round(config: Config) -> str:
    length = f"{config.local_steps} steps" if config.local_steps else "one epoch"
    share = f"{100 * config.finish_alone:g} %"
    alone = f"; the last {share} of all steps at each site alone" if config.finish_alone else ""
    if config.share == "prototypes":
        return f"{length}, after which prototypes are exchanged and no weights{alone}"
    up, down = find_codec(config.codec), find_codec(config.codec_down)
    text = "" if up.exact else f", after which a site sends {up.about}"
    text += "" if down.exact else f"; the average comes back as {down.about}"
    text += "; Adam's moments are averaged too" if config.averages_moments else ""
    return f"{length}{text}{alone}"


def _normalisation(config: Config) -> str:
    kind = {
        "dsbn": "of each site's own (DSBN)",
        "shared": "shared by all sites",
        "none": "none; convolutions of standardised weights",
    }
    return ", ".join([kind[config.normalisation], *methods_of(config).describe(config)[1]])


def _weights(records: Sequence[RunRecord]) -> str:
    if records[0].weights == "final":
        return "the last step's"
    share = percent(records[0].config.validation_fraction)
    return f"those of the round with the best AUC on the validation images ({share} % of training)"


def leaks(records: Sequence[RunRecord]) -> bool:
    """Whether a patient is, or may be, on both sides of a split."""
    entries = [entry for record in records for entry in record.result.get("leakage", ())]
    return not entries or any(entry["shared_patients"] or entry["unknown"] for entry in entries)


def leakage_sentences(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Say of every site whether patients are on both sides, over all folds that were run."""
    by_site: dict[str, dict[int, Mapping[str, Any]]] = {}
    for record in records:
        for entry in record.result.get("leakage", ()):
            by_site.setdefault(str(entry["site"]), {})[record.config.fold] = entry
    if not by_site:
        return ("No run says yet whether patients are in both training and test.",)
    return tuple(_leakage_sentence(site, folds) for site, folds in by_site.items())


def _leakage_sentence(site: str, folds: Mapping[int, Mapping[str, Any]]) -> str:
    entries = list(folds.values())
    if len(entries) == 1:
        return str(entries[0]["sentence"])
    told = f"{site}: split by {entries[0]['unit']}, "
    patients, unknown = entries[0]["patients"], entries[0]["unknown"]
    if patients:
        told += (
            f"{span(entry['shared_patients'] for entry in entries)} of "
            f"{numbers.count(patients)} patients are in both training and test "
            f"({span(entry['shared_images'] for entry in entries)} test images) "
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


def warnings(results: StudyResults) -> list[str]:
    """Return what keeps the figures from being taken at face value."""
    told = [] if results.binary else [BINARY_ALONE]
    if (images := told_images(list(results.records.values()))) is not None:
        told += images.warnings
    if results.missing:
        count = len(results.missing)
        told.append(
            f"{count} cell{' is' if count == 1 else 's are'} not done; the figures are the others'."
        )
    environments = [run.environment for run in results.records.values()]
    prints = {one.get("code_fingerprint") for one in environments} - {None, ""}
    if len(prints) > 1:
        told.append(
            f"The cells were computed by {len(prints)} versions of the code (see Environment)."
        )
    for text in provenance.unequal_budgets(results):
        told.append(f"The methods saw different numbers of images at {text}.")
    return told
