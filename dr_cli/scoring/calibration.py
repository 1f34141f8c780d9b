"""What a run chooses on its validation images: temperature, cuts between grades, thresholds."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dr_cli.errors import UsageError
from dr_cli.grades import (
    GIVEN,
    Calibration,
    OperatingPoint,
    Threshold,
    expected_grade,
    probability_from,
    softmax,
)
from dr_cli.scoring import metrics
from dr_cli.scoring.both_eyes import Pairs, join
from dr_cli.scoring.metrics import LEAST, Floats
from dr_cli.scoring.predictions import TARGETS, Sample

if TYPE_CHECKING:
    import pandas as pd

TEMPERATURE_RANGE = (0.25, 10.0)
RESAMPLES = 40
ONE_CLASS = "0.5, as the images to choose on are all of one class"
Merit = Callable[[NDArray[Any]], Floats]  # confusion counts [..., 5, 5] -> [...]
START_CUTS = (0.5, 1.5, 2.5, 3.5)  # rounding the expected grade


def calibrate(
    grade: ArrayLike,
    logits: NDArray[np.float32],
    decision: str = "argmax",
    unit: NDArray[np.int64] | None = None,
    pairs: Pairs | None = None,
) -> Calibration:
    """Temperature, decision and operating point, all from validation images.

    grade [N] in 0-4, logits [N, 5] of a network that was not trained on them; decision one of
    DECISIONS (see `choose_cuts`); unit [N]: whose image it is, in 0..units-1, by default each is of
    its own patient; pairs: of fellow eyes, which then hear each other. The operating point is
    Youden's. `Calibration()` without images: nothing was chosen.
    """
    if len(logits) == 0:
        return Calibration()
    temperature = support_temperature(grade, logits, unit)
    probabilities = Calibration(temperature=temperature).probabilities(logits)
    fellow = pairs.fit(np.asarray(grade, np.int64), probabilities) if pairs else None
    if pairs:
        probabilities = join(probabilities, pairs.fellow, fellow)
    point = choose_operating_point(grade, probabilities)
    chosen = Calibration(None, temperature, point, fellow=fellow)
    return choose_cuts(chosen, grade, probabilities, decision)


def choose_cuts(
    chosen: Calibration, grade: ArrayLike, probabilities: NDArray[Any], decision: str
) -> Calibration:
    """The calibration, deciding by another of DECISIONS, chosen on validation images.

    grade [N], probabilities [N, 5] as `chosen` gives them.
    """
    if decision == "argmax":
        return replace(chosen, cuts=None)
    cuts = fit_thresholds(grade, probabilities, decision)
    return replace(chosen, cuts=cuts, objective=decision)


# --- temperature


def fit_temperature(grade: ArrayLike, logits: NDArray[Any]) -> float:
    """The T that makes softmax(logits / T) likeliest (Guo et al., ICML 2017, arXiv 1706.04599).

    grade [N], logits [N, K] of images that were not trained on -> T in [0.25, 10]: a small
    validation set that is graded without a mistake would otherwise send T to 0. 1.0 without
    images. The likelihood has one maximum (it is concave in 1 / T).
    """
    from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]
    from scipy.special import log_softmax  # type: ignore[import-untyped]

    scores = np.asarray(logits, np.float64)
    if len(scores) == 0:
        return 1.0
    row, true = np.arange(len(scores)), np.asarray(grade)

    def loss(log_temperature: float) -> float:
        return -log_softmax(scores / np.exp(log_temperature), axis=1)[row, true].mean()

    found = minimize_scalar(
        loss, bounds=tuple(np.log(TEMPERATURE_RANGE)), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(found.x))


def support_temperature(
    grade: ArrayLike, logits: NDArray[Any], unit: NDArray[np.int64] | None = None
) -> float:
    """`fit_temperature` where images that it was not fitted on are better off with it, else 1.0.

    Fitted on 40 resamples of the patients (unit [N], in 0..units-1) and judged by the likelihood
    of the images of those who were not drawn. On drawn sets of 30, 66 and 150 images
    (`examples/benchmarks/evaluation.py --temperature --sets 60`) whose T of 1 was right, always
    fitting made unseen images less likely in 93%, 88% and 78% of sets, one half judged by the
    other in 30%, 35% and 32%, this in 3%, 13% and 10%. Where T should be 2 it raised their
    likelihood from 66 images on as much as always fitting did (within 0.005 nats); at 30 images
    less: by 0.072 nats, always fitting by 0.103.
    """
    scores, true = np.asarray(logits, np.float64), np.asarray(grade)
    unit = np.arange(len(true)) if unit is None else unit
    draw, gains = np.random.Generator(np.random.Philox(0)).integers, []
    for _ in range(RESAMPLES):
        drawn = np.bincount(draw(0, unit.max() + 1, unit.max() + 1), minlength=unit.max() + 1)
        rows, left = np.repeat(np.arange(len(true)), drawn[unit]), drawn[unit] == 0
        if left.any() and len(rows):
            tried = fit_temperature(true[rows], scores[rows])
            without, with_it = (_tell_loss(true[left], scores[left] / t) for t in (1, tried))
            gains.append(without - with_it)
    return fit_temperature(true, scores) if gains and np.mean(gains) > 0 else 1.0


def tell_temperature(temperature: float | None) -> str | None:
    """What must be said of a temperature that is not simply the likeliest one."""
    if temperature == 1:
        return "1, as validation images support no other"
    low, high = TEMPERATURE_RANGE
    if temperature and not low * 1.001 < temperature < high / 1.001:
        return (
            f"{temperature:.3g} is the end of the range that is looked in: validation is too small "
            "or too easy to say how sure the network should be"
        )
    return None


def _tell_loss(true: NDArray[Any], scores: Floats) -> float:
    """Mean negative log-likelihood of logits [N, K]."""
    from scipy.special import log_softmax

    return float(-log_softmax(scores, axis=1)[np.arange(len(true)), true].mean())


def retemper(probabilities: NDArray[Any], temperature: float) -> Floats:
    """softmax(temperature * ln p), [N, K] -> [N, K].

    With the T that was divided by, it gives the probabilities before T; with 1 / T, after it. A
    p of 0 is taken for `LEAST`, which it may have been.
    """
    p = np.asarray(probabilities, np.float64)
    p = np.where(p > 0, p, LEAST)
    return softmax(temperature * np.log(p))


# --- cuts on the expected grade


OBJECTIVES = {"qwk": metrics.quadratic_weighted_kappa_of, "accuracy": metrics.accuracy_of}


def fit_thresholds(
    grade: ArrayLike, probabilities: NDArray[Any], objective: str = "qwk"
) -> tuple[float, ...]:
    """Four rising cuts on the expected grade that raise one of OBJECTIVES, from validation images.

    grade [N], probabilities [N, 5] -> (t1, t2, t3, t4) for `Calibration`. Deterministic.

    From .5/1.5/2.5/3.5 each cut in turn goes where it is highest with the others held, until
    none moves; done on 50 resamples of the images and averaged (bagging, Breiman, Machine
    Learning 1996, 24:123-140), because one scan follows the noise of a small set. Measured by
    `examples/benchmarks/evaluation.py --cuts`: on drawn grades with 60 validation images the
    average scored higher on unseen ones than a single scan in six of six settings (by 0.003 to
    0.010), and higher than the start. The start is kept where the average does not beat
    it on the images given.
    """
    true, value = np.asarray(grade, np.int64), expected_grade(probabilities)
    start = np.array(START_CUTS)
    if len(true) == 0:
        return START_CUTS
    draw, merit = np.random.Generator(np.random.Philox(0)).integers, OBJECTIVES[objective]
    resamples = (draw(0, len(true), len(true)) for _ in range(50))
    cuts = np.mean([_climb(true[rows], value[rows], start, merit) for rows in resamples], axis=0)
    before, after = (
        merit(metrics.confusion_counts(true, np.digitize(value, tried))) for tried in (start, cuts)
    )
    return tuple(cuts.tolist()) if after > before else START_CUTS


def _climb(true: NDArray[np.int64], value: Floats, cuts: Floats, merit: Merit) -> Floats:
    """Coordinate ascent of a merit over the cuts; each step is exact, so it cannot fall."""
    order = np.argsort(value, kind="stable")
    true, value, cuts = true[order], value[order], cuts.copy()
    for _ in range(10):
        before = cuts.copy()
        for k in range(len(cuts)):
            cuts[k] = _best_cut(true, value, cuts, k, merit)
        if np.array_equal(before, cuts):
            break
    return cuts


def _best_cut(true: NDArray[np.int64], value: Floats, cuts: Floats, k: int, merit: Merit) -> float:
    """Where cut k does best between its neighbours; where it stands unless that is better."""
    low = np.searchsorted(value, cuts[k - 1]) if k > 0 else 0
    high = np.searchsorted(value, cuts[k + 1]) if k + 1 < len(cuts) else len(value)
    place = np.arange(low + 1, high)  # images low..place-1 become grade k, the rest k + 1
    place = place[value[place - 1] < value[place]]
    at = np.append((value[place - 1] + value[place]) / 2, cuts[k])
    place = np.append(place, np.searchsorted(value, cuts[k]))
    one_hot = np.eye(len(cuts) + 1, dtype=int)[true]
    before = np.vstack([np.zeros_like(one_hot[:1]), one_hot.cumsum(axis=0)])
    now = metrics.confusion_counts(true, np.digitize(value, cuts))
    counts = np.repeat(now[None], len(place), axis=0)  # [places, 5, 5]
    counts[..., k] = before[place] - before[low]
    counts[..., k + 1] = before[high] - before[place]
    reached = np.nan_to_num(merit(counts), nan=-np.inf)
    best = int(reached.argmax())
    return float(at[best] if reached[best] > reached[-1] + 1e-12 else cuts[k])


# --- operating point


def choose_operating_point(
    grade: ArrayLike, probabilities: NDArray[Any], rule: str = "youden"
) -> OperatingPoint:
    """The thresholds that `rule` picks on these images: on the probability of grade 2 or more
    for referable, of grade 3 or more for sight-threatening DR; see `choose_threshold`.

    grade [N], probabilities [N, 5].
    """
    true, p = np.asarray(grade), np.asarray(probabilities, np.float64)
    referable, sight_threatening = (
        choose_threshold(true >= first, probability_from(p, first), rule)
        for first in TARGETS.values()
    )
    return OperatingPoint(referable, sight_threatening)


def choose_on(table: "pd.DataFrame", source: str, rule: str | None = None) -> OperatingPoint:
    """`choose_operating_point` of a prediction table, also of one that tells referable alone.

    source: what the table is called. Raises UsageError where it has no probabilities.
    """
    targets = Sample.from_table(table).targets
    chosen = {
        name: choose_threshold(target.truth, target.score, rule or "youden")
        for name, target in targets.items()
        if target.score is not None
    }
    if not chosen:
        raise UsageError(f"{source} has no probability: there is nothing that a threshold cuts")
    return OperatingPoint(chosen["referable"], chosen.get("sight_threatening"), source)


def give_threshold(value: float, point: OperatingPoint | None) -> OperatingPoint:
    """The point with this threshold for referable, in place of what was chosen."""
    if not 0 <= value <= 1:
        raise UsageError(f"--threshold {value:g} is no probability: give one in [0, 1]")
    given = Threshold(value, GIVEN)
    return replace(point, referable=given) if point else OperatingPoint(given)


def choose_threshold(truth: ArrayLike, score: ArrayLike, rule: str = "youden") -> Threshold:
    """The cut on `score` (positive: score >= threshold) that `rule` picks.

    - `youden`: the largest sensitivity + specificity - 1 (Youden, Cancer 1950, 3(1):32-35);
      among equals the more sensitive one, as a screening tool should be.
    - `sensitivity=0.90`: of the cuts at least that sensitive the most specific one.
    - `specificity=0.95`: of the cuts at least that specific the most sensitive one.

    The cut lies midway between two scores, so that rounding in a file or another device's
    arithmetic does not move an image across it. With one class absent nothing can be chosen:
    0.5, said in its rule, and None for the rate of the absent class. UsageError for another rule.
    """
    kind, wanted = parse_rule(rule)
    truth, score = np.asarray(truth, bool), np.asarray(score, np.float64)
    cuts = np.unique(score)[::-1]  # falling: each next cut calls more images positive
    if truth.all() or not truth.any():
        return _state(0.5, ONE_CLASS, truth, score)
    positives, negatives = np.sort(score[truth]), np.sort(score[~truth])
    sensitivity = np.append(0, 1 - np.searchsorted(positives, cuts) / len(positives))
    specificity = np.append(1, np.searchsorted(negatives, cuts) / len(negatives))
    if kind == "youden":
        merit = sensitivity + specificity
        best = int(np.flatnonzero(merit >= merit.max() - 1e-12)[-1])
    elif kind == "sensitivity":
        best = int(np.argmax(sensitivity >= wanted - 1e-12))
    else:
        best = int(np.flatnonzero(specificity >= wanted - 1e-12)[-1])
    edges = np.concatenate([[np.nextafter(max(1.0, cuts[0]), np.inf)], cuts, [min(0.0, cuts[-1])]])
    threshold = (edges[best] + edges[best + 1]) / 2
    if threshold <= edges[best + 1]:  # neighbouring floats have no middle
        threshold = edges[best]
    return _state(float(threshold), rule, truth, score)


def parse_rule(rule: str) -> tuple[str, float]:
    """`youden` -> ("youden", 0), `sensitivity=0.9` -> ("sensitivity", 0.9); else UsageError."""
    kind, _, value = rule.partition("=")
    try:
        wanted = float(value) if value else 0.0
    except ValueError:
        wanted = -1.0
    if (kind == "youden" and not value) or (
        kind in ("sensitivity", "specificity") and 0 < wanted <= 1
    ):
        return kind, wanted
    raise UsageError(
        f"operating point {rule!r}: say youden, sensitivity=0.90 or specificity=0.95 "
        "(a share above 0, at most 1)"
    )


def _state(value: float, rule: str, truth: NDArray[np.bool_], score: Floats) -> Threshold:
    """A threshold with its rates on the images that it was chosen on."""
    positive = score >= value
    sensitivity = float(positive[truth].mean()) if truth.any() else None
    specificity = float(1 - positive[~truth].mean()) if not truth.all() else None
    return Threshold(value, rule, sensitivity, specificity)
