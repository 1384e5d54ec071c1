"""A site's images on one page, as the network gets them, for the hospital itself."""

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clients.site_check import SiteCheck
from common.config.sections import ImageKeys
from common.data.decode_all import decode_all
from common.data.folder import SiteFolder
from common.data.look import Looked
from common.data.pictures import BINS, GREYS, measure_images
from common.formatting import numbers
from common.formatting.page import html_page, table_html
from common.formatting.tables import Table, plain_table

MOST = 120
"""Images of a class that are shown."""
SIDE = 96
"""Width and height of each, in pixels."""
NOTE = (
    "It shows patients' images and names of files, for this hospital's eyes only. Nothing of it "
    "was sent."
)


def render(name: str, found: SiteCheck, config: ImageKeys) -> str:
    """Return what was found in a site's folder as one HTML page.

    Parameters
    ----------
    name : str
        The site.
    found : SiteCheck
        What was found; of its images some are decoded once more.
    config : ImageKeys
        Size of cached images, channels and window.
    """
    folder, looked = found.folder, found.looked
    verdict = "yes" if found.fit else "no"
    tables = [_measures_table(looked)] if len(looked.decoded) else []
    sections = Template(
        (Path(__file__).parent / "check.html").read_text(encoding="utf-8")
    ).substitute(
        kind="good" if found.fit and not found.warnings else "warn",
        verdict=f"Fit for training: {verdict}",
        told="\n".join(f"<li>{escape(one)}</li>" for one in (*found.problems, *found.warnings)),
        facts="\n".join(
            f"<div><dt>{escape(what)}</dt><dd>{escape(answer)}</dd></div>"
            for what, answer in {"folder": str(folder.root), **found.facts}.items()
        ),
        folds=table_html(_folds_table(found)) if found.folds else "",
        leakage=escape(found.leakage),
        histograms="\n".join(_histograms(folder, looked)),
        measures="\n".join(map(table_html, tables)),
        size=config.cached_size,
        sheets="\n".join(_sheets(found, config)),
    )
    return html_page(f"Images of {name}", NOTE, sections)


def _folds_table(found: SiteCheck) -> Table:
    rows = [(str(n), str(train), str(test)) for n, (train, test) in enumerate(found.folds)]
    return plain_table("Folds", ("Fold", "Training images", "Test images"), rows)


def _measures_table(looked: Looked) -> Table:
    """Return what most images have of each measure."""
    measures = measure_images(looked.counts[looked.decoded].astype(np.int64))
    named = {
        "Mean grey": measures.mean,
        "Deviation of greys": measures.deviation,
        "% of pixels black or white": 100 * measures.saturated,
        "% of pixels of the most frequent grey": 100 * measures.most_frequent,
        "Different greys": measures.distinct,
    }
    rows = [
        (what, *(f"{end:.0f}" for end in np.quantile(values, [0, 0.05, 0.5, 0.95, 1])))
        for what, values in named.items()
    ]
    columns = ("Of an image", "Lowest", "5 % are below", "Median", "5 % are above", "Highest")
    return plain_table("What the images have", columns, rows)


def _histograms(folder: SiteFolder, looked: Looked) -> list[str]:
    """Return a drawing of the greys of all images, and one of each class."""
    parts = {"All images": looked.counts} | {
        label: looked.counts[folder.labels == index] for index, label in enumerate(folder.classes)
    }
    totals = {what: counts.sum(axis=0, dtype=np.int64) for what, counts in parts.items()}
    shares = {what: total / total.sum() for what, total in totals.items() if total.any()}
    most = max((_in_bins(share).max() for share in shares.values()), default=1.0)
    return [_histogram(what, share, most) for what, share in shares.items()]


def _in_bins(greys: NDArray[np.float64]) -> NDArray[np.float64]:
    binned: NDArray[np.float64] = greys.reshape(BINS, -1).sum(axis=1)
    return binned


def _histogram(what: str, greys: NDArray[np.float64], most: float) -> str:
    """Return a drawing of the shares of 256 greys; a bin of share ``most`` is as high as it."""
    shares = _in_bins(greys)
    mean = greys @ np.arange(GREYS)
    heights = 60 * shares / most
    bars = "".join(
        f'<rect x="{8 * place}" y="{60 - height:.1f}" width="7" height="{height:.1f}"/>'
        for place, height in enumerate(heights)
    )
    text = f"Greys of {what}: mean {mean:.0f}, at most {shares.max():.0%} in one of {BINS} bins"
    return (
        f"<figure><figcaption>{escape(what)}</figcaption>"
        f'<svg class="greys" viewBox="0 0 256 60" role="img" aria-label="{escape(text)}">{bars}'
        f'</svg><p class="note">From black to white; mean grey {mean:.0f} of 255.</p></figure>'
    )


def _sheets(found: SiteCheck, config: ImageKeys) -> list[str]:
    """Return some images of each class, odd ones first."""
    folder = found.folder
    held = [
        [int(place) for place in found.looked.decoded if folder.labels[place] == label]
        for label in range(len(folder.classes))
    ]
    shown = [_chosen(places, list(found.odd)) for places in held]
    images = _thumbnails(found, [place for places in shown for place in places], config)
    sheets = []
    for label, places, own in zip(folder.classes, held, shown, strict=True):
        items = "\n".join(_item(found, place, images[place]) for place in own if place in images)
        count = numbers.count(len(places))
        said = count if len(own) == len(places) else f"{len(own)} of {count}, odd ones first"
        sheets.append(f'<h3>{escape(label)}: {said}</h3>\n<ul class="sheet">{items}</ul>')
    return sheets


def _chosen(places: Sequence[int], odd: Sequence[int]) -> list[int]:
    """Return which images of a class to show: odd ones, then others at equal distances."""
    own, strange = set(places), set(odd)
    first = [place for place in odd if place in own][:MOST]
    rest = [place for place in places if place not in strange]
    room = min(MOST - len(first), len(rest))
    return first + [rest[at * len(rest) // room] for at in range(room)]


def _thumbnails(found: SiteCheck, places: Sequence[int], config: ImageKeys) -> dict[int, str]:
    """Return images as PNG files in base64, by their places in the folder."""
    made: dict[int, str] = {}

    def keep(row: int, image: NDArray[np.uint8]) -> None:
        data = io.BytesIO()
        small = Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image)
        small.resize((SIDE, SIDE), Image.Resampling.BILINEAR).save(data, "PNG")
        made[places[row]] = base64.b64encode(data.getvalue()).decode()

    paths = [found.folder.root / found.folder.files[place] for place in places]
    # A file that is gone by now is not shown.
    decode_all(paths, config, keep, lambda *_: None, found.looked.scale)
    return made


def _item(found: SiteCheck, place: int, image: str) -> str:
    file = found.folder.files[place]
    odd = found.odd.get(place)
    said = f"{odd.kind}: {odd.reason}" if odd else ""
    text = escape(f"{file}, {said}" if said else file)
    mark = ' class="odd"' if odd else ""
    reason = f"<strong>{escape(said)}</strong>" if said else ""
    return (
        f'<li{mark}><figure><img alt="{text}" title="{escape(file)}" '
        f'width="{SIDE}" height="{SIDE}" src="data:image/png;base64,{image}">'
        f"<figcaption>{escape(file.partition('/')[2])}{reason}</figcaption></figure></li>"
    )
