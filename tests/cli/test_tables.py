"""Tables as a terminal of 80 columns shows them."""

import io

import pytest

from dr_cli.cli import tables


def show(*parts) -> str:
    tables.print_tables(*parts, file=(text := io.StringIO()))
    return text.getvalue()


@pytest.fixture(autouse=True)
def _narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def test_no_cell_is_markup_and_none_is_cut():
    name = "[bold]" + 100 * "x" + ".jpg"
    shown = show(tables.table("[red]a", ("[b]file", ">n"), [(name, ("[i]", "red"))]), "[u]line")
    for text in ("[red]a", "[b]file", "[bold]", "[i]", "[u]line"):
        assert text in shown
    assert shown.count("x") == 100
    assert max(map(len, shown.splitlines())) <= 80
