"""Predictions -> the record that `dr eval` prints, `summary.json` holds and the report draws."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dr_cli.errors import UnmetError, UsageError
from dr_cli.grades import NAMES, NUM_GRADES, OperatingPoint
from dr_cli.scoring import intervals as resampling
from dr_cli.scoring import metrics
from dr_cli.scoring.baselines import score_pair
from dr_cli.scoring.calibration import retemper
from dr_cli.scoring.predictions import (
    PROBABILITIES,
    TARGETS,
    Sample,
    check,
    chosen_for,
    read_predictions,
    sample_of,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "check_limits",
    "evaluate",
    "fail_under",
    "flatten",
    "read_predictions",
    "verdict",
]

OF_TARGETS = ("auc", "sensitivity", "specificity")
FIGURE_NAMES = (
    *metrics.FIGURES,
    *(f"{target}.{name}" for target in TARGETS for name in OF_TARGETS),
    *("calibration.ece", "calibration.brier", "calibration.nll"),
)
LOWER_IS_BETTER = ("mean_absolute_error", "calibration.ece", "calibration.brier", "calibration.nll")
MOST_GROUPS = 50
FEW = 30  # with 15 patients the interval of QWK held the truth in 91% of drawn sets, not in 95%
NOT_CHOSEN = "0.5, as nothing was chosen on validation"

Record = dict[str, Any]


def evaluate(
    predictions: "pd.DataFrame",
    *,
    run: str | None = None,
    data: str | None = None,
    split: str = "test",
    failed: int = 0,
    baselines: Mapping[str, Any] | None = None,
    leaks: Mapping[str, int] | None = None,
    operating: OperatingPoint | None = None,
    temperature: float | None = None,
    bootstrap: int = resampling.REPLICATES,
    seed: int = 0,
    by: str | None = None,
    warnings: Iterable[str] = (),
) -> Record:
    """The record of INTERFACE.md, plain enough for JSON: undefined is None, never NaN.

    - failed: images that could not be read; they are in no figure.
    - baselines, leaks: what `splits` says of this split; without baselines the majority grade
      is that of these images, and the fellow eye's grade is not known.
    - operating: what was chosen on validation; without it the thresholds are 0.5.
    - temperature: what the logits were divided by; the probabilities here are those after it.
    - bootstrap: replicates of the intervals; 0 gives none. seed: of the draws, which are the
      same for every run on the same images.
    - by: a column of the table to give the figures by, too.

    Raises UsageError for a table that cannot be scored (see `check`) or lacks the column `by`.
    """
    check(predictions)
    sample = sample_of(predictions, operating)
    record: Record = {
        "run": run,
        "data": data,
        "split": split,
        "n": len(predictions),
        "patients": sample.patients,
        "failed": failed,
        "grade_counts": _grade_counts(sample),
        **_figures(sample, bootstrap, seed),
        "calibration": _calibration(sample, temperature),
        "per_grade": _per_grade(sample),
        "confusion": None if sample.counts is None else sample.counts.tolist(),
        "baselines": dict(baselines or _own_baselines(sample)),
        "leaks": None if leaks is None else dict(leaks),
        "ungradable": _ungradable(predictions, operating, bootstrap, seed),
        "subgroups": _subgroups(predictions, by, operating, bootstrap, seed),
        "bootstrap": {"replicates": bootstrap, "seed": seed, "unit": sample.unit_name},
    }
    for name in TARGETS:
        record[name] = _with_threshold(record[name], name, operating)
    record["warnings"] = [*warnings, *_warnings(record, sample, operating)]
    return record


def verdict(record: Mapping[str, Any]) -> str | None:
    """What must be said of a run on a split that leaks fellow eyes, in one sentence, or None."""
    fellow = (record["baselines"] or {}).get("fellow_eye")
    leaking = (record.get("leaks") or {}).get("fellow_eye_in_train", 0)
    if not fellow or not leaking or fellow["qwk"] is None or record["qwk"]["value"] is None:
        return None
    qwk, interval = record["qwk"]["value"], record["qwk"]["ci95"]
    if qwk > fellow["qwk"] and (interval is None or interval[0] > fellow["qwk"]):
        return None
    told = "does not beat" if qwk <= fellow["qwk"] else "is not clearly above"
    return (
        f"QWK {qwk:.3f} {told} the {fellow['qwk']:.3f} of copying the other eye's grade without "
        f"a look at the image: {leaking:,} of these {record['n']:,} images have their fellow eye "
        "in train or val, so split by patient before you trust any of these figures"
    )


def flatten(record: Mapping[str, Any]) -> dict[str, Record]:
    """Each of `FIGURE_NAMES` -> {"value", "ci95"}."""
    found = {}
    for name in FIGURE_NAMES:
        part: Any = record
        for key in name.split("."):
            part = part[key]
        found[name] = part if isinstance(part, dict) else {"value": part, "ci95": None}
    return found


def fail_under(record: Mapping[str, Any], limits: Mapping[str, float]) -> None:
    """Raises UnmetError (exit code 3) naming every figure that misses its limit.

    limits: of `FIGURE_NAMES` the least value, or for an error (mean absolute error, ECE,
    Brier, NLL) the largest. An undefined figure meets no limit. UsageError for other names.
    """
    check_limits(limits)
    figures = flatten(record)
    missed = []
    for name, limit in limits.items():
        value = figures[name]["value"]
        worse = "above" if name in LOWER_IS_BETTER else "below"
        if value is None:
            missed.append(f"{name} is undefined here")
        elif (value > limit) if worse == "above" else (value < limit):
            missed.append(f"{name} {value:.4f} is {worse} {limit:g}")
    if missed:
        raise UnmetError("; ".join(missed))


def check_limits(limits: Iterable[str]) -> None:
    """Raises UsageError, listing what there is, for a name that is none of `FIGURE_NAMES`."""
    for name in limits:
        if name not in FIGURE_NAMES:
            raise UsageError(f"no figure is called {name!r}: there are {', '.join(FIGURE_NAMES)}")


# --- the parts of the record


def _figures(sample: Sample, replicates: int, seed: int) -> Record:
    """Headline figures with their intervals; those that the table cannot tell are undefined."""
    statistics: dict[str, resampling.Statistic] = {}
    if sample.grade is not None and sample.predicted is not None:
        cell = sample.grade * NUM_GRADES + sample.predicted
        statistics["confusion"] = resampling.cell_counts(cell, NUM_GRADES**2, sample.unit)
    for name, target in sample.targets.items():
        statistics[name] = resampling.cell_counts(target.cell, 4, sample.unit)
        statistics[f"{name}.auc"] = metrics.RocArea(target.truth, target.score, sample.unit)
    once = np.ones((1, sample.units), np.int64)
    values = {name: statistic(once) for name, statistic in statistics.items()}
    drawn = resampling.replicate(statistics, sample.units, replicates, seed)

    found: Record = {name: undefined() for name in metrics.FIGURES}
    if "confusion" in values:
        square = (-1, NUM_GRADES, NUM_GRADES)
        value_counts, drawn_counts = (part["confusion"].reshape(square) for part in (values, drawn))
        for name, figure in metrics.FIGURES.items():
            interval = resampling.proportion_interval if name == "accuracy" else resampling.interval
            found[name] = _figure(
                figure(value_counts)[0], figure(drawn_counts), sample.units, interval
            )
    for name in TARGETS:
        found[name] = {key: undefined() for key in OF_TARGETS}
        if name in values:
            found[name] = _target_figures(name, sample, values, drawn)
    return found


def _target_figures(
    name: str, sample: Sample, values: Mapping[str, Any], drawn: Mapping[str, Any]
) -> Record:
    truth = sample.targets[name].truth
    positive, negative = sample.units_with(truth), sample.units_with(~truth)
    value, replicates = (part[name].reshape(-1, 2, 2) for part in (values, drawn))
    recall, drawn_recall = metrics.recall_of(value)[0], metrics.recall_of(replicates)
    share = resampling.proportion_interval
    return {
        "auc": _figure(values[f"{name}.auc"][0], drawn[f"{name}.auc"], min(positive, negative)),
        "sensitivity": _figure(recall[1], drawn_recall[:, 1], positive, share),
        "specificity": _figure(recall[0], drawn_recall[:, 0], negative, share),
    }


def undefined() -> Record:
    """A figure that these images cannot tell."""
    return {"value": None, "ci95": None}


def _figure(
    value: float,
    replicates: NDArray[np.float64],
    units: int,
    interval: Callable[..., list[float] | None] = resampling.interval,
) -> Record:
    """units: the patients that the figure rests on."""
    if np.isnan(value):
        return undefined()
    found = interval(replicates, float(value), units) if len(replicates) else None
    return {"value": float(value), "ci95": found}


def _grade_counts(sample: Sample) -> list[int] | None:
    return None if sample.grade is None else np.bincount(sample.grade, minlength=5).tolist()


def _with_threshold(figures: Record, name: str, operating: OperatingPoint | None) -> Record:
    """The figures of a target, and the threshold they hold at: in the contract's order."""
    chosen = chosen_for(operating, name)
    return {
        "auc": figures["auc"],
        "threshold": chosen.value if chosen else 0.5,
        "sensitivity": figures["sensitivity"],
        "specificity": figures["specificity"],
        "threshold_from": operating.source if operating and chosen else NOT_CHOSEN,
        "rule": chosen.rule if chosen else None,
    }


def _calibration(sample: Sample, temperature: float | None) -> Record:
    """Of the five probabilities, or, where they are not known, of referable or not."""
    if sample.probabilities is not None and sample.grade is not None:
        true, probabilities = sample.grade, sample.probabilities
    else:
        target = sample.targets["referable"]
        true = target.truth.astype(np.int64)
        probabilities = np.stack([1 - target.score, target.score], axis=1)
    before = None
    if temperature is not None:
        before = _calibration_of(true, retemper(probabilities, temperature))
    after = _calibration_of(true, probabilities)
    curve = after.pop("curve")
    return {**after, "temperature": temperature, "before": before, "curve": curve}


def _calibration_of(true: NDArray[np.int64], probabilities: NDArray[np.float64]) -> Record:
    return {
        "ece": metrics.expected_calibration_error(true, probabilities),
        "brier": metrics.brier_score(true, probabilities),
        "nll": metrics.negative_log_likelihood(true, probabilities),
        "curve": metrics.reliability_curve(true, probabilities),
    }


def _per_grade(sample: Sample) -> list[Record]:
    counts, probabilities = sample.counts, sample.probabilities
    if counts is None or probabilities is None:
        return []
    columns: dict[str, Any] = {
        "precision": metrics.precision_of(counts),
        "recall": metrics.recall_of(counts),
        "specificity": metrics.specificity_of(counts),
        "f1": metrics.f1_of(counts),
        "auc": [
            metrics.auc(sample.grade == grade, probabilities[:, grade])
            for grade in range(NUM_GRADES)
        ],
    }
    return [
        {
            "grade": grade,
            "name": NAMES[grade],
            "support": int(counts[grade].sum()),
            **{name: _number(column[grade]) for name, column in columns.items()},
        }
        for grade in range(NUM_GRADES)
    ]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _own_baselines(sample: Sample) -> Record:
    """The best constant grade for these very images."""
    if sample.grade is None:
        return {"majority": {"accuracy": None, "qwk": None}, "fellow_eye": None}
    constant = np.full_like(sample.grade, np.bincount(sample.grade).argmax())
    return {"majority": score_pair(sample.grade, constant), "fellow_eye": None}


def _ungradable(
    table: "pd.DataFrame", operating: OperatingPoint | None, replicates: int, seed: int
) -> Record | None:
    """How many images the quality gate refuses, and the figures of the others alone."""
    if "gradable" not in table:
        return None
    good = table["gradable"].astype(int) == 1
    refused = int((~good).sum())
    some = 0 < refused < len(table)
    without = _part(table[good], operating, replicates, seed) if some else None
    return {"n": refused, "share": refused / len(table), "without": without}


def _subgroups(
    table: "pd.DataFrame", by: str | None, operating: OperatingPoint | None,
    replicates: int, seed: int,
) -> Record | None:  # fmt: skip
    """The figures of each value of a column; a column of many numbers is cut into quarters."""
    import pandas as pd

    if by is None:
        return None
    if by not in table:
        others = [str(c) for c in table if c not in ("path", "grade", "predicted", *PROBABILITIES)]
        raise UsageError(f"no column {by!r} to group by: there are {', '.join(others) or 'none'}")
    column = table[by]
    if pd.api.types.is_numeric_dtype(column) and column.nunique() > 12:
        column = pd.qcut(column, 4, duplicates="drop")
    if column.nunique() > MOST_GROUPS:
        raise UsageError(
            f"column {by!r} has {column.nunique():,} values: at most {MOST_GROUPS} groups"
        )
    groups = [
        {
            "value": None if pd.isna(value) else str(value),
            **_part(table.loc[rows.index], operating, replicates, seed),
        }
        for value, rows in column.groupby(column, dropna=False, observed=True)
    ]
    return {"column": by, "groups": groups}


def _part(
    table: "pd.DataFrame", operating: OperatingPoint | None, replicates: int, seed: int
) -> Record:
    sample = sample_of(table, operating)
    return {"n": len(table), "patients": sample.patients, **_figures(sample, replicates, seed)}


def _warnings(record: Record, sample: Sample, operating: OperatingPoint | None) -> list[str]:
    found = []
    if sample.patients is None:
        found.append(
            "no patient is known: intervals take each image for a patient of its own, and are "
            "too narrow where there are two eyes of one"
        )
    elif sample.unknown:
        found.append(f"{sample.unknown:,} images have no patient: each counts as one of its own")
    if sample.units < FEW:
        found.append(f"{sample.units} {sample.unit_name}s are few: intervals are rough")
    if operating is None:
        found.append(
            "no threshold was chosen on validation images: sensitivity and specificity are at 0.5"
        )
    elif operating.data not in (None, record["data"]):
        found.append(
            f"the threshold was chosen on other data ({operating.data}): sensitivity and "
            "specificity seldom keep their balance when it travels"
        )
    if sample.grade is not None and sample.predicted is not None:
        absent = [str(k) for k, n in enumerate(record["grade_counts"]) if n == 0]
        if absent:
            found.append(f"no image of grade {', '.join(absent)}: figures are without it")
        if len(np.unique(sample.predicted)) == 1 and len(np.unique(sample.grade)) > 1:
            found.append(f"every image was called grade {sample.predicted[0]}")
        elif record["qwk"]["ci95"] and record["qwk"]["ci95"][0] <= 0:
            found.append(f"QWK {record['qwk']['value']:.3f} is not told apart from guessing (0)")
    told = verdict(record)
    return [*found, told] if told else found
