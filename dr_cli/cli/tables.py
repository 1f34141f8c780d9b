"""Records -> tables for a terminal of 80 columns. Rich is imported where a table is made.

Numbers are said as on the page and in Markdown, by `words`.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from dr_cli import words

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

WIDE = 10_000  # columns of what has no width
Record = Mapping[str, Any]
Cell = str | tuple[str, str]  # a text, or a text and its style


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> "Table":
    """A table without a frame; a column whose heading begins with ">" stands to the right.

    No cell is markup: a photograph may be called `[b].jpg`.
    """
    from rich import box
    from rich.table import Table

    drawn = Table(title=_text(title) if title else None, box=box.SIMPLE)
    for column in columns:
        justify: Any = "right" if column.startswith(">") else "left"
        drawn.add_column(_text(column.lstrip(">")), justify=justify, overflow="fold")
    for row in rows:
        drawn.add_row(*map(_text, row))
    return drawn


def _text(cell: Cell) -> "Text":
    from rich.text import Text

    told, style = (cell, "") if isinstance(cell, str) else cell
    return Text(words.visible(told), style)


@dataclass
class Reader:
    """Of stdout."""

    gone: bool = False


@contextmanager
def while_read() -> Iterator[Reader]:
    """What is printed within may meet a reader that has gone, as `| head` has when it has what it
    wanted: the rest goes nowhere, and is no error. Whoever has more to do asks whether it has."""
    reader = Reader()
    try:
        yield reader
        sys.stdout.flush()
    except BrokenPipeError:
        reader.gone = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_tables(*parts: "Table | str", file: TextIO | None = None) -> None:
    """Prints tables and lines on stdout, or where `file` says.

    Off a terminal nothing is wrapped, and no line ends in blanks.
    """
    from rich.console import Console

    out = file or sys.stdout
    parts = tuple(words.visible(part) if isinstance(part, str) else part for part in parts)
    console = Console(file=out, highlight=False)
    if console.is_terminal:
        for part in parts:
            console.print(part, markup=False)
        return
    console = Console(file=out, highlight=False, width=WIDE)
    with console.capture() as shown:
        for part in parts:
            console.print(part, markup=False)
    out.writelines(f"{line.rstrip()}\n" for line in shown.get().splitlines())


def runs_table(data: Record) -> "Table":
    """The runs of a report, with as much as 80 columns hold."""
    from dr_cli.report import page

    wanted = ("QWK", "Accuracy", "Referable AUC")
    columns = [column for column in page.TABLE if column.heading in wanted]
    rows = ((run["name"], *(column.text(run) for column in columns)) for run in data["runs"])
    return table("", ("Run", *(column.heading for column in columns)), rows)


def audit_tables(record: Record) -> list["Table | str"]:
    """What a dry run found, and its plan: a table of the splits, and lines."""
    from dr_cli.grades import NAMES
    from dr_cli.training.audit import problems

    rows = []
    for split, found in record["splits"].items():
        patients = "not known" if found["patients"] is None else words.number(found["patients"])
        grades = map(words.number, found["grade_counts"])
        rows.append([split, words.number(found["n"]), patients, *grades])
    columns = ("split", ">images", ">patients", *(f">{name}" for name in NAMES))
    splits = table(f"{record['root']}: {record['layout']}", columns, rows)
    lines = [*_tell_data(record), *(f"warning: {problem}" for problem in problems(dict(record)))]
    return [splits, *lines, *([_tell_plan(record["plan"])] if record["plan"] else [])]


def _tell_data(record: Record) -> list[str]:
    lines = [f"{record['rows']:,} rows, {record['images_found']:,} images found"]
    lines += [f"left out: {n:,} ({reason})" for reason, n in record["left_out"].items()]
    if record["sizes"]:
        sides = (record["sizes"][side] for side in ("width", "height"))
        low, middle, high = map("{}×{}".format, *sides)
        lines.append(f"sizes: {low} to {high}, median {middle}")
    doubles = record["duplicates"]
    groups = (
        "{exact_groups} exact groups, {near_groups} near, {conflicting_groups} with conflicting "
        "grades"
    )
    looked = doubles["exact_groups"] is not None
    told = groups.format(**doubles) if looked else "not looked for, as no image is here"
    lines.append(f"duplicates: {told}")
    for name, pair in record["baselines"].items():
        if pair is not None:
            shown = ", ".join(f"{key} {words.number(value)}" for key, value in pair.items())
            lines.append(f"baseline on {record['judged_on']}, {name.replace('_', ' ')}: {shown}")
    return lines


def _tell_plan(plan: Record) -> str:
    measured = plan["measured"]
    memory = "" if plan["memory_bytes"] is None else f", {plan['memory_bytes'] / 2**30:.1f} GiB"
    return (
        f"plan: {plan['arch']}, {plan['size']} px, batch {plan['batch_size']}, "
        f"{words.count(plan['epochs'], 'epoch')} of "
        f"{words.count(plan['steps_per_epoch'], 'step')} on {plan['device']} in "
        f"{plan['precision']}: about {words.duration(plan['seconds_per_epoch'])} an epoch{memory} "
        f"(measured on {words.count(measured['steps'], 'step')} of {measured['batch_size']})"
    )
