"""Tables as a terminal of 80 columns shows them."""

import io
import re

import pytest

from dr_cli.cli import tables


class Terminal(io.StringIO):
    def isatty(self):
        return True


def show(*parts) -> str:
    tables.print_tables(*parts, file=(text := Terminal()))
    return re.sub(r"\x1b\[[0-9;]*m", "", text.getvalue())


@pytest.fixture(autouse=True)
def _narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def test_off_a_terminal_nothing_is_wrapped_and_no_line_ends_in_blanks(capsys):
    long = "word " * 40 + "end"
    tables.print_tables(tables.table("a title", ("x", "y"), [(long, "1"), ("b", "")]), long)
    lines = capsys.readouterr().out.splitlines()
    assert sum(long in line for line in lines) == 2
    assert all(line == line.rstrip() for line in lines)


def test_no_cell_is_markup_and_none_is_cut():
    name = "[bold]" + 100 * "x" + ".jpg"
    shown = show(tables.table("[red]a", ("[b]file", ">n"), [(name, ("[i]", "red"))]), "[u]line")
    for text in ("[red]a", "[b]file", "[bold]", "[i]", "[u]line"):
        assert text in shown
    assert shown.count("x") == 100
    assert max(map(len, shown.splitlines())) <= 80
