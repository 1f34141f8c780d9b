"""What the core tells whoever watches. `cli/console.py` shows it; by default nobody listens.

The do-nothing form keeps `if observer` out of the loops.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dr_cli.runs import Run


@dataclass(frozen=True)
class Outline:
    """What is about to be trained, in figures."""

    arch: str
    parameters: int
    size: int
    """Side of the crops, pixels."""
    batch_size: int
    epochs: int
    images: Mapping[str, int]
    """Photographs by split: "train", "val", "test"."""
    steps_per_epoch: int
    device: str
    reason: str
    """Why it runs there and in this precision, a sentence."""
    kept: str
    """Which epoch is kept, a sentence."""
    picked_on_test: bool = False
    """Whether validation and test are the same images, predicted once (--val test)."""


class Observer:
    """Every method may be overridden; none may raise or change what it is given."""

    def note(self, text: str) -> None:
        """One sentence worth knowing: a choice that was made, and why."""

    def warning(self, text: str) -> None:
        """One sentence about something that may spoil the result."""

    def progress(self, what: str, done: int, total: int | None) -> None:
        """`done` of `total` items of a task named `what`; done == total ends it. None: nobody
        knows how many there will be."""

    def run(self, run: "Run") -> None:
        """A run begins in this folder, or goes on there; once, after all that can be refused."""

    def plan(self, outline: Outline) -> None:
        """What is about to be trained, before the first epoch; of folds once each."""

    def batch(
        self, epoch: int, phase: str, done: int, total: int, figures: Mapping[str, float]
    ) -> None:
        """`done` of `total` images of a phase ("train", "val", "test") of an epoch, from 1."""

    def epoch(self, row: Mapping[str, Any], kept: bool) -> None:
        """A finished epoch: a row of metrics.csv, and whether it is the one that is kept so far."""


NOTHING = Observer()
