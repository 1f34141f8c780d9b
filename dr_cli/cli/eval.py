"""`dr eval`: a run, graded photographs -> metrics."""

import csv
import enum
import io
import json
import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from dr_cli import runs
from dr_cli.cli import options
from dr_cli.cli.console import Console, confusion_table, print_table
from dr_cli.errors import DrError, UsageError
from dr_cli.writing import write_json


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


class Decision(enum.StrEnum):
    """How probabilities become a grade."""

    argmax = "argmax"
    thresholds = "thresholds"


def command(
    run: Annotated[Path | None, typer.Argument(help="A run folder of dr train.")] = None,
    data: Annotated[
        Path | None, typer.Argument(help="Graded photographs [default: the run's own].")
    ] = None,
    split: Annotated[
        Split | None, typer.Option("--split", help="Which part [default: test, else val].")
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", help="Score anybody's table of predictions: no RUN then."),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            "--against", help="Another run, compared on the same images; may be repeated."
        ),
    ] = None,
    by: Annotated[
        str | None, typer.Option("--by", help="Also the figures by a column of the labels.")
    ] = None,
    decision: Annotated[
        Decision | None,
        typer.Option("--decision", help="How probabilities become a grade [default: the run's]."),
    ] = None,
    operating_point: Annotated[
        str | None,
        typer.Option(
            "--operating-point",
            help="youden, sensitivity=0.90 or specificity=0.95, met on validation "
            "[default: youden].",
        ),
    ] = None,
    tta: Annotated[bool, typer.Option("--tta", help="Mean over four flips, with DATA.")] = False,
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
    batch_size: options.BatchSize = None,
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
    if (run is None) == (predictions is None):
        raise UsageError("name a RUN, or a table with --predictions FILE: one of the two")
    if predictions is not None and (against or tta or decision or operating_point):
        raise UsageError(
            "--predictions has no run: --against, --tta, --decision, --operating-point need one"
        )
    if against and data is not None:
        raise UsageError("--against compares the runs' own predictions: leave DATA out")
    if tta and data is None:
        raise UsageError("--tta runs the network: give DATA, too")
    chosen = split.value if split else None
    with Console(quiet) as console:
        if run is None:
            record = _score_table(predictions, chosen, bootstrap, by)
        else:
            from dr_cli.scoring.of_run import Rules, compare_runs, evaluate

            rules = Rules(decision and decision.value, operating_point)
            record = evaluate(
                run, data, chosen, rules=rules, bootstrap=bootstrap, by=by, layout=layout,
                columns={"image": image_column, "grade": grade_column,
                         "patient": patient_column, "split": split_column},
                device=device.value, precision=precision.value, workers=workers,
                batch_size=batch_size, tta=tta, observer=console,
            )  # fmt: skip
            if against:
                together = [runs.Run(folder) for folder in (run, *against)]
                record["against"] = compare_runs(together, record["split"], rules, bootstrap)
        for warning in record["warnings"]:
            console.warning(warning)
    if out is not None:
        _write(record, out)
    _print(record, form or (Format.table if sys.stdout.isatty() else Format.json))
    if needed:
        from dr_cli.scoring.record import fail_under as check

        check(record, needed)
    if record["failed"]:
        raise DrError(f"{record['failed']} images could not be read: figures are without them")


def _score_table(
    path: Path | None, split: str | None, bootstrap: int, by: str | None
) -> dict[str, Any]:
    from dr_cli.scoring.predictions import read_predictions
    from dr_cli.scoring.record import Context, build_record

    assert path is not None
    table = read_predictions(path, split)
    context = Context(data=str(path), split=split or "all")
    return build_record(table, context, bootstrap=bootstrap, by=by)


def _needed(pairs: list[str]) -> dict[str, float]:
    found = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name in found:
            raise UsageError(f"--fail-under {name} stands there twice: give one value")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = math.nan
        if not math.isfinite(found[name]):  # no figure is below NaN, so it would always pass
            raise UsageError(f"--fail-under {pair!r}: give METRIC=VALUE, such as qwk=0.7")
    if found:
        from dr_cli.scoring.record import check_limits

        check_limits(found)  # before a network is run for nothing
    return found


def _write(record: dict[str, Any], folder: Path) -> None:
    from dr_cli.plots.confusion import ConfusionMatrix

    write_json(folder / "metrics.json", record)
    if record["confusion"] is not None:
        matrix = ConfusionMatrix()
        matrix.counts[:] = record["confusion"]
        matrix.save(folder / "confusion.png")


def _print(record: dict[str, Any], form: Format) -> None:
    if form is Format.json:
        typer.echo(json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False))
    elif form is Format.csv:
        from dr_cli.scoring.record import flatten

        rows = csv.writer(text := io.StringIO(), lineterminator="\n")
        rows.writerow(("metric", "value", "low", "high"))
        for name, value, interval in flatten(record):
            rows.writerow((name, value, *(interval or ("", ""))))
        typer.echo(text.getvalue(), nl=False)
    else:
        parts = [_table(record)]
        parts += [confusion_table(record)] if record["confusion"] else []
        parts += [_groups(record)] if record["subgroups"] else []
        parts += [_pair(pair) for pair in record.get("against", [])]
        print_table(*parts)


def _shown(figure: dict[str, Any]) -> str:
    if figure["value"] is None:
        return "n/a"
    low_high = figure["ci95"] and f" ({figure['ci95'][0]:.3f}–{figure['ci95'][1]:.3f})"
    return f"{figure['value']:.3f}{low_high or ''}"


def _table(record: dict[str, Any]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from dr_cli.scoring.record import flatten

    title = f"{record['run'] or record['data']}, {record['split']}: {record['n']:,} images"
    table = Table(title=Text(title), box=box.SIMPLE)
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("95% interval", justify="right")
    for name, value, interval in flatten({**record, "subgroups": None, "against": []}):
        shown = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
        table.add_row(name, "n/a" if value is None else f"{value:.3f}", shown)
    return table


def _groups(record: dict[str, Any]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    groups = record["subgroups"]
    table = Table(title=Text(f"by {groups['column']}"), box=box.SIMPLE)
    for column in (groups["column"], "images", "accuracy", "qwk", "referable AUC"):
        table.add_column(Text(column))
    for group in groups["groups"]:
        table.add_row(
            Text(str(group["value"] if group["value"] is not None else "not known")),
            f"{group['n']:,}",
            _shown(group["accuracy"]),
            _shown(group["qwk"]),
            _shown(group["referable"]["auc"]),
        )
    return table


def _pair(pair: dict[str, Any]) -> Any:
    """A comparison of two runs: the differences with their intervals, and both tests."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"{pair['a']} − {pair['b']}"), box=box.SIMPLE)
    for column in ("test", "difference", "95% interval", "p"):
        table.add_column(column)
    for name in ("qwk", "referable_auc"):
        if (found := pair[name]) is not None:
            low_high = found["ci95"]
            shown = f"{low_high[0]:+.3f} to {low_high[1]:+.3f}" if low_high else "n/a"
            table.add_row(name, f"{found['difference']:+.3f}", shown, _p(found["p"]))
    for name in ("mcnemar_referable", "mcnemar_grade"):
        if (found := pair[name]) is not None:
            only = f"right alone: {found['a_only']} against {found['b_only']}"
            table.add_row(name, only, "", _p(found["p"]))
    return table


def _p(value: float | None) -> str:
    return "n/a" if value is None else "<0.0001" if value < 1e-4 else f"{value:.4f}"
