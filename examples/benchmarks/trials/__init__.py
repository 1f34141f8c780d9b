"""The faults that `faults.py` does, a room for each kind. A fault is a function of a Trial:

    @fault("disk full while a checkpoint is written", tries=10)
    def disk_full(trial: Trial) -> None:
        ...
        need(last_is_whole, "last.pt is cut off")

It returns where all was well (how many tries it was, where more than one), and raises Lost with
what was lost: `need` does. A new room is named in `faults.ROOMS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


class Lost(Exception):  # noqa: N818
    """What a fault cost: an end of the sentence "lost: …"."""


class Skipped(Exception):  # noqa: N818
    """Why this machine cannot do the fault."""


@dataclass(frozen=True)
class Trial:
    """One try of one fault."""

    rng: np.random.Generator
    """Of this trial alone."""
    folder: Path
    """Empty, and removed at its end."""
    kept: Path
    """What all trials of all faults share, such as a run without a fault; it may not exist yet."""
    number: int


@dataclass(frozen=True)
class Fault:
    """A row of the table."""

    name: str
    tries: int
    work: Callable[[Trial], int | None]


FAULTS: list[Fault] = []


def fault(name: str, tries: int) -> Callable[[Callable[[Trial], int | None]], Callable]:
    """Registers a function of a Trial as a fault. tries: how often it is done by default."""

    def register(work: Callable[[Trial], int | None]) -> Callable:
        FAULTS.append(Fault(name, tries, work))
        return work

    return register


def need(held: object, otherwise: str) -> None:
    """Raises Lost with `otherwise` unless `held`."""
    if not held:
        raise Lost(otherwise)
