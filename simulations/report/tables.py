"""The tables of figures: by site and mode, as the paper has them, differences, tests, orders."""

import math
from collections.abc import Callable, Iterable, Sequence

from common.formatting import numbers
from common.formatting.tables import Group, Row, Table, plain_table
from common.methods.method import Variant
from simulations.report.calibration import BINS
from simulations.report.results import SPECIFICITY, StudyResults
from simulations.report.significance import Test, auc_intervals, hold_against_reference
from simulations.report.statistics import ALL_SITES, Difference, Summary, paired_difference
from simulations.study.plan import Order

ONE_POINT = 0.01
OVER_CLASSES = (
    "There are more than two classes and none is the positive one. F1, sensitivity and precision: "
    "mean over the classes, each counting the same; AUC: mean of one class against the rest."
)


def summary_cell(summary: Summary) -> str:
    """Write ``mean ± sd`` of several runs, or a single run's value, its interval below it."""
    mean = numbers.percent(summary.mean)
    if summary.n > 1:
        return f"{mean} ± {numbers.percent(summary.sd)}"
    if not math.isfinite(summary.low):
        return mean
    return f"{mean}\n[{numbers.percent(summary.low)}, {numbers.percent(summary.high)}]"


def metrics_table(results: StudyResults) -> Table:
    """Return the figures by site and mode."""
    counts: set[int] = set()

    def cells(place: str, method: Variant) -> Iterable[str]:
        found = [results.summary(method.name, place, figure.name) for figure in results.figures]
        counts.update(summary.n for summary in found)
        return str(max(summary.n for summary in found)), *map(summary_cell, found)

    groups = _by_place(results, results.plan.methods, cells)
    return Table(
        "Test figures by site and mode, in percent",
        ("Site and mode", "Runs", *(figure.label for figure in results.figures)),
        groups,
        _metrics_notes(results, counts),
    )


def _metrics_notes(results: StudyResults, counts: set[int]) -> tuple[str, ...]:
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
    return tuple(notes)


def differences_table(results: StudyResults) -> Table | None:
    """Return how every mode differs from the reference; None if that was not run."""
    if not results.others:
        return None
    found: list[Difference] = []

    def cells(place: str, method: Variant) -> Iterable[str]:
        own = [results.difference(method.name, place, one.name) for one in results.figures]
        found.extend(own)
        return str(max(difference.n for difference in own)), *map(_difference_cell, own)

    groups = _by_place(results, results.others, cells)
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
        tuple(notes),
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
    spans = [("", 1), *((site, len(headings)) for site in results.sites)]
    columns = headings * len(results.sites)
    if len(results.sites) > 1:
        spans, columns = [*spans, ("Mean", 1)], [*columns, "AUC"]
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
    return Table(
        "Test figures by method, in percent",
        ("Method", *columns),
        rows_by_method(results, cells),
        (*notes,),
        (*spans,),
    )


def tests_table(results: StudyResults, place: str) -> Table:
    """Return every method's AUC less the reference's, with tests over runs and over images."""
    tests = hold_against_reference(results, place)

    def cells(method: str) -> Iterable[str]:
        test = tests.get(method)
        return ["reference", *[""] * 7] if test is None else _test_cells(test)

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
    return Table(
        f"AUC against {label}: {place}",
        ("Method", *columns),
        rows_by_method(results, cells),
        (*notes,),
    )


def intervals_table(results: StudyResults, site: str) -> Table:
    """Return a site's AUC with intervals over images, calibration and the operating point."""

    def cells(method: str) -> Iterable[str]:
        found = auc_intervals(results, method, site)
        return [
            numbers.count(found.images) if found.images else numbers.NOT_DEFINED,
            numbers.percent(found.delong.value),
            _bounds(found.delong.low, found.delong.high),
            _bounds(*found.bootstrap),
            summary_cell(results.summary(method, site, SPECIFICITY)),
            summary_cell(results.calibration(method, site)),
        ]

    columns = ("Images", "AUC", "DeLong", "Bootstrap", _upper(SPECIFICITY), "Calibration error")
    return Table(
        f"Intervals and calibration: {site}",
        ("Method", *columns),
        rows_by_method(results, cells),
        _intervals_notes(results.binary),
    )


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
    return plain_table(
        "Expected orders, line by line",
        ("Expected", *results.places, "p", "Appears"),
        [
            (_expectation(results, order), *_verdict(results, order))
            for order in results.plan.orders
        ],
        (
            "AUC of the second less the first named method, in percentage points, mean over pairs "
            "of runs. p: paired t-test of the last of these columns, not corrected. A difference "
            "whose p is 0.05 or more is called open: so many runs cannot tell it from chance.",
        ),
    )


def rows_by_method(
    results: StudyResults, cells: Callable[[str], Iterable[str]]
) -> tuple[Group, ...]:
    """Return a row for each method, those without an exchange apart from the federated ones."""
    groups = []
    for heading, federated in (("Without an exchange", False), ("Federated", True)):
        rows = [
            Row(method.label, tuple(cells(method.name)), method.mode)
            for method in results.plan.methods
            if (method.mode == "federated") == federated
        ]
        if rows:
            groups.append(Group(heading, tuple(rows)))
    return tuple(groups)


def _by_place(
    results: StudyResults,
    methods: Sequence[Variant],
    cells: Callable[[str, Variant], Iterable[str]],
) -> tuple[Group, ...]:
    return tuple(
        Group(place, tuple(Row(m.label, tuple(cells(place, m)), m.mode) for m in methods))
        for place in results.places
    )


def _two_lines(summary: Summary) -> str:
    """Write the mean, and below it its deviation: eleven columns of them fit a page."""
    return summary_cell(summary).replace(" ± ", "\n± ")


def _difference_cell(difference: Difference) -> str:
    bounds = numbers.interval(difference.low, difference.high)
    parts = (numbers.points(difference.mean), bounds, numbers.p_value(difference.p))
    return "\n".join(part for part in parts if part)


def _test_cells(test: Test) -> list[str]:
    over_runs, over_images = test.difference, test.images
    return [
        str(over_runs.n),
        f"{numbers.points(over_runs.mean)}\n{numbers.interval(over_runs.low, over_runs.high)}",
        *map(_p, (over_runs.p, test.t_holm, test.wilcoxon, test.wilcoxon_holm)),
        f"{numbers.points(over_images.value)}\n"
        f"{numbers.interval(over_images.low, over_images.high)}",
        _p(over_images.p),
    ]


def _expectation(results: StudyResults, order: Order) -> str:
    lower, upper = results.label(order.lower), results.label(order.upper)
    return f"{upper} within one point of {lower}" if order.level else f"{upper} above {lower}"


def _verdict(results: StudyResults, order: Order) -> list[str]:
    found = [
        paired_difference(
            results.values(order.upper, place, "auc"), results.values(order.lower, place, "auc")
        )
        for place in results.places
    ]
    cells = [numbers.points(difference.mean) for difference in found]
    return [*cells, _p(found[-1].p), _answer(order, found)]


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
    return f"{numbers.percent(low)} to {numbers.percent(high)}"


def _p(value: float) -> str:
    text = numbers.p_value(value).removeprefix("p = ").removeprefix("p ")
    return text or numbers.NOT_DEFINED


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
