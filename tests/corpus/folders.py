"""Site folders that are not what they should be."""

import os
from pathlib import Path

from tests.corpus.case import Case
from tests.corpus.sites import TABLE, picture, rows_of, write_site

SCRIPTS = ("患者１", "Пациент", "مريض", "é́", "🫁", "a b (1) [x] {y} & $z ' \" ; #")


def empty(root: Path) -> None:
    root.mkdir()


def a_file(root: Path) -> None:
    root.write_bytes(b"a scan, not a folder of scans")


def absent(root: Path) -> None:
    """Write nothing."""


def one_class(root: Path) -> None:
    write_site(root, classes=("covid",))


def link_to_itself(root: Path) -> None:
    root.symlink_to(root)


def class_links_to_itself(root: Path) -> None:
    write_site(root, classes=("covid",))
    (root / "non-covid").symlink_to("non-covid")


def class_is_a_file(root: Path) -> None:
    write_site(root, classes=("covid",))
    (root / "non-covid").write_bytes(b"")


def class_in_capitals(root: Path) -> None:
    write_site(root)
    (root / "covid").rename(root / "COVID")


def class_within_class(root: Path) -> None:
    write_site(root)
    (root / "covid").rename(root / "non-covid" / "covid")


def links_round_within_a_class(root: Path) -> None:
    write_site(root)
    (root / "covid" / "again").symlink_to(root)


def link_to_nowhere(root: Path) -> None:
    write_site(root)
    (root / "covid" / "p99.png").symlink_to("/nowhere/p99.png")


def folder_of_images_is_a_link(root: Path) -> None:
    write_site(root)
    other = root.with_name("elsewhere")
    other.mkdir()
    picture(other / "p99.png", 99)
    (root / "covid" / "patient-99").symlink_to(other)


def images_link_outside(root: Path) -> None:
    write_site(root)
    store = root.with_name("archive")
    store.mkdir()
    for file in sorted(root.glob("*/*.png")):
        target = store / f"{file.parent.name}-{file.name}"
        file.rename(target)
        file.symlink_to(target)


def whole_site_is_a_link(root: Path) -> None:
    write_site(root.with_name("archive"))
    root.symlink_to(root.with_name("archive"))


def fewer_patients_than_folds(root: Path) -> None:
    write_site(root, images=6, patients=2)


def fewer_images_than_folds(root: Path) -> None:
    write_site(root, images=2)


def one_patient_in_all(root: Path) -> None:
    write_site(root)
    rows = [
        f"{label}/p{n:02d}.png,{label},same" for label in ("covid", "non-covid") for n in range(6)
    ]
    (root / TABLE).write_text("\n".join(["file_name,label,patient_id", *rows]) + "\n")


def name_with_a_line_break(root: Path) -> None:
    write_site(root)
    (root / "covid" / "two\nlines.png").write_bytes(b"no image")


def name_that_colours_the_terminal(root: Path) -> None:
    write_site(root)
    (root / "covid" / "\x1b[31mred.png").write_bytes(b"no image")


def name_in_latin_1(root: Path) -> None:
    write_site(root)
    with open(os.fsencode(root / "covid") + b"/M\xfcller.png", "wb") as file:  # noqa: PTH123
        file.write((root / "covid" / "p00.png").read_bytes())


def names_in_every_script(root: Path) -> None:
    write_site(root)
    for number, name in enumerate(SCRIPTS):
        picture(root / "covid" / f"{name}.png", 70 + number)


def names_as_long_as_they_can_be(root: Path) -> None:
    write_site(root)
    picture(root / "covid" / f"{'x' * 251}.png", 7)


def names_like_markup(root: Path) -> None:
    write_site(root)
    (root / "covid" / "[bold]p[red].png").write_bytes(b"no image")


def a_pipe_among_images(root: Path) -> None:
    write_site(root)
    os.mkfifo(root / "covid" / "p99.png")


def deeper_folders(root: Path) -> None:
    write_site(root)
    place = root / "covid" / Path(*(["study"] * 40))
    place.mkdir(parents=True)
    picture(place / "p99.png", 99)


def files_of_other_programs(root: Path) -> None:
    write_site(root)
    for name in ("Thumbs.db", "DICOMDIR"):
        (root / "covid" / name).write_bytes(b"\xd0\xcf\x11\xe0" * 20)


def checkpoints_of_a_notebook(root: Path) -> None:
    write_site(root)
    copy_into(root / "covid" / ".ipynb_checkpoints" / "p00-checkpoint.png", root)


def bins(root: Path) -> None:
    write_site(root)
    copy_into(root / "covid" / ".Trash-1000" / "files" / "p00.png", root)
    copy_into(root / "non-covid" / "$RECYCLE.BIN" / "S-1-5-21" / "$RABC.png", root)
    copy_into(root / "non-covid" / "#recycle" / "p00.png", root)


def network_storage(root: Path) -> None:
    write_site(root)
    copy_into(root / "covid" / "@eaDir" / "p00.png" / "SYNOPHOTO_THUMB_M.png", root)
    for name in ("@eaDir", "#snapshot", "lost+found", "System Volume Information"):
        (root / name).mkdir()


def copy_into(place: Path, root: Path) -> None:
    place.parent.mkdir(parents=True)
    place.write_bytes((root / "covid" / "p00.png").read_bytes())


def same_image_in_both_classes(root: Path) -> None:
    write_site(root)
    (root / "non-covid" / "p99.png").write_bytes((root / "covid" / "p00.png").read_bytes())


def same_image_twice(root: Path) -> None:
    write_site(root)
    copy_into(root / "covid" / "again" / "p00.png", root)


def hidden_files(root: Path) -> None:
    write_site(root)
    (root / "covid" / ".DS_Store").write_bytes(b"\0" * 20)
    (root / "covid" / "._p00.png").write_bytes(b"\0\5\x16\7")
    (root / ".trash").mkdir()


FOLDERS = (
    Case("absent", "a folder's name is mistyped", absent, r"there is no folder .*hospital"),
    Case("empty", "a drive is not mounted", empty, r"hospital holds none of the class folders"),
    Case("a file", "a scan is named instead of its folder", a_file, r"no folder .*hospital"),
    Case("link to itself", "a link was made the wrong way round", link_to_itself, "no folder"),
    Case(
        "one class",
        "negatives are still to come: it takes part without them",
        one_class,
        rows=rows_of(classes=["covid"]),
    ),
    Case(
        "class links to itself",
        "the same, one level down",
        class_links_to_itself,
        r"non-covid is missing",
    ),
    Case("class is a file", "an archive not unpacked", class_is_a_file, r"non-covid is missing"),
    Case("class in capitals", "a name of Windows", class_in_capitals, r"COVID is no class of this"),
    Case("class within class", "dragged into it", class_within_class, r"covid is missing"),
    Case(
        "links round within a class",
        "a link upwards, which would be followed for ever",
        links_round_within_a_class,
        r"covid/again is a link to a folder, which is not followed",
    ),
    Case(
        "folder of images is a link",
        "images that would silently be left out",
        folder_of_images_is_a_link,
        r"covid/patient-99 is a link to a folder, which is not followed",
    ),
    Case(
        "link to nowhere",
        "an archive that is not mounted: an image that would silently be left out",
        link_to_nowhere,
        r"covid/p99\.png is a link to what is not there",
    ),
    Case("a pipe", "reading it would wait for ever", a_pipe_among_images, r"p99\.png is no file"),
    Case("few patients", "fewer than folds", fewer_patients_than_folds, r"has 2 patients, fewer"),
    Case("few images", "fewer than folds", fewer_images_than_folds, r"has 2 patients, fewer"),
    Case("one patient", "a phantom, scanned again and again", one_patient_in_all, r"has 1 patient"),
    Case(
        "name with a line break",
        "a sentence over two lines hides its second half",
        name_with_a_line_break,
        r"two\\nlines\.png is not an image",
    ),
    Case(
        "name that colours the terminal",
        "escape sequences that a terminal obeys",
        name_that_colours_the_terminal,
        r"\\x1b\[31mred\.png is not an image",
    ),
    Case(
        "name in Latin-1",
        "an old archive: Python has no text for it, and every table needs one",
        name_in_latin_1,
        r"M.*ller\.png.* is not UTF-8.*[Rr]ename",
    ),
    Case("names like markup", "square brackets", names_like_markup, r"\[bold\]p\[red\]\.png is"),
    Case(
        "same image in both classes",
        "a copy that was meant to be moved",
        same_image_in_both_classes,
        r"'covid/p00\.png' and 'non-covid/p99\.png' are copies of one image, in different classes",
    ),
    Case(
        "same image twice",
        "exported twice",
        same_image_twice,
        rows=rows_of(0, "covid/again/p00.png"),
    ),
    Case(
        "other programs' files",
        "Windows and exports leave them",
        files_of_other_programs,
        rows=rows_of(),
    ),
    Case(
        "notebook's checkpoints",
        "an image opened in Jupyter",
        checkpoints_of_a_notebook,
        rows=rows_of(),
    ),
    Case("bins", "deleted images would be trained on", bins, rows=rows_of()),
    Case("network storage", "previews that it makes", network_storage, rows=rows_of()),
    Case("whole site is a link", "as on a cluster", whole_site_is_a_link, rows=rows_of()),
    Case(
        "images link outside", "a selection out of an archive", images_link_outside, rows=rows_of()
    ),
    Case(
        "names in every script",
        "patients have names",
        names_in_every_script,
        rows=rows_of(0, *(f"covid/{name}.png" for name in SCRIPTS)),
    ),
    Case(
        "names as long as can be",
        "255 bytes",
        names_as_long_as_they_can_be,
        rows=rows_of(0, f"covid/{'x' * 251}.png"),
    ),
    Case(
        "forty folders deep",
        "as a PACS exports them",
        deeper_folders,
        rows=rows_of(0, f"covid/{'study/' * 40}p99.png"),
    ),
    Case("hidden files", "a Mac leaves them", hidden_files, rows=rows_of()),
)
