"""The figures of a small code base made by hand: every one is counted in sight."""

import json
from pathlib import Path

import pytest
import typer

from simulations.evidence.house import HouseFigures, Largest, figures_table, main, measure_house

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
    assert measure_house(tree) == HouseFigures(
        lines={
            "common": 1 + 6 + 9,
            "clients": 0 + 1 + 12,
            "server": 1 + 8,
            "simulations": 1 + 1 + 60 + 59 + 1,
        },
        modules={"common": 3, "clients": 3, "server": 2, "simulations": 5},
        # plan → cells, cells → plan, clients.__main__ → common, server.plan → common.plan,
        # simulations.__main__ → long, app → common.plan, common, and in functions two more.
        imports_per_module=(5 + 2 + 2) / 13,
        imports_at_top_per_module=(5 + 2) / 13,
        # In run: one statement of two names; in run's _mean: two statements of one name each.
        function_imports=1 + 2,
        function_imports_by_function=1 + 2 * 2,
        function_import_names=2 + 1 + 1,
        # plan, cells, app, clients.__main__, server.plan, simulations.__main__, short; long has 60.
        small_modules=7,
        small_files=7 + 4 + 1,
        public_names={"Plan": ["common.plan", "server.plan"]},
        private_names={"_mean": ["server.plan", "simulations.long"]},
        module_names={"plan": ["common.plan", "server.plan"]},
        cycles=[["common.cells", "common.plan"]],
        largest_file=Largest("simulations/long.py", 60),
        longest_function=Largest("simulations/long.py:2 _mean", 57),
        vague={"found": 1, "one": 1, "told": 1, "own": 1, "said": 56, "known": 59, "held": 1},
        bindings=5 + 56 + 59 + 2,  # the last two are `size`
    )


def test_hospital_s_lines_and_the_vague_names_share_follow(tree: Path) -> None:
    figures = measure_house(tree)
    assert figures.hospital_lines == 16 + 13
    assert figures.vague_share == 120 / 122


def test_a_longer_cycle_is_one_group_and_a_chain_is_none(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    for name, target in {"a": "b", "b": "c, common.e", "c": "a", "d": "a", "e": "e"}.items():
        (tmp_path / f"common/{name}.py").write_text(f"def f():\n    import common.{target}\n")
    figures = measure_house(tmp_path)
    assert figures.cycles == [["common.a", "common.b", "common.c"]]
    assert figures.imports_per_module == 5 / 5  # a module that names itself imports no other


def test_names_of_most_modules_come_first(tmp_path: Path) -> None:
    for name, content in {
        "a": "def f(): ...",
        "b": "class f: ...\nclass E: ...",
        "c": "f = 1",
    }.items():
        for package in ("common", "server"):
            (tmp_path / package).mkdir(exist_ok=True)
            (tmp_path / package / f"{name}.py").write_text(content)
    names = measure_house(tmp_path).public_names
    assert list(names.items()) == [
        ("f", ["common.a", "common.b", "server.a", "server.b"]),
        ("E", ["common.b", "server.b"]),
    ]


def test_table_has_a_row_for_each_figure(tree: Path) -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in figures_table(measure_house(tree)).splitlines()
    ]
    assert [value for _, value in rows[2:]] == [
        *("16", "13", "9", "122", "160", "29"),
        *("3", "3", "2", "5", "13"),
        *("0.69", "0.54", "3", "5", "4", "7", "12", "1", "1", "1", "1"),
        *("60 (simulations/long.py)", "57 (simulations/long.py:2 _mean)"),
        *("1", "1", "1", "1", "56", "59", "1", "98.4% of 122"),
    ]


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
    record = json.loads(capsys.readouterr().out)
    largest = {key: Largest(**record.pop(key)) for key in ("largest_file", "longest_function")}
    assert HouseFigures(**record, **largest) == measure_house(tree)


def test_a_folder_without_the_packages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter) as caught:
        main(tmp_path)
    assert f"{tmp_path} holds no Python file of common, clients" in str(caught.value)


def test_a_file_that_is_not_python_is_refused_by_name(tree: Path) -> None:
    (tree / "server/broken.py").write_text("def f(:\n")
    with pytest.raises(typer.BadParameter) as caught:
        main(tree)
    assert "broken.py" in str(caught.value)
