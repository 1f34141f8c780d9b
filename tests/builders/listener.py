"""An observer that remembers what it was told."""

from collections.abc import Callable
from typing import Any

from dr_cli.events import Observer


class Listener(Observer):
    """Notes, warnings, steps (what, done, total), plans, batches and epochs, in order.

    hooks: functions by the name of a hook, called after it was noted: `Listener(progress=stop)`
    for a test that wants to interrupt, or to look at what is there at that moment.
    """

    def __init__(self, **hooks: Callable[..., None]) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.steps: list[tuple[str, int, int]] = []
        self.plans: list[Any] = []
        self.batches: list[tuple[Any, ...]] = []
        self.epochs: list[tuple[Any, ...]] = []
        self._hooks = hooks

    def note(self, text: str) -> None:
        self.notes.append(text)
        self._call("note", text)

    def warning(self, text: str) -> None:
        self.warnings.append(text)
        self._call("warning", text)

    def progress(self, what: str, done: int, total: int) -> None:
        self.steps.append((what, done, total))
        self._call("progress", what, done, total)

    def plan(self, *told: Any) -> None:
        self.plans.append(told[0])
        self._call("plan", *told)

    def batch(self, *told: Any) -> None:
        self.batches.append(told)
        self._call("batch", *told)

    def epoch(self, *told: Any) -> None:
        self.epochs.append(told)
        self._call("epoch", *told)

    def _call(self, hook: str, *told: Any) -> None:
        if hook in self._hooks:
            self._hooks[hook](*told)
