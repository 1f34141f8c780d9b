"""Predictions -> the record that `dr eval` prints, `summary.json` holds and the report draws."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dr_cli.errors import UnmetError, UsageError
from dr_cli.grades import NAMES, NUM_GRADES, Calibration, OperatingPoint
from dr_cli.scoring import intervals, metrics, screening
from dr_cli.scoring.baselines import NO_BASELINES, Pair, score_pair
from dr_cli.scoring.calibration import retemper
from dr_cli.scoring.comparison import TESTS
from dr_cli.scoring.flow import Flow
from dr_cli.scoring.intervals import UNDEFINED, bound
from dr_cli.scoring.metrics import FIGURES
from dr_cli.scoring.predictions import PROBABILITIES, TARGETS, Graded, Sample, check, find_threshold

if TYPE_CHECKING:
    import pandas as pd

MOST_GROUPS = 50
FEW = 30  # with 15 patients the interval of QWK held the truth in 91% of drawn sets, not in 95%
NOT_CHOSEN = "0.5, as nothing was chosen on validation"
UNKNOWN = Calibration(temperature=None)  # of predictions that nobody says more of

_BRIEF = ("accuracy", "qwk", "referable")  # of the images that do not leak

Record = dict[str, Any]
Replicates = Mapping[str, NDArray[Any]]
APART = (*TARGETS, "per_patient")  # of which a record tells more than a list of figures holds
UNTOLD = np.full(1, np.nan)  # in place of a figure's value and replicates
Measure = Callable[["pd.DataFrame"], Record]
Row = tuple[str, float | None, list[float] | None]  # name, value, 95% interval


@dataclass(frozen=True)
class Context:
    """Whose figures they are, and what stands beside them."""

    run: str | None = None
    data: str | None = None
    split: str = "test"
    failed: int = 0
    """Images that could not be read; they are in no figure."""
    baselines: Mapping[str, Pair | None] | None = None
    """As `score_baselines` gives them; without, the majority grade is that of these images, and
    the fellow eye's grade is not known."""
    leaks: Mapping[str, int | None] | None = None
    """As `count_leaks` gives them."""
    leaking: frozenset[str] | None = None
    """Paths of the images that leak in any way; None where that is not known."""
    flow: Flow | None = None
    """As `describe_flow` gives it; None where the data set is not known."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scoring:
    """How predictions become figures."""

    bootstrap: int = intervals.REPLICATES
    """Replicates of the intervals; 0 gives none."""
    seed: int = 0
    """Of the draws, which are the same for every run on the same images."""
    by: str | None = None
    """A column of the table to give the figures by, too."""
    prevalences: tuple[float, ...] = screening.PREVALENCES
    """Shares of people in which predictive values are told, for each target."""


USUAL = Scoring()


def build_record(
    predictions: "pd.DataFrame",
    context: Context = Context(),
    calibration: Calibration = UNKNOWN,
    scoring: Scoring = USUAL,
) -> Record:
    """The record, plain enough for JSON: undefined is None, never NaN.

    predictions: see `predictions`; the probabilities are those after calibration's temperature,
    and `predicted` is what it decided; its thresholds are 0.5 where none was chosen.
    Raises UsageError for a table that cannot be scored (see `check`) or lacks the column `by`.
    """
    check(predictions)
    point = calibration.operating_point
    sample = Sample.from_table(predictions, point)
    graded = sample.graded
    found = _replicate(sample, scoring)
    measure = partial(_measure_part, point=point, scoring=scoring)
    record: Record = {
        "run": context.run,
        "data": context.data,
        "split": context.split,
        "n": len(predictions),
        "patients": sample.patients,
        "failed": context.failed,
        "grade_counts": graded and graded.counts.sum(axis=1).tolist(),
        **_measure(sample, found),
        "calibration": _judge_probabilities(sample, calibration.temperature),
        "per_grade": _measure_grades(graded) if graded else [],
        "confusion": graded and graded.counts.tolist(),
        "baselines": dict(context.baselines or _score_majority(graded)),
        "leaks": None if context.leaks is None else dict(context.leaks),
        "without_leaks": _measure_clean(predictions, context.leaking, measure),
        "flow": context.flow,
        "per_patient": _measure_patients(sample, scoring),
        "ungradable": _measure_gradable(predictions, measure),
        "subgroups": None if scoring.by is None else _measure_by(scoring.by, predictions, measure),
        "bootstrap": {"replicates": scoring.bootstrap, "seed": scoring.seed, "unit": sample.kind},
    }
    for name in TARGETS:
        further = _screen(name, sample, found, scoring)
        record[name] = _add_threshold(record[name], name, point) | further
    record["warnings"] = [*context.warnings, *_find_doubts(record, sample, point)]
    return record


def doubt_leaks(record: Mapping[str, Any]) -> str | None:
    """What must be said of a run on a split that leaks fellow eyes, in one sentence, or None."""
    fellow = (record["baselines"] or {}).get("fellow_eye")
    leaking = (record.get("leaks") or {}).get("fellow_eye_in_train") or 0
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


def flatten(record: Mapping[str, Any]) -> list[Row]:
    """Every figure of a record: `FIGURES`, those before temperature, of the gradable images, of
    those that do not leak, the baselines, of each group (`by.camera=A.qwk`) and comparison
    (`against.NAME.qwk`, with `.p`)."""
    top = dict.fromkeys(name.partition(".")[0] for name in FIGURES)
    calibration, refused = record["calibration"], record["ungradable"] or {}
    without = refused.get("without")
    found = [
        *_rows("", {name: record[name] for name in top}),
        *(row for name in TARGETS for row in _screening_rows(name, record[name])),
        *_plain("per_patient", record["per_patient"] or {}, "n"),
        *_rows("per_patient", record["per_patient"] or {}),
        *_plain("calibration", calibration, "ece", "brier", "nll"),
        *_plain("calibration.before", calibration["before"] or {}, "ece", "brier", "nll"),
        *_plain("ungradable", refused, "share"),
        *_rows("ungradable.without", {k: without[k] for k in ("accuracy", "qwk") if without}),
    ]
    clean = record.get("without_leaks") or {}
    found += _plain("without_leaks", clean, "n")
    found += _rows("without_leaks", {k: clean[k] for k in _BRIEF if k in clean})
    for name, pair in record["baselines"].items():
        found += _plain(f"baseline.{name}", pair or {}, "accuracy", "qwk")
    by = record["subgroups"] or {"groups": []}
    for group in by["groups"]:
        value = "not known" if group["value"] is None else group["value"]
        where = f"by.{by['column']}={value}"
        found += [*_plain(where, group, "n"), *_rows(where, group)]
    pairs = record.get("against", [])
    for pair in pairs:
        first = "" if pair["a"] == pairs[0]["a"] else f"{pair['a']}."
        for test in TESTS:
            where, told = f"{first}against.{pair['b']}.{test}", pair[test] or {}
            if "difference" in told:
                found.append((where, told["difference"], told["ci95"]))
            found += _plain(where, told, "p", "p_holm")
    return found


def _rows(where: str, part: Mapping[str, Any]) -> Iterator[Row]:
    """Every figure at any depth: a dictionary that has a value and an interval."""
    for key, inner in part.items():
        name = f"{where}.{key}" if where else key
        if isinstance(inner, Mapping) and {"value", "ci95"} <= inner.keys():
            yield name, inner["value"], inner["ci95"]
        elif isinstance(inner, Mapping):
            yield from _rows(name, inner)


def _screening_rows(name: str, target: Mapping[str, Any]) -> list[Row]:
    """What of a target is no figure of its own: counts, predictive values at a prevalence, ECE."""
    rows = _plain(f"{name}.counts", target["counts"] or {}, "tp", "fp", "fn", "tn")
    rows += _plain(f"{name}.calibration", target["calibration"] or {}, "ece")
    for at in target["at_prevalence"]:
        rows += _rows(f"{name}.at_prevalence={at['prevalence']:g}", at)
    return rows


def _plain(where: str, part: Mapping[str, Any], *names: str) -> list[Row]:
    """Numbers that have no interval."""
    return [(f"{where}.{name}", part[name], None) for name in names if name in part]


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


# --- the parts of the record


def _replicate(sample: Sample, scoring: Scoring) -> Replicates:
    """What figures are made of, of the images and of each replicate: name -> [1 + B, ...]."""
    statistics: dict[str, metrics.Statistic] = {}
    if sample.graded:
        statistics["confusion"] = sample.graded.count_by(sample.unit)
    for name, target in sample.targets.items():
        statistics[name] = target.count_by(sample.unit)
        if target.score is not None:
            area = metrics.weigh_roc_area(target.truth, target.score, sample.unit)
            sums = screening.sum_by(target.truth, target.score, sample.unit)
            statistics |= {f"{name}.auc": area, f"{name}.sums": sums}
    return intervals.measure(statistics, sample.units, scoring.bootstrap, scoring.seed)


def _measure(sample: Sample, found: Replicates) -> Record:
    """Headline figures with their intervals; those that the table cannot tell are undefined."""
    nothing = np.zeros((1, NUM_GRADES, NUM_GRADES))  # all of whose figures are undefined
    counts = found.get("confusion", nothing)
    figures: Record = {
        name: bound(figure.of(counts), sample.units, figure.proportion)
        for name, figure in FIGURES.items()
        if figure.of
    }
    return figures | {name: _measure_target(name, sample, found) for name in TARGETS}


def _measure_target(name: str, sample: Sample, found: Replicates) -> Record:
    if name not in sample.targets:
        return {figure: dict(UNDEFINED) for figure in ("auc", "sensitivity", "specificity")}
    truth, counts = sample.targets[name].truth, found[name]
    positive, negative = sample.units_with(truth), sample.units_with(~truth)
    return {
        "auc": bound(found.get(f"{name}.auc", UNTOLD), min(positive, negative)),
        "sensitivity": bound(screening.sensitivity_of(counts), positive, proportion=True),
        "specificity": bound(screening.specificity_of(counts), negative, proportion=True),
    }


def _screen(name: str, sample: Sample, found: Replicates, scoring: Scoring) -> Record:
    """What a screening programme asks of a target besides; null where it cannot be told."""
    target = sample.targets.get(name)
    if target is None:
        return screening.UNTOLD
    told = screening.measure_alarm(sample, target, found[name], scoring.prevalences)
    if target.score is None:
        return screening.UNTOLD | told
    judged = screening.judge_probability(sample, target.truth, target.score, found[f"{name}.sums"])
    curve = screening.draw_decision_curve(target.truth, target.score)
    return {**told, "calibration": judged, "decision_curve": curve}


def _measure_patients(sample: Sample, scoring: Scoring) -> Record | None:
    """The figures of each patient's worst eye; None where no patient is known."""
    worst = sample.by_patient()
    if worst is None:
        return None
    found = _replicate(worst, scoring)
    images = len(sample.unit) - sample.unknown
    return {"n": worst.units, "images": images, **_measure(worst, found)}


def _add_threshold(figures: Record, name: str, point: OperatingPoint | None) -> Record:
    """The figures of a target, and the threshold they hold at: in the contract's order."""
    chosen = find_threshold(point, name)
    return {
        "auc": figures["auc"],
        "threshold": chosen.value if chosen else 0.5,
        "sensitivity": figures["sensitivity"],
        "specificity": figures["specificity"],
        "threshold_from": point.source if point and chosen else NOT_CHOSEN,
        "rule": chosen.rule if chosen else None,
    }


def _judge_probabilities(sample: Sample, temperature: float | None) -> Record:
    """Of the five probabilities, or, where they are not known, of referable or not."""
    target = sample.targets["referable"]
    if sample.graded and sample.graded.probabilities is not None:
        true, probabilities = sample.graded.truth, sample.graded.probabilities
    elif target.score is not None:
        true = target.truth.astype(np.int64)
        probabilities = np.stack([1 - target.score, target.score], axis=1)
    else:
        nothing = dict.fromkeys(("ece", "brier", "nll", "temperature", "before"))
        return {**nothing, "curve": []}
    before = temperature and _measure_honesty(true, retemper(probabilities, temperature))
    after = _measure_honesty(true, probabilities)
    curve = after.pop("curve")
    return {**after, "temperature": temperature, "before": before, "curve": curve}


def _measure_honesty(true: NDArray[np.int64], probabilities: NDArray[np.float64]) -> Record:
    return {
        "ece": metrics.expected_calibration_error(true, probabilities),
        "brier": metrics.brier_score(true, probabilities),
        "nll": metrics.negative_log_likelihood(true, probabilities),
        "curve": metrics.reliability_curve(true, probabilities),
    }


def _measure_grades(graded: Graded) -> list[Record]:
    counts, scores = graded.counts, graded.probabilities
    if scores is None:
        scores = np.full((len(graded.truth), NUM_GRADES), np.nan)
    columns: dict[str, Any] = {
        "precision": metrics.precision_of(counts),
        "recall": metrics.recall_of(counts),
        "specificity": metrics.specificity_of(counts),
        "f1": metrics.f1_of(counts),
        "auc": [metrics.auc(graded.truth == k, p) for k, p in enumerate(scores.T)],
    }
    return [
        {
            "grade": grade,
            "name": NAMES[grade],
            "support": int(counts[grade].sum()),
            **{name: metrics.as_plain(column[grade]) for name, column in columns.items()},
        }
        for grade in range(NUM_GRADES)
    ]


def _score_majority(graded: Graded | None) -> Record:
    """The best constant grade for these very images, as a baseline."""
    if graded is None:
        return dict(NO_BASELINES)
    constant = np.full_like(graded.truth, np.bincount(graded.truth).argmax())
    return NO_BASELINES | {"majority": score_pair(graded.truth, constant)}


def _measure_gradable(table: "pd.DataFrame", measure: Measure) -> Record | None:
    """How many images the quality gate refuses, and the figures of the others alone."""
    if "gradable" not in table:
        return None
    good = table["gradable"].astype(int) == 1
    refused = int((~good).sum())
    without = measure(table[good]) if 0 < refused < len(table) else None
    return {"n": refused, "share": refused / len(table), "without": without}


def _measure_clean(
    table: "pd.DataFrame", leaking: frozenset[str] | None, measure: Measure
) -> Record | None:
    """The figures of the images that do not leak; None where nobody knows, or none does leak, so
    that the headline figures are these."""
    if not leaking:
        return None
    clean = table[~table["path"].isin(leaking)]
    return measure(clean) if len(clean) else {"n": 0, "patients": None}


def _measure_by(by: str, table: "pd.DataFrame", measure: Measure) -> Record:
    """The figures of each value of a column; a column of many numbers is cut into quarters."""
    import pandas as pd

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
        {"value": None if pd.isna(value) else str(value), **measure(part)}
        for value, part in table.groupby(column, dropna=False, observed=True)
    ]
    return {"column": by, "groups": groups}


def _measure_part(table: "pd.DataFrame", point: OperatingPoint | None, scoring: Scoring) -> Record:
    sample = Sample.from_table(table, point)
    found = _measure(sample, _replicate(sample, scoring))
    return {"n": len(table), "patients": sample.patients, **found}


def _find_doubts(record: Record, sample: Sample, point: OperatingPoint | None) -> list[str]:
    found = []
    if sample.patients is None:
        found.append(
            "no patient is known: intervals take each image for a patient of its own, and are "
            "too narrow where there are two eyes of one"
        )
    elif sample.unknown:
        found.append(f"{sample.unknown:,} images have no patient: each counts as one of its own")
    if sample.units < FEW:
        found.append(f"{sample.units} {sample.kind}s are few: intervals are rough")
    if point is None:
        found.append(
            "no threshold was chosen on validation images: sensitivity and specificity are at 0.5"
        )
    elif point.data not in (None, record["data"]):
        found.append(
            f"the threshold was chosen on other data ({point.data}): sensitivity and "
            "specificity seldom keep their balance when it travels"
        )
    if graded := sample.graded:
        absent = [str(k) for k, n in enumerate(record["grade_counts"]) if n == 0]
        if absent:
            found.append(f"no image of grade {', '.join(absent)}: figures are without it")
        if len(np.unique(graded.said)) == 1 and len(np.unique(graded.truth)) > 1:
            found.append(f"every image was called grade {graded.said[0]}")
        elif record["qwk"]["ci95"] and record["qwk"]["ci95"][0] <= 0:
            found.append(f"QWK {record['qwk']['value']:.3f} is not told apart from guessing (0)")
    told = doubt_leaks(record)
    return [*found, told] if told else found
