from pathlib import Path

import pytest

from common.exchange.fingerprint import code_fingerprint, fingerprint_of

ROOT = Path(__file__).parents[3]


@pytest.fixture
def code(tmp_path: Path) -> Path:
    for name, text in {
        "common/__init__.py": "",
        "common/deep/a.py": "a = 1\n",
        "clients/b.py": "b = 2\n",
        "server/c.py": "c = 3\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def changed(code: Path, name: str, text: str | None) -> bool:
    """Tell whether writing (or removing) a file changes the fingerprint."""
    before = fingerprint_of(code)
    path = code / name
    if text is None:
        path.unlink()
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return fingerprint_of(code) != before


def test_the_process_has_the_fingerprint_of_the_code_that_it_runs() -> None:
    assert code_fingerprint() == fingerprint_of(ROOT)
    assert len(code_fingerprint()) == 64


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("common/deep/a.py", "a = 2\n"),
        ("common/deep/a.py", "a = 1.0\n"),
        ("common/deep/a.py", "a = '1'\n"),
        ("common/deep/a.py", "a = 1\nb: int\n"),
        ("common/deep/a.py", "a = 1\n'unfinished"),
        ("common/deep/new.py", ""),
        ("clients/b.py", ""),
        ("clients/b.py", None),
    ],
)
def test_any_change_of_what_a_site_runs_is_seen(code: Path, name: str, text: str | None) -> None:
    assert changed(code, name, text)


@pytest.mark.parametrize(
    "name",
    ["server/c.py", "simulations/d.py", "common/page.html", "common/a.pyc", "README.md", "e.py"],
)
def test_what_a_site_does_not_run_changes_nothing(code: Path, name: str) -> None:
    assert not changed(code, name, "changed")


def test_words_and_layout_change_nothing(code: Path) -> None:
    """Nor does the version of Python that spells the tree, as no empty attribute is spelt."""
    sources = [
        'def f(x):\n    """Add one."""\n    return x + 1\n\n\nN = 2\n"""Two."""\n',
        '"""A module."""\n\ndef f(x):\n    # The next one.\n    return (x\n  +1)\nN = 2\r\n',
        "def f(x): return x + 1\nN = 2",
    ]
    seen = set()
    for source in sources:
        (code / "clients" / "b.py").write_bytes(source.encode())
        seen.add(fingerprint_of(code))
    assert len(seen) == 1
    assert changed(code, "clients/b.py", "def f(x): return x + 1\nN = f'Two.'")


def test_a_text_that_is_computed_with_counts(code: Path) -> None:
    (code / "clients" / "b.py").write_text('def f():\n    return "a"\n')
    assert changed(code, "clients/b.py", 'def f():\n    return "b"\n')


def test_a_file_that_moves_is_another_code(code: Path) -> None:
    before = fingerprint_of(code)
    (code / "common/deep/a.py").rename(code / "common/a.py")
    assert fingerprint_of(code) != before


@pytest.mark.parametrize("between", ["", "\0"])
def test_text_that_moves_from_one_file_to_the_next_is_another_code(
    code: Path, between: str
) -> None:
    """Only the lengths tell the files apart: read one after the other, both spell the same."""
    first, second = code / "common/deep/a.py", code / "common/deep/b.py"
    first.write_text("x")
    second.write_text("y")
    before = fingerprint_of(code)
    first.write_text(f"xcommon/deep/b.py{between}y")
    second.unlink()
    assert fingerprint_of(code) != before


def test_where_the_code_lies_changes_nothing(
    code: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = fingerprint_of(code)
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "another-name"
    code.rename(elsewhere)
    assert fingerprint_of(elsewhere) == before
