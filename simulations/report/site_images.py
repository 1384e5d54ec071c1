"""The sites' training images side by side: what each site said of its greys before training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from common.data.pictures import BINS, GREYS, WHOLE
from common.formatting import numbers
from common.formatting.tables import Table, plain_table
from simulations.report.page import Section
from simulations.report.pictures import FOLDER, MUTED, drawn, panel, save_figure
from simulations.report.records import RunRecord
from simulations.report.results import StudyResults

BIN = GREYS // BINS


class Told(NamedTuple):
    """What the sites said in one run, as its ``result.json`` has it."""

    run: RunRecord
    """The run."""
    sites: Mapping[str, Mapping[str, Any]]
    """By site ``class_counts`` and ``greys``; these are None where the site kept them."""
    warnings: Sequence[str]
    """Who stands apart."""


def told_images(records: Sequence[RunRecord]) -> Told | None:
    """Return what the sites said in the first run in which one said anything; None without one."""
    for run in records:
        held = run.result.get("site_images", {"sites": {}})
        if any(one["greys"] for one in held["sites"].values()):
            return Told(run, held["sites"], held["warnings"])
    return None


def images_section(results: StudyResults, folder: Path) -> Section | None:
    """Return a table of the sites' images and a histogram of each; None where no site told any.

    Parameters
    ----------
    results : StudyResults
        What is reported.
    folder : Path
        Of the report. A study's drawings are written into ``pictures`` too, as SVG and PNG.

    Raises
    ------
    RunError
        If a file cannot be written.
    """
    told = told_images(list(results.records.values()))
    if told is None:
        return None
    shown = {site: one["greys"] for site, one in told.sites.items() if one["greys"]}
    most = max(max(greys["histogram"]) for greys in shown.values())
    drawings = []
    for site, greys in shown.items():
        figure = _draw(greys["histogram"], most)
        if not results.plan.comparison:
            save_figure(figure, folder / FOLDER, f"greys-{site}")
        text = f"Greys of {site}: mean {greys['mean']:.1f}, deviation {greys['deviation']:.1f}"
        drawings.append(drawn(figure, site, text))
    return Section(
        "Images of the sites",
        [_table(told)],
        pictures=drawings,
        note=f"What each site said of its training images before the run {told.run.name}. Greys go "
        f"from 0 (black) to 255 (white), in {BINS} bins; all drawings have one scale.",
    )


def _table(told: Told) -> Table:
    rows = []
    for site, one in told.sites.items():
        counts, greys = one["class_counts"], one["greys"]
        known = [f"{greys['mean']:.1f}", f"{greys['deviation']:.1f}"] if greys else []
        known += [f"{100 * greys['histogram'][at] / WHOLE:.1f}" for at in (0, -1)] if greys else []
        cells = [*map(numbers.count, (sum(counts), *counts)), *(known or [numbers.NOT_DEFINED] * 4)]
        rows.append((site, *cells))
    columns = (
        *("Site", "Training images", *told.run.config.class_names, "Mean grey", "Deviation"),
        *(f"% below {BIN}", f"% from {GREYS - BIN} on"),
    )
    return plain_table("Training images of each site, and their greys", columns, rows)


def _draw(histogram: Sequence[int], most: int) -> Figure:
    """Draw a histogram; the largest share that any site has fits in."""
    shares = 100 * np.array(histogram) / WHOLE
    figure, axes = panel(400, 190, right=16)
    axes.bar(np.arange(BINS) * BIN, shares, width=BIN, align="edge", color=MUTED)
    axes.set(xlim=(0, GREYS), ylim=(0, 105 * most / WHOLE), xlabel="Grey", ylabel="Share (%)")
    axes.set_xticks([*range(0, GREYS, 64), GREYS - 1])
    return figure
