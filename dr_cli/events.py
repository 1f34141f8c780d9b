"""What the core tells whoever watches. `cli/console.py` shows it; by default nobody listens.

The do-nothing form keeps `if observer` out of the loops.
"""

from collections.abc import Mapping
from typing import Any


class Observer:
    """Every method may be overridden; none may raise or change what it is given."""

    def note(self, text: str) -> None:
        """One sentence worth knowing: a choice that was made, and why."""

    def warning(self, text: str) -> None:
        """One sentence about something that may spoil the result."""

    def progress(self, what: str, done: int, total: int) -> None:
        """`done` of `total` items of a task named `what`; done == total ends it."""

    def plan(self, plan: Mapping[str, Any]) -> None:
        """What is about to be trained, once, before the first epoch."""

    def batch(self, phase: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        """`done` of `total` images of this phase ("train", "val", "test") of an epoch."""

    def epoch(self, row: Mapping[str, Any], best: bool) -> None:
        """A finished epoch: a row of metrics.csv, and whether it is the best so far."""


NOTHING = Observer()
