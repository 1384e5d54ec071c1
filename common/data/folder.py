"""A site folder: ``<class>/<image>`` with an optional ``metadata.csv``, read and checked."""

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config.classes import LEFT_OUT, class_of, which_key
from common.data.listing import describe, files_below, why_passed_over
from common.data.metadata import (
    LABEL,
    METADATA,
    PATIENT,
    Metadata,
    Row,
    metadata_problems,
    named_frames,
    read_metadata,
)
from common.data.patients import (
    in_several_classes,
    join_headers,
    one_spelling,
    say_several_classes,
)
from common.errors import SiteError, one_line

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
    """Its classes, in label order; their folders may bear names of the site's own."""
    files: tuple[str, ...]
    """Images as POSIX paths below ``root``, sorted; a named frame as ``scan.dcm#3``."""
    targets: Mapping[str, NDArray[Any]]
    """Each of shape (files, …). What is to be learnt of each image, by name: its class under
    :data:`CLASS`, and whatever else the task says (:mod:`common.tasks.task`)."""
    patients: tuple[str | None, ...]
    """Patient of each, where known."""
    warnings: tuple[str, ...]
    """What a person should know, but what stops nothing."""
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Further columns of ``metadata.csv``, a cell an image; '' where nothing is said."""
    frames: Mapping[str, str] = field(default_factory=dict)
    """The file of each image that is a named frame."""
    together: tuple[tuple[int, int], ...] = ()
    """Pairs of images that a fold keeps on one side although no patient does: copies."""
    passed_over: str = ""
    """How many files in the class folders are no images, by reason."""
    left_out: str = ""
    """How many images ``classes-map`` leaves out, by the name of their folder or label."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class of each image, as a position in ``classes``, shape (files,)."""
        return self.targets[CLASS]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)


def read_site(
    name: str, root: Path, classes: Sequence[str], classes_map: Mapping[str, str] | None = None
) -> SiteFolder:
    """Read a site's folder.

    Parameters
    ----------
    name : str
        The site.
    root : Path
        Its folder.
    classes : sequence of str
        The classes, in label order; each has a folder of that name.
    classes_map : mapping of str to str, optional
        Names that the site's own folders and labels have for them → class, or
        :data:`~common.config.classes.LEFT_OUT`.

    Raises
    ------
    SiteError
        With the first problem of :func:`inspect_site`.
    """
    found, problems = inspect_site(name, root, classes, classes_map)
    if problems:
        raise SiteError(problems[0])
    return found


def inspect_site(
    name: str, root: Path, classes: Sequence[str], classes_map: Mapping[str, str] | None = None
) -> tuple[SiteFolder, tuple[str, ...]]:
    """Read a site's folder and say everything that is wrong with it; parameters as above.

    Returns
    -------
    SiteFolder
        What is there.
    tuple of str
        A sentence for each problem, naming site and file and saying what to do.
    """
    theirs = classes_map or {}
    nothing = {CLASS: np.empty(0, np.int64)}
    empty = SiteFolder(name, root, tuple(classes), (), nothing, (), ())
    site = f"Site '{name}': "
    if not root.is_dir():
        return empty, (
            f"{site}there is no folder {root}. Expected one with a folder of images for each class "
            f"({', '.join(classes)}).",
        )
    problems: list[str] = []
    passed_over = Counter[str]()
    try:
        folders = class_folders(root, classes, theirs)
        left_out = _in_folders_left_out(root, classes, theirs)
        problems += _folder_problems(root, classes, theirs, folders, left_out)
        images = _images(root, folders, problems, passed_over)
        table = read_metadata(root / METADATA, problems)
    except OSError as error:
        return empty, (one_line(f"{site}cannot read {error.filename}: {error.strerror}."),)
    frames: dict[str, str] = {}
    if table is not None:
        frames = named_frames(table.rows, images)
        images |= {frame: images[file] for frame, file in frames.items()}
        whole = set(frames.values())
        out = _rows_left_out(table.rows, classes, theirs)
        left_out.update(out[file] for file in images.keys() & out)
        images = {file: label for file, label in images.items() if file not in whole | out.keys()}
        frames = {frame: file for frame, file in frames.items() if frame not in out}
        judged = {file: row for file, row in table.rows.items() if file not in out}
        problems += metadata_problems(root / METADATA, classes, theirs, images, judged)
    else:
        table = Metadata()
    if left_out and not images and not problems:
        problems.append(f"classes-map leaves out every image in {root}. Add images of each class.")
    files = tuple(sorted(images))
    labels = np.array([images[file] for file in files], dtype=np.int64)
    rows = [table.rows.get(file, {}) for file in files]
    patients, said = one_spelling([row.get(PATIENT) for row in rows])
    said += [*say_several_classes(in_several_classes(patients, labels.tolist())), *table.warnings]
    warnings = [*_class_warnings(root, classes, folders, labels), *said]
    found = SiteFolder(
        name,
        root,
        tuple(classes),
        files,
        {CLASS: labels},
        patients,
        tuple(one_line(site + warning) for warning in warnings),
        {column: tuple(row.get(column, "") for row in rows) for column in table.columns},
        frames,
        passed_over=describe(passed_over),
        left_out=describe(left_out),
    )
    return found, tuple(one_line(site + problem) for problem in problems)


def with_headers(folder: SiteFolder, headers: Sequence[str | None]) -> SiteFolder:
    """Return a site with the patients that only the files themselves name.

    Parameters
    ----------
    folder : SiteFolder
        As it was read.
    headers : sequence of str or None
        Patient id in the DICOM header of each image's file, as it is written.
    """
    patients, said = join_headers(folder.patients, headers)
    labels = folder.labels.tolist()
    known = in_several_classes(folder.patients, labels)
    said += say_several_classes(
        [patient for patient in in_several_classes(patients, labels) if patient not in known]
    )
    warnings = tuple(one_line(f"Site '{folder.name}': {warning}") for warning in said)
    return replace(folder, patients=patients, warnings=folder.warnings + warnings)


def class_folders(
    root: Path, classes: Sequence[str], classes_map: Mapping[str, str]
) -> dict[str, int]:
    """Return the label of each class folder that there is, by the folder's name."""
    found = {}
    for path in sorted(root.iterdir()):
        label = class_of(path.name, classes, classes_map)
        if label and path.is_dir():
            found[path.name] = classes.index(label)
    return found


def _in_folders_left_out(
    root: Path, classes: Sequence[str], classes_map: Mapping[str, str]
) -> Counter[str]:
    """Return how many files each folder holds that the map leaves out, by its name."""
    return Counter(
        {
            path.name: sum(1 for _ in files_below(path))
            for path in sorted(root.iterdir())
            if class_of(path.name, classes, classes_map) == LEFT_OUT and path.is_dir()
        }
    )


def _rows_left_out(
    rows: Mapping[str, Row], classes: Sequence[str], classes_map: Mapping[str, str]
) -> dict[str, str]:
    """Return the rows whose folder or label the map leaves out: that name, by file."""
    return {
        file: name
        for file, row in rows.items()
        for name in (file.split("/")[0], row[LABEL])
        if class_of(name, classes, classes_map) == LEFT_OUT
    }


def _folder_problems(
    root: Path,
    classes: Sequence[str],
    classes_map: Mapping[str, str],
    folders: Mapping[str, int],
    left_out: Collection[str],
) -> Iterator[str]:
    for path in sorted(root.iterdir()):
        known = path.name in {*folders, *left_out, MASKS, LUNG_MASKS}
        if path.is_dir() and not known and not why_passed_over(path.name):
            yield (
                f"the folder {path} is no class of this run ({', '.join(classes)}). "
                f"Rename it, move it away, or set {which_key(path.name, classes)}."
            )
    missing = _missing(classes, folders)
    for label in missing:
        path = root / label
        inside = next((other for other in folders if (root / other / label).is_dir()), None)
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
        names = [*classes, *(name for name, label in classes_map.items() if label)]
        yield (
            f"{root} holds none of the class folders {', '.join(names)}. Make "
            "one for each class, or set classes."
        )
    elif all(_is_empty(root / folder) for folder in folders):
        yield f"the class folders in {root} are all empty. Add images of each class."


def _missing(classes: Sequence[str], folders: Mapping[str, int]) -> list[str]:
    return [label for place, label in enumerate(classes) if place not in folders.values()]


def _is_empty(folder: Path) -> bool:
    return next(files_below(folder), None) is None


def _class_warnings(
    root: Path, classes: Sequence[str], folders: Mapping[str, int], labels: NDArray[np.int64]
) -> Iterator[str]:
    """Say of which classes the site has no image: it takes part all the same."""
    missing = _missing(classes, folders)
    for place, label in enumerate(classes):
        if place not in labels:
            yield (
                f"the class folder {root / label} is {'missing' if label in missing else 'empty'}. "
                f"The site takes part without class '{label}': it sends no prototype of it, and "
                "figures that need it are undefined there. Add images of that class if there are "
                "any."
            )


def _images(
    root: Path,
    folders: Mapping[str, int],
    problems: list[str],
    passed_over: Counter[str],
) -> dict[str, int]:
    """Return the label of each file below the class folders; what else lies there is a problem."""
    found = {}
    for folder, label in folders.items():
        for path in sorted(files_below(root / folder, passed_over)):
            if fault := _fault(path):
                problems.append(f"{path} {fault}")
            else:
                found[path.relative_to(root).as_posix()] = label
    return found


def _fault(path: Path) -> str:
    """Say why what lies in a class folder would not be read, "" if it is a file."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return "has a name that is not UTF-8, which tables of it cannot hold. Rename it."
    if path.is_file():
        return ""
    if path.is_dir():
        return "is a link to a folder, which is not followed. Move the folder itself there."
    if path.is_symlink():
        return "is a link to what is not there. Mend the link or move it away."
    return "is no file but a pipe or a device. Move it away."
