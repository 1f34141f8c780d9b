"""The one line at the foot of a terminal: what is done, how far it is, when it will end.

Its parts go one by one where the terminal is narrow, the bar first and the count never.
"""

import time
from collections.abc import Iterable, Mapping

from dr_cli import words
from dr_cli.events import Outline

MOST, LEAST = 30, 8  # cells of a bar
AFTER = 2.0  # seconds before an end is foretold


def lay_out(what: str, count: str, share: float | None, parts: Iterable[str], width: int) -> str:
    """The line: `what`, a bar (without one where `share` is None), `count`, and of the parts, most
    important first, those that fit."""
    told = "  ".join(filter(None, [what, count]))
    for part in filter(None, parts):
        if len(told) + 2 + len(part) >= width:
            break
        told += f"  {part}"
    cells = min(MOST, width - len(told) - 3)
    if share is None or cells < LEAST:
        return told[: max(0, width - 1)]
    full = min(cells, int(share * cells))
    return f"{what}  {'━' * full}{'─' * (cells - full)}{told[len(what) :]}"


class Horizon:
    """When a run will end, from what was done of it since it began or was gone on with.

    An image that is learned from counts three: forward, and twice that backward.
    """

    def __init__(self, outline: Outline) -> None:
        self.epochs = outline.epochs
        weights = {"train": 3, "val": 1, "test": 0 if outline.picked_on_test else 1}
        self.weights = {split: weights[split] for split, n in outline.images.items() if n}
        self.images: Mapping[str, int] = outline.images
        self.first: tuple[float, float] | None = None  # work done and the time, when first asked

    def tell(self, epoch: int, phase: str, done: int) -> str:
        """As "run ends in 12 min"; nothing where it is not known yet."""
        work = 0.0
        for split, weight in self.weights.items():
            each = weight * self.images[split]
            work += each * (epoch - 1)
            work += weight * done if split == phase else each * _before(split, phase)
        now = time.monotonic()
        if self.first is None:
            self.first = work, now
        begun, since = self.first
        if now - since < AFTER or work <= begun:
            return ""
        total = self.epochs * sum(w * self.images[split] for split, w in self.weights.items())
        left = max(0.0, total - work) * (now - since) / (work - begun)
        return f"run ends in {words.duration(left)}"


def _before(split: str, phase: str) -> bool:
    order = ("train", "val", "test")
    return order.index(split) < order.index(phase)
