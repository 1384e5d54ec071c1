"""Which files are images: nothing hidden, deleted, or another program's."""

from collections import Counter
from pathlib import Path

import pytest

from clients.prediction import find_images
from clients.site_check import check_folder
from common.config.load import make_config
from common.data.folder import inspect_site, read_site
from common.data.listing import describe, files_below, why_passed_over
from common.errors import RunError
from tests.common.data.sites import CLASSES, write_site
from tests.corpus.sites import picture

NOBODY_S = {
    "covid/.ipynb_checkpoints/p00-checkpoint.png": "hidden",
    "covid/.hid/deep/er/p01.png": "hidden",
    "covid/sub/.p02.png": "hidden",
    "covid/.Trash-1000/files/p03.png": "in a bin (.Trash-1000)",
    "covid/$RECYCLE.BIN/S-1-5/p04.png": "in a bin ($RECYCLE.BIN)",
    "covid/#recycle/p05.png": "in a bin (#recycle)",
    "covid/@eaDir/p06.png/SYNOPHOTO.png": "of another tool (@eaDir)",
    "covid/__MACOSX/p07.png": "of another tool (__MACOSX)",
    "covid/Thumbs.db": "of another tool (Thumbs.db)",
    "covid/desktop.ini": "of another tool (desktop.ini)",
    "covid/DICOMDIR": "of another tool (DICOMDIR)",
    "covid/~$p08.png": "left by an editor",
    "covid/p09.png~": "left by an editor",
}


def with_others_files(root: Path) -> Path:
    write_site(root)
    for number, name in enumerate(NOBODY_S):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(path.with_suffix(".png"), 100 + number).rename(path)
    return root


def test_nobody_s_files_are_no_images_and_are_counted(tmp_path: Path) -> None:
    root = with_others_files(tmp_path / "a")
    counts = Counter[str]()
    found = sorted(files_below(root / "covid", counts))
    assert [path.name for path in found] == [f"image {n} (1).png" for n in range(4)]
    assert counts == Counter(NOBODY_S.values())
    site = read_site("a", root, CLASSES)
    assert len(site) == 8
    assert site.passed_over == describe(counts) and "3 hidden" in site.passed_over
    check = check_folder("a", root, make_config({"sites": "a"}))
    assert check.facts["images of covid"] == "4"
    assert check.facts["passed over"] == site.passed_over
    assert sorted(find_images([root / "covid"])) == found


def test_names_that_only_look_alike_are_images(tmp_path: Path) -> None:
    for name in ("p.png", "trash/p.png", "recycler 2/p.png", "a~b.png", "eaDir/p.png", "a.tmp"):
        assert not any(map(why_passed_over, name.split("/")))


def test_a_hidden_folder_may_be_chosen(tmp_path: Path) -> None:
    file = tmp_path / ".private" / "p.png"
    file.parent.mkdir()
    picture(file)
    assert find_images([file.parent]) == [file]
    assert find_images([file]) == [file]


def test_what_other_tools_leave_beside_the_class_folders_is_no_class(tmp_path: Path) -> None:
    root = write_site(tmp_path / "a")
    for name in ("@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__MACOSX"):
        (root / name).mkdir()
    assert inspect_site("a", root, CLASSES)[1] == ()


def test_a_class_of_nothing_but_passed_over_files_is_empty(tmp_path: Path) -> None:
    root = write_site(tmp_path / "a")
    for file in (root / "covid").iterdir():
        file.rename(file.with_name(f".{file.name}"))
    assert (
        "covid is empty. The site takes part without" in read_site("a", root, CLASSES).warnings[0]
    )


def test_a_row_of_a_hidden_file_says_why_there_is_no_such_image(tmp_path: Path) -> None:
    root = write_site(tmp_path / "a", images=3, patients=3)
    (root / "covid" / ".old").mkdir()
    picture(root / "covid" / ".old" / "p.png", 5)
    with (root / "metadata.csv").open("a") as file:
        file.write("covid/.old/p.png,covid,x\n")
    _, (problem,) = inspect_site("a", root, CLASSES)
    assert "'covid/.old/p.png', but such a file is passed over (hidden)" in problem


def test_a_folder_that_cannot_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_site(tmp_path / "a")
    (root / "covid" / "series").mkdir()
    scandir = __import__("os").scandir

    def refusing(path: Path | str) -> object:
        if str(path).endswith("series"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refusing)
    _, (problem,) = inspect_site("a", root, CLASSES)
    assert "cannot read" in problem and "series: Permission denied" in problem
    with pytest.raises(RunError, match=r"Cannot read .*series: Permission denied"):
        find_images([root / "covid"])
