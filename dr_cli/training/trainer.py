"""The loop: a table with splits, a network, epochs, and a run folder at the end.

Order and augmentation are functions of (seed, epoch, sample), the learning rate one of the
step: all that `last.pt` must hold is the weights, the optimiser, the rows so far and how far the
epoch has come.
"""

import math
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import dr_cli
from dr_cli import device, randomness, runs
from dr_cli.dataset import augment
from dr_cli.dataset.feeding import batches, hold
from dr_cli.errors import DrError
from dr_cli.events import NOTHING, Observer
from dr_cli.grades import NUM_GRADES, Calibration
from dr_cli.labels.reading import count_reasons
from dr_cli.network.grader import logits_of
from dr_cli.network.resnet import ResNet, build_resnet, count_parameters, multiply_adds
from dr_cli.network.weights import load_pretrained, load_start
from dr_cli.plots import lines as curves
from dr_cli.plots.confusion import ConfusionMatrix
from dr_cli.scoring import calibration, metrics
from dr_cli.scoring.of_run import evaluate_run, tabulate
from dr_cli.training import pictures
from dr_cli.training.clock import Clock
from dr_cli.training.config import TrainConfig
from dr_cli.training.losses import balanced_weights, make_loss
from dr_cli.training.plan import Plan
from dr_cli.writing import whole, write_csv, write_json


def train(
    planned: Plan,
    run: runs.Run,
    *,
    network: ResNet | None = None,
    state: dict[str, Any] | None = None,
    profile: bool = False,
    observer: Observer = NOTHING,
) -> dict[str, Any]:
    """Trains into `run` and returns what its summary.json holds.

    network: what `start` gave; it is called without. state: what `last.pt` holds, to go on from
    there. profile: note where the time went.
    """
    config, processor = planned.config, planned.processor
    device.deterministic(config.deterministic)
    if network is None:
        network = start(config, observer) if state is None else build_resnet(config.arch)
    network.to(processor.device).to(memory_format=processor.memory_format)
    learner = Learner(network, planned, profile, observer)
    if state is not None:
        learner.load(state)
    else:
        run.write_config(describe(planned))
        further = planned.labels.extra_columns  # for `dr eval --by COLUMN`
        run.write_table("splits.csv", (*runs.SPLITS, *further), planned.table)
    observer.plan(_facts(planned, network) | {"epoch": len(learner.rows) + 1})
    if processor.warning:
        observer.warning(processor.warning)
    if config.compile and processor.device.type == "cpu":  # 0.79-0.86 times as fast on AVX2
        observer.warning("--compile takes a minute on a CPU, and its steps are no faster there")
    hold(planned.dataset, processor, observer)
    keep = partial(_keep, run, learner)
    while not learner.done:
        row, best = learner.epoch(keep)
        with learner.clock("saving"):
            if best:
                learner.save_model(run)
            write_csv(run["metrics.csv"], runs.METRICS, learner.rows)
            keep()
        observer.epoch(row, best)
    if len(learner.rows) < config.epochs:
        observer.note(f"stopped: no better validation QWK for {config.patience} epochs")
    summary = finish(planned, run, learner)
    if profile:
        observer.note("\n".join(["where the time went:", *learner.clock.lines()]))
    return summary


def _keep(run: runs.Run, learner: "Learner") -> None:
    with whole(run["last.pt"]) as aside:
        torch.save(learner.state(), aside)


def start(config: TrainConfig, observer: Observer = NOTHING) -> ResNet:
    """The network before its first step. Raises DrError where its weights cannot be had."""
    torch.manual_seed(config.seed)
    network = build_resnet(config.arch)
    if config.pretrained:
        load_pretrained(network, config.arch, observer)
        observer.note("start: ImageNet weights of torchvision (IMAGENET1K_V1)")
    elif config.weights:
        observer.note(load_start(network, Path(config.weights)))
    return network


def _facts(planned: Plan, network: nn.Module) -> dict[str, Any]:
    config = planned.config
    counts = {split: len(planned.indices(split)) for split in ("train", "val", "test")}
    return {
        "arch": config.arch,
        "parameters": sum(p.numel() for p in network.parameters()),
        "size": config.size,
        "batch_size": config.batch_size,
        "epochs": config.epochs,
        "images": counts,
        "steps_per_epoch": math.ceil(counts["train"] / (config.batch_size or 1)),
        "device": str(planned.processor.device),
        "reason": planned.processor.reason,
    }


def describe(planned: Plan) -> runs.RunConfig:
    """What config.json holds: every option that decides the result, and what it ran on."""
    config, labels = planned.config, planned.labels
    versions = {"python": platform.python_version(), "dr": dr_cli.__version__}
    versions |= {"torch": torch.__version__, "numpy": np.__version__}
    return runs.RunConfig(
        options=config.to_dict(),
        fold=planned.fold,
        preprocessing=planned.dataset.preprocessing.to_dict(),
        parameters=count_parameters(config.arch),
        multiply_adds=multiply_adds(config.arch, planned.dataset.preprocessing.size),
        data=runs.DataRecord(
            root=str(labels.root.resolve()),
            source=str(labels.source or labels.root.resolve()),
            layout=labels.layout,
            columns=planned.columns,
            fingerprint=labels.fingerprint,
            left_out=count_reasons(planned.table),
        ),
        versions=versions,
        device=planned.processor.reason,
        precision=planned.processor.precision,
        threads=torch.get_num_threads(),
    )


SHOW_EVERY = 0.25  # seconds between readings of loss and accuracy: each waits for the GPU
NO_PART: dict[str, Any] = {"step": 0, "totals": [0.0, 0.0], "seconds": 0.0}


class Learner:
    """A network being trained: weights, optimiser, average, the rows so far."""

    def __init__(
        self,
        network: ResNet,
        planned: Plan,
        profile: bool = False,
        observer: Observer = NOTHING,
    ) -> None:
        self.observer = observer
        self.clock = Clock(planned.processor.device, profile)
        self.micro_batch: int = planned.config.batch_size or 1  # halved where memory runs out
        self.network, self.planned, self.config = network, planned, planned.config
        self.device = planned.processor.device
        self.train_indices = planned.indices("train")
        self.grades = planned.rows["grade"].to_numpy(np.int64)
        self.loss = make_loss(self.config.loss, self._weights(), self.config.label_smoothing).to(
            self.device
        )
        self.plain_loss = make_loss(self.config.loss, None, 0.0)
        self.optimizer = _optimizer(network, self.config)
        self.scaler = planned.processor.scaler()
        self.average: list[Tensor] = [p.detach().clone() for p in network.parameters()]
        self.rows: list[dict[str, Any]] = []
        self.part = dict(NO_PART)
        # `compile` shares the weights: state dicts and evaluation stay those of `network`.
        self.forward: Callable[[Tensor], Tensor] = (
            torch.compile(network) if self.config.compile else network
        )
        self.best_epoch, self.best = 0, (-math.inf, -math.inf)

    def _weights(self) -> NDArray[np.float32] | None:
        """Inverse frequency, so that each grade that is present weighs the same."""
        if self.config.balance != "weights":
            return None
        return balanced_weights(np.bincount(self.grades[self.train_indices], minlength=NUM_GRADES))

    def seconds_per_image(self, steps: int) -> float:
        """Of a training step, decoding left out: the median of a few, after one to warm up."""
        order = np.resize(self._order(1), self._batch_size)
        batch = next(iter(batches(self.planned.dataset, order, self._batch_size)))
        self.network.train()
        taken = []
        for _ in range(steps + 1):
            start = time.perf_counter()
            loss, _ = self._step(1, *batch)
            loss.item()  # waits for a GPU
            taken.append(time.perf_counter() - start)
        return float(np.median(taken[1:])) / self._batch_size

    # -- one epoch

    @property
    def done(self) -> bool:
        """Whether every epoch is there, or patience has run out."""
        epochs, patience = len(self.rows), self.config.patience
        waited = epochs - self.best_epoch
        return epochs >= self.config.epochs or (patience is not None and 0 < patience <= waited)

    def epoch(self, keep: Callable[[], None]) -> tuple[dict[str, Any], bool]:
        """Trains once over the training split, then predicts validation and test.

        keep: saves what `state` gives; called within the epoch every `--save-every` minutes.
        """
        epoch = len(self.rows) + 1
        start = time.perf_counter() - self.part["seconds"]
        row: dict[str, Any] = {"epoch": epoch, "lr": None}
        row |= self._train(epoch, start, keep)
        seconds = time.perf_counter() - start
        row["images_per_second"] = round(len(self.train_indices) / seconds, 2)
        for split, logits in self.predictions().items():
            row |= self._score(split, logits)
        row["seconds"] = round(time.perf_counter() - start, 3)
        if not math.isfinite(row["train_loss"]):
            raise DrError(
                f"the loss is {row['train_loss']} in epoch {epoch}: "
                f"try a smaller --lr than {self.config.learning_rate:g}"
            )
        key = self._merit(row)
        best = key > self.best
        if best:
            self.best, self.best_epoch = key, epoch
        self.rows.append(row)
        self.part = dict(NO_PART)
        return row, best

    def _merit(self, row: dict[str, Any]) -> tuple[float, float]:
        """What the kept epoch has most of: validation QWK, then less loss; else the last one."""
        if "val" not in self.planned.evaluated:
            return float(row["epoch"]), 0.0
        qwk = row["val_qwk"]
        return (-1.0 if qwk is None else qwk), -row["val_loss"]

    def _train(self, epoch: int, start: float, keep: Callable[[], None]) -> dict[str, float]:
        """One pass, from where `self.part` stands; loss and accuracy of the whole of it."""
        self.network.train()
        order = self._order(epoch)
        first = self.part["step"] * self._batch_size
        totals = torch.tensor(self.part["totals"], device=self.device, dtype=torch.float64)
        done, shown, saved = first, time.perf_counter(), time.perf_counter()
        lr = self.optimizer.param_groups[0]["lr"]
        batches_left = self.clock.each("data", self._batches(order[first:]))
        for step, (pixels, grade, index) in enumerate(batches_left, self.part["step"]):
            lr = self._set_lr(epoch - 1 + step / self._steps)
            loss, hits = self._step(epoch, pixels, grade, index)
            done += len(index)
            now = time.perf_counter()
            with self.clock("metrics"):
                totals += torch.stack([loss * len(index), hits])
                if now - shown > SHOW_EVERY:
                    shown = now
                    self.observer.batch("train", done, len(order), _running(totals, done))
            if now - saved > 60 * self.config.save_every:
                saved = now
                self.part = {
                    "step": step + 1, "totals": totals.tolist(), "seconds": now - start
                }  # fmt: skip
                with self.clock("saving"):
                    keep()
        self.observer.batch("train", len(order), len(order), _running(totals, done))
        running = _running(totals, done)
        return {"lr": lr, "train_loss": running["loss"], "train_accuracy": running["accuracy"]}

    def _step(
        self, epoch: int, pixels: Tensor, grade: Tensor, index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One update from uint8 [N, 3, H, W]; the loss and the number of right answers.

        Where memory runs out the batch is computed in smaller parts, whose gradients add up to
        the same step but for batch statistics. Raises DrError where one image is too much.
        """
        with self.clock("copy"):
            pixels = pixels.to(self.device, non_blocking=True)
            grade = grade.to(self.device, non_blocking=True)
        with self.clock("augment"):
            inputs = augment.augment(
                pixels,
                self.planned.dataset.preprocessing,
                self.config.augment,
                self.config.seed,
                epoch,
                index.numpy(),
            ).contiguous(memory_format=self.planned.processor.memory_format)
        while True:
            try:
                loss, hits = self._gradients(inputs, grade)
                break
            except torch.OutOfMemoryError as error:
                self._halve(error)
        with self.clock("optimiser"):
            self.scaler.step(self.optimizer)
            self.scaler.update()
            if self.config.ema:
                with torch.no_grad():
                    now: list[Tensor] = list(self.network.parameters())
                    torch._foreach_lerp_(self.average, now, 1 - self.config.ema)
        return loss, hits

    def _gradients(self, inputs: Tensor, grade: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of the batch's mean loss, in parts of `micro_batch`; loss and right answers."""
        self.optimizer.zero_grad(set_to_none=True)
        sums = torch.zeros(2, device=self.device)
        for part, true in zip(
            inputs.split(self.micro_batch), grade.split(self.micro_batch), strict=True
        ):
            with self.clock("forward"), self.planned.processor.autocast():
                logits = self.forward(part)
            with self.clock("forward"):
                loss = self.loss(logits.float(), true) * (len(part) / len(inputs))
            with self.clock("backward"):
                self.scaler.scale(loss).backward()
            sums += torch.stack([loss.detach(), (logits.detach().argmax(1) == true).sum()])
        return sums[0], sums[1]

    def _halve(self, error: torch.OutOfMemoryError) -> None:
        if self.micro_batch <= 1:
            raise DrError(
                f"out of memory with a single photograph of {self.config.size} px: "
                "give a smaller --size or another --arch"
            ) from error
        self.micro_batch //= 2
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.observer.note(
            f"out of memory: batches of {self._batch_size} are computed {self.micro_batch} at a "
            "time, with the same step"
        )

    @property
    def _steps(self) -> int:
        return math.ceil(len(self.train_indices) / self._batch_size)

    @property
    def _batch_size(self) -> int:
        assert self.config.batch_size is not None
        return self.config.batch_size

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """Which photographs this epoch sees, in order; `oversample` draws grades evenly."""
        n = len(self.train_indices)
        if self.config.balance != "oversample":
            return self.train_indices[randomness.order(self.config.seed, epoch, n)]
        grade = self.grades[self.train_indices]
        share = 1 / np.bincount(grade, minlength=NUM_GRADES)[grade]
        edges = np.cumsum(share / share.sum())
        draws = randomness.uniform(self.config.seed, randomness.ORDER, epoch, np.arange(n), 1)[:, 0]
        return self.train_indices[np.minimum(np.searchsorted(edges, draws), n - 1)]

    def _batches(self, order: NDArray[np.int64]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Batches of the epoch; a last one of a single photograph has no batch statistics."""
        if len(order) % self._batch_size == 1 and len(order) > 1:
            order = order[:-1]
        return iter(batches(self.planned.dataset, order, self._batch_size))

    def _set_lr(self, position: float) -> float:
        """The learning rate after `position` epochs: linear warm-up, then the schedule."""
        config = self.config
        rate = config.learning_rate
        warmup = min(config.warmup, config.epochs / 2)
        if position < warmup:
            rate *= (position + 1 / self._steps) / (warmup + 1 / self._steps)
        elif config.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * (position - warmup) / (config.epochs - warmup)))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    # -- what it can do

    def evaluated_network(self) -> ResNet:
        """The network that is judged and kept: the average where there is one."""
        if not self.config.ema:
            return self.network
        network = build_resnet(self.config.arch)
        network.load_state_dict(self.network.state_dict())
        with torch.no_grad():
            for mine, mean in zip(network.parameters(), self.average, strict=True):
                mine.copy_(mean)
        return network.to(self.device).to(memory_format=self.planned.processor.memory_format)

    def predictions(self, progress: bool = True) -> dict[str, NDArray[np.float32]]:
        """Logits of each split that is evaluated; with `--val test` both are the same images."""
        found: dict[str, NDArray[np.float32]] = {}
        for split in self.planned.evaluated:
            same = split == "test" and self.config.val == "test"
            found[split] = found["val"] if same else self.predict(split, progress)
        return found

    def predict(self, split: str, progress: bool = True) -> NDArray[np.float32]:
        """Logits of a split, [N, 5], in the order of `Plan.indices`."""
        indices = self.planned.indices(split)
        observer = self.observer if progress else NOTHING
        with self.clock("evaluation"):
            return logits_of(
                self.evaluated_network(),
                batches(self.planned.dataset, indices, self.micro_batch),
                self.planned.dataset.preprocessing,
                self.planned.processor,
                lambda done: observer.batch(split, done, len(indices), {}),
            )

    def _score(self, split: str, logits: NDArray[np.float32]) -> dict[str, Any]:
        grade = self.grades[self.planned.indices(split)]
        predicted = logits.argmax(1)
        with torch.no_grad():
            loss = self.plain_loss(torch.from_numpy(logits), torch.from_numpy(grade))
        qwk = metrics.quadratic_weighted_kappa(grade, predicted)
        return {
            f"{split}_loss": float(loss),
            f"{split}_accuracy": float((predicted == grade).mean()),
            f"{split}_qwk": None if math.isnan(qwk) else qwk,
        }

    # -- what is kept

    def state(self) -> dict[str, Any]:
        """All that going on needs; loads with `weights_only=True`."""
        return {
            "schema": runs.SCHEMA,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average if self.config.ema else [],
            "rows": self.rows,
            "part": self.part,
            "best_epoch": self.best_epoch,
            "best": list(self.best),
        }

    def load(self, state: dict[str, Any]) -> None:
        """What `state` gave."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        for mine, saved in zip(self.average, state["average"], strict=False):
            mine.copy_(saved)
        self.rows, self.part = state["rows"], state["part"]
        self.best_epoch = state["best_epoch"]
        self.best = (state["best"][0], state["best"][1])

    def save_model(
        self, run: runs.Run, network: nn.Module | None = None, chosen: Calibration | None = None
    ) -> None:
        """model.safetensors: a whole grader by its metadata."""
        record = runs.ModelRecord(
            self.config.arch,
            self.planned.dataset.preprocessing.to_dict(),
            chosen or Calibration(),
            self.best_epoch,
        )
        kept = network or self.evaluated_network()
        tensors = {name: value.cpu() for name, value in kept.state_dict().items()}
        run.save_model(tensors, record)


def _running(totals: Tensor, done: int) -> dict[str, float]:
    """Mean loss and accuracy of the `done` images whose sums `totals` holds."""
    loss, hits = totals.tolist()
    return {"loss": loss / done, "accuracy": hits / done}


def _optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Weight decay on weights alone: not on biases and normalisation's scale and shift."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    other = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": other, "weight_decay": 0.0},
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
    return torch.optim.SGD(
        groups,
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.nesterov and config.momentum > 0,
        fused=True,
    )


# ------------------------------------------------------------------------------ its end


def finish(planned: Plan, run: runs.Run, learner: Learner) -> dict[str, Any]:
    """The best epoch's weights calibrated, its predictions, their record and figures."""
    config = planned.config
    tensors, _ = runs.read_model(run[runs.MODEL])
    learner.network.load_state_dict(tensors)
    learner.config = replace(config, ema=0.0)  # what is loaded is the average already
    logits = learner.predictions(progress=False)
    chosen = _calibrate(planned, learner, logits.get("val"))
    learner.save_model(run, learner.network, chosen)
    rows = planned.dataset.mark_gradable(planned.rows)
    tables = {
        split: tabulate(rows.iloc[planned.indices(split)], chosen.probabilities(values), chosen)
        for split, values in logits.items()
    }
    for split, table in tables.items():
        run.write_table(f"predictions-{split}.csv", runs.PREDICTIONS, table)
    summary = {split: evaluate_run(run, split) for split in tables}
    last = "test" if "test" in tables else "val"
    write_json(
        run["pictures.json"],
        pictures.made(tables[last], planned.dataset, planned.indices(last), learner.network.eval()),
    )
    matrix = ConfusionMatrix.from_predictions(tables[last]["grade"], tables[last]["predicted"])
    matrix.save(run["confusion.png"])
    curves.save(learner.rows, run["curves.png"])
    write_json(run["summary.json"], summary)
    return summary


def _calibrate(planned: Plan, learner: Learner, logits: NDArray[np.float32] | None) -> Calibration:
    """Temperature, decision and operating point, all from validation."""
    if logits is None:
        return Calibration()
    grade = learner.grades[planned.indices("val")]
    chosen = Calibration(temperature=calibration.fit_temperature(grade, logits))
    probabilities = chosen.probabilities(logits)
    if planned.config.decision == "thresholds":
        chosen = replace(chosen, cuts=calibration.fit_thresholds(grade, probabilities))
    return replace(chosen, operating_point=calibration.choose_operating_point(grade, probabilities))


def estimate(planned: Plan, steps: int = 3) -> dict[str, Any]:
    """What an epoch will take, measured on a few steps of the real thing.

    `memory_bytes`: the peak so far, of the GPU's memory or of this process; None where the
    system does not tell.
    """
    torch.manual_seed(planned.config.seed)
    network = build_resnet(planned.config.arch)
    processor = planned.processor
    network.to(processor.device).to(memory_format=processor.memory_format)
    learner = Learner(network, planned)
    facts = _facts(planned, network)
    images = facts["images"]
    train_seconds = learner.seconds_per_image(steps)
    start = time.perf_counter()
    sample = planned.indices(planned.evaluated[0])[: planned.config.batch_size]
    logits_of(
        network,
        batches(planned.dataset, sample, len(sample)),
        planned.dataset.preprocessing,
        processor,
    )
    evaluation_seconds = (time.perf_counter() - start) / len(sample)
    evaluated = sum(len(planned.indices(split)) for split in planned.evaluated)
    seconds = train_seconds * images["train"] + evaluation_seconds * evaluated
    return {
        "arch": facts["arch"],
        "size": facts["size"],
        "batch_size": facts["batch_size"],
        "epochs": facts["epochs"],
        "steps_per_epoch": facts["steps_per_epoch"],
        "device": facts["device"],
        "precision": processor.precision,
        "seconds_per_epoch": round(seconds, 1),
        "memory_bytes": device.peak_memory(processor),
    }
