"""The tables of figures: by site and mode, as the paper has them, differences, tests, orders."""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import TypeVar

from common.formatting import numbers
from common.formatting.tables import Group, Row, Table, plain_table
from common.methods.method import Variant
from simulations.report.calibration import BINS
from simulations.report.numbers import interval, p_value, percent, points
from simulations.report.results import SPECIFICITY, StudyResults
from simulations.report.significance import auc_intervals, hold_against_reference
from simulations.report.statistics import ALL_SITES, Difference, Summary, paired_difference
from simulations.study.plan import Order

ONE_POINT = 0.01
OVER_CLASSES = (
    "There are more than two classes and none is the positive one. F1, sensitivity and precision: "
    "mean over the classes, each counting the same; AUC: mean of one class against the rest."
)


Found = TypeVar("Found", Summary, Difference)


def summary_cell(summary: Summary) -> str:
    """Write ``mean ± sd`` of several runs, or a single run's value, its interval below it."""
    mean = percent(summary.mean)
    if summary.n > 1:
        return f"{mean} ± {percent(summary.sd)}"
    if not math.isfinite(summary.low):
        return mean
    return f"{mean}\n[{percent(summary.low)}, {percent(summary.high)}]"


def metrics_table(results: StudyResults) -> Table:
    """Return the figures by site and mode."""
    groups, found = _by_place(results, results.plan.methods, results.summary, summary_cell)
    return Table(
        "Test figures by site and mode, in percent",
        ("Site and mode", "Runs", *(figure.label for figure in results.figures)),
        groups,
        _metrics_notes(results, {summary.n for summary in found}),
    )


def _metrics_notes(results: StudyResults, counts: set[int]) -> list[str]:
    notes = [] if results.binary else [OVER_CLASSES]
    if max(counts, default=0) > 1:
        notes.append(
            "Mean ± sample standard deviation over the runs (folds and seeds). The deviation "
            "holds the spread between folds and between seeds, not the uncertainty of one fold's "
            "images."
        )
    if 1 in counts:
        notes.append(
            "Of a single run: its value, and for the AUC a 95 % bootstrap interval over the test "
            "images (1,000 resamples within each class)."
        )
    if 0 in counts:
        notes.append(f"{numbers.NOT_DEFINED}: no completed run, or undefined in all of them.")
    return notes


def differences_table(results: StudyResults) -> Table | None:
    """Return how every mode differs from the reference; None if that was not run."""
    if not results.others:
        return None
    groups, found = _by_place(results, results.others, results.difference, _difference_cell)
    name = results.label(results.plan.reference).lower()
    notes = [
        f"Negative: worse than {name} training. A pair is one fold and seed run in both modes."
    ]
    if any(math.isfinite(difference.p) for difference in found):
        notes.append(
            "Below: 95 % interval of the mean difference and two-sided p of a paired t-test. "
            "Folds share training images and p is not corrected for the number of comparisons, "
            "so it is smaller than it should be; read a single p near 0.05 as no evidence."
        )
    notes += [f"No test where {reason}." for reason in _reasons(found)]
    return Table(
        f"Difference to {name} training, in percentage points",
        ("Site and mode", "Pairs", *(figure.label for figure in results.figures)),
        groups,
        notes,
    )


def paper_table(results: StudyResults) -> Table:
    """Return the figures of every site by method, as table I of the paper has them."""

    def cells(method: str) -> Iterable[str]:
        for site in results.sites:
            for figure in results.figures:
                yield _two_lines(results.summary(method, site, figure.name))
        if len(results.sites) > 1:
            yield _two_lines(results.summary(method, ALL_SITES, "auc"))

    headings = [figure.label for figure in results.figures]
    mean = [("Mean", 1)] if len(results.sites) > 1 else []
    spans = [("", 1), *((site, len(headings)) for site in results.sites), *mean]
    columns = headings * len(results.sites) + ["AUC"] * len(mean)
    folds, seeds = len(results.plan.folds), len(results.plan.seeds)
    notes = [
        f"Of each seed the mean over {_many(folds, 'fold')}; then mean ± sample standard deviation "
        f"over {_many(seeds, 'seed')} (n = {seeds})."
        if seeds > 1
        else f"Mean over {_many(folds, 'fold')} of a single seed: there is no deviation over runs.",
        *([] if results.binary else [OVER_CLASSES]),
    ]
    if results.missing:
        notes.append(
            f"Cells that are missing: {len(results.missing)}. A seed counts where all its folds "
            f"are there; {numbers.NOT_DEFINED}: there is none."
        )
    return table_by_method(
        "Test figures by method, in percent", results, columns, cells, notes, spans
    )


def tests_table(results: StudyResults, place: str) -> Table:
    """Return every method's AUC less the reference's, with tests over runs and over images."""
    tests = hold_against_reference(results, place)

    def cells(method: str) -> Iterable[str]:
        test = tests.get(method)
        if test is None:
            return ["reference", *[""] * 7]
        runs, images = test.difference, test.images
        return [
            str(runs.n),
            f"{points(runs.mean)}\n{interval(runs.low, runs.high)}",
            *map(_p, (runs.p, test.t_holm, test.wilcoxon, test.wilcoxon_holm)),
            f"{points(images.value)}\n{interval(images.low, images.high)}",
            _p(images.p),
        ]

    label = results.label(results.plan.reference)
    notes = [
        f"AUC less that of {label}, in percentage points; negative: worse. Over runs: pairs of "
        "the same fold and seed, paired t-test with the interval of the mean, and Wilcoxon's "
        f"signed-rank test; Holm: corrected for the {len(tests)} methods held against it. Folds "
        "share training images, so that p is smaller than it should be.",
        *(
            f"No test where {reason}."
            for reason in _reasons(test.difference for test in tests.values())
        ),
    ]
    if place != ALL_SITES and results.binary:
        notes.append(
            "Over images: DeLong's interval of the difference on the same test images, mean over "
            "folds and seeds. The networks are taken as they are, and images count as "
            "independent, which slices of one patient are not."
        )
    columns = ("Pairs", "Difference", "t-test", "Holm", "Wilcoxon", "Holm", "Over images", "DeLong")
    return table_by_method(f"AUC against {label}: {place}", results, columns, cells, notes)


def intervals_table(results: StudyResults, site: str) -> Table:
    """Return a site's AUC with intervals over images, calibration and the operating point."""

    def cells(method: str) -> Iterable[str]:
        found = auc_intervals(results, method, site)
        return [
            numbers.count(found.images) if found.images else numbers.NOT_DEFINED,
            percent(found.delong.value),
            _bounds(found.delong.low, found.delong.high),
            _bounds(*found.bootstrap),
            summary_cell(results.summary(method, site, SPECIFICITY)),
            summary_cell(results.calibration(method, site)),
        ]

    specificity = SPECIFICITY[:1].upper() + SPECIFICITY[1:]
    columns = ("Images", "AUC", "DeLong", "Bootstrap", specificity, "Calibration error")
    notes = _intervals_notes(results.binary)
    return table_by_method(f"Intervals and calibration: {site}", results, columns, cells, notes)


def _intervals_notes(binary: bool) -> tuple[str, ...]:
    resamples = (
        f"the percentiles of {numbers.count(1000)} resamples within each class, the same for every "
        "seed. The networks are taken as they are."
    )
    bins = f"{BINS} bins of equal width, over all folds' test images of a seed."
    if not binary:
        return (
            "AUC: mean of one class against the rest, over folds and seeds, with its 95 % interval "
            f"over the test images: {resamples}",
            f"Calibration error: of the probability of the class decided for, {bins} Mean ± "
            "deviation over seeds.",
        )
    return (
        "AUC: mean over folds and seeds, with 95 % intervals over the test images: DeLong's, and "
        f"{resamples}",
        "Specificity: at the highest threshold of each fold at which its test images reach the "
        "sensitivity; a property of the ROC curve, since a threshold brought along from elsewhere "
        "would reach another.",
        f"Calibration error: of the probability of the positive class, {bins} Both: mean ± "
        "deviation over seeds.",
    )


def orders_table(results: StudyResults) -> Table | None:
    """Return what order of methods was expected and what came out; None where none was."""
    if not (results.plan.orders and results.records):
        return None
    rows = []
    for order in results.plan.orders:
        lower, upper = results.label(order.lower), results.label(order.upper)
        found = [
            paired_difference(
                results.values(order.upper, place, "auc"), results.values(order.lower, place, "auc")
            )
            for place in results.places
        ]
        rows.append(
            (
                f"{upper} within one point of {lower}" if order.level else f"{upper} above {lower}",
                *(points(difference.mean) for difference in found),
                _p(found[-1].p),
                _answer(order, found),
            )
        )
    return plain_table(
        "Expected orders, line by line",
        ("Expected", *results.places, "p", "Appears"),
        rows,
        (
            "AUC of the second less the first named method, in percentage points, mean over pairs "
            "of runs. p: paired t-test of the last of these columns, not corrected. A difference "
            "whose p is 0.05 or more is called open: so many runs cannot tell it from chance.",
        ),
    )


def grouped(rows: Iterable[tuple[str, Row]]) -> list[Group]:
    """Put rows under their headings, which stand in the order in which they first occur."""
    held: dict[str, list[Row]] = {}
    for heading, row in rows:
        held.setdefault(heading, []).append(row)
    return [Group(heading, rows) for heading, rows in held.items()]


def table_by_method(
    caption: str,
    results: StudyResults,
    columns: Sequence[str],
    cells: Callable[[str], Iterable[str]],
    notes: Sequence[str],
    spans: Sequence[tuple[str, int]] = (),
) -> Table:
    """Return a row for each method, those without an exchange apart from the federated ones."""
    groups = grouped(
        (heading, Row(method.label, list(cells(method.name)), method.mode))
        for heading, federated in (("Without an exchange", False), ("Federated", True))
        for method in results.plan.methods
        if (method.mode == "federated") == federated
    )
    return Table(caption, ("Method", *columns), groups, notes, spans)


def _by_place(
    results: StudyResults,
    methods: Sequence[Variant],
    find: Callable[[str, str, str], Found],
    write: Callable[[Found], str],
) -> tuple[list[Group], list[Found]]:
    """Return by place a row for each method, of what is found of every figure, and all that."""
    rows, everything = [], list[Found]()
    for place, method in product(results.places, methods):
        found: list[Found] = [find(method.name, place, one.name) for one in results.figures]
        count = str(max(one.n for one in found))
        rows.append((place, Row(method.label, [count, *map(write, found)], method.mode)))
        everything += found
    return grouped(rows), everything


def _two_lines(summary: Summary) -> str:
    """Write the mean, and below it its deviation: eleven columns of them fit a page."""
    return summary_cell(summary).replace(" ± ", "\n± ")


def _difference_cell(difference: Difference) -> str:
    bounds = interval(difference.low, difference.high)
    parts = (points(difference.mean), bounds, p_value(difference.p))
    return "\n".join(part for part in parts if part)


def _answer(order: Order, found: Sequence[Difference]) -> str:
    """Say in a word whether an order appears; of a level one, whether it does on every site."""
    if not all(math.isfinite(difference.mean) for difference in found):
        return "not run"
    if order.level:
        return "yes" if all(abs(one.mean) <= ONE_POINT for one in found) else "no"
    last = found[-1]
    if math.isfinite(last.p) and last.p < 0.05:
        return "yes" if last.mean > 0 else "no, the reverse"
    return "open, leaning to yes" if last.mean > 0 else "open, leaning to no"


def _reasons(found: Iterable[Difference]) -> list[str]:
    return sorted({difference.reason for difference in found} - {""})


def _bounds(low: float, high: float) -> str:
    if not math.isfinite(low):
        return numbers.NOT_DEFINED
    return f"{percent(low)} to {percent(high)}"


def _p(value: float) -> str:
    text = p_value(value).removeprefix("p = ").removeprefix("p ")
    return text or numbers.NOT_DEFINED


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
