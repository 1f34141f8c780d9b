"""`dr report`: runs -> one HTML page with figures."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from dr_cli.cli import options
from dr_cli.cli.console import Console, short
from dr_cli.cli.tables import print_tables, runs_table, while_read
from dr_cli.errors import UsageError
from dr_cli.writing import to_json, write_text

EXAMPLES = """dr report runs/
dr report runs/ --figures figures/ --no-pictures
dr report runs/ --format csv > runs.csv"""


def command(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN_OR_FOLDER",
            help="Runs, or folders of runs. [default: $DR_RUNS]",
            autocompletion=options.suggest_runs,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The page. [default: report.html in the folder]"),
    ] = None,
    form: Annotated[
        Literal["html", "json", "csv", "markdown"],
        typer.Option("--format", help="json, csv and markdown go to stdout."),
    ] = "html",
    figures: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder for PNG and SVG fit for a paper.")
    ] = None,
    no_pictures: Annotated[
        bool, typer.Option("--no-pictures", help="No photograph, file name or patient: to share.")
    ] = False,
    opened: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Write one self-contained HTML page that compares runs; prints its path."""
    from dr_cli.report import page, paper, reading
    from dr_cli.runs import runs_folder

    folders = folders or [runs_folder()]
    if form != "html" and (out is not None or opened):
        raise UsageError("--out and --open are of the page: --format html")
    if form == "html" and out is None and len(folders) > 1:
        raise UsageError("several folders: name the page with --out FILE")
    with Console(quiet) as console:
        data = reading.collect(folders, no_pictures=no_pictures, observer=console)
        if figures is not None:
            console.note(f"{len(paper.save(data, figures))} figures in {short(figures)}")
        if console.rich.is_terminal and not quiet:
            print_tables(runs_table(data), file=sys.stderr)
        if form != "html":
            write = {"json": to_json, "csv": page.to_csv, "markdown": page.to_markdown}
            with while_read():
                typer.echo(write[form](data).rstrip("\n"))
        else:
            target = out or folders[0] / "report.html"
            target.parent.mkdir(parents=True, exist_ok=True)
            write_text(target, page.render(data))
            console.note(f"{target.stat().st_size / 1e6:.2f} MB, self-contained")
            typer.echo(str(target))
    if opened:
        typer.launch(str(target.resolve()))
    if any(run["broken"] for run in data["left_out"]):
        raise typer.Exit(1)
