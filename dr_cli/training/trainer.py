"""One run from its start to its end: a plan, a network, epochs, and a full run folder."""

import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import dr_cli
from dr_cli import device, runs, words
from dr_cli.dataset.feeding import batches, hold
from dr_cli.errors import DrError
from dr_cli.events import NOTHING, Observer, Outline
from dr_cli.grades import Calibration
from dr_cli.interrupts import Interrupted, deferred
from dr_cli.labels.reading import count_reasons
from dr_cli.network.grader import pooled_features
from dr_cli.network.novelty import Familiar
from dr_cli.network.resnet import ResNet, build_resnet, count_parameters, multiply_adds
from dr_cli.network.weights import load_pretrained, load_start
from dr_cli.photographs import duplicates
from dr_cli.plots import lines
from dr_cli.plots.confusion import ConfusionMatrix
from dr_cli.sample.mark import is_drawn
from dr_cli.scoring.both_eyes import NOTHING_SAID, Pairs
from dr_cli.scoring.calibration import calibrate, tell_temperature
from dr_cli.scoring.of_run import evaluate_run, tabulate
from dr_cli.scoring.predictions import number_units
from dr_cli.training import pictures, teacher
from dr_cli.training.config import TrainConfig
from dr_cli.training.learner import Learner, draw_order, predict, predict_splits
from dr_cli.training.plan import Plan
from dr_cli.writing import whole, write_csv, write_json


def fill_run(
    plan: Plan,
    run: runs.Run,
    *,
    network: ResNet | None = None,
    state: dict[str, Any] | None = None,
    profile: bool = False,
    observer: Observer = NOTHING,
) -> dict[str, Any]:
    """Trains into `run`, which has its config.json; returns what its summary.json holds.

    network: what `start_network` gave; it is called without. state: what `last.pt` holds, to go
    on from there. profile: note where the time went.
    """
    device.deterministic(plan.config.deterministic)
    if network is None:
        begun = state is not None
        network = build_resnet(plan.config.arch) if begun else start_network(plan.config, observer)
        if plan.drawn_start and not begun:
            load_start(network, plan.drawn_start.weights)
            observer.note(teacher.tell(plan.drawn_start))
    learner = Learner(network, plan, profile, observer)
    if state is not None:
        learner.load(state)
    elif plan.ranks.first:
        write_splits(plan, run)
        run.write_hashes(plan.inspection.hashes, duplicates.VERSION)
    observer.plan(outline(plan))
    if plan.processor.warning:
        observer.warning(plan.processor.warning)
    if plan.config.compile and plan.processor.device.type == "cpu":
        # 0.79-0.86 times as fast on AVX2
        observer.warning("--compile takes a minute on a CPU, and its steps are no faster there")
    if plan.dataset.resident is None:  # else an earlier fold has put it there
        hold(plan.dataset, plan.processor, observer)
    try:
        _train_epochs(plan, run, learner, observer)
        summary = _end(plan, run, learner, observer)
    finally:
        if plan.ranks.first:
            _tell_lost(plan, run, observer)
    if profile:
        observer.note("\n".join(["where the time went:", *learner.clock.lines()]))
    return summary


def _end(plan: Plan, run: runs.Run, learner: Learner, observer: Observer) -> dict[str, Any]:
    """See `finish_run`. Raises DrError where no epoch can be kept."""
    if not learner.best_epoch:
        raise DrError(
            "no epoch predicts in numbers, so that none can be kept: try a smaller --lr than "
            f"{plan.config.learning_rate:g}, or more --epochs"
        )
    if len(learner.rows) < plan.config.epochs:
        waited = words.count(plan.config.patience or 0, "epoch")
        observer.note(f"stopped: no better validation QWK for {waited}")
    return finish_run(plan, run, learner, observer)


def write_splits(plan: Plan, run: runs.Run) -> None:
    """splits.csv: what stands where, and what was lost since."""
    own = (*runs.SPLITS, *runs.FURTHER)
    more = [c for c in plan.labels.extra_columns if c not in own]  # for `dr eval --by COLUMN`
    run.write_table("splits.csv", (*own, *more), plan.tell_lost())


def _tell_lost(plan: Plan, run: runs.Run, observer: Observer) -> None:
    """What became unreadable while it trained is counted, named and listed in splits.csv."""
    if rotten := plan.dataset.rotten():
        observer.warning(
            f"{words.count(rotten, 'crop')} in the cache had rotted: made anew from the photographs"
        )
    if lost := plan.dataset.failed:
        path, why = lost[0]
        observer.warning(
            f"{words.count(len(lost), 'photograph')} became unreadable while it trained, such as "
            f"{path} ({why}): it went on without; splits.csv lists them"
        )
        write_splits(plan, run)


def _train_epochs(plan: Plan, run: runs.Run, learner: Learner, observer: Observer) -> None:
    """Epochs until the learner is done, each saved; a signal is heard where nothing is lost."""

    def keep() -> None:
        if plan.ranks.first:
            with whole(run["last.pt"]) as aside:
                torch.save(learner.state(), aside)

    while not learner.done:
        with deferred():
            try:
                epoch = learner.epoch(keep)
            except Interrupted:
                keep()
                raise
            with learner.clock("saving"):
                if epoch.kept and plan.ranks.first:
                    save_model(run, plan, epoch.network, learner.best_epoch)
                if plan.ranks.first:
                    write_csv(run["metrics.csv"], runs.METRICS, learner.rows)
                keep()
            learner.hear()
            observer.epoch(epoch.row, epoch.kept)


# ---------------------------------------------------------------------------- its start


def start_network(config: TrainConfig, observer: Observer = NOTHING) -> ResNet:
    """The network before its first step. Raises DrError where its weights cannot be had."""
    torch.manual_seed(config.seed)
    network = build_resnet(config.arch)
    if config.pretrained:
        load_pretrained(network, config.arch, observer)
        observer.note("start: ImageNet weights of torchvision (IMAGENET1K_V1)")
    elif config.weights:
        observer.note(load_start(network, Path(config.weights)))
        _doubt_light(config, observer)
    return network


def _doubt_light(config: TrainConfig, observer: Observer) -> None:
    """Warns where the start's network was made for pixels with their light in them, or without."""
    try:
        way = runs.read_record(Path(config.weights or "")).preprocessing
    except DrError:  # weights of others say nothing of it
        return
    if (theirs := way.get("illumination", "kept")) != config.illumination:
        observer.warning(
            f"--weights {config.weights}: it learned from pixels with --illumination {theirs}, "
            f"this run from {config.illumination}: the same suits it better"
        )


def outline(plan: Plan) -> Outline:
    """The plan in figures."""
    config = plan.config
    counts = {split: len(plan.indices(split)) for split in ("train", "val", "test")}
    return Outline(
        arch=config.arch,
        parameters=count_parameters(config.arch),
        size=plan.dataset.preprocessing.size,
        batch_size=plan.batch_size,
        epochs=config.epochs,
        images=counts,
        steps_per_epoch=plan.steps,
        device=str(plan.processor.device),
        reason=plan.processor.reason,
        kept=tell_kept(plan),
        picked_on_test=plan.config.val == "test",
    )


def tell_kept(plan: Plan) -> str:
    """Which epoch is kept, a sentence; see `Learner.weigh`."""
    if "val" not in plan.evaluated:
        return "no validation images: the last epoch is kept"
    on_test = plan.config.val == "test"
    chosen_on = "test" if on_test else "validation"
    kept = f"kept: the last epoch whose {chosen_on} QWK is within two standard errors of the best"
    if on_test:
        return f"{kept}, as --val test asks"
    return kept + "; test figures are shown, never used to choose" * ("test" in plan.evaluated)


def describe_run(plan: Plan) -> runs.RunConfig:
    """What config.json holds: every option that decides the result, and what it ran on."""
    config = plan.config
    versions = {"python": platform.python_version(), "dr": dr_cli.__version__}
    versions |= {"torch": torch.__version__, "numpy": np.__version__}
    return runs.RunConfig(
        options=config.to_dict(),
        fold=plan.fold,
        member=plan.member,
        preprocessing=plan.dataset.preprocessing.to_dict(),
        parameters=count_parameters(config.arch),
        multiply_adds=multiply_adds(config.arch, plan.dataset.preprocessing.size),
        data=describe_data(plan),
        versions=versions,
        device=plan.processor.reason,
        precision=plan.processor.precision,
        threads=torch.get_num_threads(),
        start=plan.start,
        drawn_start=plan.drawn_start.record if plan.drawn_start else None,
    )


def describe_data(plan: Plan) -> runs.DataRecord:
    """What config.json and the weights say of the data set."""
    labels = plan.labels
    return runs.DataRecord(
        root=str(labels.root.resolve()),
        source=str(labels.source),
        layout=labels.layout,
        columns=labels.columns.to_record(),
        fingerprint=labels.fingerprint,
        left_out=count_reasons(plan.table),
        drawn=is_drawn(labels.source),
    )


# ------------------------------------------------------------------------------ its end

FINDING = "pictures, figures and their intervals"


def save_model(
    run: runs.Run,
    plan: Plan,
    network: ResNet,
    epoch: int,
    calibration: Calibration = Calibration(),  # noqa: B008
    familiar: Familiar | None = None,
) -> None:
    """model.safetensors: a whole grader by its metadata. epoch: the one that is kept, from 1."""
    way = plan.dataset.preprocessing.to_dict()
    tensors = {name: value.cpu() for name, value in network.state_dict().items()}
    learned = describe_data(plan).trained_on
    known = familiar.to_record() if familiar else None
    record = runs.ModelRecord(plan.config.arch, way, calibration, epoch, learned, known)
    run.save_model(tensors, record)


def finish_run(
    plan: Plan, run: runs.Run, learner: Learner, observer: Observer = NOTHING
) -> dict[str, Any]:
    """The kept epoch's weights calibrated, its predictions, their record and figures. Of several
    processes the first one finishes alone, once all have predicted their share."""

    def watch(split: str, done: int, total: int) -> None:
        observer.progress(f"kept epoch, {split}", done, total)

    network = learner.network
    if plan.ranks.first:
        network.load_state_dict(runs.read_model(run[runs.MODEL])[0])
    plan.ranks.align(network)
    with learner.clock("evaluation"):
        logits = predict_splits(network, plan, learner.micro_batch, watch)
    if not plan.ranks.first:
        return {}
    observer.progress(FINDING, 0, None)
    calibration = Calibration()
    if "val" in logits:
        unit = number_units(plan.rows.iloc[plan.indices("val")])[0]
        pairs = pair_eyes(plan) if plan.config.both_eyes else None
        grade, decision = plan.grades("val"), plan.config.decision
        calibration = calibrate(grade, logits["val"], decision, unit, pairs)
        if pairs and calibration.fellow is None:
            observer.note(NOTHING_SAID)
        if note := tell_temperature(calibration.temperature):
            learner.observer.note(f"temperature {note}")
    with learner.clock("evaluation"):
        familiar = _describe_learned(plan, network, learner.micro_batch)
    save_model(run, plan, network, learner.best_epoch, calibration, familiar)
    rows, tables = plan.dataset.mark_gradable(plan.rows), {}
    for split, values in logits.items():
        own = rows.iloc[plan.indices(split)]
        tables[split] = tabulate(own, calibration.probabilities(values), calibration)
    last = plan.evaluated[-1]
    shown = pictures.make_pictures(tables[last], plan.dataset, plan.indices(last), network.eval())
    return write_findings(run, tables, learner.rows, shown)


def pair_eyes(plan: Plan) -> Pairs:
    """What --both-eyes is fitted on: how training patients' eyes agree, and validation's pairs."""
    train, val = (plan.rows.iloc[plan.indices(split)] for split in ("train", "val"))
    return Pairs.of(train, val)


FEATURES = 2048  # photographs that what was learned from is described by, of train, and of val


def _describe_learned(plan: Plan, network: ResNet, batch_size: int) -> Familiar | None:
    """What photographs the network learned from, by its own features."""
    way, processor = plan.dataset.preprocessing, plan.processor

    def see(split: str) -> np.ndarray[Any, Any]:
        rows = plan.indices(split)
        some = rows[:: max(1, -(-len(rows) // FEATURES))]
        found = batches(plan.dataset, some, batch_size)
        return pooled_features(network, found, way, processor)

    return Familiar.fit(see("train"), see("val"))


def write_findings(
    run: runs.Run,
    tables: dict[str, pd.DataFrame],
    rows: list[dict[str, Any]],
    shown: list[dict[str, Any]],
) -> dict[str, Any]:
    """A run's predictions by split, their record and figures; summary.json last: it is finished.

    rows: of metrics.csv; shown: for pictures.json. The confusion is that of the last split.
    """
    for split, table in tables.items():
        run.write_table(f"predictions-{split}.csv", runs.PREDICTIONS, table)
    *_, last = tables.values()
    ConfusionMatrix.from_predictions(last["grade"], last["predicted"]).save(run["confusion.png"])
    write_json(run["pictures.json"], shown)
    lines.save(rows, run["curves.png"])
    summary = {split: evaluate_run(run, split) for split in tables}
    write_json(run["summary.json"], summary)
    return summary


# ------------------------------------------------------------------------- its estimate


BUDGET = 20.0  # seconds that steps are timed for


def estimate_run(
    plan: Plan, steps: int = 3, budget: float = BUDGET, observer: Observer = NOTHING
) -> dict[str, Any]:
    """What an epoch will take, measured on a few steps of the real thing: a dry run's `plan`.

    Steps grow to a whole batch as far as `budget` seconds allow; `measured` says how far they
    came. `memory_bytes`: the peak so far, of the GPU's memory or of this process; None where the
    system does not tell, or no whole batch was tried.
    """
    torch.manual_seed(plan.config.seed)
    learner = Learner(build_resnet(plan.config.arch), plan)
    order = np.resize(draw_order(plan, 1), plan.batch_size)
    batch = next(iter(batches(plan.dataset, order, plan.batch_size)))
    learner.network.train()
    begun, count, taken = time.perf_counter(), min(2, plan.batch_size), list[float]()
    while True:
        observer.progress(f"timing steps of {words.count(count, 'photograph')}", 0, None)
        pixels, grade, index = (tensor[:count] for tensor in batch)
        step = partial(_take_step, learner, pixels, grade, index)
        taken.append(_time(step))
        grown = min(2 * count, plan.batch_size)
        over = time.perf_counter() - begun + taken[-1] * grown / count > budget
        if over or (grown == count and len(taken) > steps):
            break
        if grown > count:
            count, taken = grown, []
    measured = taken[1:] or taken
    sample = plan.indices(plan.evaluated[0])[:count]
    evaluation = _time(lambda: predict(learner.network, plan, sample, len(sample)))
    facts = outline(plan)
    seconds = statistics.median(measured) / count * facts.images["train"]
    evaluated = sum(facts.images[split] for split in plan.evaluated)
    seconds += evaluation / len(sample) * evaluated
    names = ("arch", "size", "batch_size", "epochs", "steps_per_epoch", "device")
    return {name: getattr(facts, name) for name in names} | {
        "precision": plan.processor.precision,
        "seconds_per_epoch": round(seconds, 1),
        "measured": {"steps": len(measured), "batch_size": count},
        "memory_bytes": device.peak_memory(plan.processor) if count == plan.batch_size else None,
    }


def _take_step(learner: Learner, pixels: Tensor, grade: Tensor, index: Tensor) -> None:
    learner.step(1, pixels, grade, index)[0].item()  # which waits for a GPU


def _time(work: Callable[[], Any]) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
