"""One step: a batch, a loss, a change of the weights, in one process or in several."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dr_cli import machine
from dr_cli.dataset.augment import augment
from dr_cli.errors import DrError
from dr_cli.events import Observer
from dr_cli.grades import NUM_GRADES
from dr_cli.network.resnet import ResNet
from dr_cli.network.together import share_statistics, spread
from dr_cli.training.average import Average
from dr_cli.training.clock import Clock
from dr_cli.training.losses import Loss, balanced_weights, make_loss
from dr_cli.training.optimizer import make_optimizer
from dr_cli.training.plan import Plan


class Stepper:
    """A network with what changes it: loss, optimiser, average."""

    def __init__(self, network: ResNet, plan: Plan, clock: Clock, observer: Observer) -> None:
        self.plan, self.config, self.observer = plan, plan.config, observer
        self.device, self.ranks, self.clock = plan.processor.device, plan.ranks, clock
        if plan.shares_statistics:
            share_statistics(network, self.device)
        self.network = network.to(self.device).to(memory_format=plan.processor.memory_format)
        self.batch_size = plan.batch_size
        self.micro_batch = plan.batch_size  # halved where memory runs out
        self.loss = make_training_loss(plan).to(self.device)
        self.optimizer = make_optimizer(network, self.config)
        self.scaler = plan.processor.scaler()
        self.average = Average(self.network, self.config.ema) if self.config.ema else None
        # `compile` shares the weights: state dicts and evaluation stay those of `network`.
        self.forward: Callable[[Tensor], Tensor] = spread(network, self.device, self.ranks)
        if self.config.compile:
            self.forward = torch.compile(self.forward)

    def step(
        self, epoch: int, pixels: Tensor, grade: Tensor, index: Tensor, whole: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """One update from uint8 [N, 3, H, W]; the loss and the number of right answers.

        whole: how many images the step has in all processes, each of which has `ranks.count` times
        its part of their mean loss: so that the mean of their gradients is that of the whole batch.
        Where memory runs out the batch is computed in smaller parts, whose gradients add up to
        the same step but for batch statistics. Raises DrError where one image is too much.
        """
        with self.clock("copy"):
            pixels = pixels.to(self.device, non_blocking=True)
            grade = grade.to(self.device, non_blocking=True)
        with self.clock("augment"):
            way, config = self.plan.dataset.preprocessing, self.config
            inputs = augment(pixels, way, config.augment, config.seed, epoch, index.numpy())
            inputs = inputs.contiguous(memory_format=self.plan.processor.memory_format)
        while True:
            try:
                loss, hits = self.add_gradients(inputs, grade, whole)
                break
            except (RuntimeError, MemoryError) as error:
                if not machine.out_of_memory(error):
                    raise
                self._halve(error)
        with self.clock("optimiser"):
            self.scaler.step(self.optimizer)
            self.scaler.update()
            if self.average:
                self.average.update(self.network)
        return loss, hits

    def add_gradients(
        self, inputs: Tensor, grade: Tensor, whole: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Gradients of the batch's mean loss, in parts of `micro_batch`; loss and right answers.
        whole: see `step`."""
        whole = whole or len(inputs)
        self.optimizer.zero_grad(set_to_none=True)
        sums = torch.zeros(2, device=self.device)
        for part, true in zip(
            inputs.split(self.micro_batch), grade.split(self.micro_batch), strict=True
        ):
            with self.clock("forward"), self.plan.processor.autocast():
                logits = self.forward(part)
            with self.clock("forward"):
                loss = self.loss(logits.float(), true) * (len(part) * self.ranks.count / whole)
            with self.clock("backward"):
                self.scaler.scale(loss).backward()
            sums += torch.stack([loss.detach(), (logits.detach().argmax(1) == true).sum()])
        return sums[0], sums[1]

    def _halve(self, error: Exception) -> None:
        if not self.ranks.alone:  # the others are in the midst of this step
            raise DrError(
                f"out of memory with {self.batch_size} photographs a step on "
                f"{self.ranks.count} processes: give a smaller --batch-size or --size"
            ) from error
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
            f"out of memory: batches of {self.batch_size} are computed {self.micro_batch} at a "
            "time, with the same step, but batch normalisation takes its statistics from each part"
        )


def make_training_loss(plan: Plan) -> Loss:
    """The loss of training images, where asked for with each present grade weighing the same."""
    config, weights = plan.config, None
    if config.balance == "weights":
        grade = plan.rows["grade"].to_numpy(np.int64)[plan.placed("train")]
        weights = balanced_weights(np.bincount(grade, minlength=NUM_GRADES))
    return make_loss(config.loss, weights, config.label_smoothing)
