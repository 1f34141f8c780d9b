"""Options that several commands share, and those that `TrainConfig` already describes."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer

from dr_cli.cli.help import AUGMENTATION, DATA, MACHINE, NETWORK, OPTIMISATION, OUTPUT, RUNS
from dr_cli.labels import layouts
from dr_cli.runs import runs_folder
from dr_cli.training.config import flag

FIELDS = {  # the subject of each field of TrainConfig in the help
    DATA: ("val", "split_by", "folds"),
    NETWORK: (
        "arch", "pretrained", "weights", "start", "allow_overlap", "size", "illumination",
        "decision", "both_eyes",
    ),
    OPTIMISATION: (
        "epochs", "batch_size", "optimizer", "lr", "momentum", "nesterov", "weight_decay",
        "schedule", "warmup", "ema", "loss", "balance", "label_smoothing", "patience", "seed",
        "seeds",
    ),
    AUGMENTATION: ("augment",),
    RUNS: ("save_every", "max_bad",),
    MACHINE: ("compile", "deterministic"),
}  # fmt: skip
METAVARS = {  # what a person types where it is no plain number
    "weights": "FILE|RUN", "val": "SHARE|PATH|test", "size": "N|auto", "batch_size": "N|auto",
}  # fmt: skip
DEBUG = "dr.debug"  # in the `meta` of Click's context, which a command and the program share


def _keep_debug(ctx: typer.Context, value: bool) -> bool:
    ctx.meta[DEBUG] = value
    return value


def suggest_layouts(incomplete: str) -> list[str]:
    """What a shell completes --layout to."""
    return [name for name in ("auto", *layouts.BY_NAME) if name.startswith(incomplete)]


def suggest_runs(incomplete: str) -> Iterator[str]:
    """What a shell completes a run to: the run folders in $DR_RUNS, and below a folder typed."""
    typed = Path(incomplete or ".")
    for root in dict.fromkeys((runs_folder(), typed, typed.parent)):
        for config in sorted(root.glob("*/config.json")):
            if (run := str(config.parent)).startswith(incomplete):
                yield run


def column(what: str) -> Any:
    """The annotation of an option that names a column of the labels' table."""
    return Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"Column that {what}.", rich_help_panel=DATA),
    ]


ImageColumn = column("names the image")
GradeColumn = column("holds the grade")
PatientColumn = column("names the patient")
SplitColumn = column("holds train, val or test")
GradeMap = Annotated[
    str | None,
    typer.Option(
        metavar="MAP", rich_help_panel=DATA,
        help='What the values of the grade column, or folders\' names, mean: "1=0,2=1,U=".',
    ),
]  # fmt: skip
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Warnings and errors only.", rich_help_panel=OUTPUT),
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug", callback=_keep_debug, is_eager=True, help="Full tracebacks.",
        rich_help_panel=OUTPUT,
    ),
]  # fmt: skip
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],  # device.DEVICES, which brings torch
    typer.Option(envvar="DR_DEVICE", help="Where the network runs.", rich_help_panel=MACHINE),
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],  # device.PRECISIONS
    typer.Option(help="Numbers it runs in; auto says what and why.", rich_help_panel=MACHINE),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="Photographs decoded at once. [default: every core]",
        rich_help_panel=MACHINE,
    ),
]  # fmt: skip
Layout = Annotated[
    str,
    typer.Option(
        metavar="NAME", autocompletion=suggest_layouts, rich_help_panel=DATA,
        help="How DATA is laid out; auto recognises it.",
    ),
]  # fmt: skip


def _read_number(text: str) -> int | str:
    """A whole number, or the word auto."""
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a whole number nor auto") from None


def _read_batch_size(text: str) -> int | None:
    """How many at once; None for auto."""
    number = _read_number(text)
    if isinstance(number, str):
        return None
    if number < 1:
        raise typer.BadParameter(f"{number} photographs at once are too few")
    return number


BatchSize = Annotated[
    int | None,
    typer.Option(
        parser=_read_batch_size,
        metavar="N|auto",
        help="Photographs at once. [default: auto, 64 on a GPU, 8 on a CPU]",
        show_default=False,
        rich_help_panel=MACHINE,
    ),
]


def with_fields(kind: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command a flag for every field of a dataclass of options, where its parameter
    `chosen` stands; in `chosen` it finds those that were given, by name.

    All default to None, not given, so that a `--config` file stands between flag and default.
    """
    flags = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_flag(f))
        for f in dataclasses.fields(kind)
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def typed(**given: Any) -> None:
            values = {flag.name: given.pop(flag.name) for flag in flags}
            chosen = {name: value for name, value in values.items() if value is not None}
            command(chosen=chosen, **given)

        own = inspect.signature(command).parameters.values()
        parameters = [p for one in own for p in (flags if one.name == "chosen" else [one])]
        typed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        typed.__annotations__ = {p.name: p.annotation for p in parameters}
        return typed

    return decorate


def _flag(f: dataclasses.Field[Any]) -> Any:
    """The annotation of a field's flag: its type or None, its subject and help, and for a number
    that may be `auto` the function that reads it."""
    text, name = f.metadata["help"], flag(f.name)
    if f.type is bool:
        text += f" [default: {'yes' if f.default else 'no'}]"
        name = f"{name}/--no-{name[2:]}"
    elif f.default is not None:
        text += f" [default: {f.default}]"
    plain = "N" if f.type in (int, int | None) else "X" if f.type in (float, float | None) else None
    more: dict[str, Any] = {"metavar": METAVARS.get(f.name, plain)}
    if f.name in ("size", "batch_size"):
        more["parser"] = _read_number
    subject = next(subject for subject, fields in FIELDS.items() if f.name in fields)
    option = typer.Option(name, help=text, show_default=False, rich_help_panel=subject, **more)
    return Annotated[Optional[f.type], option]  # noqa: UP045
