"""Predictions -> the record that `dr eval` prints, `summary.json` holds and the report draws."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dr_cli import words
from dr_cli.errors import UnmetError, UsageError
from dr_cli.grades import GIVEN, Calibration, OperatingPoint
from dr_cli.scoring import headline, honesty, intervals, metrics, per_grade, screening, subgroups
from dr_cli.scoring.baselines import NO_BASELINES, Pair, find_copies, score_pair
from dr_cli.scoring.calibration import retemper, tell_temperature
from dr_cli.scoring.comparison import TESTS
from dr_cli.scoring.flow import Flow
from dr_cli.scoring.headline import Replicates
from dr_cli.scoring.intervals import UNDEFINED
from dr_cli.scoring.metrics import FIGURES
from dr_cli.scoring.predictions import TARGETS, Graded, Sample, Target, check, find_threshold

if TYPE_CHECKING:
    import pandas as pd

FEW = 30  # with 15 patients the interval of QWK held the truth in 91% of drawn sets, not in 95%
NOT_CHOSEN = "0.5, as nothing was chosen on validation"
FROM_GRADE = "the predicted grade, as no probability is known"
UNKNOWN = Calibration(temperature=None)  # of predictions that nobody says more of

_BRIEF = ("accuracy", "qwk", "referable")  # of the images that do not leak

Record = dict[str, Any]
APART = (*TARGETS, "per_patient")  # of which a record tells more than a list of figures holds
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
    found = _replicate(sample, scoring, _prepare_further(sample, copies))
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
        "calibration": _judge_probabilities(sample, calibration.temperature, found),
        "per_grade": per_grade.measure_grades(graded, sample, rates) if graded else [],
        "confusion": graded and graded.counts.tolist(),
        "baselines": _tell_baselines(context.baselines or _score_majority(graded), sample, found),
        "leaks": None if context.leaks is None else dict(context.leaks),
        "without_leaks": _measure_clean(predictions, context.leaking, measure),
        "seen": None if context.seen is None else dict(context.seen),
        "flow": context.flow,
        "per_patient": _measure_patients(sample, scoring),
        "ungradable": _measure_gradable(predictions, measure),
        "subgroups": scoring.by and subgroups.measure_by(scoring.by, predictions, point, *draws),
        "folds": subgroups.measure_folds(predictions, point) if context.folded else None,
        "bootstrap": {"replicates": scoring.bootstrap, "seed": scoring.seed, "unit": sample.kind},
    }
    for name in TARGETS:
        further = _screen(name, sample, found, scoring)
        target = sample.targets.get(name)
        record[name] = _add_threshold(name, record[name], target, point) | further
    record["warnings"] = [*context.warnings, *_find_doubts(record, sample, point)]
    return record


def doubt_leaks(record: Mapping[str, Any]) -> str | None:
    """What must be said of a run on a split that leaks fellow eyes, in one sentence, or None."""
    fellow = (record["baselines"] or {}).get("fellow_eye")
    leaking = (record.get("leaks") or {}).get("fellow_eye_in_train") or 0
    if not fellow or not leaking or fellow["qwk"] is None or record["qwk"]["value"] is None:
        return None
    qwk = record["qwk"]["value"]
    difference = (fellow.get("difference") or {}).get("qwk") or UNDEFINED
    interval = difference["ci95"]
    if qwk > fellow["qwk"] and (interval is None or interval[0] > 0):
        return None
    told = "does not beat" if qwk <= fellow["qwk"] else "is not clearly above"
    apart = f" (difference {words.signed_figure(difference)})" if interval else ""
    return (
        f"QWK {qwk:.3f} {told} the {fellow['qwk']:.3f} of copying the other eye's grade without "
        f"a look at the image{apart}: {leaking:,} of these {record['n']:,} images have their "
        "fellow eye in train or val, so split by patient before you trust any of these figures"
    )


def flatten(record: Mapping[str, Any]) -> list[Row]:
    """Every figure of a record: `FIGURES`, those before temperature, of the gradable images, of
    those that do not leak, the baselines, of each group (`by.camera=A.qwk`) and comparison
    (`against.NAME.qwk`, with `.p`)."""
    top = dict.fromkeys(name.partition(".")[0] for name in FIGURES)
    calibration, refused = record["calibration"], record["ungradable"] or {}
    without, errors = refused.get("without"), calibration.get("ci95") or {}
    found = [
        *_rows("", {name: record[name] for name in top}),
        *(row for name in TARGETS for row in _screening_rows(name, record[name])),
        *_plain("per_patient", record["per_patient"] or {}, "n"),
        *_rows("per_patient", record["per_patient"] or {}),
        *((f"calibration.{e}", calibration[e], errors.get(e)) for e in honesty.ERRORS),
        *_plain("calibration.before", calibration["before"] or {}, "ece", "brier", "nll"),
        *_plain("ungradable", refused, "share"),
        *_rows("ungradable.without", {k: without[k] for k in ("accuracy", "qwk") if without}),
    ]
    clean = record.get("without_leaks") or {}
    found += _plain("without_leaks", clean, "n")
    found += _rows("without_leaks", {k: clean[k] for k in _BRIEF if k in clean})
    for name, pair in record["baselines"].items():
        found += _plain(f"baseline.{name}", pair or {}, "accuracy", "qwk")
        found += _rows(f"baseline.{name}.less", (pair or {}).get("difference") or {})
    by = record["subgroups"] or {"groups": []}
    for group in by["groups"]:
        value = "not known" if group["value"] is None else group["value"]
        where = f"by.{by['column']}={value}"
        found += [*_plain(where, group, "n"), *_rows(where, group)]
    for name, spread in ((record.get("folds") or {}).get("sd") or {}).items():
        found.append((f"folds.mean.{name}", record["folds"]["mean"][name], None))
        found.append((f"folds.sd.{name}", spread, None))
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


def _replicate(
    sample: Sample, scoring: Scoring, further: Mapping[str, metrics.Statistic] | None = None
) -> Replicates:
    """What headline figures rest on, and more, of the images as they are and of each replicate."""
    statistics = headline.prepare(sample) | dict(further or {})
    return intervals.measure(statistics, sample.units, scoring.bootstrap, scoring.seed)


def _prepare_further(
    sample: Sample, copies: Mapping[str, NDArray[np.int64]]
) -> dict[str, metrics.Statistic]:
    """Of the record's own images alone: errors of the probabilities, and what baselines say."""
    further = {}
    if told := _find_probabilities(sample):
        further["errors"] = honesty.sum_errors(*told, sample.unit, sample.units)
    if sample.graded:
        for name, said in copies.items():
            copied = Graded(sample.graded.truth, said, sample.graded.probabilities)
            further[f"baseline.{name}"] = copied.count_by(sample.unit)
    return further


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


def _find_probabilities(sample: Sample) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """The five, and the grades, or, where they are not known, of referable or not: [N], [N, K].
    None where only the answers are."""
    target = sample.targets["referable"]
    if sample.graded and sample.graded.probabilities is not None:
        return sample.graded.truth, sample.graded.probabilities
    if target.score is None:
        return None
    return target.truth.astype(np.int64), np.stack([1 - target.score, target.score], axis=1)


def _judge_probabilities(sample: Sample, temperature: float | None, found: Replicates) -> Record:
    told = _find_probabilities(sample)
    if told is None:
        names = ("ece", "brier", "nll", "temperature", "temperature_note", "before")
        nothing = dict.fromkeys(names)
        return {**nothing, "curve": [], "ci95": dict.fromkeys(honesty.ERRORS)}
    true, probabilities = told
    before = temperature and _measure_honesty(true, retemper(probabilities, temperature))
    after = _measure_honesty(true, probabilities)
    curve = after.pop("curve")
    return {
        **after,
        "temperature": temperature,
        "temperature_note": tell_temperature(temperature),
        "before": before,
        "curve": curve,
        "ci95": honesty.bound_errors(found["errors"]),
    }


def _measure_honesty(true: NDArray[np.int64], probabilities: NDArray[np.float64]) -> Record:
    return {
        "ece": metrics.expected_calibration_error(true, probabilities),
        "brier": metrics.brier_score(true, probabilities),
        "nll": metrics.negative_log_likelihood(true, probabilities),
        "curve": metrics.reliability_curve(true, probabilities),
    }


def _score_majority(graded: Graded | None) -> Record:
    """The best constant grade for these very images, as a baseline."""
    if graded is None:
        return dict(NO_BASELINES)
    constant = np.full_like(graded.truth, np.bincount(graded.truth).argmax())
    return NO_BASELINES | {"majority": score_pair(graded.truth, constant)}


def _tell_baselines(
    baselines: Mapping[str, Pair | None], sample: Sample, found: Replicates
) -> Record:
    """Each with `difference`: the network less the baseline on the same patients, in accuracy and
    QWK; None where nobody knows what the baseline says of each image."""
    told: Record = {}
    for name, pair in baselines.items():
        difference = None
        if f"baseline.{name}" in found:
            difference = {
                figure: _subtract(
                    FIGURES[figure], found["confusion"], found[f"baseline.{name}"], sample
                )
                for figure in ("accuracy", "qwk")
            }
        told[name] = pair and {**pair, "difference": difference}
    return told


def _subtract(
    figure: metrics.Figure, ours: NDArray[Any], theirs: NDArray[Any], sample: Sample
) -> Record:
    assert figure.of
    found = figure.of(ours) - figure.of(theirs)
    value = float(found[0])
    if np.isnan(value):
        return dict(UNDEFINED)
    drawn = found[1:]
    return {"value": value, "ci95": intervals.difference_interval(drawn, value, sample.units)}


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
    elif rare := per_grade.find_rare(sample):
        found.append(
            f"few patients: {', '.join(rare)}; with fewer than {per_grade.FEW} what rests on them "
            "is rough: rates of that grade, balanced accuracy, macro F1"
        )
    if record["subgroups"] and (small := subgroups.doubt_groups(record["subgroups"])):
        found.append(small)
    if sample.targets["referable"].score is None:
        found.append("no probability is known: no AUC, no calibration, no threshold to choose")
    elif point is None:
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
    found += _doubt_temperature(record["calibration"])
    told = doubt_leaks(record)
    return [*found, told] if told else found


def _doubt_temperature(judged: Record) -> list[str]:
    """What is wrong with a temperature: the end of its range, or worse with it than without."""
    temperature, before = judged["temperature"], judged["before"]
    if not before or temperature == 1:
        return []
    found = [f"temperature {note}" for note in [judged["temperature_note"]] if note]
    worse = [name for name in ("ece", "nll") if judged[name] > before[name]]
    if worse:
        pairs = (f"{name.upper()} {before[name]:.3f} to {judged[name]:.3f}" for name in worse)
        told = ", ".join(pairs)
        found.append(
            f"temperature {temperature:.3g}, fitted on validation, makes the probabilities of "
            f"these images worse: {told}"
        )
    return found
