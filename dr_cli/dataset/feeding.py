"""Batches of a data set as the trainer wants them: gathered ahead, or held in the GPU's memory."""

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dr_cli.dataset.dataset import FundusDataset
from dr_cli.device import Processor, memory
from dr_cli.events import NOTHING, Observer

GPU_SHARE = 0.6  # of the free GPU memory that crops may take; the rest is the network's

Batch = tuple[Tensor, Tensor, Tensor]
"""Pixels [n, 3, S, S] uint8, grades [n] int64, indices [n] int64."""


def hold(dataset: FundusDataset, processor: Processor, observer: Observer = NOTHING) -> None:
    """Put all crops into the GPU's memory where they fit; `batches` then takes them from there.

    Else they stay where the cache has them: mapped from disk, of which the system keeps in RAM
    what fits. Which it is, is said.
    """
    size, room = dataset.preprocessing.size, memory(processor) or 0
    needed = len(dataset) * 3 * size**2
    shown = f"crops: {len(dataset):,} of {size} px, {needed / 1e9:.1f} GB"
    if processor.device.type != "cuda" or needed > GPU_SHARE * room:
        places = {"disk": "mapped from disk", "memory": "in RAM", "nowhere": "decoded each time"}
        observer.note(f"{shown}, {places[dataset.kept]}")
        return
    dataset.keep_on(processor.device)
    observer.note(f"{shown}, held in GPU memory")


def batches(
    dataset: FundusDataset,
    indices: Sequence[int] | NDArray[Any],
    batch_size: int,
    prefetch: int = 2,
) -> Iterator[Batch]:
    """The crops of `indices`, in that order, a batch at a time; the last may be smaller.

    Pixels lie in pinned memory where there is a CUDA device, or in the device's own (see `hold`).
    A thread gathers up to `prefetch` batches ahead; it ends when the consumer stops, and what
    goes wrong in it is raised here.
    """
    order = np.asarray(indices, np.int64)
    if dataset.resident is not None:
        yield from _from_device(dataset, dataset.resident, order, batch_size)
        return
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(prefetch)
    stopped = threading.Event()
    pinned = torch.cuda.is_available()

    def gather(chosen: NDArray[np.int64]) -> Batch:
        parts = dataset.crops(chosen), dataset.grades[chosen], chosen
        pixels, grades, numbers = (torch.from_numpy(part) for part in parts)
        if pinned:
            return pixels.pin_memory(), grades.pin_memory(), numbers
        return pixels, grades, numbers

    def run() -> None:
        try:
            for start in range(0, len(order), batch_size):
                if stopped.is_set():
                    return
                ready.put(gather(order[start : start + batch_size]))
            ready.put(None)
        except BaseException as problem:  # raised again where somebody listens
            ready.put(problem)

    thread = threading.Thread(target=run, name="dr-batches", daemon=True)
    thread.start()
    try:
        while (batch := ready.get()) is not None:
            if isinstance(batch, BaseException):
                raise batch
            yield batch
    finally:
        stopped.set()
        while thread.is_alive():  # it may wait for room in the queue
            with suppress(queue.Empty):
                ready.get(timeout=0.01)


def _from_device(
    dataset: FundusDataset, crops: Tensor, order: NDArray[np.int64], batch_size: int
) -> Iterator[Batch]:
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        numbers = torch.from_numpy(chosen)
        yield crops[numbers.to(crops.device)], torch.from_numpy(dataset.grades[chosen]), numbers
