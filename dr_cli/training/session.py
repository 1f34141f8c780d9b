"""Training as a whole: a new run, and a look before anything is trained.

What `dr train` does, as plain functions; `dr_cli.train` is `train` of this room.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

from dr_cli.device import choose
from dr_cli.errors import UsageError
from dr_cli.events import NOTHING, Observer
from dr_cli.labels import reading
from dr_cli.ranks import Ranks
from dr_cli.runs import (
    Run,
    check_name,
    find_launched,
    forget_launched,
    new_run,
    runs_folder,
)
from dr_cli.sample import named
from dr_cli.training import audit, trainer
from dr_cli.training.config import TrainConfig, number
from dr_cli.training.plan import Plan, assign_splits
from dr_cli.training.resume import take_up
from dr_cli.training.setting import Setting, at_work, close, fill_members


def train(
    data: Path | str | None = None,
    config: TrainConfig = TrainConfig(),  # noqa: B008
    setting: Setting = Setting(),  # noqa: B008
    *,
    name: str | None = None,
    runs: Path | str | None = None,
    observer: Observer = NOTHING,
) -> Run:
    """Trains a new run on graded photographs; returns its folder, which is then full.

    data: a folder or table of graded photographs, or `sample:n=…,size=…,seed=…`; None is
    `$DR_DATA`, else drawn eyes. name: of the run's folder in `runs` (None: `$DR_RUNS`, else
    ./runs); None is the architecture and what was special. observer: is told of every epoch, and
    of what was found and chosen.

    `run.summary()["test"]["qwk"]` is {"value": …, "ci95": [low, high]}: every figure of `dr eval`
    stands there. Raises UsageError for options, names or data that cannot be, before a folder is
    made; DrError where training fails (memory, a loss that is no number).

    Started by torchrun, all processes train the one run together: each has a share of every batch,
    and of several folds or seeds whole ones. The first one alone tells the observer and writes.
    Where torchrun starts them again, they go on from the run's last.pt.

        run = train("photographs/", TrainConfig(arch="resnet18", epochs=10, size=256))
        print(run.folder, run.summary()["test"]["qwk"]["value"])
    """
    # What can fail at once fails before photographs are decoded and a folder is made for nothing.
    _refuse_early(config, setting)
    folder = runs_folder() if runs is None else Path(runs)
    with setting.together(observer) as (ranks, told):
        find = partial(find_launched, folder, ranks.launch)
        again = ranks.were_restarted()
        if not (again or ranks.alone):  # --rdzv-id may be that of a launch that was broken off
            ranks.from_first(lambda: forget_launched(folder, ranks.launch))
        if again and (begun := ranks.from_first(find)):
            over = ranks.from_first(lambda: begun.finished)
            return begun if over else take_up(begun, setting, ranks, told)
        ranks.from_first(lambda: check_name(folder, name))
        return _train(data, config, setting, folder, name, ranks, told)


def _train(
    data: Path | str | None,
    config: TrainConfig,
    setting: Setting,
    folder: Path,
    name: str | None,
    ranks: Ranks,
    observer: Observer,
) -> Run:
    # A drawn start is made later: it depends on the size.
    network = None
    if config.start != "drawn":
        network = ranks.in_turn(lambda: trainer.start_network(config, observer))
    labels = ranks.in_turn(lambda: setting.read(data, observer))
    plans = setting.plan(config, labels, observer, ranks=ranks)
    first = plans[0]
    if first.fold is None:
        for problem in audit.problems(_describe(first)):
            observer.warning(problem)
    made = dataclasses.replace(trainer.describe_run(first), fold=None, member=None)
    launch = None if ranks.alone else ranks.launch
    run = ranks.from_first(lambda: new_run(folder, name, default_name(config), made, launch))
    with at_work(run, ranks):
        observer.run(run)
        if first.member:
            fill_members(run, plans, setting, ranks, observer)
        else:
            trainer.fill_run(
                first, run, network=network, profile=setting.profile, observer=observer
            )
    close(run, ranks, observer)
    return run


def dry_run(
    data: Path | str | None = None,
    config: TrainConfig = TrainConfig(),  # noqa: B008
    setting: Setting = Setting(),  # noqa: B008
    *,
    observer: Observer = NOTHING,
) -> dict[str, Any]:
    """What `train` would find and do: every file decoded, a few steps timed, nothing kept.

    The record of `dr train --dry-run --format json`: `audit.describe`'s and `plan`, which is None
    where not one image is there.
    """
    if not (ranks := Ranks.of_environment()).alone:
        raise UsageError(f"--dry-run is one process's, but torchrun started {ranks.count}")
    _refuse_early(config, setting)
    labels = setting.read(data, observer)
    if not labels.images_found:
        seen = audit.inspect(labels)
        return audit.describe(labels, assign_splits(config, labels, seen), seen) | {"plan": None}
    plan = setting.plan(config, labels, observer, cache=False, start=False)[0]
    if plan.processor.warning:
        observer.warning(plan.processor.warning)
    return _describe(plan) | {"plan": trainer.estimate_run(plan, observer=observer)}


def default_name(config: TrainConfig) -> str:
    """The architecture and what was special."""
    kinds = {"pretrained": config.pretrained, "start": config.weights}
    kinds["drawn"] = config.start == "drawn"
    parts = [kind for kind, wanted in kinds.items() if wanted]
    parts += [f"{config.folds}-folds"] if config.folds else []
    parts += [f"{config.seeds}-seeds"] if config.seeds else []
    for field in ("loss", "balance", "augment"):
        if (value := getattr(config, field)) != getattr(TrainConfig, field):
            parts.append(value.replace("+", "-"))
    return "-".join([config.arch, *parts])


def _describe(plan: Plan) -> dict[str, Any]:
    return audit.describe(plan.labels, plan.table, plan.inspection)


def _refuse_early(config: TrainConfig, setting: Setting) -> None:
    """Raises UsageError for what can be known before eyes are drawn, or a folder is read."""
    reading.check_layout(setting.layout)
    choose(setting.device, setting.precision)
    if named.is_named(config.val):
        named.parse(config.val)
    elif config.val != "test" and number(config.val) is None and not Path(config.val).exists():
        raise UsageError(
            f"--val {config.val}: no such folder or table; or give a fraction, or test"
        )
