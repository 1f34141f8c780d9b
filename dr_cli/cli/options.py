"""Options that several commands share, and those that `TrainConfig` already describes."""

import dataclasses
from typing import Annotated, Any, Literal

import typer

from dr_cli.training.config import TrainConfig, flag

DEBUG = "dr.debug"  # in the `meta` of Click's context, which a command and the program share


def _keep_debug(ctx: typer.Context, value: bool) -> bool:
    ctx.meta[DEBUG] = value
    return value


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Warnings and errors only.")]
Debug = Annotated[
    bool, typer.Option("--debug", callback=_keep_debug, is_eager=True, help="Full tracebacks.")
]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],  # device.DEVICES, which brings torch
    typer.Option(envvar="DR_DEVICE", help="Where the network runs."),
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],  # device.PRECISIONS
    typer.Option(help="Numbers it runs in; auto says what and why."),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Photographs decoded at once [default: every core].")
]
Layout = Annotated[str, typer.Option(help="How DATA is laid out; auto recognises it.")]
ImageColumn = Annotated[str | None, typer.Option(help="Column that names the image.")]
GradeColumn = Annotated[str | None, typer.Option(help="Column that holds the grade.")]
PatientColumn = Annotated[str | None, typer.Option(help="Column that names the patient.")]
SplitColumn = Annotated[str | None, typer.Option(help="Column that holds train, val or test.")]


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
        metavar="<int or auto>",
        help="Photographs at once [default: auto, 64 on a GPU, 8 on a CPU].",
        show_default=False,
    ),
]


def train_options() -> dict[str, Any]:
    """A flag for every field of TrainConfig: name -> its annotation; all default to None.

    None means not given, so that a `--config` file stands between flag and default.
    """
    found: dict[str, Any] = {}
    for f in dataclasses.fields(TrainConfig):
        names = [f"{flag(f.name)}/--no-{flag(f.name)[2:]}"] if f.type is bool else []
        kind: Any = f.type
        found[f.name] = Annotated[kind | None, typer.Option(*names, **_describe(f))]
    return found


def _describe(f: dataclasses.Field[Any]) -> dict[str, Any]:
    """Help, and for a number that may be `auto` the function that reads it."""
    text = f.metadata["help"]
    if f.metadata["choices"]:
        text += f" One of {', '.join(f.metadata['choices'])}."
    if f.type is bool:
        text += f" [default: {'yes' if f.default else 'no'}]"
    elif f.default is not None:
        text += f" [default: {f.default}]"
    about: dict[str, Any] = {"help": text, "show_default": False}
    if f.name in ("size", "batch_size"):
        about |= {"parser": _read_number, "metavar": "<int or auto>"}
    return about
