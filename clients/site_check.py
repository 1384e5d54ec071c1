"""Whether a hospital's own folder is fit for training, and why not, before it joins."""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.config.schema import Config
from common.console.progress import ProgressListener, StepCounter
from common.data.cache import with_frames
from common.data.decode import dicom_patient, read_header
from common.data.duplicates import content_keys, find_copies, with_copies
from common.data.folder import SiteFolder, inspect_site, with_headers
from common.data.folds import leakage, split_site
from common.data.look import (
    BLANK,
    INVERTED,
    STANDS_APART,
    Looked,
    Odd,
    find_odd,
    look_at,
)
from common.data.raster import ImageHeader
from common.errors import SiteError, one_line

NAMED = 5
"""How many odd images a warning names."""
ADVICE = {
    BLANK: (
        "are blank, or nearly",
        "Export them again or move them away; where their greys have more than 8 bits, grey-low "
        "and grey-high say which values are black and white.",
    ),
    INVERTED: (
        "look inverted, with dark parts where most have bright ones",
        "Look at them, and save the negatives of those that are.",
    ),
    STANDS_APART: ("stand apart from the rest", "Look at them."),
}


@dataclass(frozen=True)
class SiteCheck:
    """Whether a site's folder is fit, and why not."""

    facts: dict[str, str]
    """What there is: images by class, patients, sizes in pixels, formats, most frequent first,
    the scale of greys, columns of metadata.csv that only a task reads, and files that are passed
    over."""
    folds: tuple[tuple[int, int], ...]
    """Training and test images of each fold; empty where the folder is unfit."""
    leakage: str
    """What a fold may leak."""
    warnings: tuple[str, ...]
    problems: tuple[str, ...]
    """What a person should know, and what has to be mended."""
    folder: SiteFolder
    """The images."""
    looked: Looked
    """What was seen of each."""
    odd: Mapping[int, Odd]
    """Which look odd, by their places in ``folder``."""

    @property
    def fit(self) -> bool:
        """Whether the site can train."""
        return not self.problems


def check_folder(
    name: str, root: Path, config: Config, listener: ProgressListener | None = None
) -> SiteCheck:
    """Read a whole site folder, decode every image, and make its folds.

    Parameters
    ----------
    name : str
        The site.
    root : Path
        Its folder.
    config : Config
        Classes, decode settings and folds.
    listener : ProgressListener, optional
        Told how far it is.

    Returns
    -------
    SiteCheck
        With every problem found, not only the first.
    """
    listener = listener or ProgressListener()
    folder, found = inspect_site(name, root, config.class_names, config.own_class_names)
    seen = _read_files([root / folder.frames.get(file, file) for file in folder.files], listener)
    headers = [one.header for one in seen if one.header is not None]
    folder, origin = with_frames(folder, [one.header.frames if one.header else 1 for one in seen])
    seen = [seen[place] for place in origin]
    counter = StepCounter(listener, f"Looking at {len(folder)} images")
    looked = look_at([root / file for file in folder.files], config, counter)
    sizes = [one.header[:2] if one.header else (1, 1) for one in seen]
    odd = find_odd(looked, np.array(sizes, dtype=np.int64).reshape(-1, 2))
    folder = with_headers(folder, [one.patient for one in seen])
    copies = find_copies(looked.prints, content_keys(folder, [one.digest for one in seen]))
    folder, copied = with_copies(folder, copies)
    site = f"Site '{name}': "
    strange, blank = _say_odd(folder, odd)
    faults = [looked.faults[file] for file in sorted(looked.faults)]
    problems = [*found, *(f"{site}{fault}" for fault in faults), *copied, *blank]
    warnings = [*folder.warnings, *strange]
    folds: list[tuple[int, int]] = []
    leaks = ""
    try:
        for fold in range(0 if problems else config.folds):
            split = split_site(folder, config.changed(fold=fold))
            warnings += split.warnings
            folds.append((len(split.train) + len(split.validation), len(split.test)))
            leaks = leaks or leakage(folder, split).sentence()
    except SiteError as error:
        problems.append(str(error))
    return SiteCheck(
        _facts(folder, headers, looked),
        tuple(folds),
        leaks,
        tuple(warnings),
        tuple(problems),
        folder,
        looked,
        odd,
    )


def _facts(folder: SiteFolder, headers: Sequence[ImageHeader], looked: Looked) -> dict[str, str]:
    scale = ""
    if looked.scale is not None:
        scale = f"{looked.scale} shown as black to white ({looked.scaled} images)"
    facts = {
        **{
            f"images of {label}": int(np.sum(folder.labels == index))
            for index, label in enumerate(folder.classes)
        },
        "patients known": len(set(folder.patients) - {None}),
        "images without patient": sum(patient is None for patient in folder.patients),
        "width, in pixels": _range([header.width for header in headers]),
        "height, in pixels": _range([header.height for header in headers]),
        **dict(Counter(header.kind for header in headers).most_common()),
        "greys": scale,
        "further columns": one_line(", ".join(folder.columns)),
        "passed over": folder.passed_over,
        "left out": folder.left_out,
    }
    return {label: str(value) for label, value in facts.items() if value != ""}


def _say_odd(folder: SiteFolder, odd: Mapping[int, Odd]) -> tuple[list[str], list[str]]:
    """Return warnings of a site's odd images, and a problem where most are blank."""
    warnings: list[str] = []
    problems: list[str] = []
    for kind, (what, advice) in ADVICE.items():
        found = [place for place, one in odd.items() if one.kind == kind]
        if not found:
            continue
        names = [
            f"'{folder.files[place]}'" + (f" ({odd[place].reason})" if kind == STANDS_APART else "")
            for place in found[:NAMED]
        ]
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        count = f"{len(found)} of {len(folder)}"
        said = f"images that {what}, {count}: {', '.join(names)}{more}. {advice}"
        mostly = kind == BLANK and 2 * len(found) > len(folder)
        (problems if mostly else warnings).append(one_line(f"Site '{folder.name}': {said}"))
    return warnings, problems


class _Seen(NamedTuple):
    """What is found of a file."""

    header: ImageHeader | None
    """Where it can be read."""
    patient: str | None
    """By the DICOM header."""
    digest: str
    """Its hash."""


def _read_files(paths: Sequence[Path], listener: ProgressListener) -> list[_Seen]:
    counter = StepCounter(listener, f"Reading {len(paths)} files")
    seen = []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for one in pool.map(_read_file, paths):
            seen.append(one)
            counter(len(seen), len(paths))
    return seen


def _read_file(path: Path) -> _Seen:
    header, digest = None, str(path)
    # Why a file or its header cannot be read, decoding says.
    with suppress(Exception):
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        header = read_header(content, path)
    return _Seen(header, dicom_patient(path), digest)


def _range(sizes: Sequence[int]) -> str:
    low, high = min(sizes, default=0), max(sizes, default=0)
    return str(low) if low == high else f"{low} to {high}"
