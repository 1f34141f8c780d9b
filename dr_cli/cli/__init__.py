"""The program: its commands, and the one place where an error becomes a line and an exit code."""

import io
import os
import shutil
import sys
import textwrap
import time
from contextlib import suppress
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dr_cli import __version__, machine
from dr_cli.cli import eval as _eval
from dr_cli.cli import export as _export
from dr_cli.cli import help as _help
from dr_cli.cli import options, predict, report, train
from dr_cli.errors import DrError, UsageError
from dr_cli.ranks import GRACE, Ranks, is_spoken
from dr_cli.words import visible_line


class Program(TyperGroup):
    """Turns what a command raises into one line on stderr, unless --debug asks for all of it."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; exit codes are those of errors.py, 130 when interrupted."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise  # Click's own ends: two are RuntimeErrors, one is that of `dr predict … | head`
        except (
            DrError, KeyboardInterrupt, OSError, MemoryError, RuntimeError, ValueError, TypeError,
            LookupError,
        ) as error:  # fmt: skip
            mine = not is_spoken(error)
            if sys.stderr is _MUTE and mine:
                sys.stderr = sys.__stderr__
            if ctx.meta.get(options.DEBUG):
                raise
            told, code = _explain(error)
            if mine:
                _say(f"dr: {told}", isinstance(error, KeyboardInterrupt))
            raise typer.Exit(code) from None


def _say(line: str, after_key: bool) -> None:
    """On stderr; a terminal has shown ^C where the cursor stood, and breaks words at its edge."""
    line = visible_line(line)
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1
        line = textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
        line = "\n" * after_key + line
    print(line, file=sys.stderr)


def _explain(error: BaseException) -> tuple[str, int]:
    """A line and an exit code."""
    if isinstance(error, DrError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "; ".join(["interrupted", *filter(None, map(str, error.args))]), 130
    if isinstance(error, OSError):
        return str(error), 1
    if machine.out_of_memory(error):
        return "out of memory: give a smaller --batch-size or --size, or fewer --workers", 1
    first = next(iter(str(error).strip().splitlines()), "")
    fault = "a fault of dr's own, or of what it runs on; --debug shows where"
    return f"{type(error).__name__}: {first} ({fault})", 1


app = typer.Typer(
    cls=Program,
    rich_markup_mode=None,  # help in 68 ms instead of 145
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], **_help.WIDTH},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"dr {__version__}")
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Grade diabetic retinopathy from photographs of the retina.

    For research and teaching; it makes no diagnosis. `dr train` first, then eval, predict, report.
    """


for _name, _command, _short, _examples in (
    ("train", train.command, "Graded photographs -> a trained run.", train.EXAMPLES),
    ("eval", _eval.command, "A run -> figures that can be trusted.", _eval.EXAMPLES),
    ("predict", predict.command, "Photographs -> grades.", predict.EXAMPLES),
    ("report", report.command, "Runs -> one page to show.", report.EXAMPLES),
    ("export", _export.command, "A run -> one file for other programs.", _export.EXAMPLES),
):
    app.command(_name, cls=_help.Command, short_help=_short, epilog=_examples)(_command)


_MUTE = io.StringIO()  # what all but the first of several processes on a machine write to


def main() -> None:
    """The `dr` script. File names go in and out as the system has them, whatever the locale."""
    with suppress(UsageError):  # which the command says
        if Ranks.of_environment().local:  # LOCAL_RANK alone may be left over from elsewhere
            sys.stderr = _MUTE
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the caller, as by `<&-`
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  for as long as it runs
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                encoding=sys.getfilesystemencoding(), errors=sys.getfilesystemencodeerrors()
            )
    try:
        app(prog_name="dr")
    except SystemExit as end:
        if end.code and sys.stderr is _MUTE:  # torchrun ends the others with the first that fails
            time.sleep(GRACE)
        raise
