"""Where an epoch's time goes: `dr train --profile`."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")


class Clock:
    """Seconds by part of the work. Switched off it does nothing, and waits for no GPU."""

    def __init__(self, device: torch.device, on: bool = False) -> None:
        self.device, self.on = device, on
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """`with clock("forward"): …` adds what the block took to its part."""
        start = self._now() if self.on else 0.0
        yield
        if self.on:
            self.seconds[part] += self._now() - start

    def each(self, part: str, items: Iterable[T]) -> Iterator[T]:
        """The items; the time to get each is added to the part."""
        iterator = iter(items)
        while True:
            with self(part):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def _now(self) -> float:
        if self.device.type == "cuda":  # its work is only queued until then
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def lines(self) -> list[str]:
        """A line a part, the longest first, with its share of all that was timed."""
        total = sum(self.seconds.values())
        return [
            f"  {part:<10} {seconds:9.2f} s  {seconds / total:6.1%}"
            for part, seconds in sorted(self.seconds.items(), key=lambda entry: -entry[1])
        ]
