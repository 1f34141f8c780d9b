"""`dr eval`: a run, graded photographs -> metrics."""

import csv
import io
import json
import math
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dr_cli import runs
from dr_cli.cli import options, tables
from dr_cli.cli.console import Console
from dr_cli.errors import DrError, UsageError
from dr_cli.writing import write_json

Split = Literal["train", "val", "test", "all"]
Format = Literal["table", "json", "csv"]
Decision = Literal["argmax", "thresholds"]


def evaluate(run: runs.Run, split: str | None = None, **options: Any) -> dict[str, Any]:
    """The record of a finished run, from its own prediction files; options of `results.of_run`.

    split: default test, else val.
    """
    from dr_cli.scoring import of_run as results

    return results.of_run(run, _own_split(run, split), **options)


def _own_split(run: runs.Run, split: str | None) -> str:
    run.read_json("summary.json")
    split = split or ("test" if run.has("test") else "val")
    if split == "train":
        raise UsageError(
            f"{run.folder} keeps no predictions of its training split: give DATA to run the network"
        )
    if split != "all" and not run.has(split):
        has = " and ".join(s for s in ("val", "test") if run.has(s)) or "none"
        raise UsageError(f"{run.folder} has no {split} split: it has {has}")
    return split


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
    device: options.Device = "auto",
    precision: options.Precision = "auto",
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
    common: dict[str, Any] = {"bootstrap": bootstrap, "by": by}
    with Console(quiet) as console:
        if run is None:
            record = _of_table(predictions, split, common)
        else:
            from dr_cli.scoring import of_run as results

            rules = results.Rules(decision, operating_point)
            if data is None:
                record = evaluate(runs.Run(run), split, rules=rules, **common)
            else:
                record = results.on_data(
                    runs.Run(run), data, split, rules, layout=layout,
                    columns={"image": image_column, "grade": grade_column,
                             "patient": patient_column, "split": split_column},
                    device=device, precision=precision, workers=workers,
                    batch_size=batch_size, tta=tta, observer=console, **common,
                )  # fmt: skip
            if against:
                together = [runs.Run(folder) for folder in (run, *against)]
                for other in together[1:]:
                    _own_split(other, record["split"])
                record["against"] = results.compared(together, record["split"], rules, bootstrap)
        for warning in record["warnings"]:
            console.warning(warning)
    if out is not None:
        _write(record, out)
    _print(record, form or ("table" if sys.stdout.isatty() else "json"))
    if needed:
        from dr_cli.scoring.record import fail_under as check

        check(record, needed)
    if record["failed"]:
        raise DrError(f"{record['failed']} images could not be read: figures are without them")


def _of_table(path: Path | None, split: str | None, common: dict[str, Any]) -> dict[str, Any]:
    from dr_cli.scoring import record as evaluation
    from dr_cli.scoring.predictions import read_predictions

    assert path is not None
    table = read_predictions(path, None if split == "all" else split)
    return evaluation.evaluate(table, data=str(path), split=split or "all", **common)


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
    if form == "json":
        typer.echo(json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False))
    elif form == "csv":
        rows = csv.writer(text := io.StringIO(), lineterminator="\n")
        rows.writerow(("metric", "value", "low", "high"))
        for name, value, interval in [*_figures(record), *_groups_and_pairs(record)]:
            rows.writerow((name, value, *(interval or ("", ""))))
        typer.echo(text.getvalue(), nl=False)
    else:
        parts = [tables.figures_table(record, _figures(record))]
        parts += [tables.confusion_table(record)] if record["confusion"] else []
        parts += [tables.groups_table(record["subgroups"])] if record["subgroups"] else []
        parts += [tables.pair_table(pair) for pair in record.get("against", [])]
        tables.print_tables(*parts)


def _figures(record: dict[str, Any]) -> list[tables.Figure]:
    """Name, value, interval of each figure of a record, calibration before, and baselines."""
    from dr_cli.scoring.record import flatten

    found = [(name, f["value"], f["ci95"]) for name, f in flatten(record).items()]
    before = record["calibration"]["before"] or {}
    found += [
        (f"calibration.before.{name}", before[name], None)
        for name in ("ece", "brier", "nll")
        if name in before
    ]
    if refused := record["ungradable"]:
        found.append(("ungradable.share", refused["share"], None))
        found += [
            (f"ungradable.without.{name}", figure["value"], figure["ci95"])
            for name in ("accuracy", "qwk")
            if (figure := (refused["without"] or {}).get(name))
        ]
    for name, pair in record["baselines"].items():
        for metric in ("accuracy", "qwk"):
            if pair is not None:
                found.append((f"baseline.{name}.{metric}", pair[metric], None))
    return found


def _groups_and_pairs(record: dict[str, Any]) -> list[tables.Figure]:
    """The figures of --by (`by.camera=A.qwk`) and --against (`against.NAME.qwk`, with `.p`)."""
    found: list[tables.Figure] = []
    groups = record["subgroups"] or {"column": "", "groups": []}
    for group in groups["groups"]:
        value = "not known" if group["value"] is None else group["value"]
        where = f"by.{groups['column']}={value}"
        found.append((f"{where}.n", group["n"], None))
        found += [
            (f"{where}.{name}", figure["value"], figure["ci95"])
            for name, figure in group.items()
            if isinstance(figure, dict) and "value" in figure
        ]
        found += [
            (f"{where}.{target}.{name}", figure["value"], figure["ci95"])
            for target in ("referable", "sight_threatening")
            for name, figure in group[target].items()
        ]
    pairs = record.get("against", [])
    for pair in pairs:
        first = "" if pair["a"] == pairs[0]["a"] else f"{pair['a']}."
        where = f"{first}against.{pair['b']}"
        for name in ("qwk", "referable_auc", "mcnemar_referable", "mcnemar_grade"):
            test = pair[name] or {}
            if "difference" in test:
                found.append((f"{where}.{name}", test["difference"], test["ci95"]))
            found += [(f"{where}.{name}.{key}", test[key], None) for key in ("p", "p_holm") if test]
    return found
