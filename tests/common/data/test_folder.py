from pathlib import Path

import pytest

from common.data.folder import inspect_site, read_site
from common.errors import SiteError
from tests.common.data.sites import CLASSES, write_site


def test_a_folder_is_read_in_label_order_with_patients(tmp_path: Path) -> None:
    site = read_site("a", write_site(tmp_path / "a", images=3, patients=2), CLASSES)
    assert site.files[0] == "covid/image 0 (1).png"
    assert site.labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert site.patients[:3] == ("covid-0", "covid-1", "covid-0")
    assert site.warnings == ()


def test_without_metadata_no_patient_is_known_and_masks_are_no_class(tmp_path: Path) -> None:
    root = write_site(tmp_path / "a")
    (root / "masks").mkdir()
    (root / "covid" / ".DS_Store").write_text("")
    site = read_site("a", root, CLASSES)
    assert len(site.files) == 8
    assert set(site.patients) == {None}


def _edit(root: Path, old: str, new: str) -> None:
    table = root / "metadata.csv"
    assert old in table.read_text()
    table.write_text(table.read_text().replace(old, new, 1))


def _damage(root: Path, kind: str) -> None:
    first = root / "covid" / "image 0 (1).png"
    row = "covid/image 0 (1).png,covid,covid-0"
    match kind:
        case "no image":
            for file in [*(root / "covid").iterdir(), *(root / "non-covid").iterdir()]:
                file.unlink()
            (root / "metadata.csv").unlink()
        case "empty class":
            for file in (root / "covid").iterdir():
                file.unlink()
        case "one class":
            for file in (root / "covid").iterdir():
                file.unlink()
            (root / "covid").rmdir()
        case "other folder":
            (root / "normal").mkdir()
        case "row without file":
            first.unlink()
        case "file without row":
            _edit(root, row + "\n", "")
        case "unknown label":
            _edit(root, row, "covid/image 0 (1).png,Covid,covid-0")
        case "contradicting label":
            _edit(root, row, "covid/image 0 (1).png,non-covid,covid-0")
        case "two rows":
            _edit(root, row, f"{row}\n{row}")
        case "no column":
            _edit(root, "file_name,label", "file,label")
        case "not UTF-8":
            (root / "metadata.csv").write_bytes(b"file_name,label\n\xff\xfe,covid\n")


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("no image", r"class folders in .*/a are all empty\. Add images"),
        ("other folder", r"/normal is no class of this run \(non-covid, covid\)\. Rename it"),
        ("row without file", r"row for 'covid/image 0 \(1\)\.png', but there is no such file"),
        ("file without row", r"'covid/image 0 \(1\)\.png' has no row .*Add a row"),
        ("unknown label", r"the label 'Covid', which is no class"),
        ("contradicting label", r"folder of another class than its label 'non-covid'"),
        ("two rows", r"more than one row for 'covid/image 0 \(1\)\.png'\. Keep one"),
        ("no column", r"lacks the column 'file_name'"),
        ("not UTF-8", r"not a UTF-8 table"),
    ],
)
def test_each_fault_is_one_sentence_of_site_file_and_remedy(
    tmp_path: Path, kind: str, sentence: str
) -> None:
    root = write_site(tmp_path / "a", images=3, patients=3)
    _damage(root, kind)
    with pytest.raises(SiteError, match=rf"^Site 'a': .*{sentence}"):
        read_site("a", root, CLASSES)


@pytest.mark.parametrize(("kind", "how"), [("empty class", "empty"), ("one class", "missing")])
def test_a_site_without_a_class_is_read_and_warned_of(tmp_path: Path, kind: str, how: str) -> None:
    root = write_site(tmp_path / "a", images=3)
    _damage(root, kind)
    site = read_site("a", root, CLASSES)
    assert site.labels.tolist() == [0, 0, 0] and site.classes == CLASSES
    (warning,) = site.warnings
    assert warning.startswith(f"Site 'a': the class folder {root}/covid is {how}.")
    assert "Add images of that class" in warning


def test_a_missing_folder_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match=r"there is no folder .*none\. Expected .*non-covid, covid"):
        read_site("a", tmp_path / "none", CLASSES)


def test_every_problem_is_found_not_only_the_first(tmp_path: Path) -> None:
    root = write_site(tmp_path / "a", images=3, patients=3)
    _damage(root, "row without file")
    _damage(root, "other folder")
    _, problems = inspect_site("a", root, CLASSES)
    assert len(problems) == 2


def test_a_patient_in_two_classes_is_a_warning(tmp_path: Path) -> None:
    root = write_site(tmp_path / "a", images=3, patients=3)
    _edit(root, "non-covid-0", "covid-0")
    site = read_site("a", root, CLASSES)
    assert "1 patients have images in more than one class (covid-0)" in site.warnings[0]
