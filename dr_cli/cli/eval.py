"""`dr eval`: a run, graded photographs -> metrics."""

import enum
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from dr_cli import runs
from dr_cli.cli import options
from dr_cli.cli.console import Console, confusion_table, print_table
from dr_cli.errors import DrError, UsageError


class Split(enum.StrEnum):
    """Which part of the data."""

    train = "train"
    val = "val"
    test = "test"
    all = "all"


class Format(enum.StrEnum):
    """How the record is printed."""

    table = "table"
    json = "json"
    csv = "csv"


def evaluate(run: runs.Run, split: str | None = None, *, bootstrap: int = 2000) -> dict[str, Any]:
    """The record of a finished run, from its own prediction files."""
    from dr_cli import results

    run.read_json("summary.json")
    split = split or ("test" if run.has("test") else "val")
    if split == "train":
        raise UsageError(
            f"{run.folder} keeps no predictions of its training split: give DATA to run the network"
        )
    if split != "all" and not run.has(split):
        raise UsageError(f"{run.folder} has no {split} split: it has {_splits(run)}")
    return results.of_run(run, split, bootstrap=bootstrap)


def evaluate_on(
    run: runs.Run,
    data: Path,
    split: str | None = None,
    *,
    bootstrap: int = 2000,
    layout: str = "auto",
    columns: dict[str, str | None] | None = None,
    device: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    batch_size: int = 16,
    console: Console | None = None,
) -> dict[str, Any]:
    """The record of a run's network on graded photographs."""
    from dr_cli import results

    return results.on_data(
        run,
        data,
        split,
        bootstrap=bootstrap,
        layout=layout,
        columns=columns or {},
        device=device,
        precision=precision,
        workers=workers,
        batch_size=batch_size,
        observer=console or Console(quiet=True),
    )


def _splits(run: runs.Run) -> str:
    return " and ".join(s for s in ("val", "test") if run.has(s)) or "none"


def command(
    run: Annotated[Path, typer.Argument(help="A run folder of dr train.")],
    data: Annotated[
        Path | None, typer.Argument(help="Graded photographs [default: the run's own].")
    ] = None,
    split: Annotated[
        Split | None, typer.Option("--split", help="Which part [default: test, else val].")
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option("--format", help="[default: table on a terminal, else json]."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Also write metrics.json, confusion.png here.")
    ] = None,
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", min=0, help="Replicates of the intervals; 0 is none.")
    ] = 2000,
    fail_under: Annotated[
        list[str] | None,
        typer.Option("--fail-under", help="METRIC=VALUE: exit 3 below it; may be repeated."),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Photographs at once, with DATA.")
    ] = 16,
    workers: options.Workers = None,
    layout: options.Layout = "auto",
    image_column: options.ImageColumn = None,
    grade_column: options.GradeColumn = None,
    patient_column: options.PatientColumn = None,
    split_column: options.SplitColumn = None,
    device: options.DeviceOption = options.Device.auto,
    precision: options.PrecisionOption = options.Precision.auto,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Score a trained run: agreement, intervals, calibration, confusion, baselines.

    Example: dr eval runs/resnet18 --fail-under qwk=0.7
    """
    needed = _needed(fail_under or [])
    with Console(quiet) as console:
        chosen = split.value if split else None
        if data is None:
            record = evaluate(runs.Run(run), chosen, bootstrap=bootstrap)
        else:
            record = evaluate_on(
                runs.Run(run),
                data,
                chosen,
                bootstrap=bootstrap,
                layout=layout,
                columns={
                    "image": image_column,
                    "grade": grade_column,
                    "patient": patient_column,
                    "split": split_column,
                },
                device=device.value,
                precision=precision.value,
                workers=workers,
                batch_size=batch_size,
                console=console,
            )
        for warning in record["warnings"]:
            console.warning(warning)
    if out is not None:
        _write(record, out)
    _print(record, form or (Format.table if sys.stdout.isatty() else Format.json))
    if needed:
        from dr_cli.evaluation import fail_under as check

        check(record, needed)
    if record["failed"]:
        raise DrError(f"{record['failed']} images could not be read: figures are without them")


def _needed(pairs: list[str]) -> dict[str, float]:
    found = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise UsageError(f"--fail-under {pair!r}: give METRIC=VALUE, such as qwk=0.7") from None
    if found:
        from dr_cli.evaluation import check_limits

        check_limits(found)  # before a network is run for nothing
    return found


def _write(record: dict[str, Any], folder: Path) -> None:
    from dr_cli.confusion import ConfusionMatrix

    runs.write_json(folder / "metrics.json", record)
    matrix = ConfusionMatrix()
    matrix.counts[:] = record["confusion"]
    matrix.save(folder / "confusion.png")


def _print(record: dict[str, Any], form: Format) -> None:
    if form is Format.json:
        typer.echo(json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False))
    elif form is Format.csv:
        typer.echo("metric,value,low,high")
        for name, value, interval in _figures(record):
            low, high = interval or ("", "")
            typer.echo(f"{name},{'' if value is None else value},{low},{high}")
    else:
        print_table(_table(record), confusion_table(record))


HEADLINE = ("accuracy", "balanced_accuracy", "qwk", "macro_f1", "mean_absolute_error")


def _figures(record: dict[str, Any]) -> list[tuple[str, float | None, list[float] | None]]:
    """Name, value, interval of each figure of a record."""
    found = [(name, record[name]["value"], record[name]["ci95"]) for name in HEADLINE]
    for name in ("auc", "sensitivity", "specificity"):
        figure = (record["referable"] or {}).get(name) or {"value": None, "ci95": None}
        found.append((f"referable.{name}", figure["value"], figure["ci95"]))
    for name, value in record["calibration"].items():
        if value is None or isinstance(value, (int, float)):
            found.append((f"calibration.{name}", value, None))
    for name, pair in record["baselines"].items():
        for metric in ("accuracy", "qwk"):
            if pair is not None:
                found.append((f"baseline.{name}.{metric}", pair[metric], None))
    return found


def _table(record: dict[str, Any]) -> Any:
    from rich import box
    from rich.table import Table

    title = f"{record['run']}, {record['split']}: {record['n']:,} images"
    table = Table(title=title, box=box.SIMPLE)
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("95% interval", justify="right")
    for name, value, interval in _figures(record):
        shown = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
        table.add_row(name, "n/a" if value is None else f"{value:.3f}", shown)
    return table
