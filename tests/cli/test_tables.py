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


def test_numbers_are_said_as_on_the_page():
    record = {"run": None, "data": "d", "split": "test", "n": 1234}
    figures = [("qwk", -0.0864, [-0.25, 0.1]), ("auc", None, None)]
    shown = show(tables.figures_table(record, figures))
    assert "d, test: 1,234 images" in shown
    assert [line.split() for line in shown.splitlines() if "qwk" in line or "auc" in line] == [
        ["qwk", "−0.086", "−0.250", "to", "0.100"],
        ["auc", "n/a"],
    ]


def test_an_interval_stands_below_its_figure():
    good, bad = {"value": 0.3, "ci95": [0.2, 0.4]}, {"value": -0.2431, "ci95": [-0.4321, -0.0291]}
    group = {"value": None, "n": 75, "accuracy": good, "qwk": bad, "referable": {"auc": good}}
    shown = show(tables.groups_table({"column": "eye", "groups": [group]})).splitlines()
    (row,) = (k for k, line in enumerate(shown) if "not known" in line)
    assert shown[row].split() == ["not", "known", "75", "0.300", "−0.243", "0.300"]
    assert shown[row + 1].split() == ["(0.200–0.400)", "(−0.432", "to", "−0.029)", "(0.200–0.400)"]
