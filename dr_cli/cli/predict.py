"""`dr predict`: photographs -> grades."""

import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dr_cli import runs
from dr_cli.cli import options
from dr_cli.cli.console import Console
from dr_cli.cli.tables import grades_table, print_tables
from dr_cli.errors import DrError, UsageError

Format = Literal["table", "csv", "json", "jsonl"]
COLUMNS = (
    "path", "predicted", "name", "p0", "p1", "p2", "p3", "p4", "expected_grade", "referable",
    "referable_probability", "gradable", "quality", "error",
)  # fmt: skip


def inputs(names: Iterable[str], nul: bool = False) -> Iterator[str]:
    """Files as they are named, photographs of folders in sorted order, `-` from stdin."""
    from dr_cli.photographs.decoding import EXTENSIONS  # on use: it brings numpy

    for name in names:
        if name == "-":
            yield from _stdin(nul)
        elif os.path.isdir(name):
            for folder, below, files in os.walk(name):
                below.sort()
                yield from (
                    os.path.join(folder, file)
                    for file in sorted(files)  # macOS writes a ._ file beside each of another disk
                    if os.path.splitext(file)[1].lower() in EXTENSIONS and not file.startswith("._")
                )
        else:
            yield name


def _stdin(nul: bool) -> Iterator[str]:
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


def newest_run() -> Path:
    """The newest finished run under $DR_RUNS. Raises UsageError where there is none."""
    folder = runs.runs_folder()
    found = runs.finished_runs(folder)
    if not found:
        raise UsageError(f"no finished run in {folder}: name one with --run, or dr train first")
    return found[-1].folder


def command(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT...", help="Photographs, folders, or - for paths on stdin."),
    ] = None,
    run: Annotated[
        list[Path] | None,
        typer.Option(
            "--run",
            help="A run folder or its model.safetensors; given more than once, their mean "
            "[default: the newest finished run].",
        ),
    ] = None,
    form: Annotated[
        Format | None, typer.Option("--format", help="[default: table on a terminal, else csv].")
    ] = None,
    nul: Annotated[
        bool, typer.Option("-0", "--null", help="Paths on stdin end in NUL, as of find -print0.")
    ] = False,
    explain: Annotated[
        Path | None,
        typer.Option("--explain", file_okay=False, help="Folder for heatmaps over the crops."),
    ] = None,
    tta: Annotated[bool, typer.Option("--tta", help="Mean over four flips: slower.")] = False,
    batch_size: options.BatchSize = None,
    workers: options.Workers = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Grade photographs with a trained run.

    Example: dr predict photographs/ --format csv > grades.csv
    """
    names = list(names or [])
    if nul and "-" not in names:
        names.append("-")
    if not names:
        raise UsageError("no INPUT: name photographs, folders, or - for paths on stdin")
    with Console(quiet) as console:
        sources = run or [newest_run()]
        from dr_cli.network.grader import Grader

        grader = Grader.load(sources, device=device, precision=precision)
        console.note(
            f"graded by {', '.join(map(str, sources))}; research and teaching, no diagnosis"
        )
        counts = {"n": 0, "failed": 0}
        records = _counted(
            grader.predict(
                inputs(names, nul), batch_size=batch_size, workers=workers, tta=tta, explain=explain
            ),
            counts,
        )
        _print(records, form or ("table" if sys.stdout.isatty() else "csv"))
    if not counts["n"]:
        raise UsageError(f"no photograph in {', '.join(names)}")
    if counts["failed"]:
        raise DrError(f"{counts['failed']} of {counts['n']} inputs failed: see their error")


def _counted(records: Iterable[dict[str, Any]], counts: dict[str, int]) -> Iterator[Any]:
    for record in records:
        counts["n"] += 1
        counts["failed"] += record["error"] is not None
        yield record


def _print(records: Iterator[dict[str, Any]], form: Format) -> None:
    """Streams, except for a table, whose widths need all rows."""
    out = sys.stdout
    if form == "csv":
        writer = None
        for record in records:
            if writer is None:
                writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
                writer.writeheader()
            writer.writerow(flat(record))
            out.flush()
    elif form == "jsonl":
        for record in records:
            print(json.dumps(record, ensure_ascii=False), flush=True)
    elif form == "json":
        opened = False
        for record in records:
            print(
                ",\n" if opened else "[\n", json.dumps(record, ensure_ascii=False), sep="", end=""
            )
            opened = True
        print("\n]" if opened else "[]")
    else:
        print_tables(grades_table(records))


def flat(record: dict[str, Any]) -> dict[str, Any]:
    """A record as a row of csv: p0–p4 in place of the list, booleans in lower case."""
    row = {k: str(v).lower() if isinstance(v, bool) else v for k, v in record.items()}
    probabilities = row.pop("probabilities") or [None] * 5
    return row | {f"p{grade}": p for grade, p in enumerate(probabilities)}
