"""The program: four commands, and the one place where an error becomes a line and an exit code."""

import io
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dr_cli import __version__
from dr_cli.cli import eval as _eval
from dr_cli.cli import options, predict, report, train
from dr_cli.errors import DrError


class Program(TyperGroup):
    """Turns what a command raises into one line on stderr, unless --debug asks for all of it."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; exit codes are those of errors.py, 130 when interrupted."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise  # both are RuntimeErrors
        except DrError as error:
            return self._end(f"dr: {error}", error.exit_code, error)
        except KeyboardInterrupt as error:
            return self._end("dr: interrupted", 130, error)
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise  # Click's own quiet end, as for `dr predict … | head`
            return self._end(f"dr: {error}", 1, error)
        except (MemoryError, RuntimeError, ValueError, TypeError, LookupError) as error:
            text = str(error).strip().splitlines() or [""]
            return self._end(
                f"dr: {type(error).__name__}: {text[0]} (a fault of dr's own, or of what it "
                "runs on; --debug shows where)",
                1,
                error,
            )

    @staticmethod
    def _end(line: str, code: int, error: BaseException) -> None:
        if options.DEBUG.on:
            raise error
        print(line, file=sys.stderr)
        raise typer.Exit(code)


app = typer.Typer(
    cls=Program,
    rich_markup_mode=None,  # help in 68 ms instead of 145 (PERFORMANCE.md)
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
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


app.command("train")(train.command)
app.command("eval")(_eval.command)
app.command("predict")(predict.command)
app.command("report")(report.command)


def main() -> None:
    """The `dr` script. File names go in and out as the system has them, whatever the locale."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                encoding=sys.getfilesystemencoding(), errors=sys.getfilesystemencodeerrors()
            )
    app(prog_name="dr")
