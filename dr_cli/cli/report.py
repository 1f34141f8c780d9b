"""`dr report`: runs -> one HTML page with figures."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dr_cli import runs
from dr_cli.cli import options
from dr_cli.cli.console import Console
from dr_cli.errors import UsageError


def report(folders: list[Path], out: Path | None = None) -> Path:
    """Writes the page and returns where it is: in the one folder given, or `out`.

    Raises UsageError where no finished run is found.
    """
    from dr_cli.report import page

    if out is None and len(folders) > 1:
        raise UsageError("several folders: name the page with --out FILE")
    target = out or folders[0] / "report.html"
    data: dict[str, Any] = page.collect(folders)
    runs.write_text(target, page.render(data))
    return target


def command(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Runs, or folders of runs [default: $DR_RUNS].")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The page [default: report.html in the folder].")
    ] = None,
    opened: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Write one self-contained HTML page that compares runs; prints its path.

    Example: dr report runs/
    """
    with Console(quiet) as console:
        target = report(folders or [options.runs_folder()], out)
        console.note(f"{target.stat().st_size / 1e6:.2f} MB, self-contained")
    typer.echo(str(target))
    if opened:
        typer.launch(str(target.resolve()))
