"""Records of `dr predict` as they are printed, each as soon as it is known, and their tally."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from dr_cli import words
from dr_cli.formulas import defuse, defuse_path

Record = dict[str, Any]
PATHS = ("path", "heatmap")
_A_BATCH = 5  # graded photographs from which on their majority says something


@dataclass
class Tally:
    """How many there were of each kind."""

    graded: int = 0
    ungradable: int = 0
    """Of the graded ones."""
    referable: int = 0
    """Of the gradable ones."""
    doubtful: int = 0
    """Of the gradable ones those whose grade and referral disagree, as their notes say."""
    failed: int = 0
    far: int = 0
    """Of the graded ones those unlike what was learned from: `novelty` above 1."""
    patients: int = 0
    """Each with a row of its own, see `is_patient`; those below are of them."""
    ungradable_patients: int = 0
    referable_patients: int = 0

    def count(self, record: Record) -> None:
        """One more."""
        if is_patient(record):
            self.patients += 1
            self.ungradable_patients += not record["gradable"]
            self.referable_patients += bool(record["referable"])
            return
        if record["error"] is not None:
            self.failed += 1
            return
        self.graded += 1
        self.far += (record["novelty"] or 0) > 1
        self.ungradable += not record["gradable"]
        self.referable += record["gradable"] and record["referable"]
        self.doubtful += record["gradable"] and is_doubtful(record)

    def total(self) -> int:
        """Photographs of all kinds."""
        return self.graded + self.failed

    def doubt(self) -> str:
        """A warning where most of a batch is unlike what was learned from; else ""."""
        if self.graded < _A_BATCH or 2 * self.far <= self.graded:
            return ""
        return (
            f"{self.far:,} of {self.graded:,} photographs are unlike those that the network "
            "learned from (novelty above 1, as of 1 in 20 of its own): another camera or other "
            "people? Its grades, and its threshold, may not hold for them"
        )

    def tell(self) -> str:
        """ "960 graded: 31 ungradable, 243 of the others referable; 2 failed"."""
        failed = f"; {self.failed:,} failed" * bool(self.failed)
        ungradable, referable = f"{self.ungradable:,} ungradable", f"{self.referable:,} referable"
        told = f"{self.graded:,} graded: {ungradable}, {referable} of the others{failed}"
        if self.doubtful:
            told += f"; {self.doubtful:,} marked (?): grade and referral disagree"
        if self.patients:
            told += f"; {words.count(self.patients, 'patient')}: {self.referable_patients:,} "
            told += f"referable, {self.ungradable_patients:,} not gradable in each eye"
        return told


def is_patient(record: Record) -> bool:
    """Whether it is a patient's, as `--pair` adds them, and no photograph's."""
    return record["path"] is None


def is_doubtful(record: Record) -> bool:
    """Whether grade and referral disagree, see `note`."""
    from dr_cli.grades import REFERABLE_FROM  # on use: it brings numpy

    return bool(record["referable"] != (record["predicted"] >= REFERABLE_FROM))


def print_records(records: Iterable[Record], form: str) -> None:
    """Onto stdout, in a form: csv, json, jsonl, table; each is out before the next is asked for."""
    for text in _FORMS[form](records):
        sys.stdout.write(text)
        sys.stdout.flush()


def _csv(records: Iterable[Record]) -> Iterator[str]:
    for number, record in enumerate(records):
        row = to_row(record)
        if number == 0:
            yield csv_line(row)
        yield csv_line(row.values())


def _jsonl(records: Iterable[Record]) -> Iterator[str]:
    yield from (_to_json(record) + "\n" for record in records)


def _json(records: Iterable[Record]) -> Iterator[str]:
    before = "[\n"
    for record in records:
        yield before + _to_json(record)
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


def _to_json(record: Record) -> str:
    """On one line; of an ungradable photograph that comes first, before any grade is read."""
    first = ("gradable", "verdict", "reason") if record["gradable"] is False else ()
    return json.dumps({name: record[name] for name in first} | record, ensure_ascii=False)


def to_row(record: Record) -> Record:
    """A record as a row of csv: p0–p4 in place of the list, booleans in lower case, and no text
    that a spreadsheet would run."""
    row: Record = {}
    for name, value in record.items():
        if name == "probabilities":
            row |= {f"p{grade}": p for grade, p in enumerate(value or [None] * 5)}
        elif isinstance(value, str):
            row[name] = (defuse_path if name in PATHS else defuse)(value)
        else:
            row[name] = str(value).lower() if isinstance(value, bool) else value
    return row


class _Echo:
    """What csv.writer writes to: it gives the line back."""

    def write(self, line: str) -> str:
        return line


# Before Python 3.13 a cell with a carriage return is put in quotes only where lines end in one, and
# without them every reader takes it for two rows.
_END = "\r\n"
_writer = csv.writer(_Echo(), lineterminator=_END)


def csv_line(cells: Iterable[Any]) -> str:
    """One line of a table, with its end."""
    line: Any = _writer.writerow(cells)  # what `_Echo.write` gave
    return str(line).removesuffix(_END) + "\n"


# --- on a terminal ------------------------------------------------------------------------------

_INDENT = 4
_WIDEST_PATH = 60


@dataclass(frozen=True)
class Layout:
    """Where the columns stand: known before the first row, so that each is printed at once."""

    width: int
    """Characters of the terminal."""

    @property
    def wide(self) -> bool:
        """Whether there is room for the columns that one can do without."""
        return self.width >= 76

    @property
    def columns(self) -> dict[str, int]:
        """The width of each column beside the photograph's."""
        rest = {"prob.": 5, "referable": 10, "quality": 7} if self.wide else {"referable": 10}
        return {"grade": 22} | rest

    @property
    def path(self) -> int:
        """The width of the photograph's column."""
        others = sum(self.columns.values()) + 2 * len(self.columns)
        return max(12, min(_WIDEST_PATH, self.width - 1 - others))

    def head(self) -> str:
        """The headings."""
        return self.line("photograph", list(self.columns))

    def line(self, path: str, cells: list[str]) -> str:
        """A row; cells: as many of the columns as there are."""
        widths = list(self.columns.values())[: len(cells)]
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        return "  ".join([fit(path, self.path), *padded]).rstrip()

    def beside(self, path: str, text: str) -> str:
        """A row with a text in place of the columns; below the path where it finds no room."""
        if self.path + 2 + len(text) < self.width:
            return f"{fit(path, self.path)}  {text}"
        return self.below(path, text)

    def below(self, path: str, text: str) -> str:
        """The path on a line of its own, and a text below it, broken between words alone."""
        import textwrap

        indent = " " * _INDENT
        lines = textwrap.wrap(
            words.visible(text), self.width - 1, initial_indent=indent, subsequent_indent=indent,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
        return "\n".join([fit(path, self.width - 1).rstrip(), *lines])


def fit(text: str, width: int) -> str:
    """A text of exactly that many columns: filled up, or its middle left out for "…".

    What would move the cursor is escaped.
    """
    from rich.cells import cell_len

    text = words.visible_line(text)
    if cell_len(text) <= width:
        return text + " " * (width - cell_len(text))
    start, end = text[: len(text) // 3], text[len(text) // 3 :]  # names differ at their ends
    while cell_len(start) + 1 + cell_len(end) > width:
        if 2 * len(start) > len(end):
            start = start[:-1]
        else:
            end = end[1:]
    return f"{start}…{end}".ljust(width - cell_len(f"{start}…{end}") + len(f"{start}…{end}"))


def _table(records: Iterable[Record]) -> Iterator[str]:
    from rich.console import Console
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    layout = Layout(console.width)
    for number, record in enumerate(records):
        with console.capture() as drawn:
            if number == 0:
                console.print(Text(layout.head(), "bold"))
            style = "red" if record["error"] else "" if record["gradable"] else "yellow"
            console.print(Text(table_row(record, layout), style))
        yield drawn.get()


def table_row(record: Record, layout: Layout) -> str:
    """What is said of a photograph or a patient, without colour; more than a line where one is not
    enough."""
    if is_patient(record):
        record = record | {"path": f"patient {record['patient']}"}
    if record["error"]:
        return layout.below(record["path"], record["error"])
    grade = f"{record['predicted']} {record['name']}"
    if not record["gradable"]:
        return layout.beside(record["path"], f"ungradable: {record['reason']} ({grade})")
    likely = record["probabilities"] and record["probabilities"][record["predicted"]]
    probability = words.number(likely, 2) if likely else ""
    share = words.number(record["referable_probability"], 2)
    referable = f"{'yes' if record['referable'] else 'no'} ({share})"
    cells = {
        "grade": grade + " (?)" * is_doubtful(record),
        "prob.": probability,
        "referable": referable,
        "quality": "" if record["quality"] is None else words.number(record["quality"], 2),
    }
    return layout.line(record["path"], [cells[name] for name in layout.columns])


_FORMS = {"csv": _csv, "json": _json, "jsonl": _jsonl, "table": _table}
