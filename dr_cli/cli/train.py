"""`dr train`: graded photographs -> a run folder."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dr_cli import interrupts
from dr_cli.cli import options
from dr_cli.cli.closing import close
from dr_cli.cli.console import Console
from dr_cli.cli.help import MACHINE, OUTPUT, RUNS
from dr_cli.errors import DrError, UsageError
from dr_cli.ranks import TIMEOUT, Ranks
from dr_cli.training.config import TrainConfig, flag, nearest, read_config
from dr_cli.writing import to_json

RESUMABLE = {"epochs", "max_bad", "lr"}  # of what decides the result, what --resume may change


EXAMPLES = """dr train photographs/ --arch resnet18 --epochs 10 --pretrained
dr train photographs/ --dry-run            # what is there, what would be done
dr train                                   # on eyes drawn by a program
dr train sample:n=20000,size=224,seed=3    # on as many of them as you like
dr train --resume runs/resnet18 --epochs 20"""
UNFIT = {"data", "config", "resume", "dry_run", "form", "debug", "help"}  # of a file of options


def _take_file(ctx: typer.Context, path: Path | None) -> Path | None:
    """What a --config file says beyond TrainConfig stands where no flag does: Click's own way."""
    if path is None or ctx.resilient_parsing:
        return path
    values, known = read_config(path), {str(p.name) for p in ctx.command.params} - UNFIT
    for name, value in values.items():
        if name not in known:
            raise UsageError(f"{path}: {name!r} is no option of dr train{nearest(name, known)}")
        if isinstance(value, dict | list):
            raise UsageError(f"{path}: {name} = {value!r} is no single value")
    ours = _of_training(values)
    ctx.default_map = {name: value for name, value in values.items() if name not in ours}
    return path


def _of_training(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if hasattr(TrainConfig, name)}


Data = Annotated[
    Path | None,
    typer.Argument(
        metavar="DATA",
        help="Graded photographs, or drawn eyes as sample:n=600,size=224,seed=0. "
        "[default: $DR_DATA, else drawn eyes]",
    ),
]
Name = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Name of the run folder. [default: architecture + …]",
        rich_help_panel=RUNS,
    ),
]  # fmt: skip
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Look at everything, train nothing.", rich_help_panel=RUNS),
]
Format = Annotated[
    Literal["text", "json"] | None,
    typer.Option("--format", help="Of --dry-run. [default: text]", rich_help_panel=OUTPUT),
]
Profile = Annotated[
    bool,
    typer.Option("--profile", help="Say at the end where the time went.", rich_help_panel=OUTPUT),
]
Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="TOML file of these options; flags win.", rich_help_panel=RUNS,
        is_eager=True, callback=_take_file,
    ),
]  # fmt: skip
Resume = Annotated[
    Path | None,
    typer.Option(
        metavar="RUN", help="Go on with a run that stopped.", rich_help_panel=RUNS,
        autocompletion=options.suggest_runs,
    ),
]  # fmt: skip


Processes = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", rich_help_panel=MACHINE, show_default=False,
        help="Train on N processes of this machine, each on a GPU or a part of the cores: the "
        "short form of torchrun. [default: 1]",
    ),
]  # fmt: skip
MaxRestarts = Annotated[
    int,
    typer.Option(
        min=0, metavar="N", rich_help_panel=MACHINE,
        help="How often --processes goes on from last.pt after one of them died.",
    ),
]  # fmt: skip
RankTimeout = Annotated[
    float,
    typer.Option(
        min=1, metavar="SECONDS", rich_help_panel=MACHINE,
        help="How long a process waits for the others within a step before all end.",
    ),
]  # fmt: skip


@options.with_fields(TrainConfig)
def command(
    data: Data = None,
    *,
    chosen: dict[str, Any],
    name: Name = None,
    dry_run: DryRun = False,
    form: Format = None,
    profile: Profile = False,
    config: Config = None,
    resume: Resume = None,
    workers: options.Workers = None,
    image_column: options.ImageColumn = None,
    grade_column: options.GradeColumn = None,
    patient_column: options.PatientColumn = None,
    split_column: options.SplitColumn = None,
    grade_map: options.GradeMap = None,
    layout: options.Layout = "auto",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    processes: Processes = None,
    max_restarts: MaxRestarts = 0,
    rank_timeout: RankTimeout = TIMEOUT,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Train a network on a folder of graded photographs; prints the run folder."""
    ranks = _spread(processes, max_restarts)
    if form is not None and not dry_run:
        raise UsageError("--format is of --dry-run: a training run prints its folder")
    columns = {"image": image_column, "grade": grade_column}
    columns |= {"patient": patient_column, "split": split_column}
    if resume is not None:
        refused: dict[str, Any] = {flag(field): field not in RESUMABLE for field in chosen}
        refused |= {"--config": config, "--dry-run": dry_run}
        refused |= {f"--{key}-column": column for key, column in columns.items()}
        refused |= {"--grade-map": grade_map, "--name": name, "--layout": layout != "auto"}
        _refuse(data, refused)
    else:
        values = _of_training(read_config(config)) if config else {}
        settled = TrainConfig.from_dict(values | chosen, str(config or "command line"))

    with Console(quiet, mute=not ranks.first) as console, _ending(console):
        console.progress("loading PyTorch", 0, None)  # seconds
        from dr_cli.labels.columns import Columns
        from dr_cli.training import session, setting
        from dr_cli.training.resume import resume as go_on

        said = Columns(**columns, grade_map=grade_map)
        how = setting.Setting(layout, said, device, precision, workers, profile, rank_timeout)
        if dry_run:
            record = session.dry_run(data, settled, how, observer=console)
        elif resume is None:
            run = session.train(data, settled, how, name=name, observer=console)
        else:
            run = go_on(resume, how, observer=console, **chosen)
        if not dry_run and ranks.first:
            for line in close(run):
                console.note(line)
    if dry_run:
        _show(record, form)
    elif ranks.first:
        typer.echo(str(run.folder))


def _spread(processes: int | None, restarts: int) -> Ranks:
    """This process's place among those that train; of --processes it only starts them, and ends
    with their exit code."""
    ranks = Ranks.of_environment()
    if ranks.alone and (processes or 1) > 1:
        from dr_cli.training.launch import launch

        raise typer.Exit(launch(sys.argv[1:], processes or 1, restarts))
    if restarts and not processes:
        raise UsageError("--max-restarts is of --processes; torchrun has one of its own")
    if processes and processes != ranks.count:
        raise UsageError(
            f"--processes {processes}, but torchrun started {ranks.count}: leave it out"
        )
    return ranks


@contextmanager
def _ending(console: Console) -> Iterator[None]:
    """A block that a signal ends in order, with one line and the exit code of the signal."""
    try:
        with interrupts.listen(console.interrupted):
            yield
    except KeyboardInterrupt as stop:
        console.interrupted()
        raise typer.Exit(getattr(stop, "exit_code", 130)) from None


def _show(record: dict[str, Any], form: str | None) -> None:
    """The dry run on stdout: it is the data of this command. Exit 1 where nothing can start."""
    if form == "json":
        typer.echo(to_json(record))
    else:
        from dr_cli.cli.tables import audit_tables, print_tables

        print_tables(*audit_tables(record))
    if record["plan"] is None:
        raise DrError(
            f"none of the {record['rows']:,} images is in {record['root']}: put them anywhere "
            "below it to train"
        )


def _refuse(data: Path | None, given: dict[str, Any]) -> None:
    """--resume takes no DATA and no option that would decide another result.

    given: by its flag whether, or how, each option was given that it does not take.
    """
    if data is not None:
        raise UsageError(f"--resume takes no DATA: the run knows it (got {data})")
    if wrong := [name for name, value in given.items() if value]:
        raise UsageError(
            f"--resume cannot change {', '.join(wrong)}: only --epochs, --lr, --max-bad, --device, "
            "--workers and --precision; start a new run for anything else"
        )
