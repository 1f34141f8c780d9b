"""What stands on stderr meanwhile, and what must not."""

import io
import sys

import pytest
from rich.console import Console as RichConsole

from dr_cli.cli.console import Console


@pytest.fixture
def terminal():
    """A console of 40 columns, and what it showed."""
    console = Console()
    console.rich = RichConsole(
        file=io.StringIO(), force_terminal=True, width=40, soft_wrap=True, highlight=False
    )
    yield console, console.rich.file
    console.close()


def test_a_bar_leaves_stdout_alone(terminal):
    """Rich's own way turned `dr predict … > file` to the terminal."""
    console, _ = terminal
    before = sys.stdout
    console.progress("grading", 3, None)
    assert sys.stdout is before


def test_a_bar_of_nobody_knows_how_many_counts(terminal):
    console, shown = terminal
    console.rich._width = 100
    console.progress("grading", 1234, None)
    console.close()
    assert "1234/?" in shown.getvalue()


def test_on_a_terminal_a_line_ends_between_words(terminal):
    console, shown = terminal
    console.warning("never a photograph: what it says of photographs is worth nothing")
    lines = shown.getvalue().replace("\x1b[33m", "").replace("\x1b[0m", "").splitlines()
    assert max(map(len, lines)) <= 40
    assert "photograph:" in " ".join(lines).split()
    assert "photographs" in " ".join(lines).split()


def test_off_a_terminal_a_line_goes_on(capsys):
    Console().note("word " * 60)
    assert len(capsys.readouterr().err.splitlines()) == 1
