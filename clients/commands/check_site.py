"""``xsite check-site``: what a hospital can learn of its own folder before it joins.

Nothing leaves the machine.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from common.config.load import load_config, parse_override
from common.config.schema import Config
from common.console import options
from common.console.text import say
from common.data.cache import with_frames
from common.data.decode import read_header
from common.data.decode_all import decode_all
from common.data.dicom import ImageHeader, dicom_patient
from common.data.duplicates import (
    NOTHING,
    content_keys,
    find_copies,
    fingerprints,
    with_copies,
)
from common.data.folder import inspect_site, with_headers
from common.data.folds import leakage, split_site
from common.errors import ConfigError, SiteError, one_line
from common.formatting.tables import plain_table, print_table


def check_site(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The site's folder.")],
    name: Annotated[
        str | None, typer.Option("--name", help="The site's name. [default: the folder's]")
    ] = None,
    config: options.ConfigFile = None,
    set_: options.Settings = None,
) -> None:
    """Say whether a site's folder is fit for training: exit code 0 if it is, 1 if not.

    The folder holds one folder a class (the key 'classes' names them) and, for folds that keep a
    patient together, metadata.csv with the columns file_name and patient_id.
    """
    place = folder.expanduser().absolute()
    # Any folder can be looked at, also one whose name could not be a site's.
    site = name or re.sub(r"[^a-z0-9_-]+", "-", place.name.lower()).strip("-_") or "site"
    if "," in str(place):
        raise ConfigError(f"The folder {place} has a comma in its name; rename it or link to it.")
    asked = dict(parse_override(text) for text in set_ or ()) | {"sites": f"{site}={place}"}
    found = check_folder(site, place, load_config(config, asked))
    _print_check(Console(), site, place, found)
    if not found.fit:
        raise typer.Exit(1)


@dataclass(frozen=True)
class SiteCheck:
    """Whether a site's folder is fit, and why not."""

    facts: dict[str, str]
    """What there is: images by class, patients, sizes in pixels, formats, most frequent first,
    columns of metadata.csv that only a task reads, and files that are passed over."""
    folds: tuple[tuple[int, int], ...]
    """Training and test images of each fold; empty where the folder is unfit."""
    leakage: str
    """What a fold may leak."""
    warnings: tuple[str, ...]
    problems: tuple[str, ...]
    """What a person should know, and what has to be mended."""

    @property
    def fit(self) -> bool:
        """Whether the site can train."""
        return not self.problems


def check_folder(name: str, root: Path, config: Config) -> SiteCheck:
    """Read a whole site folder, decode every image, and make its folds.

    Parameters
    ----------
    name : str
        The site.
    root : Path
        Its folder.
    config : Config
        Classes, decode settings and folds.

    Returns
    -------
    SiteCheck
        With every problem found, not only the first.
    """
    folder, found = inspect_site(name, root, config.class_names, config.own_class_names)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        paths = [root / folder.frames.get(file, file) for file in folder.files]
        seen = list(pool.map(_look_at, paths))
    headers = [one.header for one in seen if one.header is not None]
    folder, origin = with_frames(folder, [one.header.frames if one.header else 1 for one in seen])
    seen = [seen[place] for place in origin]
    prints = [NOTHING] * len(folder)
    faults: dict[Path, str] = {}

    def keep(place: int, image: NDArray[np.uint8]) -> None:
        (prints[place],) = fingerprints(image[None])

    def fail(file: Path, error: SiteError) -> None:
        faults[file] = str(error)

    decode_all([root / file for file in folder.files], config, keep, fail)
    folder = with_headers(folder, [one.patient for one in seen])
    copies = find_copies(prints, content_keys(folder, [one.digest for one in seen]))
    folder, copied = with_copies(folder, copies)
    problems = [*found, *(f"Site '{name}': {faults[file]}" for file in sorted(faults)), *copied]
    folds: list[tuple[int, int]] = []
    warnings = list(folder.warnings)
    leaks = ""
    try:
        for fold in range(0 if problems else config.folds):
            split = split_site(folder, config.changed(fold=fold))
            warnings += split.warnings
            folds.append((len(split.train) + len(split.validation), len(split.test)))
            leaks = leaks or leakage(folder, split).sentence()
    except SiteError as error:
        problems.append(str(error))
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
        "further columns": one_line(", ".join(folder.columns)),
        "passed over": folder.passed_over,
    }
    told = {label: str(value) for label, value in facts.items() if value != ""}
    return SiteCheck(told, tuple(folds), leaks, tuple(warnings), tuple(problems))


class _Seen(NamedTuple):
    """What is found of a file."""

    header: ImageHeader | None
    """Where it can be read."""
    patient: str | None
    """By the DICOM header."""
    digest: str
    """Its hash."""


def _look_at(path: Path) -> _Seen:
    header, digest = None, str(path)
    # Why a file or its header cannot be read, decoding says.
    with suppress(Exception):
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        header = read_header(content, path)
    return _Seen(header, dicom_patient(path), digest)


def _print_check(console: Console, name: str, root: Path, check: SiteCheck) -> None:
    """Print what was found in a site's folder, and whether it is fit for training."""
    say(console, f"Site '{name}': {root}")
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for row in check.facts.items():
        facts.add_row(*row)
    console.print(facts, markup=False, highlight=False)
    if check.folds:
        folds = [(str(n), str(train), str(test)) for n, (train, test) in enumerate(check.folds)]
        print_table(console, plain_table("", ("Fold", "Training images", "Test images"), folds))
    if check.leakage:
        say(console, check.leakage)
    for warning in check.warnings:
        say(console, f"Warning: {warning}")
    for problem in check.problems:
        say(console, f"Problem: {problem}", "red")
    say(console, "Fit for training: yes" if check.fit else "Fit for training: no")


def _range(sizes: Sequence[int]) -> str:
    low, high = min(sizes, default=0), max(sizes, default=0)
    return str(low) if low == high else f"{low} to {high}"
