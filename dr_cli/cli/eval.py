"""`dr eval`: a run, graded photographs -> metrics."""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from dr_cli.cli import asked, options, scorecard, tables
from dr_cli.cli.console import Console
from dr_cli.errors import DrError
from dr_cli.events import Observer
from dr_cli.ranks import Ranks
from dr_cli.writing import to_json, write_json

EXAMPLES = """dr eval runs/resnet18                      # its test images
dr eval runs/resnet18 clinic/              # its network on other photographs
dr eval runs/resnet18 --against runs/resnet50
dr eval runs/resnet18 --fail-under qwk=0.7"""


def command(
    ctx: typer.Context,
    run: asked.Folder = None,
    data: asked.Data = None,
    split: asked.Split = None,
    predictions: asked.Predictions = None,
    labels: asked.LabelTable = None,
    against: asked.Against = None,
    by: asked.By = None,
    decision: asked.Decision = None,
    operating_point: asked.OperatingPoint = None,
    threshold: asked.Cut = None,
    prevalence: asked.Prevalence = None,
    checklist: asked.Checklist = False,
    card: asked.Card = False,
    tta: asked.Tta = False,
    form: asked.Format = None,
    out: asked.Out = None,
    bootstrap: asked.Bootstrap = 2000,
    fail_under: asked.FailUnder = None,
    batch_size: options.BatchSize = None,
    workers: options.Workers = None,
    layout: options.Layout = "auto",
    image_column: options.ImageColumn = None,
    grade_column: options.GradeColumn = None,
    patient_column: options.PatientColumn = None,
    split_column: options.SplitColumn = None,
    grade_map: options.GradeMap = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Score a trained run: agreement, intervals, calibration, confusion, baselines."""
    if card and run is not None and asked.are_weights(run):
        asked.refuse_beside_weights(ctx)
        _print_card_of_weights(run)
        return
    asked.refuse_idle(ctx, run, data, predictions, labels)
    asked.refuse_beside_card(
        card, {"checklist": checklist, "format": form, "against": against, "by": by}
    )
    limits, cut = asked.read_limits(fail_under or []), asked.read_threshold(threshold)
    columns = {"image": image_column, "grade": grade_column, "patient": patient_column,
               "split": split_column, "grade_map": grade_map}  # fmt: skip
    how: dict[str, Any] = {
        "split": split, "bootstrap": bootstrap, "by": by, "layout": layout, "columns": columns,
        "prevalences": asked.read_prevalences(prevalence),
    }  # fmt: skip
    ranks = Ranks.of_environment()
    with Console(quiet, mute=not ranks.first) as console:
        if predictions is not None:
            record = score_table(predictions, labels, operating_point, cut, console, **how)
        else:
            assert run is not None
            record = score_run(
                run, against or [], decision, operating_point, cut, data=data, device=device,
                precision=precision, workers=workers, batch_size=batch_size, tta=tta,
                observer=console, **how,
            )  # fmt: skip
        for warning in record["warnings"]:
            console.warning(warning)
    if out is not None and ranks.first:
        _write(record, out)
    if ranks.first:
        with tables.while_read():
            if card:
                assert run is not None
                _print_card(run, record, data is not None)
            else:
                say = _print_checklist if checklist else _print
                say(record, form or ("table" if sys.stdout.isatty() else "json"))
    _judge(record, limits)


def score_table(
    predictions: Path,
    labels: Path | None,
    rule: str | None,
    threshold: float | Path | None,
    observer: Observer,
    *,
    bootstrap: int,
    by: str | None,
    prevalences: tuple[float, ...],
    **how: Any,
) -> dict[str, Any]:
    """The record of anybody's table. how: what `of_table.evaluate_table` takes besides."""
    from dr_cli.scoring.of_table import evaluate_table
    from dr_cli.scoring.record import Scoring

    return evaluate_table(
        predictions, labels=labels, rule=rule, threshold=threshold, observer=observer,
        scoring=Scoring(bootstrap, by=by, prevalences=prevalences), **how,
    )  # fmt: skip


def score_run(
    run: Path,
    against: Sequence[Path] = (),
    decision: str | None = None,
    operating_point: str | None = None,
    threshold: float | Path | None = None,
    *,
    bootstrap: int,
    **how: Any,
) -> dict[str, Any]:
    """The record of a run, and under `against` its comparisons with other runs by the same rules.

    decision, operating_point, threshold: see `of_run.Rules`; how: what
    `of_run.evaluate` takes besides.
    """
    from dr_cli.runs import Run
    from dr_cli.scoring.of_run import Rules, compare_runs, evaluate

    rules = Rules(decision, operating_point, threshold)
    record = evaluate(run, rules=rules, bootstrap=bootstrap, **how)
    if against:
        each = [Run(folder) for folder in (run, *against)]
        record["against"] = compare_runs(each, record["split"], rules, bootstrap)
    return record


def _write(record: dict[str, Any], folder: Path) -> None:
    from dr_cli.plots.confusion import ConfusionMatrix

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "metrics.json", record)
    if record["confusion"] is not None:
        ConfusionMatrix.from_counts(record["confusion"]).save(folder / "confusion.png")


def _print(record: dict[str, Any], form: str) -> None:
    from dr_cli.scoring.flat import APART, flatten
    from dr_cli.scoring.metrics import FIGURES

    if form == "json":
        typer.echo(to_json(record))
    elif form == "csv":
        rows = csv.writer(sys.stdout, lineterminator="\n")
        rows.writerow(("metric", "value", "low", "high"))
        for name, value, interval in flatten(record):
            rows.writerow((name, value, *(interval or ("", ""))))
    else:
        alone = flatten(record | {"subgroups": None, "against": []})
        told = [row for row in alone if row[0] in FIGURES or row[0].split(".")[0] not in APART]
        tables.print_tables(*scorecard.show(record, told))


def _print_checklist(record: dict[str, Any], form: str) -> None:
    from dr_cli.scoring.checklist import SOURCE, check_record, tell

    found = check_record(record)
    if form == "json":
        typer.echo(to_json(found))
        return
    rows = [[row["item"], row["tripod"], row["asks"], row["answered"], tell(row)] for row in found]
    titles = ("STARD-AI", "TRIPOD+AI", "item", "answered", "where")
    if form == "csv":
        csv.writer(sys.stdout, lineterminator="\n").writerows([titles, *rows])
    else:
        tables.print_tables(tables.table(SOURCE, titles, rows))


def _print_card(run: Path, record: dict[str, Any], elsewhere: bool) -> None:
    from dr_cli.report.card import write

    typer.echo(write(run, record, elsewhere), nl=False)


def _print_card_of_weights(source: Path) -> None:
    from dr_cli.report.card import write_of_weights

    if Ranks.of_environment().first:
        told = write_of_weights(source)
        with tables.while_read():
            typer.echo(told, nl=False)


def _judge(record: dict[str, Any], limits: dict[str, float]) -> None:
    """Raises UnmetError for a figure that misses its limit, DrError for images that failed."""
    from dr_cli.scoring.limits import fail_under

    fail_under(record, limits)
    if record["failed"]:
        raise DrError(f"{record['failed']} images could not be read: figures are without them")
