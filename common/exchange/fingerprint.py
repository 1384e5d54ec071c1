"""The fingerprint of the code that a message comes from.

Two sites that compute different things must not be averaged, and a stale copy of the code looks
like any other: so every reply carries the fingerprint of its code, and the server compares.
"""

import functools
import hashlib
from pathlib import Path

PACKAGES = ("common", "clients")
"""What a site runs; the server's own package may differ."""


@functools.cache
def code_fingerprint() -> str:
    """Return the fingerprint of the code of this process, as it was at the first call."""
    return fingerprint_of(Path(__file__).resolve().parents[2])


def fingerprint_of(root: Path) -> str:
    """Hash the Python sources of the packages below a folder.

    Parameters
    ----------
    root : Path
        The folder that holds ``common`` and ``clients``.

    Returns
    -------
    str
        SHA-256 over path and content of every ``.py`` file, in the order of the paths.
    """
    digest = hashlib.sha256()
    files = [file for package in PACKAGES for file in (root / package).rglob("*.py")]
    for file in sorted(files, key=lambda file: file.relative_to(root).as_posix()):
        content = file.read_bytes()
        # The length keeps the end of one file and the start of the next apart.
        digest.update(f"{file.relative_to(root).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()
