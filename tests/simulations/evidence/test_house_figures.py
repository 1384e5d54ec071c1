"""The figures of a small code base made by hand: every one is counted in sight."""

import json
from pathlib import Path

import pytest
import typer

from simulations.evidence.house import Module, import_cycles, import_graph, main, measure_house

PLAN = '''\
"""Plan."""
from common import cells


class Plan:
    size = 1
'''
CELLS = """\
import json
from common.plan import Plan

found = json
for one in ():
    own = [told for told in ()]


class Cell: ...
"""
APP = """\
import common.plan
from common import no_module

def run(known):
    from common.cells import Cell, found

    def _mean():
        import os
        from server.plan import Plan
        held = Cell
        return held
    return _mean
"""
SERVER = """\
from common.plan import Plan as Other


class Plan(Other):
    def _mean(self): ...


def _mean(): ...
"""
FILES = {
    "common/__init__.py": '"""Common."""\n',
    "common/plan.py": PLAN,  # 6 lines
    "common/cells.py": CELLS,  # 9 lines
    "clients/__init__.py": "",
    "clients/__main__.py": "import common\n",
    "clients/app.py": APP,  # 12 lines
    "server/__init__.py": '"""Server."""\n',
    "server/plan.py": SERVER,  # 8 lines
    "simulations/__init__.py": '"""Simulations."""\n',
    "simulations/__main__.py": "import simulations.long\n",
    "simulations/long.py": "@print\ndef _mean():\n" + 56 * "    said = 1\n" + "\nsize = 2\n",  # 60
    "simulations/short.py": 59 * "known = 1\n",
    "simulations/templates/small.py": "import flwr\n",  # a folder that is no package
    "tests/test_plan.py": "class Plan: ...\n",  # never counted
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return tmp_path


def test_every_figure_is_the_one_counted_by_hand(tree: Path) -> None:
    figures, names = measure_house(tree)
    assert figures == {
        "lines of common": 1 + 6 + 9,
        "lines of clients": 0 + 1 + 12,
        "lines of server": 1 + 8,
        "lines of simulations": 1 + 1 + 60 + 59 + 1,
        "lines": 16 + 13 + 9 + 122,
        "lines that reach a hospital (common, clients)": 16 + 13,
        "modules of common": 3,
        "modules of clients": 3,
        "modules of server": 2,
        "modules of simulations": 5,
        "modules": 13,
        # plan → cells, cells → plan, clients.__main__ → common, server.plan → common.plan,
        # simulations.__main__ → long, app → common.plan, common, and in functions two more.
        "imports a module, those in functions too": (5 + 2 + 2) / 13,
        "imports a module, at the top level": (5 + 2) / 13,
        # In run: one statement; in run's _mean: two.
        "function-level imports": 1 + 2,
        # plan, cells, app, clients.__main__, server.plan, simulations.__main__, short; long has 60.
        "modules under 60 lines": 7,
        "public names of several modules": 1,
        "private names of several modules": 1,
        "module names of several modules": 1,
        "import cycles": 1,
        "largest file": "60 (simulations/long.py)",
        "longest function": "57 (simulations/long.py:2 _mean)",
    }
    assert names == {
        "public": {"Plan": ["common.plan", "server.plan"]},
        "private": {"_mean": ["server.plan", "simulations.long"]},
        "module": {"plan": ["common.plan", "server.plan"]},
    }


def test_a_longer_cycle_is_one_group_and_a_chain_is_none(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    for name, target in {"a": "b", "b": "c, common.e", "c": "a", "d": "a", "e": "e"}.items():
        (tmp_path / f"common/{name}.py").write_text(f"def f():\n    import common.{target}\n")
    modules = [Module.read(tmp_path, file) for file in sorted(tmp_path.rglob("*.py"))]
    graph = import_graph(modules)
    assert import_cycles(graph) == [["common.a", "common.b", "common.c"]]
    assert graph["common.e"] == set()  # a module that names itself imports no other


def test_names_of_most_modules_come_first(tmp_path: Path) -> None:
    for name, content in {
        "a": "def f(): ...",
        "b": "class f: ...\nclass E: ...",
        "c": "f = 1",
    }.items():
        for package in ("common", "server"):
            (tmp_path / package).mkdir(exist_ok=True)
            (tmp_path / package / f"{name}.py").write_text(content)
    _, names = measure_house(tmp_path)
    assert list(names["public"].items()) == [
        ("f", ["common.a", "common.b", "server.a", "server.b"]),
        ("E", ["common.b", "server.b"]),
    ]


def test_table_has_a_row_for_each_figure(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(tree)
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("|")
    ]
    assert [title for title, _ in rows[2:]] == list(measure_house(tree)[0])
    assert ["imports a module, those in functions too", "0.69"] in rows


def test_the_command_lists_the_names_only_when_asked(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(tree)
    table = capsys.readouterr().out
    assert "_mean ×2" not in table
    main(tree, names=True)
    listed = capsys.readouterr().out
    assert listed.startswith(table)
    assert "- Plan ×2: common.plan, server.plan\n" in listed
    assert "- _mean ×2: server.plan, simulations.long\n" in listed


def test_json_holds_the_same_figures(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(tree, as_json=True)
    figures, names = measure_house(tree)
    assert json.loads(capsys.readouterr().out) == {"figures": figures, "names": names}


def test_a_folder_without_the_packages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter) as caught:
        main(tmp_path)
    assert f"{tmp_path} holds no Python file of common, clients" in str(caught.value)


def test_a_file_that_is_not_python_is_refused_by_name(tree: Path) -> None:
    (tree / "server/broken.py").write_text("def f(:\n")
    with pytest.raises(typer.BadParameter) as caught:
        main(tree)
    assert "broken.py" in str(caught.value)
