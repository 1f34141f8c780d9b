"""Training as a whole: a new run, a run gone on with, folds, and a look before anything is trained.

What `dr train` does, as plain functions; `dr_cli.train` is `train` of this room.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from dr_cli import words
from dr_cli.device import choose
from dr_cli.errors import DivergedError, DrError, PartedError, UsageError, WriteError
from dr_cli.events import NOTHING, Observer
from dr_cli.labels import reading
from dr_cli.labels.columns import Columns
from dr_cli.labels.reading import Labels
from dr_cli.photographs import cache
from dr_cli.ranks import ALONE, TIMEOUT, Ranks
from dr_cli.runs import (
    LAUNCH,
    Run,
    RunConfig,
    check_name,
    counted_split,
    find_launched,
    new_run,
    runs_folder,
)
from dr_cli.sample import drawn_set, named
from dr_cli.training import audit, crossval, saved, teacher, trainer
from dr_cli.training.config import BEFORE, TrainConfig, number
from dr_cli.training.plan import Plan, assign_splits, make_plans, where_it_stood


@dataclasses.dataclass(frozen=True)
class Setting:
    """Where and how to train: what does not decide the result but for its last bits."""

    layout: str = "auto"
    """How the data set is laid out, a name of `dr_cli.labels.layouts`; "auto" recognises it."""
    columns: Columns = dataclasses.field(default_factory=Columns)
    """The table's columns, where they are not recognised."""
    device: str = "auto"
    """Where the network runs: "auto", "cpu", "cuda", "mps"."""
    precision: str = "auto"
    """In which numbers: "auto", "fp32", "bf16", "fp16"."""
    workers: int | None = None
    """Photographs decoded at once; None is every core."""
    profile: bool = False
    """Whether the observer is told at the end where the time went."""
    timeout: float = TIMEOUT
    """Seconds for which one of several processes waits for the others within a step."""

    @contextmanager
    def together(self, observer: Observer) -> Iterator[tuple[Ranks, Observer]]:
        """This process's place among those that torchrun started, for a block in which they hear
        each other; and who is told, which is the first one's observer alone."""
        ranks = Ranks.of_environment()
        with ranks.joined(choose(self.device, self.precision).device, self.timeout):
            if not ranks.alone:
                observer = observer if ranks.first else NOTHING
                observer.note(f"{ranks.count} processes, {ranks.beside} on this machine")
            yield ranks, observer

    def read(self, data: Path | str | None, observer: Observer) -> Labels:
        """The labels of a data set, of the default one where None is given."""
        root = find_data(self.workers, observer) if data is None else data
        return reading.read(root, layout=self.layout, columns=self.columns, observer=observer)

    def plan(
        self,
        config: TrainConfig,
        labels: Labels,
        observer: Observer,
        *,
        ranks: Ranks = ALONE,
        cache: bool = True,
        begun: pd.DataFrame | None = None,
        start: bool = True,
    ) -> list[Plan]:
        """See `make_plans`; device and precision are what they come to on this machine. start:
        whether a drawn start is made, too, where --start drawn asks for one.

        Several processes train one network together; of folds and seeds each its own alone.
        """
        found, workers = choose(self.device, self.precision), self.workers

        def make() -> list[Plan]:
            plans = make_plans(
                config, labels, found, workers=workers, cache=cache, begun=begun, observer=observer
            )
            return [self._take_start(plan, observer) for plan in plans] if start else plans

        plans = ranks.in_turn(make)
        return plans if plans[0].member else [dataclasses.replace(plans[0], ranks=ranks)]

    def _take_start(self, plan: Plan, observer: Observer) -> Plan:
        """The plan with its drawn start; made on the first use of an architecture and a way of the
        pixels."""
        if plan.config.start != "drawn":
            return plan
        way, arch = plan.dataset.preprocessing, plan.config.arch
        made = teacher.ensure(
            arch, way, plan.processor, teacher.RECIPE, workers=self.workers, observer=observer
        )
        return dataclasses.replace(plan, drawn_start=made)


def train(
    data: Path | str | None = None,
    config: TrainConfig = TrainConfig(),  # noqa: B008
    setting: Setting = Setting(),
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
        if ranks.were_restarted() and (begun := ranks.from_first(find)):
            over = ranks.from_first(lambda: begun.finished)
            return begun if over else _resume(begun, setting, ranks, told)
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
    with _at_work(run, ranks):
        observer.run(run)
        if first.member:
            _fill_members(run, plans, setting, ranks, observer)
        else:
            trainer.fill_run(
                first, run, network=network, profile=setting.profile, observer=observer
            )
    _close(run, ranks, observer)
    return run


def resume(
    folder: Path | str,
    setting: Setting = Setting(),
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
        return _resume(Run(Path(folder)), setting, ranks, told, epochs, changes)


def _resume(
    run: Run,
    setting: Setting,
    ranks: Ranks,
    observer: Observer,
    epochs: int | None = None,
    changes: Mapping[str, Any] = {},
) -> Run:
    made = ranks.from_first(run.config)
    with _at_work(run, ranks):
        _go_on(run, made, setting, epochs, changes, ranks, observer)
    _close(run, ranks, observer)
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
    labels = ranks.in_turn(lambda: setting.read(Path(made.data.source), observer))
    _check_data(run, made, labels)
    if config.folds or config.seeds:
        _check_members(run, config, epochs, changes)
        members = [Run(run.folder / f"seed-{seed}") for seed in config.list_seeds()]
        begun = next((b for b in map(_read_splits, members) if b is not None), None)
        plans = setting.plan(config, labels, observer, ranks=ranks, begun=begun)
        for plan in plans:
            _check_splits(Run(run.folder / str(plan.member)), plan)
        observer.run(run)
        _fill_members(run, plans, setting, ranks, observer)
        return
    state = ranks.from_first(lambda: _read_state(run))
    done = len(state["rows"]) if state else 0
    config = ranks.from_first(lambda: _extend(run, config, epochs, done))
    network = None
    if not state and config.start != "drawn":
        network = ranks.in_turn(lambda: trainer.start_network(config, observer))
    begun = ranks.from_first(lambda: _read_splits(run))
    plan = setting.plan(config, labels, observer, ranks=ranks, begun=begun, start=not state)[0]
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


def dry_run(
    data: Path | str | None = None,
    config: TrainConfig = TrainConfig(),  # noqa: B008
    setting: Setting = Setting(),
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


def find_data(workers: int | None, observer: Observer) -> Path:
    """`$DR_DATA`, else the built-in sample set; says which."""
    if given := os.environ.get("DR_DATA"):
        observer.note(f"DATA: $DR_DATA, {given}")
        return Path(given)  # which may be the name of a drawn set, too
    observer.note(
        "DATA: the built-in sample set: drawn eyes, no photographs, never for clinical use"
    )
    return drawn_set.ensure(cache.folder(), observer=observer, workers=workers)


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


@contextmanager
def _at_work(run: Run, ranks: Ranks = ALONE) -> Iterator[None]:
    """See `Run.hold`; where the disk is full, what was saved is there to go on with. Of several
    processes the first one holds it."""
    if not ranks.first:
        yield
        return
    try:
        with run.hold():
            yield
    except (DrError, OSError) as error:
        if not run["config.json"].is_file():
            raise DrError(f"{run.folder} was removed or moved while it was trained") from error
        if isinstance(error, WriteError):
            raise DrError(f"{error}; once it can be, {run.tell_way_on()}") from error
        if isinstance(error, DivergedError):
            raise DrError(f"{error}{_tell_slower_way(run)}") from error
        raise
    except RuntimeError as error:
        if isinstance(known := ranks.explain(error), PartedError):
            raise PartedError(f"{known}; {run.tell_way_on()}") from error
        raise


def _tell_slower_way(run: Run) -> str:
    """How a run that diverged is gone on with; one made of runs cannot change its rate."""
    config = TrainConfig.from_dict(dict(run.config().options), str(run["config.json"]))
    several = config.folds or config.seeds
    return "" if several else f"; {run.tell_way_on()} --lr {config.learning_rate / 3:.1g}"


def _describe(plan: Plan) -> dict[str, Any]:
    return audit.describe(plan.labels, plan.table, plan.inspection)


def _fill_members(
    run: Run, plans: Sequence[Plan], setting: Setting, ranks: Ranks, observer: Observer
) -> None:
    """Trains the folds or seeds that are not finished, then reads them as one run. Several
    processes train them side by side, each alone."""
    members = [Run(run.folder / str(plan.member)) for plan in plans]
    left = [one for one in enumerate(zip(plans, members, strict=True), 1) if not one[1][1].finished]
    ranks.wait()  # all see what is left before one begins
    if not ranks.alone:
        observer.note(f"{len(left)} to train, side by side: those of the first process are shown")
    for place, (plan, member) in ranks.every(left):
        kind = "fold" if plan.fold else "seed"
        which = "" if plan.fold else f": {plan.config.seed}"
        observer.note(f"{kind} {place} of {len(plans)}{which}")
        state = _read_state(member)
        member.folder.mkdir(exist_ok=True)
        member.write_config(trainer.describe_run(plan))
        trainer.fill_run(plan, member, state=state, profile=setting.profile, observer=observer)
    ranks.wait()
    if not ranks.first:
        return
    observer.progress(trainer.FINDING, 0, None)
    if plans[0].fold:
        crossval.pool(run, members)
    else:
        crossval.average(run, members)


def _close(run: Run, ranks: Ranks, observer: Observer) -> None:
    """A finished run; tells what spoils the figures of the split that counts."""
    if not ranks.first:  # which are not there yet
        return
    run[LAUNCH].unlink(missing_ok=True)  # another launch of the same name begins another run
    summary = run.summary()
    for text in summary[counted_split(summary)]["warnings"]:
        observer.warning(text)


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


def _read_state(run: Run) -> dict[str, Any] | None:
    """last.pt, as `Learner.state` gave it; None where nothing was saved yet."""
    path = run["last.pt"]
    if not path.is_file():
        if run.finished:
            raise UsageError(f"{run.folder} is finished, and has no last.pt to go further from")
        return None
    return saved.read(path)


def _extend(run: Run, config: TrainConfig, epochs: int | None, done: int) -> TrainConfig:
    if epochs is not None and epochs < done:
        raise UsageError(f"--epochs {epochs}: {run.folder} has trained {done} already")
    config = dataclasses.replace(config, epochs=epochs or config.epochs)
    if run.finished and done >= config.epochs:
        raise UsageError(
            f"{run.folder} is finished after {words.count(done, 'epoch')}: --epochs N goes further"
        )
    return config


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
