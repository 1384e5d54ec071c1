"""Which files below a folder are somebody's images, and which of them are passed over."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from common.errors import one_line

BINS = {"$recycle.bin", "#recycle", "@recycle", "recycler", "recycled"}
"""Folders of deleted files, in lower case: of Windows, and of network storage."""
OTHER_TOOLS = {
    "@eadir",
    "@recently-snapshot",
    "@tmp",
    "#snapshot",
    "__macosx",
    "__pycache__",
    "desktop.ini",
    "dicomdir",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "lost+found",
    "system volume information",
    "thumbs.db",
}
"""Files and folders that other programs leave, in lower case: previews, copies, lists."""


def why_passed_over(name: str) -> str:
    """Say why a file or folder of that name holds nobody's image; '' where nothing says so."""
    known = name.casefold()
    if known in BINS or known.startswith(".trash"):
        return f"in a bin ({name})"
    if known in OTHER_TOOLS:
        return f"of another tool ({name})"
    if name.startswith("~$") or name.endswith("~"):
        return "left by an editor"
    return "hidden" if name.startswith(".") else ""


def files_below(folder: Path, passed_over: Counter[str] | None = None) -> Iterator[Path]:
    """Yield what lies below a folder and is no folder: files, links, and what is neither.

    Parameters
    ----------
    folder : Path
        Its own name does not count: it was chosen.
    passed_over : Counter, optional
        Gains the number of files passed over, by reason.

    Raises
    ------
    OSError
        If a folder cannot be read: its images would be left out in silence.
    """
    counts = Counter[str]() if passed_over is None else passed_over
    for parent, folders, files in os.walk(folder, onerror=_raise):
        for name in list(folders):
            path = Path(parent, name)
            if reason := why_passed_over(name):
                folders.remove(name)
                counts[reason] += sum(len(inside) for _, _, inside in os.walk(path))
            elif path.is_symlink():
                yield path
        for name in files:
            if reason := why_passed_over(name):
                counts[reason] += 1
            else:
                yield Path(parent, name)


def describe(passed_over: Counter[str]) -> str:
    """Say how many files were passed over, by reason: '3 hidden, 1 of another tool (@eaDir)'."""
    return one_line(", ".join(f"{n} {why}" for why, n in passed_over.most_common() if n))


def _raise(error: OSError) -> None:
    raise error
