"""A run that stopped, gone on with."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dr_cli import words
from dr_cli.device import choose
from dr_cli.errors import UsageError
from dr_cli.events import NOTHING, Observer
from dr_cli.labels.columns import Columns
from dr_cli.labels.reading import Labels
from dr_cli.photographs.crop import Preprocessing
from dr_cli.ranks import Ranks
from dr_cli.runs import (
    Run,
    RunConfig,
)
from dr_cli.training import saved, trainer
from dr_cli.training.config import BEFORE, TrainConfig
from dr_cli.training.plan import Plan, where_it_stood
from dr_cli.training.setting import Setting, at_work, close, fill_members


def resume(
    folder: Path | str,
    setting: Setting = Setting(),  # noqa: B008
    *,
    epochs: int | None = None,
    max_bad: float | None = None,
    lr: float | None = None,
    observer: Observer = NOTHING,
) -> Run:
    """Goes on where a run stopped, from its last.pt; of a run made of runs, with those.

    A run that was interrupted before its first saving begins anew. Data, layout, columns and
    options are the run's own. epochs: how many in all, to go further than was planned; max_bad,
    lr: another one, where the run stopped for it; the latter is another run from there on, and
    config.json says so. Raises UsageError where the run is finished, another process trains it, or
    its data are others now.
    """
    given = {"max_bad": max_bad, "lr": lr}
    changes = {name: value for name, value in given.items() if value is not None}
    with setting.together(observer) as (ranks, told):
        return take_up(Run(Path(folder)), setting, ranks, told, epochs, changes)


def take_up(
    run: Run,
    setting: Setting,
    ranks: Ranks,
    observer: Observer,
    epochs: int | None = None,
    changes: Mapping[str, Any] = {},
) -> Run:
    made = ranks.from_first(run.config)
    with at_work(run, ranks):
        _go_on(run, made, setting, epochs, changes, ranks, observer)
    close(run, ranks, observer)
    return run


def _go_on(
    run: Run,
    made: RunConfig,
    setting: Setting,
    epochs: int | None,
    changes: Mapping[str, Any],
    ranks: Ranks,
    observer: Observer,
) -> None:
    if made.fold is not None or made.member:
        kind = "seed" if made.fold is None else "fold"
        raise UsageError(
            f"{run.folder} is one {kind} of several: "
            f"dr train --resume {run.folder.parent} goes on with all"
        )
    before = TrainConfig.from_dict(BEFORE | dict(made.options), str(run["config.json"]))
    config = dataclasses.replace(before, **changes)
    columns = Columns(**made.data.columns)
    setting = dataclasses.replace(setting, layout=made.data.layout, columns=columns)
    # The run's own precision, unless a person asks for another.
    if setting.precision == "auto" and choose(setting.device).precision != made.precision:
        setting = dataclasses.replace(setting, precision=made.precision)
    way = Preprocessing.from_dict(made.preprocessing)  # of before, where a new run has another
    labels = ranks.in_turn(lambda: setting.read(Path(made.data.source), observer))
    _check_data(run, made, labels)
    if config.folds or config.seeds:
        _check_members(run, config, epochs, changes)
        members = [Run(run.folder / f"seed-{seed}") for seed in config.list_seeds()]
        begun = next((b for b in map(_read_splits, members) if b is not None), None)
        plans = setting.plan(config, labels, observer, ranks=ranks, begun=begun, way=way)
        for plan in plans:
            _check_splits(Run(run.folder / str(plan.member)), plan)
        observer.run(run)
        fill_members(run, plans, setting, ranks, observer)
        return
    state = ranks.from_first(lambda: saved.read_state(run))
    done = len(state["rows"]) if state else 0
    config = ranks.from_first(lambda: _extend(run, config, epochs, done))
    network = None
    if not state and config.start != "drawn":
        network = ranks.in_turn(lambda: trainer.start_network(config, observer))
    begun = ranks.from_first(lambda: _read_splits(run))
    (plan,) = setting.plan(
        config, labels, observer, ranks=ranks, begun=begun, way=way, start=not state
    )
    if ranks.first:
        run["summary.json"].unlink(missing_ok=True)  # not finished any more
        run.write_config(_tell_changes(made, before if state else config, plan, done))
    observer.run(run)
    observer.note(
        f"going on with {run.folder} after {words.count(done, 'epoch')}"
        if state
        else f"nothing of {run.folder} was saved: it begins anew"
    )
    profile = setting.profile
    trainer.fill_run(plan, run, network=network, state=state, profile=profile, observer=observer)


def _check_members(
    run: Run, config: TrainConfig, epochs: int | None, changes: Mapping[str, Any]
) -> None:
    """Raises UsageError for what a run made of runs cannot be told when it goes on."""
    kind = "a cross-validation" if config.folds else "a run of several seeds"
    if epochs is not None:
        raise UsageError(f"--epochs cannot extend {kind}: train a new one")
    if "lr" in changes:
        raise UsageError(f"--lr cannot change {kind}, whose parts it compares: train a new one")
    if run.finished:
        there = f"{config.folds} folds" if config.folds else f"{config.seeds} seeds"
        raise UsageError(f"{run.folder} is finished: all {there} are there")


def _tell_changes(made: RunConfig, before: TrainConfig, plan: Plan, done: int) -> RunConfig:
    """What config.json says of a run that is gone on with after `done` epochs.

    before: what it was trained with so far; its changes tell nothing where all begins anew.
    """
    rate, precision = plan.config.learning_rate, plan.processor.precision
    pairs = {"lr": (before.learning_rate, rate), "precision": (made.precision, precision)}
    new = [
        {"after_epoch": done, "option": option, "from": old, "to": now}
        for option, (old, now) in pairs.items()
        if old != now
    ]
    options, changes = plan.config.to_dict(), [*made.changes, *new]
    return dataclasses.replace(made, options=options, precision=precision, changes=changes)


def _check_data(run: Run, made: RunConfig, labels: Labels) -> None:
    """Raises UsageError unless the data set's fingerprint is the one that the run began with."""
    now, then = labels.fingerprint, made.data.fingerprint
    if now != then:
        raise UsageError(
            f"{made.data.source} is not as it was when {run.folder} began (fingerprint {now[:12]}, "
            f"then {then[:12]}): train a new run"
        )


def _read_splits(run: Run) -> pd.DataFrame | None:
    """splits.csv; None of a run that has not begun."""
    return run.splits() if run["splits.csv"].is_file() else None


def _check_splits(run: Run, plan: Plan) -> None:
    """Raises UsageError unless the splits are those that the run began with."""
    began = _read_splits(run)
    if began is None:  # a fold that has not begun
        return
    now, then = (
        dict(zip(t["path"], where_it_stood(t).fillna(""), strict=True)) for t in (plan.table, began)
    )
    if now != then:
        raise UsageError(
            f"{run.folder} began with other splits than would be drawn now (photographs that came "
            "or went, or another version of dr): train a new run"
        )


def _extend(run: Run, config: TrainConfig, epochs: int | None, done: int) -> TrainConfig:
    if epochs is not None and epochs < done:
        raise UsageError(f"--epochs {epochs}: {run.folder} has trained {done} already")
    config = dataclasses.replace(config, epochs=epochs or config.epochs)
    if run.finished and done >= config.epochs:
        raise UsageError(
            f"{run.folder} is finished after {words.count(done, 'epoch')}: --epochs N goes further"
        )
    return config
