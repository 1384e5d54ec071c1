"""The sites' images side by side, before training: which site stands apart, and how.

Two measures compare two sites. The distance of their histograms is the earth mover's: how many
greys (of 255) those of one would have to move, in the mean, to become those of the other. The
correlation of the mean greys in the middle of their images is 1 where both show the same, and −1
where one shows its negative, whatever window and contrast each has. The histogram mirrored would
not do: that of chest X-rays is nearly its own mirror image.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from common.data.pictures import BINS, GREYS, WHOLE, ImageStatistics
from common.exchange.messages import SiteInfo
from common.formatting import numbers

BLANK = 0.9
"""Share of all greys in one bin from which images look blank; of synthetic hospitals 0.43 at most,
of real CT and chest X-rays 0.13."""
FAR = 120.0
"""Distance of histograms from which images are far apart; two synthetic hospitals whose scanners
and exports differ most are 110 apart, real CT sites 15, real chest X-ray sites 19."""
INVERTED = -0.5
"""Correlation below which one site's images look like negatives of another's. Between synthetic
hospitals and between real sites of a kind it is 0.81 at least, and −0.81 at most where one of two
is inverted."""
FLAT = 5.0
"""Deviation of the mean greys in the middle below which they tell noise; of real sites and of
synthetic hospitals it is 11 at least."""


def describe_images(infos: Mapping[str, SiteInfo], classes: Sequence[str]) -> list[str]:
    """Return a line for each site that tells the statistics of its images, and the warnings.

    Parameters
    ----------
    infos : mapping of str to SiteInfo
        What each site said of itself.
    classes : sequence of str
        Names of the classes, in label order.
    """
    told = told_statistics(infos)
    lines = [_line(infos[site], greys, classes) for site, greys in told.items()]
    return [*lines, *(f"WARNING: {text}" for text in warn_of_images(told))]


def record_images(infos: Mapping[str, SiteInfo]) -> dict[str, Any]:
    """Return what ``result.json`` says of the sites' images; ``greys`` is None where untold."""
    sites = {
        site: {
            "class_counts": list(info.class_counts),
            "greys": asdict(info.statistics) if info.statistics else None,
        }
        for site, info in infos.items()
    }
    return {"sites": sites, "warnings": warn_of_images(told_statistics(infos))}


def told_statistics(infos: Mapping[str, SiteInfo]) -> dict[str, ImageStatistics]:
    """Return the statistics of the sites that tell theirs."""
    return {site: info.statistics for site, info in infos.items() if info.statistics}


def warn_of_images(told: Mapping[str, ImageStatistics]) -> list[str]:
    """Name the sites whose images look blank, inverted, or far from the others'.

    A site stands apart that agrees with no more than half of all, itself among them, where others
    agree with more. Where none does, as where two sites differ, nobody is the odd one, and it is
    said who differs from whom.

    Parameters
    ----------
    told : mapping of str to ImageStatistics
        By site, of those that tell theirs.
    """
    blank = {site: one for site, one in told.items() if max(one.histogram) >= BLANK * WHOLE}
    warnings = [_say_blank(site, one) for site, one in blank.items()]
    shown = {site: one for site, one in told.items() if site not in blank}
    differences = {
        (one, other): found
        for one, other in combinations(shown, 2)
        if (found := _difference(shown[one], shown[other])) is not None
    }
    times = Counter(site for pair in differences for site in pair)
    odd = [site for site in shown if 2 * times[site] >= len(shown)]
    if len(odd) == len(shown):
        return warnings + [_say_pair(*pair, found) for pair, found in differences.items()]
    for site in odd:
        of_it = {pair: found for pair, found in differences.items() if site in pair}
        others = {one if other == site else other: found for (one, other), found in of_it.items()}
        warnings.append(_say_odd(site, others))
    return warnings


@dataclass(frozen=True)
class Difference:
    """How two sites' images differ."""

    inverted: bool
    """Whether ``measure`` is the correlation in their middle; else the distance of histograms."""
    measure: float

    def sentence(self) -> str:
        """Name the measure and its value."""
        if self.inverted:
            value = f"{self.measure:.2f}".replace("-", "−")
            return f"correlation of the mean greys in the middle: {value}"
        return f"earth mover's distance of the histograms: {self.measure:.0f} of 255 greys"


def _difference(one: ImageStatistics, other: ImageStatistics) -> Difference | None:
    correlation = _correlation(one.fields, other.fields)
    if correlation < INVERTED:
        return Difference(True, correlation)
    moved = np.cumsum(np.subtract(one.histogram, other.histogram))
    distance = float(np.abs(moved).sum()) * (GREYS / BINS) / WHOLE
    return Difference(False, distance) if distance > FAR else None


def _correlation(one: Sequence[int], other: Sequence[int]) -> float:
    """Return the correlation of mean greys; 0 where one hardly changes."""
    if min(np.std(one), np.std(other)) < FLAT:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def _line(info: SiteInfo, greys: ImageStatistics, classes: Sequence[str]) -> str:
    counts = (f"{n} {label}" for n, label in zip(info.class_counts, classes, strict=True))
    first, last = (greys.histogram[place] * 100 / WHOLE for place in (0, -1))
    return (
        f"{info.site}: {greys.images} training images ({', '.join(counts)}), grey "
        f"{greys.mean:.1f} ± {greys.deviation:.1f}, {first:.1f} % below {GREYS // BINS}, "
        f"{last:.1f} % from {GREYS - GREYS // BINS} on"
    )


def _say_blank(site: str, greys: ImageStatistics) -> str:
    place = int(np.argmax(greys.histogram))
    low = place * GREYS // BINS
    return (
        f"{site} looks blank: {greys.histogram[place] * 100 / WHOLE:.0f} % of its greys lie "
        f"between {low} and {low + GREYS // BINS - 1}."
    )


def _say_odd(site: str, others: Mapping[str, Difference]) -> str:
    inverted = any(found.inverted for found in others.values())
    found = {other: one.measure for other, one in others.items() if one.inverted == inverted}
    names = numbers.listed(list(found))
    what = (
        f"looks inverted: where the images of {names} are dark, its own are bright"
        if inverted
        else f"looks unlike {names}: its greys are far from theirs"
    )
    mean = Difference(inverted, float(np.mean(list(found.values()))))
    return f"{site} {what} ({mean.sentence()})."


def _say_pair(one: str, other: str, found: Difference) -> str:
    what = "one of them looks inverted" if found.inverted else "their greys are far apart"
    return (
        f"{one} and {other} differ: {what} ({found.sentence()}). Which of them is the odd one, "
        "this does not tell."
    )
