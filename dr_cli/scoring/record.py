"""Predictions -> the record that `dr eval` prints, `summary.json` holds and the report draws."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dr_cli.grades import GIVEN, Calibration, OperatingPoint
from dr_cli.scoring import (
    flips,
    headline,
    honesty,
    influence,
    intervals,
    metrics,
    per_grade,
    screening,
    subgroups,
)
from dr_cli.scoring.baselines import NO_BASELINES, Pair, find_copies, score_pair
from dr_cli.scoring.doubts import find_doubts
from dr_cli.scoring.flow import Flow
from dr_cli.scoring.headline import Replicates
from dr_cli.scoring.intervals import UNDEFINED
from dr_cli.scoring.metrics import FIGURES
from dr_cli.scoring.predictions import TARGETS, Graded, Sample, Target, check, find_threshold

if TYPE_CHECKING:
    import pandas as pd

NOT_CHOSEN = "0.5, as nothing was chosen on validation"
FROM_GRADE = "the predicted grade, as no probability is known"
UNKNOWN = Calibration(temperature=None)  # of predictions that nobody says more of

Record = dict[str, Any]
Measure = Callable[["pd.DataFrame"], Record]


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
    copies: "pd.DataFrame | None" = None
    """As `predict_baselines` gives them: what the baselines say of each image, so that the network
    is set against them patient by patient."""
    leaks: Mapping[str, int | None] | None = None
    """As `count_leaks` gives them."""
    leaking: frozenset[str] | None = None
    """Paths of the images that leak in any way; None where that is not known."""
    seen: Mapping[str, Any] | None = None
    """What the run has seen of other data, see README; None on its own."""
    folded: bool = False
    """Whether the table's column `fold` names the network of a cross-validation that saw neither
    the image nor its patient."""
    decisions: "Mapping[str, pd.DataFrame] | None" = None
    """The same table as each of `grades.DECISIONS` would decide it; those that can be chosen."""
    seeds: "Mapping[int, tuple[pd.DataFrame, Calibration]] | None" = None
    """Of a run of several seeds each one's own predictions of these images, by seed."""
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
    copies = {} if context.copies is None else find_copies(context.copies, predictions["path"])
    found = _replicate(sample, scoring, _prepare_further(sample))
    drawn = scoring.bootstrap > 0
    rates = per_grade.measure_rates(sample, found["confusion"]) if graded else {}
    measure = partial(_measure_part, point=point, scoring=scoring)
    draws = scoring.bootstrap, scoring.seed
    record: Record = {
        "run": context.run,
        "data": context.data,
        "split": context.split,
        "n": len(predictions),
        "patients": sample.patients,
        "failed": context.failed,
        "grade_counts": graded and graded.counts.sum(axis=1).tolist(),
        **headline.measure(sample, found),
        "calibration": honesty.judge_probabilities(sample, calibration, found),
        "per_grade": per_grade.measure_grades(graded, sample, rates) if graded else [],
        "confusion": graded and graded.counts.tolist(),
        "decision": calibration.decision if context.decisions else None,
        "decisions": _tell_decisions(context.decisions),
        "baselines": _tell_baselines(
            context.baselines or _score_majority(graded), sample, copies, drawn
        ),
        "leaks": None if context.leaks is None else dict(context.leaks),
        "without_leaks": _measure_clean(predictions, context.leaking, measure),
        "seen": None if context.seen is None else dict(context.seen),
        "flow": context.flow,
        "per_patient": _measure_patients(sample, scoring),
        "ungradable": _measure_gradable(predictions, measure),
        "subgroups": scoring.by and subgroups.measure_by(scoring.by, predictions, point, *draws),
        "folds": subgroups.measure_folds(predictions, point) if context.folded else None,
        "seeds": context.seeds and subgroups.measure_seeds(context.seeds),
        "bootstrap": {"replicates": scoring.bootstrap, "seed": scoring.seed, "unit": sample.kind},
    }
    for name in TARGETS:
        further = _screen(name, sample, found, scoring)
        target = sample.targets.get(name)
        record[name] = _add_threshold(name, record[name], target, point) | further
    record["warnings"] = [*context.warnings, *find_doubts(record, sample, point)]
    return record


# --- the parts of the record


def _replicate(
    sample: Sample, scoring: Scoring, further: Mapping[str, metrics.Statistic] | None = None
) -> Replicates:
    """What headline figures rest on, and more, of the images as they are and of each replicate."""
    statistics = headline.prepare(sample) | dict(further or {})
    return intervals.measure(statistics, sample.units, scoring.bootstrap, scoring.seed)


def _prepare_further(sample: Sample) -> dict[str, metrics.Statistic]:
    """Of the record's own images alone: what ECE rests on."""
    told = honesty.find_probabilities(sample)
    return {"gaps": honesty.sum_gaps(*told, sample.unit, sample.units)} if told else {}


def _screen(name: str, sample: Sample, found: Replicates, scoring: Scoring) -> Record:
    """What a screening programme asks of a target besides; null where it cannot be told."""
    target = sample.targets.get(name)
    if target is None:
        return screening.UNTOLD
    told = screening.measure_alarm(sample, target, found[name], scoring.prevalences)
    if target.score is None:
        return screening.UNTOLD | told
    drawn = scoring.bootstrap > 0
    judged = screening.judge_probability(sample, target.truth, target.score, drawn)
    curve = screening.draw_decision_curve(target.truth, target.score)
    return {**told, "calibration": judged, "decision_curve": curve}


def _measure_patients(sample: Sample, scoring: Scoring) -> Record | None:
    """The figures of each patient's worst eye; None where no patient is known."""
    worst = sample.by_patient()
    if worst is None:
        return None
    found = _replicate(worst, scoring)
    images = len(sample.unit) - sample.unknown
    return {"n": worst.units, "images": images, **headline.measure(worst, found)}


def _add_threshold(
    name: str, figures: Record, target: Target | None, point: OperatingPoint | None
) -> Record:
    """The figures of a target, and the threshold they hold at: in the contract's order."""
    chosen = find_threshold(point, name)
    threshold: float | None
    source: str | None
    if target is not None and target.score is None:
        threshold, source = None, FROM_GRADE
    elif point is None or chosen is None:
        threshold, source = 0.5, NOT_CHOSEN
    else:
        threshold, source = chosen.value, GIVEN if chosen.rule == GIVEN else point.source
    return {
        "auc": figures["auc"],
        "threshold": threshold,
        "sensitivity": figures["sensitivity"],
        "specificity": figures["specificity"],
        "threshold_from": source,
        "rule": chosen.rule if chosen else None,
    }


def _tell_decisions(decisions: "Mapping[str, pd.DataFrame] | None") -> Record | None:
    """QWK and accuracy of each way to decide; None where the run chose none."""
    if not decisions:
        return None
    told: Record = {}
    for name, table in decisions.items():
        counts = metrics.confusion_counts(table["grade"], table["predicted"])
        told[name] = {
            figure: metrics.as_plain(float(FIGURES[figure].of(counts)))  # type: ignore[misc]
            for figure in ("qwk", "accuracy")
        }
    return told


def _score_majority(graded: Graded | None) -> Record:
    """The best constant grade for these very images, as a baseline."""
    if graded is None:
        return dict(NO_BASELINES)
    constant = np.full_like(graded.truth, np.bincount(graded.truth).argmax())
    return NO_BASELINES | {"majority": score_pair(graded.truth, constant)}


def _tell_baselines(
    baselines: Mapping[str, Pair | None],
    sample: Sample,
    copies: Mapping[str, NDArray[np.int64]],
    drawn: bool,
) -> Record:
    """Each with `difference`: the network less the baseline on the same patients, in accuracy and
    QWK; None where nobody knows what the baseline says of each image."""
    told: Record = {}
    for name, pair in baselines.items():
        difference = None
        if sample.graded and name in copies:
            copied = Graded(sample.graded.truth, copies[name], None)
            difference = {
                figure: _subtract(FIGURES[figure], sample.graded, copied, sample.unit, drawn)
                for figure in ("accuracy", "qwk")
            }
        told[name] = pair and {**pair, "difference": difference}
    return told


def _subtract(
    figure: metrics.Figure, ours: Graded, theirs: Graded, unit: NDArray[np.int64], drawn: bool
) -> Record:
    assert figure.of
    value = float(figure.of(ours.counts) - figure.of(theirs.counts))
    if np.isnan(value):
        return dict(UNDEFINED)
    if not drawn:
        return {"value": value, "ci95": None}
    moved = [influence.of_counts(figure.of, a.truth, a.said, a.kinds, unit) for a in (ours, theirs)]
    return {"value": value, "ci95": flips.interval(value / len(moved[0]) + moved[0] - moved[1])}


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


def _measure_part(table: "pd.DataFrame", point: OperatingPoint | None, scoring: Scoring) -> Record:
    sample = Sample.from_table(table, point)
    found = _replicate(sample, scoring)
    return {"n": len(table), "patients": sample.patients, **headline.measure(sample, found)}
