"""A yes-no question as a screening programme asks it: alarms counted, what an alarm means to the
person who gets one, whether the probability itself can be believed, and what acting on it gains.

Rates are functions of 2×2 counts [..., 2, 2] (rows true no/yes, columns called no/yes), so the
value and its bootstrap replicates are the same code. Undefined is NaN, in a record None.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit  # type: ignore[import-untyped]

from dr_cli.errors import UsageError
from dr_cli.scoring import influence, intervals, metrics
from dr_cli.scoring.intervals import UNDEFINED
from dr_cli.scoring.metrics import BINS, LEAST, Floats, divide
from dr_cli.scoring.predictions import Sample, Target

PREVALENCES = (0.05, 0.1, 0.2)  # predictive values are told at, unless others are asked for
THRESHOLDS = np.arange(2, 100, 2) / 100  # of the decision curve
MOST_STEPS = 50  # of Newton: a fit that has not come to rest by then never does
FEWEST = 5  # patients of either class, for an interval of slope and intercept
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
    precision, ratios = metrics.precision_of(found), likelihood_ratios_of(found[0])
    false, missed = _bound_ratios(sample, target, found)
    plus = false and [1 / false[1], 1 / false[0] if false[0] else np.inf]
    (tn, fp), (fn, tp) = found[0].astype(int).tolist()
    return {
        "prevalence": float(target.truth.mean()),
        "counts": {"tp": tp, "fp": fp, "fn": fn, "tn": tn},
        "ppv": sample.bound_share(precision[:, 1], target.said),
        "npv": sample.bound_share(precision[:, 0], ~target.said),
        "likelihood_ratio_positive": _tell(ratios[0], plus),
        "likelihood_ratio_negative": _tell(ratios[1], missed),
        "at_prevalence": [_tell_at(found[0], false, missed, at) for at in prevalences],
    }


def _bound_ratios(
    sample: Sample, target: Target, found: Floats
) -> tuple[list[float] | None, list[float] | None]:
    """The intervals of (1 - specificity) / sensitivity, which is 0 where nobody was called wrongly,
    and of (1 - sensitivity) / specificity; None where they are undefined."""
    truth, pair = target.truth, []
    for rate, images in ((sensitivity_of(found), truth), (specificity_of(found), ~truth)):
        told = sample.bound_share(rate, images)
        if told["ci95"] is None:
            return None, None
        low, high = told["ci95"]
        pair.append((told["value"], [low, high], 1 - told["value"], [1 - high, 1 - low]))
    (hit, hits, miss, misses), (pass_, passes, alarm, alarms) = pair
    false = intervals.ratio_interval(alarm, alarms, hit, hits) if hit else None
    missed = intervals.ratio_interval(miss, misses, pass_, passes) if pass_ else None
    return false, missed


def _tell_at(
    counts: Floats, false: list[float] | None, missed: list[float] | None, prevalence: float
) -> Record:
    """Both predictive values, which fall as the ratios of `_bound_ratios` rise."""
    ppv, npv = predict_at(counts, prevalence)
    odds = prevalence / (1 - prevalence)
    return {
        "prevalence": prevalence,
        "ppv": _tell(ppv, false and [odds / (odds + ratio) for ratio in reversed(false)]),
        "npv": _tell(npv, missed and [1 / (1 + odds * ratio) for ratio in reversed(missed)]),
    }


def _tell(value: Floats | float, ci95: list[float] | None) -> Record:
    plain = metrics.as_plain(float(value))
    finite = plain is not None and ci95 is not None and np.isfinite(ci95).all()
    return {"value": plain, "ci95": ci95 if finite else None}


# --- its probability


def judge_probability(
    sample: Sample, truth: NDArray[np.bool_], score: Floats, drawn: bool
) -> Record:
    """Whether P(yes) can be taken at its word (Van Calster et al., BMC Medicine 2019, 17:230).

    - `slope`: of logit P in a logistic regression of the truth on it; 1 is right, below 1 the
      probabilities are too extreme. `intercept`: with the slope held at 1; 0 is right, below 0
      they are too high (Cox, Biometrika 1958, 45:562-565). There is no interval where fewer than
      `FEWEST` patients have either class.
    - `observed_expected`: diseased images for each that the probabilities promise.
    - `ece`, `curve`: as for the likeliest grade, of P itself in `BINS` equal parts.

    truth, score [N]; drawn: whether intervals are asked for.
    """
    unit = sample.unit
    rarer = min(sample.units_with(truth), sample.units_with(~truth))
    x, ones = logit(np.clip(score, LEAST, 1 - LEAST)), np.ones_like(score)
    curve = draw_curve(truth, score)
    gaps = sum(b["n"] * abs(b["predicted"] - b["observed"]) for b in curve if b["n"])
    found, promised = (np.bincount(unit, column) for column in (truth, score))
    observed = float(divide(found.sum(), promised.sum()))
    record: Record = {
        "slope": _fit(np.stack([x, ones], axis=1), 0 * x, truth, unit),
        "intercept": _fit(ones[:, None], x, truth, unit),
        "observed_expected": _tell(
            observed,
            intervals.bound_smooth(observed, influence.of_ratio(found, promised), intervals.LOG),
        ),
        "ece": metrics.as_plain(float(divide(gaps, len(x)))),
        "curve": curve,
    }
    for name in ("slope", "intercept", "observed_expected"):
        if not drawn or (rarer < FEWEST and name != "observed_expected"):
            record[name]["ci95"] = None
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
            moved = _leave_out(x, truth - p, p * (1 - p), unit)
            return {"value": float(beta[0]), "ci95": intervals.bound_smooth(beta[0], moved)}
    return dict(UNDEFINED)


def _leave_out(
    x: Floats, left: Floats, weight: Floats, unit: NDArray[np.int64]
) -> NDArray[np.float64]:
    """How each patient moves the first coefficient: one step of Newton from the fit of all to that
    of the others (Pregibon, Annals of Statistics 1981, 9(4):705-724), [units].

    x [N, K], left [N] truth less probability, weight [N] p (1 - p), unit [N].
    """
    units, k = int(unit.max()) + 1, x.shape[1]
    slopes, bends = np.zeros((units, k)), np.zeros((units, k, k))
    np.add.at(slopes, unit, x * left[:, None])
    np.add.at(bends, unit, x[:, :, None] * x[:, None, :] * weight[:, None, None])
    others = bends.sum(axis=0) - bends
    if np.linalg.cond(others).max() > WORST_CONDITION:
        return np.full(units, np.nan)
    return influence.scale(np.linalg.solve(others, slopes[:, :, None])[:, 0, 0])


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
