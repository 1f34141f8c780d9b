"""`dr predict --resume`: a table that was broken off becomes the one that was not."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dr_cli.cli.resume import Begun
from dr_cli.cli.rows import csv_line
from tests.builders.program import dr


@pytest.fixture(scope="module")
def names(world):
    return sorted((world / "data" / "test").iterdir())


@pytest.fixture(scope="module")
def whole(world, names):
    """The table of an unbroken run, with one photograph twice and one that is not there."""
    done = dr(*ask(world), *names, names[0], "absent.png")
    assert done.exit_code == 1
    return done.stdout


def ask(world):
    return "predict", "--run", world / "runs" / "first", "--batch-size", 1


def test_a_table_of_before_keeps_its_columns(world, names, whole, tmp_path):
    """As those have that were written before `novelty` was known."""
    rows = list(csv.reader(whole.splitlines()))
    place = rows[0].index("novelty")
    wanted = [row[:place] + row[place + 1 :] for row in rows]
    path = tmp_path / "grades.csv"
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(wanted[:3])
    done = dr(*ask(world), *names, names[0], "absent.png", "--resume", path)
    assert done.exit_code == 1
    assert "without novelty" in done.stderr
    assert list(csv.reader(path.read_text().splitlines())) == wanted


@pytest.fixture
def table(tmp_path, whole):
    """Its first rows, and half of one; the function makes them."""

    def make(rows: int, half: int = 0) -> Path:
        lines = whole.splitlines(keepends=True)
        path = tmp_path / "grades.csv"
        path.write_bytes(("".join(lines[: rows + 1]) + lines[rows + 1][:half]).encode())
        return path

    return make


@pytest.mark.parametrize(("rows", "half"), [(2, 0), (2, 17), (0, 0), (0, 3)])
def test_rows_that_are_there_stay_and_the_others_come_behind(
    world, names, whole, table, rows, half
):
    path = table(rows, half)
    done = dr(*ask(world), *names, names[0], "absent.png", "--resume", path)
    assert done.exit_code == 1  # as of the unbroken run: one is absent
    assert path.read_text() == whole
    assert done.stdout == ""
    assert f"{rows} rows are there" in done.stderr
    assert ("half-written and cut off" in done.stderr) == bool(half)


def test_a_table_that_is_not_there_is_begun_and_a_whole_one_is_left(world, names, whole, tmp_path):
    path = tmp_path / "grades.csv"
    wanted = (*names, names[0], "absent.png", "--resume", path)
    assert dr(*ask(world), *wanted).exit_code == 1
    assert path.read_text() == whole
    again = dr(*ask(world), *wanted)
    assert path.read_text() == whole
    assert again.exit_code == 1  # errors of before stay, and count
    assert "1 with an error" in again.stderr
    assert "rows of before have an error" in again.stderr


def test_half_a_header_is_none(world, names, whole, tmp_path):
    path = tmp_path / "grades.csv"
    path.write_text(whole[:9])
    assert dr(*ask(world), *names, "--resume", path).exit_code == 0
    assert whole.startswith(path.read_text())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("expected_grade", "mean", 1), "header"),
        (lambda text: "my only notes", "header"),
        (lambda text: text.replace(",error,", ",wrong,", 1), "no column error"),
        (lambda text: text.replace(",note,", ",remark,", 1), "remove its column remark"),
        (lambda text: text.replace(",note,", ",reason,", 1), "stands there twice"),
        (lambda text: text.replace(text.splitlines()[2], "a,b"), "line 3"),
        (lambda text: text.replace(text.splitlines()[2], "a\rb" + text.splitlines()[2]), "mend it"),
        (lambda text: text + "x" * 200_000 + ",,\n", "mend it"),
        (lambda text: text.replace(text.splitlines()[1], other(text.splitlines()[1])), "another"),
    ],
)
def test_what_is_no_table_of_this_run_is_refused_and_left(world, names, table, change, said):
    path = table(2)
    path.write_bytes(change(path.read_text()).encode())
    before = path.read_bytes()
    done = dr(*ask(world), *names, "--resume", path)
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert path.read_bytes() == before


def other(line: str) -> str:
    """The row as a run with another threshold gives it."""
    cells = line.split(",")
    return ",".join([*cells[:-4], "0.123", *cells[-3:]])


def test_only_csv_is_gone_on_with(world, names, tmp_path):
    done = dr(*ask(world), *names, "--resume", tmp_path / "g.csv", "--format", "jsonl")
    assert done.exit_code == 2
    assert not (tmp_path / "g.csv").exists()


@pytest.mark.parametrize("name", ["two\nlines.jpg", "two\rlines.jpg", "two\r\nlines.jpg"])
def test_an_end_of_line_within_a_name_ends_no_row(tmp_path, name):
    path = tmp_path / "grades.csv"
    columns = list(Begun.read(path).columns)
    whole = csv_line(columns) + csv_line([name, *[""] * (len(columns) - 1)])
    path.write_bytes(whole.encode() + b'"two\n')
    begun = Begun.read(path)
    assert begun.end == len(whole)
    assert list(begun.pass_over([name, name])) == [name]


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX's")
def test_a_killed_process_is_gone_on_with(world, names, tmp_path):
    """Killed with nothing but SIGKILL, and gone on with, both tables are one."""
    many, path = [*names] * 12, tmp_path / "grades.csv"
    arguments = [*map(str, ask(world)), *map(str, many)]
    program = [sys.executable, "-m", "dr_cli", *arguments, "--resume", str(path)]
    with subprocess.Popen(program, stderr=subprocess.PIPE) as process:
        while not path.exists() or path.read_bytes().count(b"\n") < 3:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    there = path.read_text()
    assert len(there.splitlines()) < len(many)
    assert dr(*arguments, "--resume", path).exit_code == 0
    assert path.read_text() == dr(*arguments).stdout
    assert path.read_text().startswith(there.rpartition("\n")[0])
