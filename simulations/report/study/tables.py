"""The tables of a study: figures as the paper has them, tests, intervals, expected orders."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from common.formatting import numbers
from common.formatting.tables import Cell, Group, Row, Table
from simulations.report.calibration import BINS
from simulations.report.records import RunRecord
from simulations.report.statistics import ALL_SITES, Difference, Summary, paired_difference
from simulations.report.study.results import SPECIFICITY, Order, StudyResults
from simulations.report.study.significance import Test, auc_intervals, hold_against_reference
from simulations.report.tables import OVER_CLASSES, summary_cell

ONE_POINT = 0.01


def paper_table(results: StudyResults) -> Table:
    """Return the figures of every site by method, as table I of the paper has them."""

    def cells(method: str) -> Iterable[Cell]:
        for site in results.sites:
            for figure in results.figures:
                yield _two_lines(results.cross_validated(method, site, figure.name))
        if len(results.sites) > 1:
            yield _two_lines(results.cross_validated(method, ALL_SITES, "auc"))

    headings = [figure.label for figure in results.figures]
    spans = [("", 1), *((site, len(headings)) for site in results.sites)]
    columns = headings * len(results.sites)
    if len(results.sites) > 1:
        spans, columns = [*spans, ("Mean", 1)], [*columns, "AUC"]
    folds, seeds = len(results.folds), len(results.seeds)
    notes = [
        f"Of each seed the mean over {_many(folds, 'fold')}; then mean ± sample standard deviation "
        f"over {_many(seeds, 'seed')} (n = {seeds})."
        if seeds > 1
        else f"Mean over {_many(folds, 'fold')} of a single seed: there is no deviation over runs.",
        *([] if results.binary else [OVER_CLASSES]),
        *_incomplete(results),
    ]
    return Table(
        "Test figures by method, in percent",
        ("Method", *columns),
        _rows(results, cells),
        (*notes,),
        (*spans,),
    )


def tests_table(results: StudyResults, place: str) -> Table:
    """Return every method's AUC less the reference's, with tests over runs and over images."""
    tests = hold_against_reference(results, place)

    def cells(method: str) -> Iterable[Cell]:
        test = tests.get(method)
        if test is None:
            return [Cell("reference"), *(Cell("") for _ in range(7))]
        return _test_cells(test)

    label = results.label(results.reference)
    reasons = {t.difference.reason for t in tests.values() if t.difference.reason}
    notes = [
        f"AUC less that of {label}, in percentage points; negative: worse. Over runs: pairs of "
        "the same fold and seed, paired t-test with the interval of the mean, and Wilcoxon's "
        f"signed-rank test; Holm: corrected for the {len(tests)} methods held against it. Folds "
        "share training images, so that p is smaller than it should be.",
        *(f"No test where {reason}." for reason in sorted(reasons)),
    ]
    if place != ALL_SITES and results.binary:
        notes.append(
            "Over images: DeLong's interval of the difference on the same test images, mean over "
            "folds and seeds. The networks are taken as they are, and images count as "
            "independent, which slices of one patient are not."
        )
    columns = ("Pairs", "Difference", "t-test", "Holm", "Wilcoxon", "Holm", "Over images", "DeLong")
    return Table(
        f"AUC against {label}: {place}", ("Method", *columns), _rows(results, cells), (*notes,)
    )


def intervals_table(results: StudyResults, site: str) -> Table:
    """Return a site's AUC with intervals over images, calibration and the operating point."""

    def cells(method: str) -> Iterable[Cell]:
        found = auc_intervals(results, method, site)
        return [
            Cell(numbers.count(found.images) if found.images else numbers.NOT_DEFINED),
            Cell(numbers.percent(found.delong.value)),
            Cell(_bounds(found.delong.low, found.delong.high)),
            Cell(_bounds(*found.bootstrap)),
            summary_cell(results.cross_validated(method, site, SPECIFICITY)),
            summary_cell(results.calibration(method, site)),
        ]

    columns = ("Images", "AUC", "DeLong", "Bootstrap", _upper(SPECIFICITY), "Calibration error")
    resamples = (
        f"the percentiles of {numbers.count(1000)} resamples within each class, the same for every "
        "seed. The networks are taken as they are."
    )
    bins = f"{BINS} bins of equal width, over all folds' test images of a seed."
    notes: tuple[str, ...] = (
        "AUC: mean over folds and seeds, with 95 % intervals over the test images: DeLong's, and "
        f"{resamples}",
        "Specificity: at the highest threshold of each fold at which its test images reach the "
        "sensitivity; a property of the ROC curve, since a threshold brought along from elsewhere "
        "would reach another.",
        f"Calibration error: of the probability of the positive class, {bins} Both: mean ± "
        "deviation over seeds.",
    )
    if not results.binary:
        notes = (
            "AUC: mean of one class against the rest, over folds and seeds, with its 95 % interval "
            f"over the test images: {resamples}",
            f"Calibration error: of the probability of the class decided for, {bins} Mean ± "
            "deviation over seeds.",
        )
    return Table(
        f"Intervals and calibration: {site}", ("Method", *columns), _rows(results, cells), notes
    )


def orders_table(results: StudyResults) -> Table | None:
    """Return what order of methods was expected and what came out; None where none was."""
    if not results.orders:
        return None
    rows = [
        Row(_expectation(results, order), (*_verdict(results, order),)) for order in results.orders
    ]
    return Table(
        "Expected orders, line by line",
        ("Expected", *results.places, "p", "Appears"),
        (Group("", tuple(rows)),),
        (
            "AUC of the second less the first named method, in percentage points, mean over pairs "
            "of runs. p: paired t-test of the last of these columns, not corrected. A difference "
            "whose p is 0.05 or more is called open: so many runs cannot tell it from chance.",
        ),
    )


def costs_table(results: StudyResults) -> Table:
    """Return what the cells of each method took."""

    def cells(method: str) -> Iterable[Cell]:
        seconds = [s for (name, _, _), s in results.seconds.items() if name == method]
        most = max((m for (name, _, _), m in results.memory.items() if name == method), default=0.0)
        done = [run for (name, _, _), run in results.records.items() if name == method]
        return [
            Cell(str(len(done))),
            Cell(numbers.duration(sum(seconds) / len(seconds) if seconds else math.nan)),
            Cell(numbers.size(most) if most else numbers.NOT_DEFINED),
            Cell(_images(done)),
            Cell(_exchanged(done)),
        ]

    columns = ("Cells", "Time of one", "Memory at most", "Images seen by each site", "Exchanged")
    return Table(
        "What the cells took",
        ("Method", *columns),
        _rows(results, cells),
        (
            "Time by the clock, start of all processes included, mean over cells that ran through "
            "in one go. Memory of all processes of a cell, pages that they share counted once. "
            "Exchanged: sent and received by all sites in one run.",
        ),
    )


def cells_table(results: StudyResults) -> Table:
    """Return every cell with its folder, so that every figure can be traced."""
    order = {method.name: place for place, method in enumerate(results.methods)}
    found = sorted(results.records.items(), key=lambda item: (order[item[0][0]], item[0][1:]))
    rows = [
        Row(
            run.path.name,
            (
                Cell(results.label(method)),
                Cell(str(fold)),
                Cell(str(seed)),
                *(Cell(numbers.percent(run.figure(site, "auc"))) for site in results.sites),
                Cell("done"),
            ),
            run.mode,
        )
        for (method, fold, seed), run in found
    ]
    blank = [Cell("")] * (3 + len(results.sites))
    rows += [
        Row(name, (*blank, Cell(f"failed: {why}" if why else "not done")))
        for name, why in results.missing.items()
    ]
    columns = ("Method", "Fold", "Seed", *(f"AUC {site}" for site in results.sites), "State")
    return Table("Every cell", ("Folder", *columns), (Group("", tuple(rows)),))


def _rows(results: StudyResults, cells: Callable[[str], Iterable[Cell]]) -> tuple[Group, ...]:
    """Return a row for each method, those without an exchange apart from the federated ones."""
    groups = []
    for heading, federated in (("Without an exchange", False), ("Federated", True)):
        rows = [
            Row(method.label, tuple(cells(method.name)), method.mode)
            for method in results.methods
            if (method.mode == "federated") == federated
        ]
        if rows:
            groups.append(Group(heading, tuple(rows)))
    return tuple(groups)


def _two_lines(summary: Summary) -> Cell:
    """Write the mean, and below it its deviation: eleven columns of them fit a page."""
    deviation = f"± {numbers.percent(summary.sd)}" if summary.n > 1 else ""
    return Cell(numbers.percent(summary.mean), deviation)


def _test_cells(test: Test) -> list[Cell]:
    difference = test.difference
    return [
        Cell(str(difference.n)),
        Cell(numbers.points(difference.mean), numbers.interval(difference.low, difference.high)),
        Cell(_p(difference.p)),
        Cell(_p(test.t_holm)),
        Cell(_p(test.wilcoxon)),
        Cell(_p(test.wilcoxon_holm)),
        Cell(
            numbers.points(test.images.value), numbers.interval(test.images.low, test.images.high)
        ),
        Cell(_p(test.images.p)),
    ]


def _expectation(results: StudyResults, order: Order) -> str:
    lower, upper = results.label(order.lower), results.label(order.upper)
    return f"{upper} within one point of {lower}" if order.level else f"{upper} above {lower}"


def _verdict(results: StudyResults, order: Order) -> list[Cell]:
    found = [_difference(results, order, place) for place in results.places]
    cells = [Cell(numbers.points(difference.mean)) for difference in found]
    last = found[-1]
    return [*cells, Cell(_p(last.p)), Cell(_answer(order, found))]


def _difference(results: StudyResults, order: Order, place: str) -> Difference:
    return paired_difference(
        results.values(order.upper, place, "auc"), results.values(order.lower, place, "auc")
    )


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


def _incomplete(results: StudyResults) -> list[str]:
    if not results.missing:
        return []
    return [
        f"Cells that are missing: {len(results.missing)}. A seed counts where all its folds are "
        f"there; {numbers.NOT_DEFINED}: there is none."
    ]


def _images(runs: Sequence[RunRecord]) -> str:
    return numbers.span(
        int(count) for run in runs for count in run.result.get("images_seen", {}).values()
    )


def _exchanged(runs: Sequence[RunRecord]) -> str:
    told: list[Mapping[str, int]] = [run.result.get("bytes", {}) for run in runs]
    totals = [one.get("down", 0) + one.get("up", 0) for one in told]
    return numbers.size(sum(totals) / len(totals)) if any(totals) else "nothing"


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
