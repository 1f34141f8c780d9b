"""What a person asked of `dr eval`, read and checked before anything else is."""

import contextlib
import math
from pathlib import Path

import typer

from dr_cli.errors import UsageError

NEEDS = {  # option -> what there must be for it to mean something: see `refuse_idle`
    "against": "a RUN without DATA",
    "decision": "a RUN",
    **dict.fromkeys(
        ("tta", "batch_size", "workers", "device", "precision"),
        "a RUN with DATA, whose network is run",
    ),
    **dict.fromkeys(
        ("image_column", "grade_column", "patient_column", "split_column"), "DATA or --predictions"
    ),
    "layout": "DATA or --labels",
    "grade_map": "DATA or --labels",
    "labels": "--predictions",
}


def refuse_idle(
    ctx: typer.Context,
    run: Path | None,
    data: Path | None,
    predictions: Path | None,
    labels: Path | None,
) -> None:
    """Raises UsageError for a call of two kinds or none, or with an option that does nothing in
    it: whoever gave one would believe that it counted."""
    if (run is None) == (predictions is None):
        raise UsageError("name a RUN, or a table with --predictions FILE: one of the two")
    there = {
        "a RUN": run is not None,
        "a RUN without DATA": run is not None and data is None,
        "a RUN with DATA, whose network is run": data is not None,
        "DATA or --predictions": data is not None or predictions is not None,
        "DATA or --labels": data is not None or labels is not None,
        "--predictions": predictions is not None,
    }
    for name, need in NEEDS.items():
        given = ctx.get_parameter_source(name)
        if given is not None and given.name == "COMMANDLINE" and not there[need]:
            raise UsageError(f"--{name.replace('_', '-')} does nothing here: it is for {need}")


def read_threshold(text: str | None) -> float | Path | None:
    """A number, or a table of predictions to choose one on."""
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        return float(text)
    if Path(text).is_file():
        return Path(text)
    raise UsageError(f"--threshold {text!r}: give a probability, or a table to choose one on")


def read_limits(pairs: list[str]) -> dict[str, float]:
    """`METRIC=VALUE` each; checked before a network is run for nothing."""
    from dr_cli.scoring.limits import check_limits

    found = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name in found:
            raise UsageError(f"--fail-under {name} stands there twice: give one value")
        found[name] = math.nan
        with contextlib.suppress(ValueError):
            found[name] = float(value)
        if not math.isfinite(found[name]):  # no figure is below NaN, so it would always pass
            raise UsageError(f"--fail-under {pair!r}: give METRIC=VALUE, such as qwk=0.7")
    check_limits(found)
    return found


def read_prevalences(given: list[float] | None) -> tuple[float, ...]:
    """Those asked for, once each and rising; the usual ones where none is."""
    from dr_cli.scoring.screening import PREVALENCES, check_prevalences

    check_prevalences(given or [])
    return tuple(sorted(set(given))) if given else PREVALENCES
