"""The figures that a page begins with, each beside what needs no network: read in five seconds."""

from collections.abc import Mapping
from dataclasses import dataclass

from dr_cli.report.figures import BASELINES, find_figure, find_value
from dr_cli.scoring.record import Record
from dr_cli.words import figure, number, percent


@dataclass(frozen=True)
class Tile:
    """One figure of the band."""

    heading: str
    value: str
    interval: str
    """In words, with what it is; empty where there is none."""
    against: str
    """What it is measured against."""
    gauge: Mapping[str, float] | None = None
    """From 0 to 1: "value", "low" and "high" of the interval; None where it is undefined."""
    levels: tuple[float, ...] = ()
    """From 0 to 1, where `against` stands."""


def list_tiles(record: Record) -> list[Tile]:
    """QWK, accuracy, and the alarm for referable retinopathy, as far as the record has them."""
    threshold = find_value(record, "referable.threshold")
    at = "" if threshold is None else f" at {number(threshold)}"
    everybody = "referring everybody: {}, nobody: {}"
    tiles = [
        _tile(record, "qwk", "QWK", *_tell_baselines(record, "qwk")),
        _tile(record, "accuracy", "Accuracy", *_tell_baselines(record, "accuracy"), shares=True),
        _tile(record, "referable.auc", "Referable AUC", "a coin: 0.500", (0.5,)),
        _tile(
            record, "referable.sensitivity", f"Sensitivity, referable{at}",
            everybody.format("100%", "0%"), shares=True,
        ),
        _tile(
            record, "referable.specificity", f"Specificity, referable{at}",
            everybody.format("0%", "100%"), shares=True,
        ),
    ]  # fmt: skip
    return [tile for tile in tiles if tile is not None]


def _tile(
    record: Record,
    name: str,
    heading: str,
    against: str,
    levels: tuple[float, ...] = (),
    shares: bool = False,
) -> Tile | None:
    found = find_figure(record, name)
    if found is None:
        return None
    value, interval = found.get("value"), found.get("ci95")
    told, _, bounds = figure(found, shares).partition(" (")
    gauge = None
    if value is not None:
        low, high = interval or (value, value)
        gauge = {"value": _clip(value), "low": _clip(low), "high": _clip(high)}
    return Tile(heading, told, bounds.rstrip(")"), against, gauge, tuple(map(_clip, levels)))


def _tell_baselines(record: Record, metric: str) -> tuple[str, tuple[float, ...]]:
    """What each baseline has of it, in words and as levels."""
    write = percent if metric == "accuracy" else number
    told, levels = [], []
    for key, what in BASELINES.items():
        base = record["baselines"].get(key) or {}
        if (level := base.get(metric)) is not None:
            told.append(f"{what}: {write(level)}")
            levels.append(level)
    return ", ".join(told), tuple(levels)


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))
