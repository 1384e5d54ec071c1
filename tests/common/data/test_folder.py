from pathlib import Path

import pytest

from clients.site_check import check_folder
from common.config.load import make_config
from common.data.folder import inspect_site, read_site
from common.errors import SiteError
from common.learning.local_site import open_site
from tests.common.data.sites import CLASSES, write_site
from tests.corpus.sites import picture


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


MAP = {"COVID-19": "covid", "CT_COVID": "covid", "Normal": "non-covid"}


def own_names(root: Path, *rows: str) -> Path:
    """Write a site whose folders bear names of its own, two of them of one class."""
    for place, folder in enumerate(("covid-19", "CT_COVID", "Normal")):
        (root / folder).mkdir(parents=True)
        for number in range(2):
            picture(root / folder / f"{number}.png", 10 * place + number)
    if rows:
        (root / "metadata.csv").write_text("\n".join(["file_name,label,patient_id", *rows]) + "\n")
    return root


def test_folders_and_labels_may_bear_a_site_s_own_names(tmp_path: Path) -> None:
    rows = [
        *("CT_COVID/0.png,covid,a", "CT_COVID/1.png,COVID-19,a"),
        *("Normal/0.png,normal,b", "Normal/1.png,non-covid,c"),
        *("covid-19/0.png, Covid-19 ,d", "covid-19/1.png,CT_COVID,d"),
    ]
    for root in (own_names(tmp_path / "a", *rows), own_names(tmp_path / "b")):
        site = read_site("a", root, CLASSES, MAP)
        assert site.files == tuple(row.partition(",")[0] for row in rows)
        assert site.labels.tolist() == [1, 1, 0, 0, 1, 1]
        assert site.warnings == ()


def test_a_label_of_another_class_than_its_folder_s_is_told(tmp_path: Path) -> None:
    rows = [
        f"{folder}/{n}.png,covid,x" for folder in ("CT_COVID", "Normal", "covid-19") for n in (0, 1)
    ]
    _, problems = inspect_site("a", own_names(tmp_path / "a", *rows), CLASSES, MAP)
    assert len(problems) == 2
    assert (
        "'Normal/0.png' lies in the folder of another class than its label 'covid'" in problems[0]
    )


def test_a_folder_in_capitals_is_refused_with_the_map_that_takes_it_in(tmp_path: Path) -> None:
    root = write_site(tmp_path / "a")
    (root / "covid").rename(root / "COVID")
    _, problems = inspect_site("a", root, CLASSES)
    assert "COVID is no class of this run" in problems[0]
    assert "or set classes-map = 'COVID=covid'." in problems[0]
    assert len(read_site("a", root, CLASSES, {"COVID": "covid"})) == 8


def test_the_check_and_training_read_the_same_names(tmp_path: Path) -> None:
    root = own_names(tmp_path / "a")
    values = {"sites": f"a={root}", "folds": 2, "image-size": 32, "split": "image"}
    config = make_config(values | {"classes-map": "COVID-19=covid,CT_COVID=covid,Normal=non-covid"})
    check = check_folder("a", root, config)
    assert check.fit and check.facts["images of covid"] == "4"
    config = config.changed(cache_dir=str(tmp_path / "cache"))
    assert open_site(config, "a").labels.tolist() == [1, 1, 0, 0, 1, 1]


OUT = {"covid-19": "covid", "Normal": "non-covid", "CT_COVID": "", "unsure": ""}


def test_folders_and_labels_without_a_class_take_no_part_and_are_counted(tmp_path: Path) -> None:
    rows = [
        *("covid-19/0.png,covid,a", "covid-19/1.png, Unsure ,b"),
        *("Normal/0.png,normal,c", "Normal/1.png,non-covid,d"),
        # What a table says of a folder that takes no part does not matter, nor has it to.
        "CT_COVID/0.png,something else,e",
    ]
    root = own_names(tmp_path / "a", *rows)
    site = read_site("a", root, CLASSES, OUT)
    assert site.files == ("Normal/0.png", "Normal/1.png", "covid-19/0.png")
    assert site.labels.tolist() == [0, 0, 1] and site.patients == ("c", "d", "a")
    assert site.left_out == "2 CT_COVID, 1 Unsure" and site.warnings == ()
    values = {"sites": f"a={root}", "classes-map": "covid-19=covid,Normal=non-covid,CT_COVID="}
    check = check_folder("a", root, make_config(values | {"split": "image", "folds": 2}))
    assert check.facts["left out"] == "2 CT_COVID"
    (problem,) = check.problems
    assert "set classes or classes-map ('Unsure=' leaves it out)." in problem


def test_a_site_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    rows = [f"{folder}/{n}.png,unsure," for folder in ("Normal", "covid-19") for n in (0, 1)]
    with pytest.raises(SiteError, match=r"classes-map leaves out every image in .*\. Add images"):
        read_site("a", own_names(tmp_path / "a", *rows), CLASSES, OUT)
