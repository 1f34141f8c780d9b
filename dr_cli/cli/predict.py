"""`dr predict`: photographs -> grades."""

import csv
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dr_cli.cli import options
from dr_cli.cli.console import Console
from dr_cli.cli.help import DATA, NETWORK
from dr_cli.cli.tables import grades_table, print_tables
from dr_cli.errors import DrError, UsageError
from dr_cli.events import Observer
from dr_cli.runs import Run, counted_split, find_newest_run, read_record

Record = dict[str, Any]
EXAMPLES = """dr predict image.jpeg
dr predict photographs/ > grades.csv
dr predict photographs/ --run runs/resnet18 --explain heatmaps/
find photographs -name '*.jpg' -print0 | dr predict -0 --format jsonl"""
Inputs = Annotated[
    list[str] | None,
    typer.Argument(metavar="INPUT", help="Photographs, folders, or - for paths on stdin."),
]
Runs = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="RUN", rich_help_panel=NETWORK, autocompletion=options.suggest_runs,
        help="A run folder or its model.safetensors; given more than once, their mean. "
        "[default: the newest finished run]",
    ),
]  # fmt: skip
Format = Annotated[
    Literal["table", "csv", "json", "jsonl"] | None,
    typer.Option("--format", help="[default: table on a terminal, else csv]"),
]
Null = Annotated[
    bool,
    typer.Option(
        "-0",
        "--null",
        help="Paths on stdin end in NUL, as of find -print0.",
        rich_help_panel=DATA,
    ),
]
Explain = Annotated[
    Path | None,
    typer.Option(file_okay=False, metavar="FOLDER", help="Folder for heatmaps over the crops."),
]
Tta = Annotated[
    bool, typer.Option("--tta", help="Mean over four flips: slower.", rich_help_panel=NETWORK)
]


def command(
    names: Inputs = None,
    run: Runs = None,
    form: Format = None,
    nul: Null = False,
    explain: Explain = None,
    tta: Tta = False,
    batch_size: options.BatchSize = None,
    workers: options.Workers = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Grade photographs with a trained run."""
    names = list(names or [])
    if nul and "-" not in names:
        names.append("-")
    if not names:
        raise UsageError("no INPUT: name photographs, folders, or - for paths on stdin")
    seen: Counter[str] = Counter()
    with Console(quiet) as console:
        sources = run or [find_newest_run().folder]
        photographs = mind_drawn(list_photographs(names, nul), sources, bool(run), console)
        records = predict(
            photographs, sources, device=device, precision=precision,
            batch_size=batch_size, workers=workers, tta=tta, explain=explain,
        )  # fmt: skip
        graders = ", ".join(f"{source}{_doubt(source)}" for source in sources)
        said = f"graded by {graders}; research and teaching, no diagnosis"
        records = _count(records, seen, lambda: console.note(said))
        _print(records, form or ("table" if sys.stdout.isatty() else "csv"))
    if not seen:
        raise UsageError(f"no photograph in {', '.join(names)}")
    if seen["failed"]:
        raise DrError(f"{seen['failed']} of {seen.total()} inputs failed: see their error")


def predict(
    photographs: Iterable[str | Path],
    sources: Sequence[Path],
    *,
    device: str = "auto",
    precision: str = "auto",
    **how: Any,
) -> Iterator[Record]:
    """A record a photograph, as they are known, by the mean of the runs `sources`.

    how: what `Grader.predict` takes besides. Raises UsageError at once where a run is no grader.
    """
    from dr_cli.network.grader import Grader

    return Grader.load(sources, device=device, precision=precision).predict(photographs, **how)


def mind_drawn(
    photographs: Iterable[str], sources: Sequence[Path], named: bool, observer: Observer
) -> Iterator[str]:
    """The photographs, as they come, for networks that may have seen drawn eyes alone.

    Drawn eyes are let through. At the first photograph a person who named such a network is
    warned; where it was the newest run alone that chose it, UsageError.
    """
    from dr_cli.sample.mark import is_drawn

    learned = {one: read_record(folder).trained_on for one in sources
               for folder in Run(one).networks()}  # fmt: skip
    drawn = ", ".join(str(one) for one, data in learned.items() if data and data.drawn)
    for photograph in photographs:
        if drawn and not is_drawn(photograph):
            said = f"{drawn} has seen drawn eyes alone, never a photograph"
            if not named:
                raise UsageError(
                    f"{said}, and no other run is finished: name one with --run, or dr train on "
                    "graded photographs"
                )
            observer.warning(f"{said}: what it says of photographs is worth nothing")
            drawn = ""  # said once
        yield photograph


def _doubt(source: Path) -> str:
    """What a person should know of a run before its grades are read, in brackets; else ""."""
    try:
        summary = Run(source).summary()
    except UsageError:  # a model.safetensors alone
        return ""
    record = summary[counted_split(summary)]
    said = {k for row in record["confusion"] or [] for k, count in enumerate(row) if count}
    interval = record["qwk"]["ci95"]
    if len(said) == 1:
        return f" (which called every image of its test grade {said.pop()})"
    if interval and interval[0] <= 0:
        return " (which was not told apart from always saying one grade)"
    return ""


def list_photographs(names: Iterable[str], nul: bool = False) -> Iterator[str]:
    """Files as they are named, photographs of folders in sorted order, `-` from stdin."""
    for name in names:
        if name == "-":
            yield from _read_stdin(nul)
        elif os.path.isdir(name):
            yield from _walk(name)
        else:
            yield name


def _walk(top: str) -> Iterator[str]:
    """The photographs below a folder; a link to nowhere is one that was lost, and is told."""
    from dr_cli.photographs.decoding import EXTENSIONS  # on use: it brings numpy

    for folder, below, files in os.walk(top):
        below.sort()
        for file in sorted(files):  # macOS writes a ._ file beside each of another disk
            if os.path.splitext(file)[1].lower() in EXTENSIONS and not file.startswith("._"):
                path = os.path.join(folder, file)
                if os.path.isfile(path) or not os.path.exists(path):  # a pipe would hang
                    yield path


def _read_stdin(nul: bool) -> Iterator[str]:
    """Paths a line, or between NULs; read as they come."""
    if not nul:
        yield from (text for line in sys.stdin if (text := line.rstrip("\r\n")))
        return
    source: Any = sys.stdin.buffer  # read1 returns what is there, without waiting for more
    rest = b""
    while block := source.read1(65536):
        *whole, rest = (rest + block).split(b"\0")
        yield from (os.fsdecode(name) for name in whole if name)
    if rest:
        yield os.fsdecode(rest)


def _count(
    records: Iterable[Record], seen: Counter[str], begin: Callable[[], None]
) -> Iterator[Record]:
    """The records as they are; begin: called before the first, when nothing can be refused."""
    for record in records:
        if not seen:
            begin()
        seen["graded" if record["error"] is None else "failed"] += 1
        yield record


def _print(records: Iterator[Record], form: str) -> None:
    """Streams, except for a table, whose widths need all rows."""
    if form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        for number, record in enumerate(records):
            row = to_row(record)
            if number == 0:
                writer.writerow(row)
            writer.writerow(row.values())
            sys.stdout.flush()
    elif form == "jsonl":
        for record in records:
            print(json.dumps(record, ensure_ascii=False), flush=True)
    elif form == "json":
        before = "[\n"
        for record in records:
            print(before, json.dumps(record, ensure_ascii=False), sep="", end="")
            before = ",\n"
        print("[]" if before == "[\n" else "\n]")
    else:
        print_tables(grades_table(records))


def to_row(record: Record) -> Record:
    """A record as a row of csv: p0–p4 in place of the list, booleans in lower case."""
    row: Record = {}
    for name, value in record.items():
        if name == "probabilities":
            row |= {f"p{grade}": p for grade, p in enumerate(value or [None] * 5)}
        else:
            row[name] = str(value).lower() if isinstance(value, bool) else value
    return row
