"""Whose images they are: patient ids under one spelling, from the table and from DICOM headers."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from common.errors import one_line

Ids = tuple[str | None, ...]
"""Patient of each image, None where unknown."""

SHOWN = 5
"""Examples that a sentence gives."""
UNKNOWN = {
    *("nan", "na", "nat", "none", "null", "nil", "nul", "undefined", "undef", "unspecified"),
    *("unknown", "unknownpatient", "patientunknown", "notknown", "unk", "unkn", "unbekannt"),
    *("inconnu", "desconocido", "sconosciuto"),
    *("anonymous", "anonymouspatient", "patientanonymous", "anonym", "anon", "anonymisiert"),
    *("anonymised", "anonymized", "deidentified", "deid", "pseudonymised", "pseudonymized"),
    *("removed", "redacted", "deleted", "withheld", "hidden", "empty", "blank"),
    *("missing", "notavailable", "unavailable", "notapplicable", "nodata", "novalue"),
    *("noid", "nopatientid", "notspecified", "notgiven", "notprovided", "tbd", "tba"),
    *("notset", "unset", "unassigned", "1ind", "1qnan"),
}
"""What a spreadsheet or an export says where it knows no patient, letters and digits alone."""
FAULTS = re.compile(r"#(n/?a(n/a)?|ref!|value!|name\?|num!|null!|div/0!)|n/[dk]|-(1|9+)")
"""What a spreadsheet shows in place of a value, and what some write in place of a number."""


def canonical(patient: str) -> str:
    """Return what two spellings of one patient's id have in common; '' for no patient's.

    Case, blanks and invisible characters, the leading zeros of a number, and a trailing ``.0``,
    which spreadsheets add and take away, distinguish nobody.
    """
    text = unicodedata.normalize("NFKC", patient).casefold()
    text = "".join(char for char in text if unicodedata.category(char)[0] not in "ZC")
    letters = "".join(char for char in text if char.isalnum())
    if letters in UNKNOWN or not letters.strip("0") or re.fullmatch("x{2,}", letters):
        return ""
    if FAULTS.fullmatch(text):
        return ""
    # Of 1.2.840.0 the last part is a number of its own, as of every identifier with several dots.
    text = re.sub(r"^([^.]*\d)\.0+$", r"\1", text)
    # The digits of 1.05 after its point are no number of their own.
    return re.sub(r"(?<!\d)(?<!\d\.)0+(?=\d)", "", text)


def one_spelling(ids: Sequence[str | None]) -> tuple[Ids, list[str]]:
    """Give every patient one spelling, the first one met.

    Parameters
    ----------
    ids : sequence of str or None
        As they are written; None or '' where nothing is.

    Returns
    -------
    tuple of str or None
        The same, None also where what is written says that nobody knows.
    list of str
        Sentences: which spellings were taken for one patient, and which for none.
    """
    spellings: defaultdict[str, dict[str, None]] = defaultdict(dict)
    unknown: Counter[str] = Counter()
    found: list[str | None] = []
    for written in ids:
        if key := canonical(written or ""):
            spellings[key].setdefault(str(written))
            found.append(next(iter(spellings[key])))
        else:
            unknown[written or ""] += 1
            found.append(None)
    del unknown[""]
    several = [list(spelt) for spelt in spellings.values() if len(spelt) > 1]
    return tuple(found), [*_of_spellings(several), *_of_unknown(unknown)]


def _of_spellings(several: Sequence[Sequence[str]]) -> Iterator[str]:
    if several:
        pairs = examples(f"'{first}' and '{second}'" for first, second, *_ in several)
        yield (
            f"{len(several)} patients have ids in more than one spelling ({pairs}): ids that "
            "differ only by case, blanks, leading zeros or a trailing '.0' are taken for one "
            "patient. Write each in one way, or ids that differ in more if they are of different "
            "patients."
        )


def _of_unknown(unknown: Mapping[str, int]) -> Iterator[str]:
    if unknown:
        counts = examples(f"'{written}' {n}" for written, n in Counter(unknown).most_common())
        yield (
            f"{sum(unknown.values())} images have a patient id that names nobody ({counts}): the "
            "patient of each is taken as unknown, so a fold cannot keep them together. Give ids "
            "where they are known."
        )


def join_headers(
    table: Sequence[str | None], headers: Sequence[str | None]
) -> tuple[Ids, list[str]]:
    """Join the patients that a table names with those of the files' DICOM headers.

    The two kinds of ids may be of different making, so an image that the table gives no patient
    is a table's patient only where its header's id is carried by images of that patient alone.

    Parameters
    ----------
    table : sequence of str or None
        Patient of each image by metadata.csv, in one spelling.
    headers : sequence of str or None
        Patient of each image by its DICOM header, as it is written.

    Returns
    -------
    tuple of str or None
        Patient of each image.
    list of str
        Sentences on what was joined.
    """
    if not any(table):
        return one_spelling(headers)
    owners: defaultdict[str, set[str]] = defaultdict(set)
    with_headers: set[str] = set()
    """Patients of the table of whose headers something is known."""
    keys = [canonical(header or "") for header in headers]
    for patient, key in zip(table, keys, strict=True):
        if patient is not None and key:
            owners[key].add(patient)
            with_headers.add(patient)
    namesakes = {canonical(patient): patient for patient in table if patient is not None}
    spelt: dict[str, str] = {}
    told: Counter[str] = Counter()

    def patient_of(key: str, header: str) -> str | None:
        if len(owners[key]) == 1:
            told["linked"] += 1
            return next(iter(owners[key]))
        if owners[key]:
            told["tied"] += 1
            return None
        namesake = namesakes.get(key)
        if namesake is not None and namesake not in with_headers:
            told["namesake"] += 1
            return namesake
        told["own"] += 1
        # Another patient of the table bears that id, under another one in its headers.
        beside = " (DICOM header)" if namesake is not None else ""
        return spelt.setdefault(key, f"{header}{beside}")

    joined = tuple(
        patient if patient is not None or not key else patient_of(key, header or "")
        for patient, key, header in zip(table, keys, headers, strict=True)
    )
    # Ids of images that the table names are followed, whatever their headers say.
    of_others = [h for patient, h in zip(table, headers, strict=True) if patient is None]
    said = one_spelling(of_others)[1]
    return joined, [*_of_joining(told, len(spelt)), *_of_ties(owners), *said]


def _of_joining(told: Mapping[str, int], own: int) -> Iterator[str]:
    parts = {
        "linked": "{} are taken for the one patient of the table whose images carry the same id",
        "namesake": "{} for the patient of the table whose id is the one in their headers",
        "own": f"{{}} for {own} patients known by their headers alone",
        "tied": "{} for nobody's, since images of several patients of the table carry their "
        "header's id",
    }
    said = [text.format(told[way]) for way, text in parts.items() if told[way]]
    if said:
        yield (
            f"metadata.csv gives {sum(told.values())} images no patient that have one in their "
            f"DICOM headers: {'; '.join(said)}. Complete patient_id if that is wrong."
        )


def _of_ties(owners: Mapping[str, set[str]]) -> Iterator[str]:
    ties = {key: patients for key, patients in owners.items() if len(patients) > 1}
    if ties:
        shown = examples(
            f"'{key}': {', '.join(sorted(patients)[:SHOWN])}" for key, patients in ties.items()
        )
        yield (
            f"{len(ties)} patient ids in DICOM headers are carried by images of several patients "
            f"of metadata.csv ({shown}). The table is followed; correct it if these are one "
            "patient, whom a fold would split."
        )


def in_several_classes(patients: Sequence[str | None], labels: Sequence[int]) -> list[str]:
    """Return the patients with images of more than one class, sorted."""
    classes_of: defaultdict[str, set[int]] = defaultdict(set)
    for patient, label in zip(patients, labels, strict=True):
        if patient is not None:
            classes_of[patient].add(label)
    return sorted(patient for patient, labels in classes_of.items() if len(labels) > 1)


def say_several_classes(several: Sequence[str]) -> Iterator[str]:
    """Yield a sentence on such patients where there are any."""
    if several:
        yield (
            f"{len(several)} patients have images in more than one class ({examples(several)}). "
            "That can be right (before and after an illness); a fold keeps them together."
        )


def examples(texts: Iterable[str]) -> str:
    """Join the first few, and mark that there are more."""
    listed = list(texts)
    return one_line(", ".join(listed[:SHOWN]) + (" …" if len(listed) > SHOWN else ""))
