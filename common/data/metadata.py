"""``metadata.csv``: a row an image, with its class, its patient, and what else a site knows."""

import csv
import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.config.classes import class_of, which_key
from common.data.listing import why_passed_over

METADATA = "metadata.csv"
FILE, LABEL, PATIENT = "file_name", "label", "patient_id"
OWN = {"filename": FILE, "label": LABEL, "patientid": PATIENT}
"""Columns that xsite reads, by their names without what distinguishes nothing."""
PATIENT_LIKE = {
    *("patient", "patients", "patientno", "patientnr", "patientnumber", "patientname"),
    *("pid", "patid", "patientsid", "subject", "subjectid", "caseid", "mrn", "participantid"),
}
"""Names, likewise, of columns that may well hold patient ids."""
DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}

Row = Mapping[str, str]
"""Cell by column."""


@dataclass(frozen=True)
class Metadata:
    """What a site's table says."""

    rows: Mapping[str, Row] = field(default_factory=dict)
    """Row of each image that it names."""
    columns: tuple[str, ...] = ()
    """Further columns, by their own names, in the table's order."""
    warnings: tuple[str, ...] = ()
    """What a person should know, but what stops nothing."""


def read_metadata(path: Path, problems: list[str]) -> Metadata | None:
    """Read a site's table.

    Parameters
    ----------
    path : Path
        The file.
    problems : list of str
        Gains a sentence for each fault of the table itself.

    Returns
    -------
    Metadata or None
        None where there is no table, or none that can be read.

    Raises
    ------
    OSError
        If it is there and cannot be opened.
    """
    # A link that leads nowhere is no absent table: without its patients a fold would split them.
    if not path.exists() and not path.is_symlink():
        return None
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *lines = list(csv.reader(file)) or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        problems.append(
            f"{path} is not a UTF-8 table of comma-separated values ({error}). "
            "Save it again as CSV UTF-8."
        )
        return None
    columns = _columns(path, header, problems)
    if columns is None:
        return None
    entries = []
    for line in lines:
        # A spreadsheet ends a table with lines of nothing but commas.
        if any(cell.strip() for cell in line):
            cells = [cell.strip() for cell in line] + [""] * len(columns)
            entries.append({c: cell for c, cell in zip(columns, cells, strict=False) if c})
    for name, count in Counter(entry[FILE] for entry in entries).items():
        if count > 1:
            problems.append(f"{path} has more than one row for '{name}'. Keep one.")
    further = tuple(column for column in columns if column and column not in OWN.values())
    warnings = () if PATIENT in columns else tuple(_near_patient(path, further))
    return Metadata({entry[FILE]: entry for entry in entries}, further, warnings)


def _columns(path: Path, header: Sequence[str], problems: list[str]) -> list[str] | None:
    """Return what each column is called here, '' where nothing; None if that is unclear."""
    columns = [OWN.get(_loosely(name), name.strip()) for name in header]
    for column in (FILE, LABEL):
        if column not in columns:
            problems.append(_absent(path, column, header))
            return None
    for column in dict.fromkeys(filter(None, columns)):
        same = [name for name, own in zip(header, columns, strict=True) if own == column]
        if len(same) > 1:
            named = " and ".join(f"'{name}'" for name in same)
            problems.append(f"{path} has columns that mean the same, {named}. Keep one of them.")
            return None
    return columns


def _absent(path: Path, column: str, header: Sequence[str]) -> str:
    line = ",".join(header)
    for delimiter, name in DELIMITERS.items():
        names = {_loosely(cell.strip('" ')) for cell in line.split(delimiter)}
        if {"filename", "label"} <= names:
            return (
                f"{path} separates its columns by {name} instead of commas. Save it again as CSV "
                "with commas."
            )
    return (
        f"{path} lacks the column '{column}'. Its first line must read "
        "file_name,label or file_name,label,patient_id."
    )


def _loosely(name: str) -> str:
    """Return a column's name without case, blanks, and what joins words."""
    text = unicodedata.normalize("NFKC", name).casefold()
    return "".join(char for char in text if unicodedata.category(char)[0] not in "ZCP")


def _near_patient(path: Path, columns: Sequence[str]) -> Iterator[str]:
    for column in columns:
        name = _loosely(column)
        if name in PATIENT_LIKE or difflib.get_close_matches(name, ["patientid"], cutoff=0.8):
            yield (
                f"{path} has no column patient_id, but one called '{column}'. If it says whose "
                "image each is, rename it to patient_id; as it is, no patient is known, and one's "
                "images can fall on both sides of a fold."
            )
            return


def named_frames(rows: Mapping[str, Row], files: Collection[str]) -> dict[str, str]:
    """Return the frames that a table names, as 'covid/scan.dcm#3' → 'covid/scan.dcm'.

    A file whose own name ends so is that file.
    """
    there = set(files)
    found = {}
    for name in rows.keys() - there:
        parts = re.fullmatch(r"(.+)#[1-9][0-9]{0,5}", name)
        if parts and parts[1] in there:
            found[name] = parts[1]
    return found


def metadata_problems(
    path: Path,
    classes: Sequence[str],
    classes_map: Mapping[str, str],
    images: Mapping[str, int],
    rows: Mapping[str, Row],
) -> Iterator[str]:
    """Yield a sentence for each row that does not fit the images, and each image without a row.

    Parameters
    ----------
    path : Path
        The table.
    classes : sequence of str
        The classes, in label order.
    classes_map : mapping of str to str
        A site's own names of them.
    images : mapping of str to int
        Label of each image, by the folder it lies in.
    rows : mapping of str to Row
        Row of each image named.
    """
    for file, row in rows.items():
        label = class_of(row[LABEL], classes, classes_map)
        if label is None:
            yield (
                f"{path} gives '{file}' the label '{row[LABEL]}', which is no class of this run "
                f"({', '.join(classes)}). Correct the label, or set "
                f"{which_key(row[LABEL], classes)}."
            )
        elif file not in images:
            yield f"{path} has a row for '{file}', but {_why_absent(path.parent, file, images)}."
        elif classes[images[file]] != label:
            yield (
                f"'{file}' lies in the folder of another class than its label '{row[LABEL]}' in "
                f"{path}. Move the file or correct the label."
            )
    for file in images:
        if file not in rows:
            yield f"'{file}' has no row in {path}. Add a row or move the file away."


def _why_absent(root: Path, file: str, images: Collection[str]) -> str:
    base, mark, _ = file.rpartition("#")
    if mark and base in images:
        return f"a frame is named '{base}#1' and so on, counting from 1. Correct the row"
    if any(image.startswith(f"{file}#") for image in images):
        return "other rows name frames of that file. Keep the one or the others"
    passed_over = next(filter(None, map(why_passed_over, file.split("/"))), "")
    if passed_over and (root / file).is_file():
        return f"such a file is passed over ({passed_over}). Remove the row or rename the file"
    return "there is no such file. Remove the row or add the file"
