"""A figure of a record found by its name, and written as everybody reads it."""

from collections.abc import Mapping
from typing import Any

from dr_cli.scoring.metrics import FIGURES
from dr_cli.scoring.record import Record
from dr_cli.words import figure

BASELINES = {"majority": "commonest grade", "fellow_eye": "other eye's grade"}  # as charts say it


def find_value(record: Any, name: str) -> Any:
    """The value of a figure such as "qwk" or "referable.auc"; None where it is undefined."""
    found = find_figure(record, name)
    return found.get("value") if isinstance(found, Mapping) else found


def find_figure(record: Any, name: str) -> Any:
    """What a record holds of a figure, {"value", "ci95"} or the value; None without it."""
    for key in name.split("."):
        record = record.get(key) if isinstance(record, Mapping) else None
    return record


def show(record: Record, name: str) -> str:
    """A figure of a record with its interval."""
    return figure(find_figure(record, name), FIGURES[name].percent)
