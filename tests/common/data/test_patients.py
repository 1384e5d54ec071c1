"""Whose image it is: spellings of one patient, ids of nobody, and two sources of ids."""

from pathlib import Path

import pytest

from clients.site_check import check_folder
from common.config.load import make_config
from common.config.sections import ImageKeys
from common.data.cache import load_site
from common.data.folder import SiteFolder, read_site
from common.data.patients import canonical, join_headers, one_spelling
from tests.common.data.sites import CLASSES
from tests.corpus.dicoms import HOUNSFIELD, dicom

SETTINGS = ImageKeys(cache_size=16)


@pytest.mark.parametrize(
    "spellings",
    [
        ["0001", "1", "1.0", "01.0", " 1 ", "1\u00a0", "\uff11"],
        ["P7", "p7", "P 7", "P\u20097", "p\u200b7", "P07", "p007"],
        ["Müller 3", "mu\u0308ller3", "MÜLLER\t03"],
        ["2020-01-05", "2020-1-5"],
    ],
)
def test_spellings_of_one_patient(spellings: list[str]) -> None:
    assert len({canonical(spelling) for spelling in spellings}) == 1


def test_other_ids_are_other_patients() -> None:
    ids = [
        "1",
        "10",
        "100",
        "1.5",
        "1.05",
        "15",
        "a1",
        "1a",
        "a-1",
        "1.2.840",
        "1.2.840.0",
        "x",
        "NA-1",
    ]
    assert len({canonical(one) for one in ids} - {""}) == len(ids)


@pytest.mark.parametrize(
    "written",
    [
        *("", " ", "nan", "NaN", "NA", "n/a", "N.A.", "<NA>", "None", "NULL", "(null)", "Unknown"),
        *("unk", "-", "--", "—", "?", "??", ".", "_", "0", "000", "0.0", "Anonymous", "ANON"),
        *("ANONYMISED", "anonymized", "Anonymous^", "removed", "De-Identified", "missing"),
        *("-1", "-999", "n/d", "1.#QNAN", "not set"),
        *("Not available", "#N/A", "#REF!", "xxx", "XX", "\u200b", "unbekannt"),
    ],
)
def test_what_names_nobody(written: str) -> None:
    assert canonical(written) == ""


def test_ids_are_written_as_they_were_first_met_and_told() -> None:
    ids, said = one_spelling(["0001", "P2", "1", None, "nan", "p 2", "NaN", "nan", ""])
    assert ids == ("0001", "P2", "0001", None, None, "P2", None, None, None)
    spelt, unknown = said
    assert spelt.startswith("2 patients have ids in more than one spelling ('0001' and '1', 'P2' ")
    assert unknown.startswith("3 images have a patient id that names nobody ('nan' 2, 'NaN' 1)")


def test_at_most_five_pairs_are_shown() -> None:
    _, (said,) = one_spelling([f"{zeros}{n}" for n in range(1, 9) for zeros in ("", "0")])
    assert "'5' and '05' …" in said and "'6'" not in said


def test_sound_ids_are_left_alone() -> None:
    assert one_spelling(["a-1", "b-2", None, "a-1"]) == (("a-1", "b-2", None, "a-1"), [])


def test_a_table_without_patients_has_those_of_the_headers() -> None:
    assert join_headers([None] * 4, ["07", "7", "ANON", None])[0] == ("07", "07", None, None)


def test_an_empty_cell_is_filled_only_where_a_header_tells_whose_it_is() -> None:
    table = ["p1", None, None, "p2", "p3", None, None, None, None, "H6"]
    headers = ["H1", "h 1", "H9", "H2", "H2", "H2", None, "unknown", "h9", "H7"]
    patients, (joined, tied, spelt, unknown) = join_headers(table, headers)
    assert patients == ("p1", "p1", "H9", "p2", "p3", None, None, None, "H9", "H6")
    assert "gives 4 images no patient that have one in their DICOM headers" in joined
    assert "1 are taken for the one patient of the table" in joined
    assert "2 for 1 patients known by their headers alone" in joined
    assert "1 for nobody's" in joined
    assert "('h2': p2, p3)" in tied
    assert "('H9' and 'h9')" in spelt and "('unknown' 1)" in unknown


def test_a_header_of_another_patient_s_name_is_a_patient_of_its_own() -> None:
    # The table's 2 is 'X' in its headers: its numbers are others than the headers'.
    patients, _ = join_headers(["1", "2", None], ["W", "X", "2"])
    assert patients == ("1", "2", "2 (DICOM header)")
    # Nothing is known of the headers of the table's 0003, so 3 is taken for it.
    assert join_headers(["0003", None], [None, "3"])[0] == ("0003", "0003")


def dicom_site(root: Path, patients: dict[str, str | None], table: dict[str, str]) -> Path:
    """Write DICOM files with these patients in their headers, and a table of others."""
    for number, (file, patient) in enumerate(patients.items()):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(
            dicom(HOUNSFIELD * (1 + number % 7) + 31 * number, PatientID=patient)
        )
    if table:
        rows = [f"{file},{file.partition('/')[0]},{table.get(file, '')}" for file in patients]
        (root / "metadata.csv").write_text("\n".join(["file_name,label,patient_id", *rows]) + "\n")
    return root


def opened(root: Path, cache: Path) -> SiteFolder:
    return load_site(read_site("a", root, CLASSES), SETTINGS, cache)


@pytest.mark.parametrize("with_table", [True, False])
def test_training_and_the_check_join_patients_alike(tmp_path: Path, with_table: bool) -> None:
    """Eight patients of two images: the table knows one of each, the header both, otherwise."""
    headers: dict[str, str | None] = {}
    table = {}
    for number in range(8):
        label = CLASSES[number % 2]
        headers[f"{label}/{number}-0.dcm"] = f"{number + 1:04d}"
        headers[f"{label}/{number}-1.dcm"] = f" {number + 1}"
        table[f"{label}/{number}-0.dcm"] = f"patient-{number}"
    root = dicom_site(tmp_path / "a", headers, table if with_table else {})
    site = opened(root, tmp_path / "cache")
    expected = table if with_table else headers
    of = dict(zip(site.files, site.patients, strict=True))
    for number in range(8):
        first, second = (f"{CLASSES[number % 2]}/{number}-{n}.dcm" for n in (0, 1))
        assert of[first] == of[second] == expected[first]
    assert any(
        ("gives 8 images" if with_table else "8 patients have ids") in w for w in site.warnings
    )
    config = make_config({"sites": "a", "folds": 4, "image-size": 16})
    check = check_folder("a", root, config)
    assert check.facts["patients known"] == "8" and check.facts["images without patient"] == "0"
    assert set(site.warnings) <= set(check.warnings)
    assert "0 of 8 patients are in both" in check.leakage


def test_half_a_site_of_anonymous_files_is_nobody_s(tmp_path: Path) -> None:
    files = [f"{label}/{n}.dcm" for label in CLASSES for n in range(4)]
    headers = {file: "ANONYMOUS" if n % 2 else f"P{n}" for n, file in enumerate(files)}
    site = opened(dicom_site(tmp_path / "a", dict(headers), {}), tmp_path / "cache")
    assert sorted(filter(None, site.patients)) == ["P0", "P2", "P4", "P6"]
    assert site.patients.count(None) == 4
    assert any(
        "4 images have a patient id that names nobody ('ANONYMOUS' 4)" in w for w in site.warnings
    )


def test_a_patient_whom_headers_show_in_two_classes_is_told(tmp_path: Path) -> None:
    files = [f"{label}/{n}.dcm" for label in CLASSES for n in range(2)]
    site = opened(dicom_site(tmp_path / "a", dict.fromkeys(files, "P1"), {}), tmp_path / "cache")
    assert any("1 patients have images in more than one class (P1)" in w for w in site.warnings)
