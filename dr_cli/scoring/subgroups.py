"""The figures by a column of the table, and of each fold of a cross-validation.

Groups are drawn together, patient by patient, so that the difference of two knows whether they
share patients, as the left and the right eyes do, or not, as two cameras may.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dr_cli.errors import UsageError
from dr_cli.grades import Calibration, OperatingPoint
from dr_cli.scoring import headline, intervals, metrics, per_grade
from dr_cli.scoring.metrics import Statistic
from dr_cli.scoring.predictions import (
    OWN_THRESHOLDS,
    PROBABILITIES,
    TARGETS,
    Sample,
    find_threshold,
)

if TYPE_CHECKING:
    import pandas as pd

Record = dict[str, Any]
MOST_GROUPS = 50


def measure_by(
    by: str, table: "pd.DataFrame", point: OperatingPoint | None, replicates: int, seed: int
) -> Record:
    """{"column", "reference", "groups"}: the figures of each value of a column; a column of many
    numbers is cut into quarters.

    Each group also has `few`, what rests on fewer than ten of its patients, and `difference`, its
    figures less those of the reference, the group with the most images (of which it is None).
    Raises UsageError for a column that is not there or has too many values.
    """
    import pandas as pd

    whole = Sample.from_table(table, point)
    groups: list[Record] = []
    samples, statistics = [], {}
    rows = pd.Series(np.arange(len(table)), index=table.index)
    parts = rows.groupby(_cut(by, table), dropna=False, observed=True)
    for i, (value, places) in enumerate(parts):
        sample = Sample.from_table(table.iloc[places], point)
        members = np.unique(whole.unit[places])
        samples.append(sample)
        for name, statistic in headline.prepare(sample, areas=True).items():
            statistics[f"{i} {name}"] = _restrict(statistic, members)
        shown = None if pd.isna(value) else str(value)
        groups.append({"value": shown, "n": len(places), "patients": sample.patients})
    drawn = intervals.measure(statistics, whole.units, replicates, seed)
    found = [
        {name.partition(" ")[2]: v for name, v in drawn.items() if name.startswith(f"{i} ")}
        for i in range(len(groups))
    ]
    for group, sample, own in zip(groups, samples, found, strict=True):
        group |= headline.measure(sample, own) | {"few": per_grade.find_rare(sample)}
    largest = int(np.argmax([group["n"] for group in groups]))
    for i, group in enumerate(groups):
        group["difference"] = None
        if i != largest:
            group["difference"] = _subtract(group, groups[largest], found[i], found[largest])
    return {"column": by, "reference": groups[largest]["value"], "groups": groups}


def measure_folds(table: "pd.DataFrame", point: OperatingPoint | None) -> Record:
    """{"each", "mean", "sd"}: the figures of each fold's own images, by the table's column `fold`,
    and their mean and standard deviation over the folds that have them (None with fewer than two).

    A pooled AUC also compares images of different folds, whose networks may be scaled unlike; the
    mean of the folds' own does not. The deviation holds the networks' differences and the images'.
    """
    each: list[Record] = []
    for _, part in table.groupby("fold"):
        own = {name: part[OWN_THRESHOLDS[name]] for name in TARGETS if OWN_THRESHOLDS[name] in part}
        thresholds = {name: float(column.iloc[0]) for name, column in own.items()}
        number = int(part["fold"].iloc[0])
        each.append(_measure_member({"fold": number}, part, point, thresholds))
    return _spread(each)


def measure_seeds(seeds: "Mapping[int, tuple[pd.DataFrame, Calibration]]") -> Record:
    """{"each", "mean", "sd"} as `measure_folds` has, of each seed's network on the same images, by
    its own thresholds: the deviation holds the networks' differences alone."""
    each: list[Record] = []
    for seed, (table, chosen) in seeds.items():
        point = chosen.operating_point
        found = {name: find_threshold(point, name) for name in TARGETS}
        thresholds = {name: one.value for name, one in found.items() if one}
        each.append(_measure_member({"seed": seed}, table, point, thresholds))
    return _spread(each)


def _measure_member(
    which: Record,
    table: "pd.DataFrame",
    point: OperatingPoint | None,
    thresholds: Mapping[str, float],
) -> Record:
    """The figures of one network of several, without intervals."""
    sample = Sample.from_table(table, point)
    replicates = intervals.measure(headline.prepare(sample, areas=True), sample.units, 0, 0)
    found = headline.find_values(replicates)
    figures = {name: float(value[0]) for name, value in found.items()}
    told = {**which, "n": len(table), "patients": sample.patients}
    return {**told, "thresholds": dict(thresholds), "figures": figures}


def _spread(each: list[Record]) -> Record:
    """The members with the mean and standard deviation of their figures."""
    names = dict.fromkeys(name for one in each for name in one["figures"])
    values = {
        n: np.array([one["figures"][n] for one in each if n in one["figures"]]) for n in names
    }
    mean = {name: float(value.mean()) for name, value in values.items()}
    sd = {n: float(value.std(ddof=1)) if len(value) > 1 else None for n, value in values.items()}
    return {"each": each, "mean": mean, "sd": sd}


def doubt_groups(subgroups: Record) -> str | None:
    """Which groups have too few patients to say much of, in one sentence, or None."""
    small = [group for group in subgroups["groups"] if group["few"]]
    if not small:
        return None
    names = [str(group["value"] or "not known") for group in small]
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return (
        f"by {subgroups['column']}: {shown} have fewer than {per_grade.FEW} patients of some grade "
        "(`few` in JSON): figures that rest on these are rough, and groups seem to differ by chance"
    )


def _cut(by: str, table: "pd.DataFrame") -> "pd.Series":
    """The column, of many numbers its quarters."""
    import pandas as pd

    if by not in table:
        hidden = ("path", "grade", "predicted", *PROBABILITIES, *OWN_THRESHOLDS.values())
        others = [str(c) for c in table if c not in hidden]
        raise UsageError(f"no column {by!r} to group by: there are {', '.join(others) or 'none'}")
    column = table[by]
    if pd.api.types.is_numeric_dtype(column) and column.nunique() > 12:
        column = pd.qcut(column, 4, duplicates="drop")
    if column.nunique() > MOST_GROUPS:
        raise UsageError(
            f"column {by!r} has {column.nunique():,} values: at most {MOST_GROUPS} groups"
        )
    return column


def _restrict(statistic: Statistic, members: NDArray[np.int64]) -> Statistic:
    """The same of the weights of everyone, [B, units], of whom these are the statistic's own."""
    return lambda weights: statistic(weights[:, members])


def _subtract(
    a: Record, b: Record, found: headline.Replicates, reference: headline.Replicates
) -> Record:
    """Every figure of group a less that of b, nested as they are."""
    ours, theirs = headline.find_values(found), headline.find_values(reference)
    told: Record = {}
    for name in [name for name in metrics.FIGURES if name in ours and name in theirs]:
        first, _, second = name.partition(".")
        pair = [group[first][second] if second else group[first] for group in (a, b)]
        ci95 = intervals.contrast_interval(
            ours[name], theirs[name], pair[0]["ci95"], pair[1]["ci95"]
        )
        figure = {"value": pair[0]["value"] - pair[1]["value"], "ci95": ci95}
        if second:
            told.setdefault(first, {})[second] = figure
        else:
            told[first] = figure
    return told
