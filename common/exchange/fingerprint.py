"""The fingerprint of the code that a message comes from.

Two sites that compute different things must not be averaged, and a stale copy of the code looks
like any other: so every reply carries the fingerprint of its code, and the server compares.
"""

import ast
import functools
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

SITE_CODE = ("common", "clients")
"""What a site computes with, and so what the fingerprint covers."""
DEPLOYED = (*SITE_CODE, "server")
"""What is shipped with a run over hospitals: Flower's bundle holds the server's app as well."""
SHIPPED = (*DEPLOYED, "simulations/__init__.py", "simulations/synthetic")
"""What may be shipped: a run on synthetic hospitals needs their painter too."""


@functools.cache
def code_fingerprint() -> str:
    """Return the fingerprint of the code of this process, as it was at the first call."""
    return fingerprint_of(Path(__file__).resolve().parents[2])


def fingerprint_of(root: Path) -> str:
    """Hash what the Python sources of a site compute, whatever their comments say.

    Parameters
    ----------
    root : Path
        The folder that holds ``common`` and ``clients``.

    Returns
    -------
    str
        SHA-256 over path and syntax tree of every ``.py`` file, in the order of the paths.
        Docstrings, comments and layout do not count, so that a corrected word does not split a
        federation; a file that is no Python counts with its bytes.
    """
    digest = hashlib.sha256()
    for file in python_files(root, SITE_CODE):
        content = _meaning(file.read_bytes())
        # The length keeps the end of one file and the start of the next apart.
        digest.update(f"{file.relative_to(root).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def python_files(root: Path, places: Sequence[str]) -> list[Path]:
    """Return the Python files of some places, in the order of their paths.

    Parameters
    ----------
    root : Path
        The folder that holds the packages.
    places : sequence of str
        Folders and files below it, as :data:`SHIPPED` names them; one that is missing has none.
    """
    files = [
        file
        for place in places
        for file in ((root / place).rglob("*.py") if "." not in place else [root / place])
        if file.is_file()
    ]
    return sorted(files, key=lambda file: file.relative_to(root).as_posix())


def _meaning(source: bytes) -> bytes:
    """Return a source's syntax tree as text; comments and docstrings are not in it."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return source
    return "".join(_spell(tree)).encode(errors="surrogatepass")


def _spell(value: object) -> Iterator[str]:
    """Spell a node of a syntax tree: its type and every attribute that is set.

    ``ast.dump`` would spell empty attributes too, of which each version of Python has others, and
    sites of one federation may run different versions.
    """
    if isinstance(value, ast.AST):
        yield f"{type(value).__name__}("
        for name, field in ast.iter_fields(value):
            if field is not None and field != []:
                yield f"{name}="
                yield from _spell(field)
        yield ")"
    elif isinstance(value, list):
        yield "["
        for item in value:
            if not _is_docstring(item):
                yield from _spell(item)
                yield ","
        yield "]"
    else:
        yield repr(value)


def _is_docstring(node: object) -> bool:
    """Say whether a statement is a text alone: it documents what stands before or around it."""
    constant = node.value if isinstance(node, ast.Expr) else None
    return isinstance(constant, ast.Constant) and isinstance(constant.value, str)
