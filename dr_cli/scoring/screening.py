"""A yes-no question as a screening programme asks it: alarms counted, what an alarm means to the
person who gets one, whether the probability itself can be believed, and what acting on it gains.

Rates are functions of 2×2 counts [..., 2, 2] (rows true no/yes, columns called no/yes), so the
value and its bootstrap replicates are the same code. Undefined is NaN, in a record None.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, stdtrit  # type: ignore[import-untyped]

from dr_cli.errors import UsageError
from dr_cli.scoring import intervals, metrics, per_grade
from dr_cli.scoring.intervals import UNDEFINED
from dr_cli.scoring.metrics import BINS, LEAST, Floats, Statistic, divide
from dr_cli.scoring.predictions import Sample, Target

PREVALENCES = (0.05, 0.1, 0.2)  # predictive values are told at, unless others are asked for
THRESHOLDS = np.arange(2, 100, 2) / 100  # of the decision curve
MOST_STEPS = 50  # of Newton: a fit that has not come to rest by then never does
WORST_CONDITION = 1e12  # of the likelihood's curvature; beyond it there is no maximum

Record = dict[str, Any]
RATES = ("ppv", "npv", "likelihood_ratio_positive", "likelihood_ratio_negative")
UNTOLD: Record = {  # of a target that the table says nothing of, as `measure_alarm` has it
    **dict.fromkeys(("prevalence", "counts", "calibration", "decision_curve")),
    **dict.fromkeys(RATES, UNDEFINED),
    "at_prevalence": [],
}


def check_prevalences(prevalences: Sequence[float]) -> None:
    """Raises UsageError unless each is a share of people in ]0, 1[."""
    for prevalence in prevalences:
        if not 0 < prevalence < 1:
            raise UsageError(f"prevalence {prevalence:g} is no share between 0 and 1: say 0.05")


# --- rates of 2×2 counts: [..., 2, 2] -> [...]


def sensitivity_of(counts: NDArray[Any]) -> Floats:
    """Share of the diseased who are called so."""
    return metrics.recall_of(counts)[..., 1]


def specificity_of(counts: NDArray[Any]) -> Floats:
    """Share of the healthy who are called so."""
    return metrics.recall_of(counts)[..., 0]


def predict_at(counts: NDArray[Any], prevalence: float) -> tuple[Floats, Floats]:
    """Positive and negative predictive value where `prevalence` of the people are diseased.

    Bayes' rule on sensitivity and specificity (Altman & Bland, BMJ 1994, 309:102): as true as it
    is that these two are the same there.
    """
    hit, pass_ = sensitivity_of(counts) * prevalence, specificity_of(counts) * (1 - prevalence)
    false, missed = 1 - prevalence - pass_, prevalence - hit
    return divide(hit, hit + false), divide(pass_, pass_ + missed)


def likelihood_ratios_of(counts: NDArray[Any]) -> tuple[Floats, Floats]:
    """sensitivity / (1 - specificity) and (1 - sensitivity) / specificity (Deeks & Altman, BMJ
    2004, 329:168-169): what an alarm, or none, multiplies the odds of disease by. NaN where
    nobody was called wrongly, or nobody rightly."""
    sensitivity, specificity = sensitivity_of(counts), specificity_of(counts)
    return divide(sensitivity, 1 - specificity), divide(1 - sensitivity, specificity)


# --- the alarm


def measure_alarm(
    sample: Sample, target: Target, found: Floats, prevalences: Sequence[float]
) -> Record:
    """What stands beside sensitivity and specificity: counts, prevalence, predictive values,
    likelihood ratios.

    found: 2×2 counts of the images, then of each replicate, [1 + B, 2, 2].
    """
    positives, negatives = sample.units_with(target.truth), sample.units_with(~target.truth)
    rarer, (plus, minus) = min(positives, negatives), likelihood_ratios_of(found)
    precision = metrics.precision_of(found)
    (tn, fp), (fn, tp) = found[0].astype(int).tolist()
    called = [sample.units_with(target.said), sample.units_with(~target.said)]
    return {
        "prevalence": float(target.truth.mean()),
        "counts": {"tp": tp, "fp": fp, "fn": fn, "tn": tn},
        "ppv": intervals.bound(precision[:, 1], called[0], proportion=True),
        "npv": intervals.bound(precision[:, 0], called[1], proportion=True),
        "likelihood_ratio_positive": intervals.bound(plus, rarer),
        "likelihood_ratio_negative": intervals.bound(minus, rarer),
        "at_prevalence": [_tell_at(found, rarer, prevalence) for prevalence in prevalences],
    }


def _tell_at(found: Floats, units: int, prevalence: float) -> Record:
    ppv, npv = (intervals.bound(values, units) for values in predict_at(found, prevalence))
    return {"prevalence": prevalence, "ppv": ppv, "npv": npv}


# --- its probability


def sum_by(truth: NDArray[np.bool_], score: Floats, unit: NDArray[np.int64]) -> Statistic:
    """Diseased images and the sum of the probabilities, as a function of how often each unit was
    drawn: truth, score, unit [N]; weights [B, units] -> [B, 2]."""
    sums = np.stack([np.bincount(unit, column) for column in (truth, score)], axis=1)
    return lambda weights: weights @ sums


def judge_probability(
    sample: Sample, truth: NDArray[np.bool_], score: Floats, sums: Floats
) -> Record:
    """Whether P(yes) can be taken at its word (Van Calster et al., BMC Medicine 2019, 17:230).

    - `slope`: of logit P in a logistic regression of the truth on it; 1 is right, below 1 the
      probabilities are too extreme. `intercept`: with the slope held at 1; 0 is right, below 0
      they are too high (Cox, Biometrika 1958, 45:562-565). Their intervals are by the sandwich
      of patients (Liang & Zeger, Biometrika 1986, 73:13-22) and Student's t; there is none where
      fewer than `per_grade.FEW` patients have either class: of 30 patients that of the slope of
      sight-threatening DR held the truth in 79% of drawn sets
      (`examples/benchmarks/evaluation.py --coverage`).
    - `observed_expected`: diseased images for each that the probabilities promise.
    - `ece`, `curve`: as for the likeliest grade, of P itself in `BINS` equal parts.

    truth, score [N]; sums: as `sum_by` gives them, of the images, then of each replicate,
    [1 + B, 2].
    """
    rarer = min(sample.units_with(truth), sample.units_with(~truth))
    x, ones = logit(np.clip(score, LEAST, 1 - LEAST)), np.ones_like(score)
    curve = draw_curve(truth, score)
    gaps = sum(b["n"] * abs(b["predicted"] - b["observed"]) for b in curve if b["n"])
    record: Record = {
        "slope": _fit(np.stack([x, ones], axis=1), 0 * x, truth, sample.unit),
        "intercept": _fit(ones[:, None], x, truth, sample.unit),
        "observed_expected": intervals.bound(divide(sums[:, 0], sums[:, 1]), rarer),
        "ece": metrics.as_plain(float(divide(gaps, len(x)))),
        "curve": curve,
    }
    if len(sums) == 1 or rarer < per_grade.FEW:  # without replicates no intervals are asked for
        record["slope"]["ci95"] = record["intercept"]["ci95"] = None
    return record


def draw_curve(truth: NDArray[np.bool_], score: Floats) -> list[Record]:
    """For each of `BINS` equal intervals (low, high] of P: {"low", "high", "n", "predicted",
    "observed"}, the mean probability and the share of diseased; None in an empty interval."""
    place = np.clip(np.ceil(score * BINS).astype(np.int64) - 1, 0, BINS - 1)
    n = np.bincount(place, minlength=BINS)
    predicted, observed = (divide(np.bincount(place, c, BINS), n) for c in (score, truth))
    return [
        {"low": i / BINS, "high": (i + 1) / BINS, "n": int(n[i]),
         "predicted": metrics.as_plain(predicted[i]), "observed": metrics.as_plain(observed[i])}
        for i in range(BINS)
    ]  # fmt: skip


def _fit(x: Floats, offset: Floats, truth: NDArray[np.bool_], unit: NDArray[np.int64]) -> Record:
    """The first coefficient of a logistic regression, by Newton's method, with its interval.

    x [N, K], offset [N], truth [N], unit [N]. Undefined where the likelihood has no maximum: one
    class alone, scores that are all the same or that separate the classes.
    """
    beta = np.zeros(x.shape[1])
    if truth.all() or not truth.any():
        return dict(UNDEFINED)
    for _ in range(MOST_STEPS):
        p = expit(x @ beta + offset)
        bend = (x * (p * (1 - p))[:, None]).T @ x
        if np.linalg.cond(bend) > WORST_CONDITION:
            break
        step = np.linalg.solve(bend, x.T @ (truth - p))
        longest = np.abs(step).max()
        beta = beta + step / max(1.0, longest)  # a long step overshoots, and never comes back
        if longest < 1e-10:
            steps = x * (truth - p)[:, None]
            return {"value": float(beta[0]), "ci95": _bound(beta[0], steps, bend, unit)}
    return dict(UNDEFINED)


def _bound(
    value: float, slopes: Floats, bend: Floats, unit: NDArray[np.int64]
) -> list[float] | None:
    """Its interval from each image's slope [N, K] of the likelihood, summed by unit."""
    units = int(unit.max()) + 1
    if units < 2:
        return None
    each = np.stack([np.bincount(unit, column) for column in slopes.T], axis=1)
    inverse = np.linalg.inv(bend)
    variance = (inverse @ (each.T @ each) @ inverse)[0, 0] * units / (units - 1)
    reach = float(stdtrit(units - 1, 0.975) * np.sqrt(variance))
    return [float(value) - reach, float(value) + reach]


# --- what acting on it gains


def draw_decision_curve(truth: NDArray[np.bool_], score: Floats) -> Record:
    """Net benefit of referring whom the network puts at a threshold or above, of referring all,
    and of none: {"threshold": [49], "network": [49], "refer_all": [49], "refer_none": 0.0}.

    True alarms a person, less false ones times t / (1 - t), which is how many needless referrals
    someone who acts from probability t on puts up with for one diseased eye found (Vickers &
    Elkin, Medical Decision Making 2006, 26(6):565-574). truth, score [N].
    """
    n, odds = len(truth), THRESHOLDS / (1 - THRESHOLDS)
    diseased, healthy = np.sort(score[truth]), np.sort(score[~truth])
    true, false = (len(s) - np.searchsorted(s, THRESHOLDS) for s in (diseased, healthy))
    return {
        "threshold": THRESHOLDS.tolist(),
        "network": ((true - false * odds) / n).tolist(),
        "refer_all": ((len(diseased) - len(healthy) * odds) / n).tolist(),
        "refer_none": 0.0,
    }
