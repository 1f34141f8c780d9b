"""Options that several commands share, and those that `TrainConfig` already describes."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal, Optional

import typer

from dr_cli.training.config import choices, flag

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
    """The annotation of a field's flag: its type or None, its help, and for a number that may be
    `auto` the function that reads it. Words are refused by TrainConfig, in one line, not by Typer.
    """
    text, name = f.metadata["help"], flag(f.name)
    kind, more = f.type, {}  # type: Any, dict[str, Any]
    if among := choices(f.name):
        kind, text = str, f"{text} One of {', '.join(among)}."
    if f.type is bool:
        text += f" [default: {'yes' if f.default else 'no'}]"
        name = f"{name}/--no-{name[2:]}"
    elif f.default is not None:
        text += f" [default: {f.default}]"
    if f.name in ("size", "batch_size"):
        more = {"parser": _read_number, "metavar": "<int or auto>"}
    option = typer.Option(name, help=text, show_default=False, **more)
    return Annotated[Optional[kind], option]  # noqa: UP045
