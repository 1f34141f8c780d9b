"""Batches of a data set as the trainer wants them: gathered ahead, or held in the GPU's memory."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dr_cli.dataset.dataset import FundusDataset
from dr_cli.device import Processor, memory
from dr_cli.events import NOTHING, Observer
from dr_cli.photographs.cache import spread
from dr_cli.ranks import ALONE, Ranks

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
    ranks: Ranks = ALONE,
) -> Iterator[Batch]:
    """The crops of `indices`, in that order, a batch at a time; the last may be smaller.

    ranks: of each batch its share alone is given. A photograph that can be read no more is absent
    from its batch, and among `dataset.failed`.

    Pixels lie in pinned memory where there is a CUDA device, or in the device's own (see `hold`).
    A thread gathers up to `prefetch` batches ahead; it ends when the consumer stops, and what
    goes wrong in it is raised here.
    """
    order = np.asarray(indices, np.int64)
    starts = range(0, len(order), batch_size)
    parts = [ranks.share(order[start : start + batch_size]) for start in starts]
    gather = partial(_gather, dataset)
    if dataset.resident is not None:
        yield from map(gather, parts)
    else:
        with closing(spread(gather, parts, 1, prefetch)) as ready:
            yield from (batch.result() for batch in ready)


def _gather(dataset: FundusDataset, part: NDArray[np.int64]) -> Batch:
    if (held := dataset.resident) is not None:
        part = part[np.isin(part, dataset.readable)] if dataset.lost() else part
        numbers = torch.from_numpy(part)
        return held[numbers.to(held.device)], torch.from_numpy(dataset.grades[part]), numbers
    crops, part = dataset.readable_crops(part)
    pixels, numbers = torch.from_numpy(crops), torch.from_numpy(part)
    grades = torch.from_numpy(dataset.grades[part])
    if torch.cuda.is_available():
        return pixels.pin_memory(), grades.pin_memory(), numbers
    return pixels, grades, numbers
