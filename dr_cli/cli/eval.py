"""`dr eval`: a run, graded photographs -> metrics."""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dr_cli.cli import asked, options, scorecard, tables
from dr_cli.cli.console import Console
from dr_cli.cli.help import DATA, EVALUATION
from dr_cli.errors import DrError
from dr_cli.writing import to_json, write_json

EXAMPLES = """dr eval runs/resnet18                      # its test images
dr eval runs/resnet18 clinic/              # its network on other photographs
dr eval runs/resnet18 --against runs/resnet50
dr eval runs/resnet18 --fail-under qwk=0.7"""
Folder = Annotated[
    Path | None,
    typer.Argument(
        metavar="RUN", help="A run folder of dr train.", autocompletion=options.suggest_runs
    ),
]
Data = Annotated[
    Path | None,
    typer.Argument(metavar="DATA", help="Graded photographs. [default: the run's own]"),
]
Split = Annotated[
    Literal["train", "val", "test", "all"] | None,
    typer.Option(help="Which part. [default: test, else val]", rich_help_panel=DATA),
]
Predictions = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", rich_help_panel=DATA,
        help="Score anybody's table of predictions, or - for one on stdin: no RUN then.",
    ),
]  # fmt: skip
LabelTable = Annotated[
    Path | None,
    typer.Option(
        "--labels", metavar="TABLE", rich_help_panel=DATA,
        help="Where the true grades are that --predictions lacks: joined by image.",
    ),
]  # fmt: skip
Against = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="RUN", help="Another run, compared on the same images; may be repeated.",
        rich_help_panel=EVALUATION, autocompletion=options.suggest_runs,
    ),
]  # fmt: skip
By = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Also the figures by a column of the labels.",
        rich_help_panel=EVALUATION,
    ),
]  # fmt: skip
Decision = Annotated[
    Literal["argmax", "thresholds"] | None,
    typer.Option(
        help="How probabilities become a grade. [default: the run's]", rich_help_panel=EVALUATION
    ),
]
OperatingPoint = Annotated[
    str | None,
    typer.Option(
        metavar="RULE", rich_help_panel=EVALUATION,
        help="youden, sensitivity=0.90 or specificity=0.95, met on validation. [default: youden]",
    ),
]  # fmt: skip
Checklist = Annotated[
    bool,
    typer.Option(
        "--checklist", rich_help_panel=EVALUATION,
        help="Print which items of STARD-AI this record answers, and where, in its place.",
    ),
]  # fmt: skip
Tta = Annotated[
    bool,
    typer.Option("--tta", help="Mean over four flips, with DATA.", rich_help_panel=EVALUATION),
]
Cut = Annotated[
    str | None,
    typer.Option(
        metavar="P|TABLE", rich_help_panel=EVALUATION,
        help="Probability from which an image is referable, or predictions to choose it on. "
        "[default: chosen on validation, else 0.5]",
    ),
]  # fmt: skip
Prevalence = Annotated[
    list[float] | None,
    typer.Option(
        metavar="P", show_default=False, rich_help_panel=EVALUATION,
        help="Predictive values where this share of people is diseased; may be repeated. "
        "[default: 0.05, 0.1, 0.2]",
    ),
]  # fmt: skip
Format = Annotated[
    Literal["table", "json", "csv"] | None,
    typer.Option("--format", help="[default: table on a terminal, else json]"),
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Also write metrics.json, confusion.png here."),
]
Bootstrap = Annotated[
    int,
    typer.Option(
        min=0, metavar="N", help="Replicates of the intervals; 0 is none.",
        rich_help_panel=EVALUATION,
    ),
]  # fmt: skip
FailUnder = Annotated[
    list[str] | None,
    typer.Option(
        metavar="METRIC=VALUE", rich_help_panel=EVALUATION,
        help="Exit 3 below it (above it for an error); may be repeated.",
    ),
]  # fmt: skip


def command(
    ctx: typer.Context,
    run: Folder = None,
    data: Data = None,
    split: Split = None,
    predictions: Predictions = None,
    labels: LabelTable = None,
    against: Against = None,
    by: By = None,
    decision: Decision = None,
    operating_point: OperatingPoint = None,
    threshold: Cut = None,
    prevalence: Prevalence = None,
    checklist: Checklist = False,
    tta: Tta = False,
    form: Format = None,
    out: Out = None,
    bootstrap: Bootstrap = 2000,
    fail_under: FailUnder = None,
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
    limits, prevalences = asked.read_limits(fail_under or []), asked.read_prevalences(prevalence)
    cut = asked.read_threshold(threshold)
    asked.refuse_idle(ctx, run, data, predictions, labels)
    columns = {"image": image_column, "grade": grade_column, "patient": patient_column,
               "split": split_column, "grade_map": grade_map}  # fmt: skip
    with Console(quiet) as console:
        if predictions is not None:
            from dr_cli.scoring.of_table import evaluate_table
            from dr_cli.scoring.record import Scoring

            record = evaluate_table(
                predictions, split, labels=labels, layout=layout, columns=columns, threshold=cut,
                rule=operating_point, scoring=Scoring(bootstrap, by=by, prevalences=prevalences),
                observer=console,
            )  # fmt: skip
        else:
            assert run is not None
            record = score_run(
                run, against or [], decision, operating_point, cut, data=data, split=split,
                bootstrap=bootstrap, by=by, prevalences=prevalences, layout=layout,
                device=device, precision=precision, columns=columns, workers=workers,
                batch_size=batch_size, tta=tta, observer=console,
            )  # fmt: skip
        for warning in record["warnings"]:
            console.warning(warning)
    if out is not None:
        _write(record, out)
    form = form or ("table" if sys.stdout.isatty() else "json")
    if checklist:
        _print_checklist(record, form)
    else:
        _print(record, form)
    _judge(record, limits)


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


def _judge(record: dict[str, Any], limits: dict[str, float]) -> None:
    """Raises UnmetError for a figure that misses its limit, DrError for images that failed."""
    from dr_cli.scoring.limits import fail_under

    fail_under(record, limits)
    if record["failed"]:
        raise DrError(f"{record['failed']} images could not be read: figures are without them")
