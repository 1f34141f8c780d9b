"""Drawn eyes without end, as a network sees them, with maps of their lesions.

Eye number i of a seed is always the same, whatever batch or process draws it, and no two numbers
are one eye: the teacher that `training.teacher` learns from.
"""

import io
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dr_cli import randomness
from dr_cli.events import NOTHING, Observer
from dr_cli.photographs.crop import Preprocessing, cut_field
from dr_cli.sample import drawn_set
from dr_cli.sample.lesions import LESIONS

KINDS = len(LESIONS)  # the maps of an eye
SHARES = (0.34, 0.16, 0.2, 0.15, 0.15)  # of the grades
LARGER = 1.15  # the drawn picture over the crop: a field seldom fills its picture
FIRST_PATIENT = 1_000_000  # of the stream: no number of a sample set
AHEAD = 3  # tasks a process is given at a time
EYES_A_TASK = 8


class Taught(NamedTuple):
    """A batch of drawn eyes."""

    pixels: Tensor
    """[n, 3, S, S] uint8."""
    grades: Tensor
    """[n] int64."""
    maps: Tensor
    """[n, KINDS, S/stride, S/stride] uint8: how much of a cell a kind covers, of 255."""


@dataclass(frozen=True)
class Stream:
    """Which eyes, and how they are seen. stride: pixels of the crop a cell of the maps."""

    seed: int
    way: Preprocessing
    stride: int = 16

    def eye(self, number: int) -> tuple[NDArray[np.uint8], int, NDArray[np.uint8]]:
        """Pixels, grade and maps of eye `number`, shapes as in `Taught`; in one of the eight ways
        that a square can lie, at random."""
        size, uniform = self.way.size, self._numbers(number)
        grade = int(np.searchsorted(np.cumsum(SHARES), uniform[0], side="right").clip(0, 4))
        patient, eye = FIRST_PATIENT + number // 2, drawn_set.EYES[number % 2]
        drawing = drawn_set.draw(self.seed, patient, eye, grade, max(64, round(size * LARGER)))
        crop = cut_field(_compress(drawing), self.way)
        cells, box = max(1, size // self.stride), crop.box
        maps = [
            np.asarray(Image.fromarray(mask.view(np.uint8) * np.uint8(255)).crop(box).resize(
                (cells, cells), Image.Resampling.BOX))
            for mask in drawing.masks.values()
        ]  # fmt: skip
        flips = tuple(
            axis for axis, chance in zip((1, 2), uniform[1:3], strict=True) if chance < 0.5
        )
        axes = (0, 2, 1) if uniform[3] < 0.5 else (0, 1, 2)
        pixels, shares = (np.flip(one, flips) for one in (crop.pixels, np.stack(maps)))
        return pixels.transpose(axes), grade, shares.transpose(axes)

    def _numbers(self, number: int) -> NDArray[np.float64]:
        return randomness.uniform(self.seed, randomness.DRAWN, 0, np.array([number]), 4)[0]


def batches(
    stream: Stream,
    count: int,
    batch_size: int,
    workers: int,
    *,
    start: int = 0,
    observer: Observer = NOTHING,
) -> Iterator[Taught]:
    """Eyes `start` to `start + count`, a batch at a time, the last smaller; drawn ahead by
    processes, or by this one where there is one worker or none can be started."""
    numbers = range(start, start + count)
    tasks = [numbers[i : i + EYES_A_TASK] for i in range(0, count, EYES_A_TASK)]
    eyes = _draw_ahead(stream, tasks, workers, observer) if workers > 1 else _draw(stream, tasks)
    while group := list(islice(eyes, batch_size)):
        pixels, grades, maps = zip(*group, strict=True)
        yield Taught(
            torch.from_numpy(np.stack(pixels)),
            torch.tensor(grades),
            torch.from_numpy(np.stack(maps)),
        )


Eye = tuple[NDArray[np.uint8], int, NDArray[np.uint8]]


def _draw(stream: Stream, tasks: list[range]) -> Iterator[Eye]:
    for task in tasks:
        yield from map(stream.eye, task)


def _draw_task(stream: Stream, task: range) -> list[Eye]:
    return [stream.eye(number) for number in task]


def _draw_ahead(
    stream: Stream, tasks: list[range], workers: int, observer: Observer
) -> Iterator[Eye]:
    """As `_draw`, in processes: spawned, as the caller holds torch's threads."""
    done, rest = 0, iter(tasks)
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=drawn_set.serve)
    try:
        work = partial(_draw_task, stream)
        ready = deque(pool.submit(work, task) for task in islice(rest, AHEAD * workers))
        while ready:
            eyes = ready.popleft().result()
            ready.extend(pool.submit(work, task) for task in islice(rest, 1))
            done += 1
            yield from eyes
    except (BrokenProcessPool, PermissionError):
        observer.note("drawing in one process: others cannot be started here")
        yield from _draw(stream, tasks[done:])
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _compress(drawing: drawn_set.Drawing) -> Image.Image:
    """As its camera would have kept it: the artefacts belong to the task."""
    file = io.BytesIO()
    Image.fromarray(drawing.pixels).save(file, "JPEG", quality=drawing.jpeg_quality)
    return Image.open(file).convert("RGB")
