"""What `dr eval` can be asked, and what it was: read and checked before anything else is."""

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from dr_cli.cli import options
from dr_cli.cli.help import DATA, EVALUATION
from dr_cli.errors import UsageError
from dr_cli.runs import MODEL

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
    Literal["qwk", "accuracy", "argmax", "thresholds"] | None,
    typer.Option(
        help="What the grades are decided for: see dr train --help. [default: the run's]",
        rich_help_panel=EVALUATION,
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
Card = Annotated[
    bool,
    typer.Option(
        "--card", rich_help_panel=EVALUATION,
        help="Print the model card of a run, with these figures, or of weights alone: Markdown.",
    ),
]  # fmt: skip
Tta = Annotated[
    bool,
    typer.Option("--tta", help="Mean over eight views, with DATA.", rich_help_panel=EVALUATION),
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
BESIDE_WEIGHTS = ("run", "card", "quiet", "debug")
OPTIONS = {"form": "format"}  # by what a person types
NEEDS = {  # option -> what there must be for it to mean something: see `refuse_idle`
    "against": "a RUN without DATA",
    "decision": "a RUN",
    "card": "a RUN",
    **dict.fromkeys(
        ("tta", "batch_size", "workers", "device", "precision"),
        "a RUN with DATA, whose network is run",
    ),
    **dict.fromkeys(
        ("image_column", "grade_column", "patient_column", "split_column"), "DATA or --predictions"
    ),
    "layout": "DATA or --labels",
    "grade_map": "DATA or --labels",
    "labels": "--predictions",
}


def refuse_idle(
    ctx: typer.Context,
    run: Path | None,
    data: Path | None,
    predictions: Path | None,
    labels: Path | None,
) -> None:
    """Raises UsageError for a call of two kinds or none, or with an option that does nothing in
    it: whoever gave one would believe that it counted."""
    if (run is None) == (predictions is None):
        raise UsageError("name a RUN, or a table with --predictions FILE: one of the two")
    if run is not None and run.is_file():
        raise UsageError(
            f"{run} is a file, and figures stand in the folder of its run: name that (dr predict "
            "grades by the file alone, and --card alone prints what it tells of itself)"
        )
    there = {
        "a RUN": run is not None,
        "a RUN without DATA": run is not None and data is None,
        "a RUN with DATA, whose network is run": data is not None,
        "DATA or --predictions": data is not None or predictions is not None,
        "DATA or --labels": data is not None or labels is not None,
        "--predictions": predictions is not None,
    }
    for name, need in NEEDS.items():
        given = ctx.get_parameter_source(name)
        if given is not None and given.name == "COMMANDLINE" and not there[need]:
            raise UsageError(f"--{name.replace('_', '-')} does nothing here: it is for {need}")


def are_weights(run: Path | None) -> bool:
    """Whether RUN is weights without their run: a file, or a folder that has them and no
    config.json, which the folder of a run has from its first moment."""
    if run is None or run.is_file():
        return run is not None
    return (run / MODEL).is_file() and not (run / "config.json").exists()


def refuse_beside_weights(ctx: typer.Context) -> None:
    """UsageError for anything that changes nothing of the card of weights alone."""
    for name in ctx.params:
        given = ctx.get_parameter_source(name)
        if given is not None and given.name == "COMMANDLINE" and name not in BESIDE_WEIGHTS:
            what = "DATA" if name == "data" else f"--{OPTIONS.get(name, name).replace('_', '-')}"
            raise UsageError(
                f"{what} does nothing beside --card of weights alone, which have no figures: name "
                "the folder of their run, or leave it out"
            )


def refuse_beside_card(card: bool, others: Mapping[str, object]) -> None:
    """UsageError for an option that changes nothing of a model card."""
    if card and (idle := next((name for name, value in others.items() if value), None)):
        raise UsageError(f"--{idle} does nothing beside --card, which is Markdown: leave one out")


def read_threshold(text: str | None) -> float | Path | None:
    """A number, or a table of predictions to choose one on."""
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        return float(text)
    if Path(text).is_file():
        return Path(text)
    raise UsageError(f"--threshold {text!r}: give a probability, or a table to choose one on")


def read_limits(pairs: list[str]) -> dict[str, float]:
    """`METRIC=VALUE` each; checked before a network is run for nothing."""
    from dr_cli.scoring.limits import check_limits

    found = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name in found:
            raise UsageError(f"--fail-under {name} stands there twice: give one value")
        found[name] = math.nan
        with contextlib.suppress(ValueError):
            found[name] = float(value)
        if not math.isfinite(found[name]):  # no figure is below NaN, so it would always pass
            raise UsageError(f"--fail-under {pair!r}: give METRIC=VALUE, such as qwk=0.7")
    check_limits(found)
    return found


def read_prevalences(given: list[float] | None) -> tuple[float, ...]:
    """Those asked for, once each and rising; the usual ones where none is."""
    from dr_cli.scoring.screening import PREVALENCES, check_prevalences

    check_prevalences(given or [])
    return tuple(sorted(set(given))) if given else PREVALENCES
