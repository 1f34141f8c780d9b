"""`dr train`: graded photographs -> a run folder."""

import dataclasses
import enum
import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from dr_cli import runs
from dr_cli.cli import options
from dr_cli.cli.console import Console, short
from dr_cli.errors import DrError, UsageError
from dr_cli.training.config import TrainConfig, flag, read_config


class Format(enum.StrEnum):
    """How a dry run is printed."""

    text = "text"
    json = "json"


RESUMABLE = {"epochs"}  # what --resume lets a person change; the rest decides the result


@dataclasses.dataclass(frozen=True)
class Setting:
    """Where and how to train: what may differ between a run and its continuation."""

    data: Path | None = None
    columns: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    layout: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    workers: int | None = None
    profile: bool = False
    console: Console = dataclasses.field(default_factory=lambda: Console(quiet=True))

    def labels(self) -> tuple[Any, dict[str, str]]:
        """The data set's `Labels`, and the column names that were given."""
        from dr_cli.labels import reading as labels
        from dr_cli.labels.columns import Columns

        root = self.data or default_data(self.console, self.workers)
        given = {name: value for name, value in self.columns.items() if value}
        columns = Columns(**given)
        read = labels.read(root, layout=self.layout, columns=columns, observer=self.console)
        return read, given

    def plan(
        self,
        config: TrainConfig,
        read: tuple[Any, Any],
        fold: int | None = None,
        cache: bool = True,
    ) -> Any:
        """What is decided before the first step. read: what `labels` gave; without `cache` no crop
        is kept."""
        from dr_cli.device import choose
        from dr_cli.training import plan as planning

        processor = choose(self.device, self.precision)
        found, given = read
        return planning.plan(
            config, found, processor, columns=given, fold=fold, workers=self.workers,
            cache=cache, observer=self.console,
        )  # fmt: skip

    def train(self, planned: Any, run: runs.Run, **begin: Any) -> None:
        """The run itself; begin: `network` or `state`, as `trainer.train` takes them."""
        from dr_cli.training import trainer

        trainer.train(planned, run, profile=self.profile, observer=self.console, **begin)


def train(config: TrainConfig, setting: Setting, name: str | None = None) -> runs.Run:
    """Trains a new run. Raises DrError and its kin for what cannot be."""
    from dr_cli.training import audit, trainer

    # What can fail at once fails before photographs are decoded and a folder is made for nothing.
    runs.check_name(runs.runs_folder(), name)
    network = trainer.start(config, setting.console)
    read = setting.labels()
    planned = setting.plan(config, read, 1 if config.folds else None)
    for problem in [] if config.folds else audit.problems(planned.found):
        setting.console.warning(problem)
    run = runs.new_run(runs.runs_folder(), name, default_name(config))
    setting.console.log_into(run)
    if config.folds:
        run.write_config(dataclasses.replace(trainer.describe(planned), fold=None))
        _interruptible(run, lambda: _folds(run, config, setting, read))
    else:
        _interruptible(run, lambda: setting.train(planned, run, network=network))
    return run


def _folds(run: runs.Run, config: TrainConfig, setting: Setting, read: tuple[Any, Any]) -> None:
    """Trains the folds that are not finished, then pools them all."""
    from dr_cli.training import crossval

    assert config.folds is not None
    each = crossval.folders(run, config.folds)
    for number, fold in enumerate(each, start=1):
        if fold.finished:
            continue
        setting.console.start(f"fold {number} of {config.folds}")
        state = _state(fold) if fold["last.pt"].is_file() else None
        planned = setting.plan(config, read, number)
        fold.folder.mkdir(exist_ok=True)
        setting.train(planned, fold, state=state)
    crossval.pool(run, each)


def resume(folder: Path, setting: Setting, epochs: int | None = None) -> runs.Run:
    """Goes on where a run stopped, from its last.pt; of a cross-validation, with its folds."""

    run = runs.Run(folder)
    made = run.config()
    if made.fold is not None:
        raise UsageError(
            f"{folder} is one fold of several: dr train --resume {folder.parent} goes on with all"
        )
    config = TrainConfig.from_dict(dict(made.options), str(run["config.json"]))
    setting = dataclasses.replace(
        setting,
        data=Path(made.data.source),
        layout=made.data.layout,
        columns=made.data.columns,
        precision=_precision(made.precision, setting),
    )
    read = setting.labels()
    _check_data(folder, made, setting, read[0].fingerprint)
    if run["log.txt"].is_file():
        setting.console.lines[:0] = run["log.txt"].read_text(encoding="utf-8").splitlines()
    if config.folds:
        if epochs is not None:
            raise UsageError("--epochs cannot extend a cross-validation: train a new one")
        if run.finished:
            raise UsageError(f"{folder} is finished: all {config.folds} folds are there")
        setting.console.log_into(run)
        _interruptible(run, lambda: _folds(run, config, setting, read))
        return run
    state = _state(run)
    done = len(state["rows"])
    config = _extended(folder, config, epochs, done, run.finished)
    planned = setting.plan(config, read)
    run["summary.json"].unlink(missing_ok=True)  # not finished any more
    run.write_config(dataclasses.replace(made, options=planned.config.to_dict()))
    setting.console.log_into(run)
    setting.console.note(f"going on with {short(folder)} after {done} epochs")
    _interruptible(run, lambda: setting.train(planned, run, state=state))
    return run


def _precision(then: str, setting: Setting) -> str:
    """The run's own precision, unless a person asks for another."""
    from dr_cli.device import choose

    if setting.precision != "auto" or choose(setting.device).precision == then:
        return setting.precision
    return then


def _state(run: runs.Run) -> dict[str, Any]:
    import torch

    if not run["last.pt"].is_file():
        raise UsageError(f"{run.folder} has no last.pt: its first epoch never ended; train it anew")
    try:
        return torch.load(run["last.pt"], map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign pickle raises what it likes
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{run['last.pt']} cannot be read ({line}): train it anew") from error


def _check_data(folder: Path, made: runs.RunConfig, setting: Setting, found: str) -> None:
    """Raises UsageError unless the data set's fingerprint is the one that the run began with."""
    then = made.data.fingerprint
    if found != then:
        raise UsageError(
            f"{setting.data} is not as it was when {folder} began (fingerprint {found[:12]}, then "
            f"{then[:12]}): train a new run"
        )


def _extended(
    folder: Path, config: TrainConfig, epochs: int | None, done: int, finished: bool
) -> TrainConfig:
    if epochs is not None and epochs < done:
        raise UsageError(f"--epochs {epochs}: {folder} has trained {done} epochs already")
    config = dataclasses.replace(config, epochs=epochs or config.epochs)
    if finished and done >= config.epochs:
        raise UsageError(f"{folder} is finished after {done} epochs: --epochs N goes further")
    return config


def dry_run(config: TrainConfig, setting: Setting) -> dict[str, Any]:
    """What `dr train` would find and do: every file decoded, a few steps timed, nothing kept.

    `plan` is None where not one image is there.
    """
    from dr_cli.training import audit, trainer
    from dr_cli.training import plan as planning

    read, given = setting.labels()
    if not read.images_found:
        seen = audit.look(read)
        return audit.describe(read, planning.settle(read, seen, config), seen) | {"plan": None}
    planned = setting.plan(config, (read, given), 1 if config.folds else None, cache=False)
    return planned.found | {"plan": trainer.estimate(planned)}


def default_data(console: Console, workers: int | None = None) -> Path:
    """`$DR_DATA`, else the built-in sample set; says which."""
    if os.environ.get("DR_DATA"):
        console.note(f"DATA: $DR_DATA, {os.environ['DR_DATA']}")
        return Path(os.environ["DR_DATA"])
    from dr_cli.photographs import cache
    from dr_cli.sample import drawn_set as sample

    console.note(
        "DATA: the built-in sample set: drawn eyes, no photographs, never for clinical use"
    )
    return sample.ensure(cache.folder(), observer=console, workers=workers)


def default_name(config: TrainConfig) -> str:
    """The architecture and what was special."""
    parts = [config.arch]
    if config.pretrained:
        parts.append("pretrained")
    if config.weights:
        parts.append("start")
    if config.folds:
        parts.append(f"{config.folds}-folds")
    for field in ("loss", "balance", "augment"):
        value = getattr(config, field)
        if value != TrainConfig.__dataclass_fields__[field].default:
            parts.append(value.replace("+", "-"))
    return "-".join(parts)


def _interruptible(run: runs.Run, work: Any) -> None:
    try:
        work()
    except KeyboardInterrupt:
        if run["last.pt"].is_file() or run["fold-1"].is_dir():
            _hint(f"interrupted; go on with: dr train --resume {short(run.folder)}")
        else:
            _hint(f"interrupted before the first epoch ended; {short(run.folder)} can be deleted")
        raise


def _hint(text: str) -> None:
    typer.echo(text, err=True)


# ------------------------------------------------------------------------- the command


def command(**given: Any) -> None:
    """Train a network on a folder of graded photographs; prints the run folder.

    Example: dr train photographs/ --arch resnet18 --epochs 10 --pretrained
    """
    with Console(given.pop("quiet")) as console:
        given.pop("debug")
        fields = {f.name for f in dataclasses.fields(TrainConfig)}
        chosen = {k: given.pop(k) for k in list(given) if k in fields}
        chosen = {k: v for k, v in chosen.items() if v is not None}
        resumed, file, data = given.pop("resume"), given.pop("config"), given.pop("data")
        dry, form = given.pop("dry_run"), given.pop("form")
        if form is not None and not dry:
            raise UsageError("--format is of --dry-run: a training run prints its folder")
        setting = Setting(
            data=data,
            columns={k: given[f"{k}_column"] for k in ("image", "grade", "patient", "split")},
            layout=given["layout"],
            device=given["device"],
            precision=given["precision"],
            workers=given["workers"],
            profile=given["profile"],
            console=console,
        )
        if resumed is not None:
            _refuse(chosen, data, file, given | {"dry_run": dry})
            run = resume(resumed, setting, chosen.get("epochs"))
        else:
            values = read_config(file) if file else {}
            config = TrainConfig.from_dict(values | chosen, str(file or "command line"))
            if dry:
                _show(dry_run(config, setting), form or Format.text)
                return
            run = train(config, setting, given["name"])
    typer.echo(str(run.folder))


def _show(record: dict[str, Any], form: Format) -> None:
    """The dry run on stdout: it is the data of this command. Exit 1 where nothing can start."""
    if form is Format.json:
        typer.echo(json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        from dr_cli.cli.tables import audit_tables, print_tables

        print_tables(*audit_tables(record))
    if record["plan"] is None:
        raise DrError(
            f"none of the {record['rows']:,} images is in {record['root']}: put them anywhere "
            "below it to train"
        )


def _refuse(chosen: dict[str, Any], data: Path | None, file: Path | None, given: Any) -> None:
    """--resume takes no DATA and no option that would decide another result."""
    if data is not None:
        raise UsageError(f"--resume takes no DATA: the run knows it (got {data})")
    wrong = [flag(name) for name in chosen if name not in RESUMABLE]
    wrong += ["--config"] if file else []
    wrong += ["--dry-run"] if given["dry_run"] else []
    wrong += [flag(k) for k in given if (k.endswith("_column") or k == "name") and given[k]]
    wrong += ["--layout"] if given["layout"] != "auto" else []
    if wrong:
        raise UsageError(
            f"--resume cannot change {', '.join(wrong)}: only --epochs, --device, --workers and "
            "--precision; start a new run for anything else"
        )


def _signature() -> inspect.Signature:
    own: dict[str, Any] = {
        "data": Annotated[
            Path | None,
            typer.Argument(help="Graded photographs [default: $DR_DATA, else drawn eyes]."),
        ],
        **options.train_options(),
        "name": Annotated[
            str | None, typer.Option(help="Name of the run folder [default: architecture + …].")
        ],
        "dry_run": Annotated[
            bool, typer.Option("--dry-run", help="Look at everything, train nothing.")
        ],
        "form": Annotated[
            Format | None, typer.Option("--format", help="Of --dry-run [default: text].")
        ],
        "profile": Annotated[
            bool, typer.Option("--profile", help="Say at the end where the time went.")
        ],
        "config": Annotated[
            Path | None, typer.Option(help="TOML file of these options; flags win.")
        ],
        "resume": Annotated[Path | None, typer.Option(help="Go on with a run that stopped.")],
        "workers": options.Workers,
        "image_column": options.ImageColumn,
        "grade_column": options.GradeColumn,
        "patient_column": options.PatientColumn,
        "split_column": options.SplitColumn,
        "layout": options.Layout,
        "device": options.Device,
        "precision": options.Precision,
        "quiet": options.Quiet,
        "debug": options.Debug,
    }
    defaults = {
        "dry_run": False,
        "profile": False,
        "layout": "auto",
        "device": "auto",
        "precision": "auto",
        "quiet": False,
        "debug": False,
    }
    return inspect.Signature(
        [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=defaults.get(name)
            )
            for name, kind in own.items()
        ]
    )


command.__signature__ = _signature()  # type: ignore[attr-defined]
command.__annotations__ = {
    name: parameter.annotation for name, parameter in _signature().parameters.items()
}
