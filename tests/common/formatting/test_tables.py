"""How one table is written for every reader."""

import io

from rich.console import Console

from common.formatting.tables import Group, Row, Table, plain_table, print_table
from simulations.report.markdown import markdown
from simulations.report.terminal import fitted


def test_a_bar_in_a_cell_does_not_break_a_markdown_table() -> None:
    row = Row("a|b", ("1\nbelow\ntwice",))
    lines = markdown(Table("Caption", ("Head", "Value"), (Group("Group", (row,)),), ("Note.",)))
    assert lines.splitlines() == [
        *("### Caption", "", "| Head | Value |", "|---|---|", "| **Group** |  |"),
        *("| a\\|b | 1 below; twice |", "", "Note."),
    ]


def printed(table: Table, width: int) -> list[list[str]]:
    file = io.StringIO()
    print_table(Console(width=width, file=file), fitted(table, ("Runs", "AUC"), width))
    assert max(map(len, file.getvalue().splitlines())) <= width
    return [line.split() for line in file.getvalue().splitlines()]


def test_a_terminal_gets_groups_details_and_only_the_columns_it_has_room_for() -> None:
    row = Row("Pooled", ("1", "80.0", "91.2\n[85.0, 95.0]"))
    table = Table("Caption", ("Mode", "Runs", "F1", "AUC"), (Group("hospital", (row,)),))
    # A head of 8 and 3 spaces around it; with their 2 spaces each 6, 6 and 14: 37 for all of them.
    lines = printed(table, 36)
    assert ["Mode", "Runs", "AUC"] in lines
    assert ["Mode", "Runs", "F1", "AUC"] in printed(table, 37)
    assert ["hospital"] in lines
    assert lines[lines.index(["Pooled", "1", "91.2"]) + 1] == ["[85.0,", "95.0]"]


def test_a_plain_table_has_heads_and_cells() -> None:
    table = plain_table("Caption", ("A", "B"), [("x", "1"), ("y", "2")])
    assert table.groups == [Group("", [Row("x", ["1"]), Row("y", ["2"])])]
