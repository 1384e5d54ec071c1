"""What a run's network looks at: examples of a site's test images, and its lesions as a whole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from common.data.augment import MEAN, SPREAD
from common.data.cache import SiteData
from common.data.folder import LUNG_MASKS, MASKS
from common.data.folds import split_site
from common.errors import RunError
from common.runs.predictions import PredictionsTable
from simulations.explain.activation_maps import (
    METHODS,
    LesionShare,
    Method,
    activation_maps,
    lesion_share,
)
from simulations.explain.masks import has_masks, load_masks
from simulations.explain.projections import When, network_images, network_of, prepared_images
from simulations.report.records import RunRecord

TITLES: Mapping[Method, str] = {
    "grad-cam": "Grad-CAM",
    "grad-cam++": "Grad-CAM++",
    "hires-cam": "HiResCAM",
}
POSITIVE = 1
IN_A_GROUP = 3


@dataclass(frozen=True)
class Example:
    """A test image, what was decided, and where the network looked."""

    file: str
    """Path below the site's folder."""
    truth: str
    decision: str
    """Names of classes."""
    probability: float
    """Of the decision."""
    image: NDArray[np.float32]
    """Shape (size, size). Grey values as the network sees them, 0 to 1."""
    maps: Mapping[Method, NDArray[np.float32]]
    """Shape (size, size). Activation of the class decided for, 0 to 1."""
    lesion: NDArray[np.float32] | None
    """Shape (size, size). Share of each pixel that is lesion, where that is known."""

    @property
    def right(self) -> bool:
        """Whether the decision is the truth."""
        return self.truth == self.decision


def choose_rows(predictions: PredictionsTable, patients: Sequence[str | None]) -> list[int]:
    """Choose the images of which the network was surest, rightly and wrongly, of either class.

    At most :data:`IN_A_GROUP` right ones of each class, then wrong ones of each class.

    Parameters
    ----------
    predictions : PredictionsTable
        A site's test images.
    patients : sequence of (str or None), length n
        Patient of each; of the images of one patient at most one enters a group.

    Returns
    -------
    list of int
        Rows of the table; by group, the surest first, equal ones by the name of the file.
    """
    decisions = predictions.probabilities.argmax(axis=1)
    sureness = predictions.probabilities.max(axis=1)
    chosen = []
    for right in (True, False):
        for label in reversed(range(len(predictions.classes))):
            group = np.flatnonzero(
                (predictions.labels == label) & ((decisions == label) == right)
            ).tolist()
            group.sort(key=lambda row: (-sureness[row], predictions.files[row]))
            met: set[str] = set()
            for row in group:
                patient = patients[row] or predictions.files[row]
                if patient not in met and len(met) < IN_A_GROUP:
                    met.add(patient)
                    chosen.append(row)
    return chosen


def activation_examples(
    record: RunRecord, data: SiteData, root: Path | None = None
) -> list[Example]:
    """Compute the activation maps of a site's most telling test images.

    Parameters
    ----------
    record : RunRecord
        A completed run.
    data : SiteData
        One of its sites, of the run's own size of images.
    root : Path, optional
        The site's folder; where it holds masks, the examples carry their lesions.

    Raises
    ------
    RunError
        If the run predicted nothing for this site, or other images than the site's.
    CheckpointError
        If the run has no weights.
    """
    table = record.predictions.get(data.name)
    if table is None or not table.files:
        raise RunError(
            f"The run {record.path} has no predictions of test images of {data.name}. "
            "Only a completed run has."
        )
    places = _places(table.files, data, record)
    rows = choose_rows(table, [data.patients[place] for place in places])
    indices = places[rows]
    images = network_images(data, indices, record.config)
    decisions = table.probabilities[rows].argmax(axis=1)
    network = network_of(record, data, "after")
    maps = {
        method: activation_maps(network, data.name, images, decisions, method) for method in METHODS
    }
    files = [table.files[row] for row in rows]
    lesions = None
    if root is not None and has_masks(root):
        lesions = load_masks(root / MASKS, files, record.config)
    plain = prepared_images(data, indices, record.config)
    grey = (plain.mean(dim=1) * SPREAD + MEAN).clamp(0, 1).numpy()
    return [
        Example(
            file=files[number],
            truth=table.classes[table.labels[row]],
            decision=table.classes[decisions[number]],
            probability=float(table.probabilities[row].max()),
            image=grey[number],
            maps={method: maps[method][number] for method in METHODS},
            lesion=None if lesions is None else lesions[number],
        )
        for number, row in enumerate(rows)
    ]


def _places(files: Sequence[str], data: SiteData, record: RunRecord) -> NDArray[np.int64]:
    """Return where in a site's data its predicted images are."""
    place_of = {file: place for place, file in enumerate(data.files)}
    missing = [file for file in files if file not in place_of]
    if missing:
        raise RunError(
            f"The run {record.path} predicted '{missing[0]}' of {data.name}, but the site has no "
            "such image any more. Give the folder that the run was trained on."
        )
    return np.array([place_of[file] for file in files], dtype=np.int64)


def measure_lesions(
    record: RunRecord, data: SiteData, root: Path, when: When = "after"
) -> dict[Method, LesionShare]:
    """Measure on a site's positive test images how much activation lies in their lesions.

    Parameters
    ----------
    record : RunRecord
        A completed run.
    data : SiteData
        One of its sites, of two classes.
    root : Path
        The site's folder, which holds masks.
    when : {'before', 'after'}
        Whether to ask the network that the run began with, or the one it ended with.

    Returns
    -------
    dict
        By method; the maps are those of the positive class.

    Raises
    ------
    ValueError
        Unless there are two classes: of more, none is the positive one.
    """
    if len(data.classes) != 2:
        raise ValueError(f"Of {len(data.classes)} classes none is the positive one.")
    test = split_site(data, record.config).test
    ill = test[data.labels[test] == POSITIVE]
    images = network_images(data, ill, record.config)
    files = [data.files[place] for place in ill]
    lesions, lungs = (load_masks(root / of, files, record.config) for of in (MASKS, LUNG_MASKS))
    network = network_of(record, data, when)
    labels = np.full(len(ill), POSITIVE)
    return {
        method: lesion_share(
            activation_maps(network, data.name, images, labels, method), lesions, lungs
        )
        for method in METHODS
    }


def draw_examples(examples: Sequence[Example], site: str) -> Figure:
    """Draw examples side by side: the image, and its map by each method laid over it.

    Parameters
    ----------
    examples : sequence of Example
        At least one.
    site : str
        Named in the title.
    """
    rows = 1 + len(METHODS)
    figure = Figure(figsize=(0.5 + 1.5 * len(examples), 0.7 + 1.5 * rows + 0.45))
    grid = figure.subplots(rows, len(examples), squeeze=False)
    figure.suptitle(f"{site}: activation of the class decided for", x=0.01, ha="left", fontsize=10)
    for column, example in zip(grid.T, examples, strict=True):
        column[0].set_title(
            f"truth {example.truth}\ndecided {example.decision}\np = {example.probability:.3f}",
            fontsize=7,
            color="black" if example.right else "#b00020",
        )
        for axes, method in zip(column, (None, *METHODS), strict=True):
            _draw_cell(axes, example, method)
    for axes, name in zip(grid[:, 0], ("Image", *TITLES.values()), strict=True):
        axes.set_ylabel(name, fontsize=8)
    figure.subplots_adjust(
        left=0.3 / figure.get_figwidth(),
        right=1 - 0.05 / figure.get_figwidth(),
        top=1 - 0.85 / figure.get_figheight(),
        bottom=0.05 / figure.get_figheight(),
        wspace=0.05,
        hspace=0.05,
    )
    return figure


def _draw_cell(axes: Axes, example: Example, method: Method | None) -> None:
    axes.imshow(example.image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    if method is not None:
        strength = example.maps[method]
        # Where there is no activation the image is bare.
        axes.imshow(strength, cmap="inferno", vmin=0, vmax=1, alpha=0.6 * strength)
    if example.lesion is not None and example.lesion.max() > 0.5:
        axes.contour(example.lesion, levels=[0.5], colors="#35d0ff", linewidths=0.8)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
