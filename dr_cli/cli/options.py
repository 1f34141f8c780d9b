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
    typer.Option("--device", envvar="DR_DEVICE", help="Where the network runs."),
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],  # device.PRECISIONS
    typer.Option("--precision", help="Numbers it runs in; auto says what and why."),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Photographs decoded at once [default: every core]."),
]
Layout = Annotated[str, typer.Option("--layout", help="How DATA is laid out; auto recognises it.")]
ImageColumn = Annotated[
    str | None, typer.Option("--image-column", help="Column that names the image.")
]
GradeColumn = Annotated[
    str | None, typer.Option("--grade-column", help="Column that holds the grade.")
]
PatientColumn = Annotated[
    str | None, typer.Option("--patient-column", help="Column that names the patient.")
]
SplitColumn = Annotated[
    str | None, typer.Option("--split-column", help="Column that holds train, val or test.")
]


def number_or_auto(text: str) -> int | str:
    """A whole number, or the word auto."""
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a whole number nor auto") from None


def _photographs(text: str) -> int | None:
    """How many at once; None for auto."""
    number = number_or_auto(text)
    if isinstance(number, str):
        return None
    if number < 1:
        raise typer.BadParameter(f"{number} photographs at once are too few")
    return number


BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        parser=_photographs,
        metavar="<int or auto>",
        help="Photographs at once [default: auto, 64 on a GPU, 8 on a CPU].",
        show_default=False,
    ),
]


def train_options() -> dict[str, Any]:
    """A flag for every field of TrainConfig: name -> its annotation; all default to None.

    None means not given, so that a `--config` file stands between flag and default.
    """
    made: dict[str, Any] = {}
    for f in dataclasses.fields(TrainConfig):
        made[f.name] = Annotated[_kind(f), typer.Option(*_names(f), **_about(f))]
    return made


def _kind(f: dataclasses.Field[Any]) -> Any:
    """The annotation: the field's own type, or None for not given."""
    return f.type if "None" in str(f.type) else f.type | None  # type: ignore[operator]


def _names(f: dataclasses.Field[Any]) -> list[str]:
    return [f"{flag(f.name)}/--no-{flag(f.name)[2:]}"] if f.type is bool else [flag(f.name)]


def _about(f: dataclasses.Field[Any]) -> dict[str, Any]:
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
        about |= {"parser": number_or_auto, "metavar": "<int or auto>"}
    return about
