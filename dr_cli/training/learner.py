"""A network that learns: one epoch, and what must be kept to go on from there.

Order and augmentation are functions of (seed, epoch, sample), the learning rate one of the
step: all that `last.pt` must hold is the weights, the optimiser, the rows so far and how far the
epoch has come.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from dr_cli import interrupts, machine, randomness, runs
from dr_cli.dataset.feeding import Batch, batches
from dr_cli.errors import DivergedError, UsageError
from dr_cli.events import NOTHING, Observer
from dr_cli.grades import NUM_GRADES
from dr_cli.network.grader import logits_of
from dr_cli.network.resnet import ResNet
from dr_cli.ranks import ALONE, Ranks
from dr_cli.scoring import metrics
from dr_cli.scoring.influence import of_counts
from dr_cli.scoring.predictions import number_units
from dr_cli.training import saved
from dr_cli.training.clock import Clock
from dr_cli.training.config import TrainConfig
from dr_cli.training.losses import make_loss
from dr_cli.training.plan import Plan
from dr_cli.training.step import Stepper

SHOW_EVERY = 0.25  # seconds between readings of loss and accuracy: each waits for the GPU
# Standard errors by which an epoch must be better than a later one to be preferred to it:
# examples/recipes.md, "Which epoch is kept".
SLACK = 2.0


@dataclass(frozen=True)
class Part:
    """How far an epoch has come: steps done, their summed loss and right answers, seconds."""

    step: int = 0
    totals: tuple[float, float] = (0.0, 0.0)
    seconds: float = 0.0
    seen: int | None = None
    """Photographs; runs of before do not say, and lost none."""


@dataclass(frozen=True)
class Epoch:
    """A finished epoch."""

    row: dict[str, Any]
    """As metrics.csv holds it."""
    network: ResNet
    """What was judged: the average where there is one, else the network itself."""
    kept: bool
    """Whether it takes the place of the one that was kept so far."""


class Learner(Stepper):
    """A network being trained: weights, optimiser, average, the rows so far."""

    def __init__(
        self, network: ResNet, plan: Plan, profile: bool = False, observer: Observer = NOTHING
    ) -> None:
        super().__init__(network, plan, Clock(plan.processor.device, profile), observer)
        self.steps = plan.steps  # an epoch
        self.rows: list[dict[str, Any]] = []
        self.part = Part()
        self.best_epoch = 0  # the one that is kept
        self.peak_epoch = 0  # the one of the highest merit
        self.best = (-math.inf, -math.inf)  # that merit, and the least to be kept

    @property
    def done(self) -> bool:
        """Whether every epoch is there, or patience has run out."""
        epochs, patience = len(self.rows), self.config.patience
        waited = epochs - self.peak_epoch
        return epochs >= self.config.epochs or (patience is not None and 0 < patience <= waited)

    # -- one epoch

    def epoch(self, keep: Callable[[], None] = lambda: None) -> Epoch:
        """Trains once over the training split, then predicts validation and test.

        keep: saves what `state` gives; called within the epoch every `--save-every` minutes.
        Raises DrError where the loss is no number any more; Interrupted, between two steps or two
        batches of an evaluation, where a signal asked for it: `state` then goes on from there.
        """
        epoch = len(self.rows) + 1
        start = time.perf_counter() - self.part.seconds
        row: dict[str, Any] = {"epoch": epoch} | self.train_once(epoch, keep)
        seconds = time.perf_counter() - start
        row["images_per_second"] = round(len(self.plan.indices("train")) / seconds, 2)
        network = self.average.build(self.network) if self.average else self.network
        self.ranks.align(network)  # batch statistics may be each process's own

        def watch(split: str, done: int, total: int) -> None:
            self.observer.batch(epoch, split, done, total, {})
            if self.ranks.alone:  # else the others would wait for this one's share
                interrupts.check()

        with self.clock("evaluation"):
            logits = predict_splits(network, self.plan, self.micro_batch, watch)
        for split, values in logits.items():
            row |= score(split, values, self.plan.grades(split), self.config.loss)
        row["seconds"] = round(time.perf_counter() - start, 3)
        kept = self.weigh(judge(row), logits.get("val"))
        self.best_epoch = epoch if kept else self.best_epoch
        self.rows.append(row)
        self.part = Part()
        return Epoch(row, network, kept)

    def weigh(self, merit: float | None, logits: NDArray[np.float32] | None) -> bool:
        """Whether an epoch of this merit is kept in place of the one before: the best is, and any
        later one that is not worse by more than chance explains.

        With 45 validation photographs the highest of twenty epochs is mostly luck, and an earlier
        one, while the rate still falls, is as a rule a worse network.
        """
        if merit is None:
            self.observer.warning(
                f"epoch {len(self.rows) + 1} is not kept: its predictions are no numbers"
            )
            return False
        if merit > self.best[0]:
            self.peak_epoch = len(self.rows) + 1
            self.best = merit, merit - SLACK * self._error(logits)
        return merit >= self.best[1]

    def _error(self, logits: NDArray[np.float32] | None) -> float:
        """Standard error of validation's QWK over patients; 0 where it is undefined."""
        if logits is None:
            return 0.0
        grade, predicted = self.plan.grades("val"), logits.argmax(1)
        unit = number_units(self.plan.rows.iloc[self.plan.indices("val")])[0]
        figure = metrics.quadratic_weighted_kappa_of
        moved = of_counts(figure, grade, predicted, NUM_GRADES, unit)
        error = float(np.sqrt(np.square(moved).sum()))
        return error if math.isfinite(error) else 0.0

    def train_once(self, epoch: int, keep: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Every batch of the epoch from where `self.part` stands; figures of the whole of it."""
        start = time.perf_counter() - self.part.seconds
        self.network.train()
        order = draw_order(self.plan, epoch)
        begun = self.part.step * self.batch_size
        done = min(begun, len(order)) if self.part.seen is None else self.part.seen
        recent = list[tuple[Tensor, Tensor]]()  # losses that nobody has looked at, and indices
        begun_by = self.ranks.first  # what was seen before counts once
        totals = torch.tensor(self.part.totals, device=self.device, dtype=torch.float64) * begun_by
        mine = done * begun_by
        shown = kept = time.perf_counter()
        rest = readable_batches(self.plan, order[begun:], self.batch_size, self.ranks)
        lr, least = self.optimizer.param_groups[0]["lr"], self.plan.least
        for step, batch in enumerate(self.clock.each("data", rest), self.part.step):
            lr = schedule_rate(self.config, epoch - 1 + step / self.steps, self.steps)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            counts = [count for (count,) in self.ranks.gather_numbers(len(batch[2]))]
            count = sum(counts)
            if min(counts) < least:  # of the others lost
                continue
            loss, hits = self.step(epoch, *batch, whole=count)
            recent.append((loss, batch[2]))
            done, mine = done + count, mine + len(batch[2])
            now = time.perf_counter()
            saving = self.hear(now - kept > 60 * self.config.save_every)
            if self.device.type == "cpu" or saving or now - shown > SHOW_EVERY:
                check_losses(self, epoch, recent)
            with self.clock("metrics"):
                totals += torch.stack([loss * count / self.ranks.count, hits])
                if now - shown > SHOW_EVERY:
                    shown = now
                    means = _means(totals.tolist(), mine)
                    self.observer.batch(epoch, "train", done, len(order), means)
            if saving:
                check_weights(self, epoch)
                kept = now
                self.part = Part(step + 1, self._sum(totals), now - start, done)
                interrupts.check()
                with self.clock("saving"):
                    keep()
        check_losses(self, epoch, recent)
        check_weights(self, epoch)
        self.part = Part(self.steps, self._sum(totals), time.perf_counter() - start, done)
        means = _means(self.part.totals, done)
        self.observer.batch(epoch, "train", len(order), len(order), means)
        return {"lr": lr, "train_loss": means["loss"], "train_accuracy": means["accuracy"]}

    def hear(self, due: bool = False) -> bool:
        """Whether it is time to save: a signal has come to any of the processes, which all have
        heard of it then, or it is `due`, as the first one knows."""
        told = self.ranks.gather_numbers(interrupts.asked() or 0, due)
        if asked := max(number for number, _ in told):
            interrupts.hear(asked)
        return bool(asked or told[0][1])

    def _sum(self, totals: Tensor) -> tuple[float, float]:
        """Those of all processes."""
        loss, hits = zip(*self.ranks.gather(totals.tolist()), strict=True)
        return sum(loss), sum(hits)

    # -- what is kept

    def state(self) -> dict[str, Any]:
        """All that going on needs; loads with `weights_only=True`."""
        return {
            "schema": runs.SCHEMA,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            **(self.average.state() if self.average else {"average": []}),
            "rows": self.rows,
            "part": asdict(self.part),
            "best_epoch": self.best_epoch,
            "peak_epoch": self.peak_epoch,
            "best": list(self.best),
        }

    def load(self, state: dict[str, Any]) -> None:
        """What `state` gave. Raises UsageError where it is of another network, or its weights are
        no numbers."""
        try:
            self.network.load_state_dict(state["network"])
            saved.load_optimizer(self.optimizer, state["optimizer"], self.config.optimizer)
            self.scaler.load_state_dict(state["scaler"])
            if self.average:
                self.average.load(state, self.network)
            self.rows, self.part = state["rows"], Part(**state["part"])
            self.best_epoch = state["best_epoch"]
            self.peak_epoch = state.get("peak_epoch", self.best_epoch)  # of before: they were one
            best, least = state["best"]  # of before: its QWK, and less its loss
            self.best = best, least if "peak_epoch" in state else best
        except saved.FOREIGN as error:
            raise saved.refuse(error) from error
        if not are_finite(self.network):
            raise UsageError(
                "what was saved holds weights that are no numbers, as an earlier dr kept them: "
                f"train a new run, with a smaller --lr than {self.config.learning_rate:g}"
            )


def check_losses(learner: Learner, epoch: int, recent: list[tuple[Tensor, Tensor]]) -> None:
    """Raises DivergedError where a loss of these steps is no number, before anything is saved."""
    for loss, index in recent:
        if not math.isfinite(value := loss.item()):
            paths = [learner.plan.dataset.paths[k] for k in index.tolist()]
            learner.observer.warning(f"the loss is {value} after: {', '.join(paths)}")
            what = f"the loss is {value} in epoch {epoch}, after a batch with {paths[0]}"
            raise diverged(learner, what, "look at these photographs, or ")
    recent.clear()


def check_weights(learner: Learner, epoch: int) -> None:
    """Raises DivergedError where a weight is no number: a finite loss may have a gradient that is
    none, and what was saved then could never be gone on with."""
    if not are_finite(learner.network):
        raise diverged(learner, f"weights are no numbers any more in epoch {epoch}")


def are_finite(network: nn.Module) -> bool:
    """Whether all its weights are numbers."""
    return bool(get_total_norm(network.parameters(), math.inf).isfinite())


def diverged(learner: Learner, what: str, first: str = "") -> DivergedError:
    """The error of a training that cannot go on as it is: what is wrong, and what to try."""
    best, lower = learner.best_epoch, learner.plan.processor.precision != "fp32"
    kept = f"the weights of epoch {best} are kept" if best else "none is kept"
    ways = f"a smaller --lr than {learner.config.learning_rate:g}{' or --precision fp32' * lower}"
    return DivergedError(f"{what}; {kept}: {first}try {ways}")


def judge(row: Mapping[str, Any]) -> float | None:
    """What an epoch is weighed by: validation QWK; without validation its number.

    None where the predictions are no numbers, as after few steps, before the batch statistics
    have settled: such an epoch is never kept.
    """
    judged = "val" if "val_loss" in row else "test"
    if not math.isfinite(row[f"{judged}_loss"]):
        return None
    if judged == "test":
        return float(row["epoch"])
    qwk = row["val_qwk"]  # undefined where all are of one grade, and were called it
    return 1.0 if qwk is None else float(qwk)


def _means(totals: Sequence[float], done: int) -> dict[str, float]:
    """Mean loss and accuracy of the `done` images whose sums `totals` holds."""
    loss, hits = totals
    return {"loss": loss / done, "accuracy": hits / done}


def draw_order(plan: Plan, epoch: int) -> NDArray[np.int64]:
    """Which photographs an epoch (from 1) sees, in order; `oversample` draws grades evenly.

    Those of `plan.steps`, decided here for the whole epoch, wherever it is gone on with.
    """
    config, indices = plan.config, plan.placed("train")
    n = len(indices)
    if config.balance == "oversample":
        grade = plan.rows["grade"].to_numpy(np.int64)[indices]
        share = 1 / np.bincount(grade, minlength=NUM_GRADES)[grade]
        edges = np.cumsum(share / share.sum())
        draws = randomness.uniform(config.seed, randomness.ORDER, epoch, np.arange(n), 1)[:, 0]
        order = indices[np.minimum(np.searchsorted(edges, draws), n - 1)]
    else:
        order = indices[randomness.order(config.seed, epoch, n)]
    return order[: plan.steps * plan.batch_size]


def schedule_rate(config: TrainConfig, position: float, steps: int) -> float:
    """The learning rate after `position` epochs of `steps`: linear warm-up, then the schedule."""
    rate = config.learning_rate
    warmup = min(config.warmup, config.epochs / 2)
    if position < warmup:
        rate *= (position + 1 / steps) / (warmup + 1 / steps)
    elif config.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * (position - warmup) / (config.epochs - warmup)))
    return rate


def predict_splits(
    network: ResNet,
    plan: Plan,
    batch_size: int,
    watch: Callable[[str, int, int], None] = lambda split, done, total: None,
) -> dict[str, NDArray[np.float32]]:
    """Logits [N, 5] of each split that is evaluated, in the order of `Plan.indices`.

    With `--val test` both splits are the same images, predicted once.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for split in plan.evaluated:
        if split == "test" and plan.config.val == "test":
            found[split] = found["val"]
        else:
            told = partial(watch, split)
            found[split] = predict(network, plan, plan.indices(split), batch_size, told)
    return found


def predict(
    network: ResNet,
    plan: Plan,
    indices: NDArray[np.int64],
    batch_size: int,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.float32]:
    """Logits [N, 5] of those photographs of `plan.dataset` that can be read, each by one of the
    processes, in smaller batches where memory runs out; watch: told how many are done of how many.
    """
    way, ranks = plan.dataset.preprocessing, plan.ranks
    own = ranks.share(indices)
    told = partial(_tell_share, watch, len(indices), max(1, len(own)))
    while True:
        ready = readable_batches(plan, own, batch_size)
        try:
            logits = logits_of(network, ready, way, plan.processor, told)
            break
        except (RuntimeError, MemoryError) as error:
            if not machine.out_of_memory(error) or batch_size == 1:
                raise
        batch_size //= 2
    found = ranks.gather((logits, plan.dataset.reasons))
    for _, reasons in found:
        plan.dataset.hear_failed(reasons)
    plan.check_lost()
    return np.concatenate([each for each, _ in found])


def _tell_share(watch: Callable[[int, int], None], total: int, own: int, done: int) -> None:
    """Of this process's share, which all come through at the same pace."""
    watch(total * done // own, total)


def readable_batches(
    plan: Plan, indices: NDArray[np.int64], batch_size: int, ranks: Ranks = ALONE
) -> Iterator[Batch]:
    """See `batches`. Raises DrError where too many photographs are lost."""
    for batch in batches(plan.dataset, indices, batch_size, ranks=ranks):
        plan.check_lost()
        yield batch


def score(
    split: str, logits: NDArray[np.float32], grade: NDArray[np.int64], loss: str
) -> dict[str, float | None]:
    """A split's part of the epoch's row. loss: by its name, without weights and smoothing."""
    predicted = logits.argmax(1)
    with torch.no_grad():
        mean = make_loss(loss)(torch.from_numpy(logits), torch.from_numpy(grade))
    qwk = metrics.quadratic_weighted_kappa(grade, predicted)
    return {
        f"{split}_loss": float(mean),
        f"{split}_accuracy": float((predicted == grade).mean()),
        f"{split}_qwk": None if math.isnan(qwk) else qwk,
    }
