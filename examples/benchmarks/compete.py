"""Shared by the benchmarks: contestants in turn, ratios of medians, and the course's data set."""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import transforms

from dr_cli import device
from dr_cli.photographs.crop import IMAGENET_MEAN, IMAGENET_STD


def seconds(run: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    run()
    return clock() - start


def compete(
    runs: dict[str, Callable[[], object]],
    items: int,
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Every run in turn, `repeats` times after one that does not count: items a second each.

    The first is the one that the others' ratios refer to: above 1 means it was faster.
    """
    for run in runs.values():
        run()
    took: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            took[name].append(seconds(run, clock))
    return ranked(took, items)


def ranked(took: dict[str, list[float]], items: int) -> dict[str, Any]:
    """A table of what several runs took, in seconds, turn by turn: see `compete`."""
    first = next(iter(took))
    table = {}
    for name, times in took.items():
        ratios = [peer / own for peer, own in zip(times, took[first], strict=True)]
        table[name] = {
            "per_second": items / statistics.median(times),
            "ratio": statistics.median(times) / statistics.median(took[first]),
            "ratio_range": [min(ratios), max(ratios)],
        }
    return table


def elsewhere(make: Callable[..., Callable[[], object]], *given: Any) -> Callable[[], float]:
    """What `make(*given)` gives, run in a process of its own, which lasts as long as this one; each
    call gives the processor time that it took, in seconds.

    So a peer has memory and threads as it would find them, not as `device.choose` set them here.
    """
    here, there = get_context("spawn").Pipe()
    get_context("spawn").Process(target=_serve, args=(there, make, given)).start()
    there.close()

    def run() -> float:
        here.send("run")
        return float(here.recv())

    return run


def _serve(
    pipe: Connection, make: Callable[..., Callable[[], object]], given: tuple[Any, ...]
) -> None:
    device.set_threads()
    run = make(*given)
    with suppress(EOFError):  # the other end has gone
        while pipe.recv():
            pipe.send(seconds(run, time.process_time))


def show(title: str, table: dict[str, Any], unit: str = "img/s") -> None:
    print(f"\n{title}")
    for name, row in table.items():
        low, high = row["ratio_range"]
        extra = f"  {row['bytes'] / 1000:8.0f} kB" if "bytes" in row else ""
        print(
            f"  {name:34}{row['per_second']:10.1f} {unit}{extra}"
            f"   first is {row['ratio']:5.2f}x ({low:.2f} to {high:.2f})"
        )


class CourseDataset(Dataset[tuple[torch.Tensor, int]]):
    """As the course's specification has it: Pillow, then ToTensor and Normalize."""

    def __init__(self, files: Sequence[Path], grades: Sequence[int]) -> None:
        self.files, self.grades = files, grades
        self.change = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = Image.open(self.files[index]).convert("RGB")
        return self.change(image), self.grades[index]
