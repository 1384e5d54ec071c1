"""A site folder: ``<class>/<image>`` with an optional ``metadata.csv``, read and checked."""

import csv
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import SiteError, one_line

METADATA, PATIENT = "metadata.csv", "patient_id"
CLASS = "class"
"""The target that every image has: the folder it lies in."""
MASKS, LUNG_MASKS = "masks", "masks-lungs"
"""Folders of a site that are no classes: masks of the lesions, and of the lungs."""


@dataclass(frozen=True)
class SiteFolder:
    """What a site's folder holds, before any image is decoded."""

    name: str
    """The site."""
    root: Path
    """Its folder."""
    classes: tuple[str, ...]
    """Class folders, in label order."""
    files: tuple[str, ...]
    """Images as POSIX paths below ``root``, sorted."""
    targets: Mapping[str, NDArray[Any]]
    """Each of shape (files, …). What is to be learnt of each image, by name: its class under
    :data:`CLASS`, and whatever else the task says (:mod:`common.tasks.task`)."""
    patients: tuple[str | None, ...]
    """Patient of each, where known."""
    warnings: tuple[str, ...]
    """What a person should know, but what stops nothing."""
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Further columns of ``metadata.csv``, a cell an image; '' where nothing is said."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class of each image, as a position in ``classes``, shape (files,)."""
        return self.targets[CLASS]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)


def read_site(name: str, root: Path, classes: Sequence[str]) -> SiteFolder:
    """Read a site's folder.

    Parameters
    ----------
    name : str
        The site.
    root : Path
        Its folder.
    classes : sequence of str
        The class folders that it must hold, in label order.

    Raises
    ------
    SiteError
        With the first of :func:`site_problems`.
    """
    found, problems = inspect_site(name, root, classes)
    if problems:
        raise SiteError(problems[0])
    return found


def inspect_site(
    name: str, root: Path, classes: Sequence[str]
) -> tuple[SiteFolder, tuple[str, ...]]:
    """Read a site's folder and say everything that is wrong with it.

    Returns
    -------
    SiteFolder
        What is there.
    tuple of str
        A sentence for each problem, naming site and file and saying what to do.
    """
    nothing = {CLASS: np.empty(0, np.int64)}
    empty = SiteFolder(name, root, tuple(classes), (), nothing, (), ())
    site = f"Site '{name}': "
    if not root.is_dir():
        return empty, (
            f"{site}there is no folder {root}. Expected one with a folder of images for each class "
            f"({', '.join(classes)}).",
        )
    problems: list[str] = []
    try:
        problems += _folder_problems(root, classes)
        files = sorted(_files(root, classes, problems))
        rows = _read_metadata(root, problems)
    except OSError as error:
        return empty, (one_line(f"{site}cannot read {error.filename}: {error.strerror}."),)
    if rows is not None:
        problems += _metadata_problems(root / METADATA, classes, files, rows)
    labels = np.array([classes.index(file.partition("/")[0]) for file in files], dtype=np.int64)
    told: list[Mapping[str, str]] = [(rows or {}).get(file, {}) for file in files]
    patients = tuple(row.get(PATIENT) or None for row in told)
    further = sorted({column for row in told for column in row} - {"file_name", "label", PATIENT})
    columns = {column: tuple(row.get(column, "") for row in told) for column in further}
    warnings = [*_class_warnings(root, classes), *_patient_warnings(files, patients)]
    return (
        SiteFolder(
            name,
            root,
            tuple(classes),
            tuple(files),
            {CLASS: labels},
            patients,
            tuple(site + warning for warning in warnings),
            columns,
        ),
        tuple(one_line(site + problem) for problem in problems),
    )


def _folder_problems(root: Path, classes: Sequence[str]) -> Iterator[str]:
    there = {
        path.name
        for path in root.iterdir()
        if path.is_dir() and not path.name.startswith(".") and path.name not in {MASKS, LUNG_MASKS}
    }
    missing = [label for label in classes if label not in there]
    for label in sorted(there - set(classes)):
        yield (
            f"the folder {root / label} is no class of this run ({', '.join(classes)}). "
            "Rename it, move it away, or set classes."
        )
    for label in missing:
        path = root / label
        inside = next((other for other in classes if (root / other / label).is_dir()), None)
        # A site may lack a class, but not because somebody slipped.
        if path.is_symlink() or path.exists():
            yield (
                f"the class folder {path} is missing: a link that leads to no folder, or a file, "
                "lies in its place. Put the folder there."
            )
        elif inside is not None:
            yield (
                f"the class folder {path} is missing, and one of that name lies in "
                f"{root / inside}. Move it up."
            )
    if len(missing) == len(classes):
        yield (
            f"{root} holds none of the class folders {', '.join(classes)}. Make one for each "
            "class, or set classes."
        )
    elif all(_is_empty(root / label) for label in classes):
        yield f"the class folders in {root} are all empty. Add images of each class."


def _is_empty(folder: Path) -> bool:
    return not folder.is_dir() or all(path.name.startswith(".") for path in folder.rglob("*"))


def _class_warnings(root: Path, classes: Sequence[str]) -> Iterator[str]:
    """Say of which classes the site has no image: it takes part all the same."""
    for label in classes:
        if _is_empty(root / label):
            yield (
                f"the class folder {root / label} is "
                f"{'empty' if (root / label).is_dir() else 'missing'}. The site takes part without "
                f"class '{label}': it sends no prototype of it, and figures that need it are "
                "undefined there. Add images of that class if there are any."
            )


def _files(root: Path, classes: Sequence[str], problems: list[str]) -> Iterator[str]:
    """Yield the images below the class folders, and add what else lies there to the problems."""
    for label in classes:
        for path in sorted((root / label).rglob("*")) if (root / label).is_dir() else ():
            if path.name.startswith("."):
                continue
            if fault := _fault(path):
                problems.append(f"{path} {fault}")
            elif path.is_file():
                yield path.relative_to(root).as_posix()


def _fault(path: Path) -> str:
    """Say why what lies in a class folder would not be read, "" if it is a file or a folder."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return "has a name that is not UTF-8, which tables of it cannot hold. Rename it."
    if path.is_file() or (path.is_dir() and not path.is_symlink()):
        return ""
    if path.is_dir():
        return "is a link to a folder, which is not followed. Move the folder itself there."
    if path.is_symlink():
        return "is a link to what is not there. Mend the link or move it away."
    return "is no file but a pipe or a device. Move it away."


def _read_metadata(root: Path, problems: list[str]) -> dict[str, dict[str, str]] | None:
    """Return file → cell by column, None where there is no table or it has problems of its own."""
    path = root / METADATA
    # A link that leads nowhere is no absent table: without its patients a fold would split them.
    if not path.exists() and not path.is_symlink():
        return None
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            columns = set(table.fieldnames or ())
            absent = [column for column in ("file_name", "label") if column not in columns]
            if absent:
                problems.append(
                    f"{path} lacks the column '{absent[0]}'. Its first line must read "
                    "file_name,label or file_name,label,patient_id."
                )
                return None
            # A line that is longer than the first has cells of no column, under None.
            entries = [
                {column: (row[column] or "").strip() for column in row if column is not None}
                for row in table
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        problems.append(
            f"{path} is not a UTF-8 table of comma-separated values ({error}). "
            "Save it again as CSV UTF-8."
        )
        return None
    rows = {row["file_name"]: row for row in entries}
    for name, count in Counter(row["file_name"] for row in entries).items():
        if count > 1:
            problems.append(f"{path} has more than one row for '{name}'. Keep one.")
    return rows


def _metadata_problems(
    path: Path,
    classes: Sequence[str],
    files: Sequence[str],
    rows: Mapping[str, Mapping[str, str]],
) -> Iterator[str]:
    there = set(files)
    for file, row in rows.items():
        label = row["label"]
        if label not in classes:
            yield (
                f"{path} gives '{file}' the label '{label}', which is no class of this run "
                f"({', '.join(classes)}). Correct the label, or set classes."
            )
        elif file not in there:
            yield (
                f"{path} has a row for '{file}', but there is no such file. Remove the row or add "
                "the file."
            )
        elif file.partition("/")[0] != label:
            yield (
                f"'{file}' lies in the folder of another class than its label '{label}' in {path}. "
                "Move the file or correct the label."
            )
    for file in files:
        if file not in rows:
            yield f"'{file}' has no row in {path}. Add a row or move the file away."


def _patient_warnings(files: Sequence[str], patients: Sequence[str | None]) -> Iterator[str]:
    classes_of: defaultdict[str, set[str]] = defaultdict(set)
    for file, patient in zip(files, patients, strict=True):
        if patient is not None:
            classes_of[patient].add(file.partition("/")[0])
    several = sorted(patient for patient, labels in classes_of.items() if len(labels) > 1)
    if several:
        shown = ", ".join(several[:5]) + (" …" if len(several) > 5 else "")
        yield (
            f"{len(several)} patients have images in more than one class ({shown}). That can be "
            "right (before and after an illness); a fold keeps them together."
        )
