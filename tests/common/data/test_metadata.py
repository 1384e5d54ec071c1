"""Tables as spreadsheets and people write them: which columns they have, and what rows name."""

from pathlib import Path

import pytest

from common.data.folder import SiteFolder, inspect_site, read_site
from tests.common.data.sites import CLASSES
from tests.corpus.sites import picture

HEADER = ("file_name", "label", "patient_id")


def site(root: Path, header: str, *cells: str, delimiter: str = ",") -> Path:
    """Write two images of each class, a patient each, and further cells."""
    lines = [header]
    for place, label in enumerate(CLASSES):
        (root / label).mkdir(parents=True)
        for number in range(2):
            picture(root / label / f"{number}.png", 10 * place + number)
            lines.append(
                delimiter.join([f"{label}/{number}.png", label, f"p{place}{number}", *cells])
            )
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root


def read(root: Path) -> SiteFolder:
    return read_site("a", root, CLASSES)


@pytest.mark.parametrize(
    "header",
    [
        "file_name,label, patient_id",
        "file_name,label,Patient_ID",
        "file_name,label,PatientID",
        "File Name,Label,PATIENT ID",
        "filename,LABEL,patient-id",
        "File.Name,label ,\u00a0patient.id",
        '"file_name","label","patient_id"',
    ],
)
def test_columns_are_found_however_they_are_written(tmp_path: Path, header: str) -> None:
    found = read(site(tmp_path / "a", header))
    assert found.patients == ("p10", "p11", "p00", "p01") and found.columns == {}


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ("file_name,label,patient_id,patient_id", "'patient_id' and 'patient_id'"),
        ("file_name,label,patient_id,Patient ID", "'patient_id' and 'Patient ID'"),
        ("file_name,label,Label,patient_id", "'label' and 'Label'"),
        ("file_name,label,age,age", "'age' and 'age'"),
    ],
)
def test_two_columns_of_one_meaning_are_refused(tmp_path: Path, header: str, named: str) -> None:
    _, problems = inspect_site("a", site(tmp_path / "a", header, ""), CLASSES)
    (problem,) = problems
    assert f"metadata.csv has columns that mean the same, {named}. Keep one" in problem


@pytest.mark.parametrize("name", ["patient", "PID", "Subject_ID", "pat_id", "patien_id", "subject"])
def test_a_column_that_may_hold_patients_is_told(tmp_path: Path, name: str) -> None:
    found = read(site(tmp_path / "a", f"file_name,label,{name}"))
    assert set(found.patients) == {None} and found.columns == {name: ("p10", "p11", "p00", "p01")}
    (warning,) = found.warnings
    assert f"has no column patient_id, but one called '{name}'" in warning
    assert "rename it to patient_id" in warning


def test_further_columns_keep_their_names_and_are_no_warning(tmp_path: Path) -> None:
    found = read(site(tmp_path / "a", "file_name,label,patient_id,Age,patient", "63", "x"))
    assert found.columns == {"Age": ("63",) * 4, "patient": ("x",) * 4}
    assert found.warnings == ()


@pytest.mark.parametrize(("delimiter", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_another_delimiter_is_named(tmp_path: Path, delimiter: str, name: str) -> None:
    root = site(tmp_path / "a", delimiter.join(HEADER), delimiter=delimiter)
    _, problems = inspect_site("a", root, CLASSES)
    assert f"metadata.csv separates its columns by {name} instead of commas" in problems[0]


def test_lines_of_nothing_but_commas_are_no_rows(tmp_path: Path) -> None:
    root = site(tmp_path / "a", ",".join(HEADER))
    with (root / "metadata.csv").open("a") as file:
        file.write(",,\n , ,\n")
    assert len(read(root)) == 4


def frames(root: Path, *names: str) -> Path:
    """Write a site whose table has a row for each of these names of class covid."""
    site(root, ",".join(HEADER))
    lines = (root / "metadata.csv").read_text().splitlines()
    lines = [line for line in lines if not line.startswith("covid/0.png")]
    lines += [f"{name},covid," for name in names]
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root


def test_rows_may_name_frames_of_a_file(tmp_path: Path) -> None:
    found = read(frames(tmp_path / "a", "covid/0.png#3", "covid/0.png#12"))
    assert found.files == (
        *("covid/0.png#12", "covid/0.png#3", "covid/1.png"),
        *("non-covid/0.png", "non-covid/1.png"),
    )
    assert found.labels.tolist() == [1, 1, 1, 0, 0]
    assert found.frames == dict.fromkeys(("covid/0.png#3", "covid/0.png#12"), "covid/0.png")


def test_a_file_whose_own_name_ends_like_a_frame_s_is_that_file(tmp_path: Path) -> None:
    root = frames(tmp_path / "a", "covid/0.png", "covid/0.png#3")
    picture(root / "covid" / "other.png", 77).rename(root / "covid" / "0.png#3")
    found = read(root)
    assert {"covid/0.png", "covid/0.png#3"} <= set(found.files) and found.frames == {}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("covid/0.png#0",), "named 'covid/0.png#1' and so on, counting from 1"),
        (("covid/0.png#first",), "named 'covid/0.png#1' and so on, counting from 1"),
        (("covid/0.png", "covid/0.png#2"), "other rows name frames of that file"),
        (("covid/0.png", "covid/7.png#2"), "there is no such file"),
    ],
)
def test_a_frame_that_cannot_be_is_told(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    _, problems = inspect_site("a", frames(tmp_path / "a", *names), CLASSES)
    assert said in problems[0]
