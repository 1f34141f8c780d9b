"""`dr train`: graded photographs -> a run folder."""

import dataclasses
import enum
import inspect
import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from dr_cli import runs
from dr_cli.cli import options
from dr_cli.cli.console import Console, short
from dr_cli.config import TrainConfig, flag, read_config
from dr_cli.errors import DrError, UsageError


class Format(enum.StrEnum):
    """How a dry run is printed."""

    text = "text"
    json = "json"


RESUMABLE = {"epochs"}  # what --resume lets a person change; the rest decides the result


def train(
    data: Path | None,
    config: TrainConfig,
    *,
    name: str | None = None,
    columns: dict[str, str | None] | None = None,
    layout: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    console: Console | None = None,
) -> runs.Run:
    """Trains a new run. Raises DrError and its kin for what cannot be."""
    from dr_cli import trainer

    console = console or Console(quiet=True)
    runs.check_name(options.runs_folder(), name)  # before photographs are decoded for nothing
    planned = _plan(data, config, columns, layout, device, precision, workers, console)
    run = runs.new_run(options.runs_folder(), name, default_name(config))
    console.log_into(run)
    _interruptible(run, lambda: trainer.train(planned, run, observer=console))
    return run


def resume(
    folder: Path,
    *,
    epochs: int | None = None,
    device: str = "auto",
    precision: str | None = None,
    workers: int | None = None,
    console: Console | None = None,
) -> runs.Run:
    """Goes on where a run stopped, from its last.pt."""
    import torch

    from dr_cli import trainer

    console = console or Console(quiet=True)
    run = runs.Run(folder)
    made = run.read_json("config.json")
    config = TrainConfig.from_dict(made["options"], str(run["config.json"]))
    if not run["last.pt"].is_file():
        raise UsageError(f"{folder} has no last.pt: its first epoch never ended; train it anew")
    try:
        state = torch.load(run["last.pt"], map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"{run['last.pt']} cannot be read: {error}") from error
    done = len(state["rows"])
    if epochs is not None:
        if epochs < done:
            raise UsageError(f"--epochs {epochs}: {folder} has trained {done} epochs already")
        config = dataclasses.replace(config, epochs=epochs)
    if run.finished and done >= config.epochs:
        raise UsageError(f"{folder} is finished after {done} epochs: --epochs N goes further")
    root = Path(made["data"]["root"])
    planned = _plan(
        root, config, made["data"].get("columns"), made["data"]["layout"], device,
        precision or made["precision"], workers, console,
    )  # fmt: skip
    found = trainer.fingerprint(planned.labels.table)
    if found != made["data"]["fingerprint"]:
        raise UsageError(
            f"{root} is not as it was when {folder} began (fingerprint {found[:12]}, then "
            f"{made['data']['fingerprint'][:12]}): train a new run"
        )
    run["summary.json"].unlink(missing_ok=True)  # not finished any more
    made["options"] = planned.config.to_dict()
    runs.write_json(run["config.json"], made)
    if run["log.txt"].is_file():
        console.lines[:0] = run["log.txt"].read_text(encoding="utf-8").splitlines()
    console.log_into(run)
    console.note(f"going on with {short(folder)} after {done} epochs")
    console.epoch = done + 1
    _interruptible(run, lambda: trainer.train(planned, run, state=state, observer=console))
    return run


def dry_run(
    data: Path | None,
    config: TrainConfig,
    *,
    columns: dict[str, str | None] | None = None,
    layout: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """What `dr train` would find and do: every file decoded, a few steps timed, nothing kept.

    `plan` is None where not one image is there.
    """
    from dr_cli import audit, trainer

    console = console or Console(quiet=True)
    read, given = _labels(data, columns, layout, workers, console)
    if not read.images_found:
        seen = audit.look(read)
        return audit.describe(read, trainer.settle(read, seen, config), seen) | {"plan": None}
    from dr_cli.device import choose

    planned = trainer.plan(
        config, read, choose(device, precision), columns=given, workers=workers, cache=False,
        observer=console,
    )  # fmt: skip
    return planned.found | {"plan": trainer.estimate(planned)}


def _plan(
    data: Path | None,
    config: TrainConfig,
    columns: dict[str, str | None] | None,
    layout: str,
    device: str,
    precision: str,
    workers: int | None,
    console: Console,
) -> Any:
    from dr_cli import audit, trainer
    from dr_cli.device import choose

    processor = choose(device, precision)
    read, given = _labels(data, columns, layout, workers, console)
    planned = trainer.plan(
        config, read, processor, columns=given, workers=workers, observer=console
    )
    for problem in audit.problems(planned.found):
        console.warning(problem)
    return planned


def _labels(
    data: Path | None,
    columns: dict[str, str | None] | None,
    layout: str,
    workers: int | None,
    console: Console,
) -> tuple[Any, dict[str, str]]:
    from dr_cli import labels

    root = data or default_data(console, workers)
    given = {name: value for name, value in (columns or {}).items() if value}
    read = labels.read(root, layout=layout, columns=labels.Columns(**given), observer=console)
    return read, given


def default_data(console: Console, workers: int | None = None) -> Path:
    """`$DR_DATA`, else the built-in sample set; says which."""
    if os.environ.get("DR_DATA"):
        console.note(f"DATA: $DR_DATA, {os.environ['DR_DATA']}")
        return Path(os.environ["DR_DATA"])
    from dr_cli import cache, sample

    console.note("DATA: the built-in sample set: drawn eyes, no photographs, never for clinic use")
    return sample.ensure(cache.folder(), observer=console, workers=workers)


def default_name(config: TrainConfig) -> str:
    """The architecture and what was special."""
    parts = [config.arch]
    if config.pretrained:
        parts.append("pretrained")
    if config.weights:
        parts.append("start")
    for field in ("loss", "balance", "augment"):
        value = getattr(config, field)
        if value != TrainConfig.__dataclass_fields__[field].default:
            parts.append(value.replace("+", "-"))
    return "-".join(parts)


def _interruptible(run: runs.Run, work: Any) -> None:
    try:
        work()
    except KeyboardInterrupt:
        if run["last.pt"].is_file():
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
        if resumed is not None:
            _refuse(chosen, data, file, given | {"dry_run": dry})
            run = resume(
                resumed,
                epochs=chosen.get("epochs"),
                device=given["device"].value,
                precision=None if given["precision"].value == "auto" else given["precision"].value,
                workers=given["workers"],
                console=console,
            )
        else:
            values = read_config(file) if file else {}
            config = TrainConfig.from_dict(values | chosen, str(file or "command line"))
            settings = _settings(given) | {"console": console}
            if dry:
                _show(dry_run(data, config, **settings), form or Format.text)
                return
            run = train(data, config, name=given["name"], **settings)
    typer.echo(str(run.folder))


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    return {
        "columns": {k: given[f"{k}_column"] for k in ("image", "grade", "patient", "split")},
        "layout": given["layout"],
        "device": given["device"].value,
        "precision": given["precision"].value,
        "workers": given["workers"],
    }


def _show(record: dict[str, Any], form: Format) -> None:
    """The dry run on stdout: it is the data of this command. Exit 1 where nothing can start."""
    if form is Format.json:
        typer.echo(json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        from dr_cli.cli.console import audit_tables, print_table

        print_table(*audit_tables(record))
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
        "device": options.DeviceOption,
        "precision": options.PrecisionOption,
        "quiet": options.Quiet,
        "debug": options.Debug,
    }
    defaults = {
        "dry_run": False,
        "layout": "auto",
        "device": options.Device.auto,
        "precision": options.Precision.auto,
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
