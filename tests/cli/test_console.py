"""What stands on stderr meanwhile, and what must not."""

import io
import sys

import pytest
from rich.console import Console as RichConsole

from dr_cli.cli.bar import Horizon, lay_out
from dr_cli.cli.console import Console
from dr_cli.events import Outline


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


def test_what_was_done_before_is_no_speed(terminal, monkeypatch):
    console, _ = terminal
    now = 100.0
    monkeypatch.setattr("dr_cli.cli.console.time.monotonic", lambda: now)
    console.progress("teaching", 4000, 5000)  # gone on with
    now += 10
    console.progress("teaching", 4100, 5000)
    assert console._task[3] == ("ends in 2 min", "10.0 img/s")  # 900 are left, 90 s


@pytest.mark.parametrize("width", [20, 40, 60, 80, 140])
def test_a_bar_s_most_important_parts_are_the_last_to_go(width):
    parts = ("run ends in 12 min", "loss 1.203", "accuracy 0.412", "10.4 img/s")
    line = lay_out("epoch 1/3 train", "48/384", 0.5, parts, width)
    assert len(line) < width
    here = [part in line for part in parts]
    assert here == sorted(here, reverse=True)
    assert ("48/384" in line) == (width > 22)
    assert here[0] == (width >= 60)
    assert all(here) == (width == 140)
    assert ("━" in line) == (width in (40, 140))


def outline(**changed):
    told = {"arch": "resnet18", "parameters": 1, "size": 32, "batch_size": 8, "epochs": 2}
    told |= {"images": {"train": 100, "val": 20, "test": 20}, "steps_per_epoch": 1}
    return Outline(**(told | {"device": "cpu", "reason": "CPU", "kept": "the best"} | changed))


def test_the_end_of_a_run_is_foretold_from_what_was_done_of_it(monkeypatch):
    now = 100.0
    monkeypatch.setattr("dr_cli.cli.bar.time.monotonic", lambda: now)
    horizon = Horizon(outline())  # 2 epochs of 3 * 100 + 20 + 20
    assert horizon.tell(1, "train", 0) == ""
    now += 1.0
    assert horizon.tell(1, "train", 10) == ""  # too early for more than a guess
    now += 9.0
    assert horizon.tell(1, "train", 50) == "run ends in 35 s"  # 150 of 680 in 10 s
    now += 10.0
    assert horizon.tell(1, "val", 0) == "run ends in 25 s"  # 300 in 20 s
    horizon = Horizon(outline(images={"train": 10, "val": 20, "test": 20}, picked_on_test=True))
    assert horizon.tell(2, "train", 0) == ""  # gone on with after an epoch
    now += 10.0
    assert horizon.tell(2, "val", 0) == "run ends in 7 s"  # 30 in 10 s, 20 are left


def test_epochs_are_said_of_how_many_and_a_narrow_terminal_goes_without_some_columns(terminal):
    console, shown = terminal
    console.plan(outline())
    row = {"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "val_accuracy": 0.5}
    row |= {"val_qwk": 0.25, "test_accuracy": 0.5, "test_qwk": None, "seconds": 1.0}
    console.epoch(row | {"images_per_second": 3.0}, True)
    lines = shown.getvalue().splitlines()
    assert max(len(line) for line in lines[-2:]) <= 40 + len("\x1b[32m\x1b[0m")
    assert "val QWK" in lines[-2]
    assert "1/2" in lines[-1]
    assert "0.250" in lines[-1]


def test_an_interruption_is_said_once_and_no_bar_comes_after_it(terminal):
    console, shown = terminal
    console.progress("decoding", 3, 10)
    console.interrupted()
    console.progress("decoding", 4, 10)
    console.interrupted()
    assert shown.getvalue().count("interrupted") == 1
    assert console._live is None


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
