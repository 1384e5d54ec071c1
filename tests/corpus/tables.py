"""Tables of patients (metadata.csv), as spreadsheets and people write them."""

from collections.abc import Callable
from pathlib import Path

from tests.corpus.case import Case
from tests.corpus.sites import TABLE, Rows, rows_of, write_site

Change = Callable[[str], str | bytes]


SOUND = rows_of(4)


def table(
    name: str,
    why: str,
    change: Change,
    said: str = "",
    patients: dict[str, str | None] | None = None,
) -> Case:
    """Return the case of a sound site whose table is changed, and with it some of its patients."""
    of = patients or {}
    rows: Rows = {file: (label, of.get(str(who), who)) for file, (label, who) in SOUND.items()}

    def make(root: Path) -> None:
        write_site(root, patients=4)
        path = root / TABLE
        changed = change(path.read_text())
        path.write_bytes(changed if isinstance(changed, bytes) else changed.encode())

    return Case(name, why, make, said, rows=None if said else rows)


def renamed(old: str, new: str) -> Change:
    """Return a change of the first place where a text stands."""

    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


def is_a_folder(root: Path) -> None:
    write_site(root)
    (root / TABLE).mkdir()


def links_to_nowhere(root: Path) -> None:
    write_site(root)
    (root / TABLE).symlink_to("/nowhere/metadata.csv")


def links_to_itself(root: Path) -> None:
    write_site(root)
    (root / TABLE).symlink_to(TABLE)


HEADS = (("patient_id", "PatientID"), ("file_name", "File Name"))
FIRST = "non-covid/p00.png,non-covid,non-covid-0"
TABLES = (
    table("0 bytes", "a copy that a full disk ended", lambda text: "", "lacks the column 'file_"),
    table("another header", "as of another project", renamed("file_name", "path"), "lacks the col"),
    table(
        "semicolons",
        "a spreadsheet in German",
        lambda t: t.replace(",", ";"),
        r"metadata\.csv separates its columns by semicolons instead of commas",
    ),
    table(
        "tabs",
        "pasted",
        lambda text: text.replace(",", "\t"),
        r"metadata\.csv separates its columns by tabs instead of commas",
    ),
    table("no header", "written by hand", lambda t: t.partition("\n")[2], "lacks the column"),
    table(
        "a row twice", "two lists joined", renamed(FIRST, f"{FIRST}\n{FIRST}"), "more than one row"
    ),
    table("a file that is not there", "moved since", renamed("p00", "p77"), "no such file"),
    table(
        "leads out of the folder", "a traversal", renamed("non-covid/p00", "../p00"), "no such file"
    ),
    table("a whole path", "of another machine", renamed("non-covid/p", "/etc/p"), "no such file"),
    table("backslashes", "of Windows", renamed("non-covid/p", "non-covid\\p"), "no such file"),
    table(
        "NUL bytes",
        "a damaged disk",
        renamed("p00", "p\0"),
        r"'non-covid/p\\x00\.png', but there is no such",
    ),
    table("UTF-16", "a spreadsheet's Unicode text", lambda t: t.encode("utf-16"), "is not a UTF-8"),
    table(
        "Latin-1", "an old spreadsheet", lambda t: (t + "M\xfc").encode("latin-1"), "is not a UTF-8"
    ),
    table(
        "a quote left open",
        "an inch: the rest is one cell",
        renamed(",non-covid,", ',"non-covid,'),
        r"metadata\.csv",
    ),
    table(
        "a cell of 1 MB", "a report pasted into it", renamed("covid-0", "x" * 2**20), "is not a UTF"
    ),
    table(
        "rows cut off",
        "half of it copied",
        lambda t: t[: len(t) // 2],
        "has no row|which is no class",
    ),
    table("a label missing", "left empty", renamed(",non-covid,", ",,"), "the label ''"),
    table("many faults", "another site's table", lambda t: t.replace("p0", "q0"), "no such file"),
    Case("a folder", "in the table's place", is_a_folder, r"cannot read .*metadata\.csv"),
    Case(
        "links to nowhere",
        "a table that would silently be taken for none",
        links_to_nowhere,
        r"cannot read .*metadata\.csv",
    ),
    Case("links to itself", "the same", links_to_itself, r"cannot read .*metadata\.csv"),
    table("BOM", "as a spreadsheet saves UTF-8", lambda text: "\ufeff" + text),
    table("CRLF", "of Windows", lambda text: text.replace("\n", "\r\n")),
    table("CR alone", "of an old Mac", lambda text: text.replace("\n", "\r")),
    table(
        "quoted",
        "every cell",
        lambda t: "\n".join(
            ",".join(f'"{cell}"' for cell in row.split(",")) for row in t.splitlines()
        ),
    ),
    table("more columns", "age and sex", lambda t: t.replace("\n", ",63,f\n")),
    table("spaces around", "typed", lambda text: text.replace(",non-covid,", " , non-covid , ")),
    table(
        "no patients",
        "the column is empty",
        lambda t: t.replace(",covid-", ",").replace(",non-covid-0", ","),
        patients={"non-covid-0": None}
        | {f"covid-{n}": str(n) for n in range(1, 4)}
        | {"covid-0": None},
    ),
    table("Patient_ID", "another convention", renamed("patient_id", "Patient_ID")),
    table("a blank before a column", "typed", renamed(",patient_id", ", patient_id")),
    table("PatientID and File Name", "a PACS", lambda t: t.replace(*HEADS[0]).replace(*HEADS[1])),
    table(
        "the column twice",
        "two lists joined: the second is empty",
        lambda t: t.replace("\n", ",\n").replace("patient_id,", "patient_id,Patient ID"),
        r"columns that mean the same, 'patient_id' and 'Patient ID'",
    ),
    table(
        "a patient's zeros lost",
        "a spreadsheet takes ids for numbers",
        lambda t: t.replace("p00.png,covid,covid-0", "p00.png,covid,covid-00").replace(
            "p04.png,covid,covid-0", "p04.png,covid, COVID-0 "
        ),
        patients={"covid-0": "covid-00"},
    ),
    table(
        "patients that are nan",
        "a table of pandas: one for all would be a patient of half the images",
        lambda t: t.replace(",non-covid-1", ",nan").replace(",non-covid-2", ",UNKNOWN"),
        patients={"non-covid-1": None, "non-covid-2": None},
    ),
    table("lines of commas", "a spreadsheet's end", lambda text: text + ",,\n,,\n"),
)
