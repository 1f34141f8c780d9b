"""Limits that figures must meet, or the program ends with exit code 3."""

from collections.abc import Iterable, Mapping
from typing import Any

from dr_cli.errors import UnmetError, UsageError
from dr_cli.scoring.flat import flatten
from dr_cli.scoring.metrics import FIGURES


def fail_under(record: Mapping[str, Any], limits: Mapping[str, float]) -> None:
    """Raises UnmetError (exit code 3) naming every figure that misses its limit.

    limits: of `FIGURES` the least value, or for an error (mean absolute error, ECE, Brier, NLL)
    the largest. An undefined figure meets no limit. UsageError for other names.
    """
    check_limits(limits)
    values = {name: value for name, value, _ in flatten(record)}
    missed = []
    for name, limit in limits.items():
        value = values[name]
        lower = FIGURES[name].lower_is_better
        if value is None:
            missed.append(f"{name} is undefined here")
        elif value > limit if lower else value < limit:
            missed.append(f"{name} {value:.4f} is {'above' if lower else 'below'} {limit:g}")
    if missed:
        raise UnmetError("; ".join(missed))


def check_limits(limits: Iterable[str]) -> None:
    """Raises UsageError, listing what there is, for a name that is none of `FIGURES`."""
    for name in limits:
        if name not in FIGURES:
            raise UsageError(f"no figure is called {name!r}: there are {', '.join(FIGURES)}")
