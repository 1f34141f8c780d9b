"""What is reported: how good grades are, how honest probabilities are, where to cut them.

Every figure that a confusion matrix decides is written once, as a function of counts
[..., K, K]: the value that is printed and its bootstrap replicates are the same code. The
area under the ROC curve likewise takes any number of weightings of the same images.

Undefined is NaN here (no image, one class only) and becomes null in `evaluation`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dr_cli.errors import UsageError
from dr_cli.grades import (
    NUM_GRADES,
    REFERABLE_FROM,
    SIGHT_THREATENING_FROM,
    OperatingPoint,
    Threshold,
    expected_grade,
    softmax,
)

Floats = NDArray[np.float64]

CALIBRATION_BINS = 15  # as in Guo et al. 2017
LEAST = 5e-7  # half the last digit of a stored probability
TEMPERATURE_RANGE = (0.25, 10.0)
ONE_CLASS = "0.5, as the images to choose on are all of one class"
START_CUTS = (0.5, 1.5, 2.5, 3.5)  # rounding the expected grade

# --- figures of a confusion matrix: counts [..., K, K], rows true, columns predicted -> [...]


def confusion_counts(
    grade: ArrayLike, predicted: ArrayLike, num_grades: int = NUM_GRADES
) -> NDArray[np.int64]:
    """[N] and [N] grades in 0..K-1 -> counts [K, K] int64, rows true, columns predicted."""
    cell = np.asarray(grade, np.int64) * num_grades + np.asarray(predicted, np.int64)
    return np.bincount(cell.ravel(), minlength=num_grades**2).reshape(num_grades, num_grades)


def accuracy_of(counts: NDArray[Any]) -> Floats:
    """Share of images whose predicted grade is the true one."""
    return _ratio(_hits(counts).sum(-1), counts.sum((-2, -1)))


def balanced_accuracy_of(counts: NDArray[Any]) -> Floats:
    """Mean recall over the grades that occur (scikit-learn's `balanced_accuracy_score`)."""
    return _mean_of_defined(recall_of(counts))


def macro_f1_of(counts: NDArray[Any]) -> Floats:
    """Mean F1 over the grades that occur or were predicted (scikit-learn's default)."""
    return _mean_of_defined(f1_of(counts))


def mean_absolute_error_of(counts: NDArray[Any]) -> Floats:
    """Mean distance between predicted and true grade, in grades."""
    return _ratio((counts * _distance(counts)).sum((-2, -1)), counts.sum((-2, -1)))


def quadratic_weighted_kappa_of(counts: NDArray[Any]) -> Floats:
    """Cohen's kappa with weights (i - j)^2 (Cohen, Psychological Bulletin 1968, 70(4):213-220).

    1 - observed / expected disagreement, the latter from the margins. 0 where truth or
    prediction is constant; NaN where both are the same constant.
    """
    weights = _distance(counts) ** 2
    chance = counts.sum(-1)[..., :, None] * counts.sum(-2)[..., None, :]
    observed = (counts * weights).sum((-2, -1)) * counts.sum((-2, -1))
    return 1 - _ratio(observed, (chance * weights).sum((-2, -1)))


FIGURES: Mapping[str, Callable[[NDArray[Any]], Floats]] = {
    "accuracy": accuracy_of,
    "balanced_accuracy": balanced_accuracy_of,
    "qwk": quadratic_weighted_kappa_of,
    "macro_f1": macro_f1_of,
    "mean_absolute_error": mean_absolute_error_of,
}


def recall_of(counts: NDArray[Any]) -> Floats:
    """Sensitivity a grade, [..., K, K] -> [..., K]; NaN for a grade without images."""
    return _ratio(_hits(counts), counts.sum(-1))


def precision_of(counts: NDArray[Any]) -> Floats:
    """Positive predictive value a grade, [..., K, K] -> [..., K]; NaN where never predicted."""
    return _ratio(_hits(counts), counts.sum(-2))


def specificity_of(counts: NDArray[Any]) -> Floats:
    """Share of the other grades' images not called this grade, [..., K, K] -> [..., K]."""
    others = counts.sum((-2, -1))[..., None] - counts.sum(-1)
    return _ratio(others - (counts.sum(-2) - _hits(counts)), others)


def f1_of(counts: NDArray[Any]) -> Floats:
    """Harmonic mean of precision and recall, [..., K, K] -> [..., K].

    0 where a grade occurs and is never hit; NaN where it neither occurs nor is predicted.
    """
    return _ratio(2 * _hits(counts), counts.sum(-1) + counts.sum(-2))


def accuracy(grade: ArrayLike, predicted: ArrayLike) -> float:
    """`accuracy_of` two columns [N]."""
    return float(accuracy_of(confusion_counts(grade, predicted)))


def quadratic_weighted_kappa(grade: ArrayLike, predicted: ArrayLike) -> float:
    """`quadratic_weighted_kappa_of` two columns [N]."""
    return float(quadratic_weighted_kappa_of(confusion_counts(grade, predicted)))


def _hits(counts: NDArray[Any]) -> NDArray[Any]:
    return np.diagonal(counts, axis1=-2, axis2=-1)


def _distance(counts: NDArray[Any]) -> NDArray[np.int64]:
    place = np.arange(counts.shape[-1])
    return np.abs(place[:, None] - place)


def _ratio(part: ArrayLike, whole: ArrayLike) -> Floats:
    """part / whole, NaN where whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole != 0)


def _mean_of_defined(values: Floats) -> Floats:
    """Mean over the last axis of what is not NaN; NaN where nothing is defined."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0).sum(-1), defined.sum(-1))


# --- ROC


class RocArea:
    """Area under the ROC curve of one score, for any number of weightings of its images.

    truth [N] bool, score [N]; unit [N] int says whose weight an image takes (its patient's;
    by default each image has its own). Called with weights [B, units] it gives [B]: the
    weighted share of (positive, negative) pairs that the score orders rightly, ties counting
    half (Fawcett, Pattern Recognition Letters 2006, 27(8):861-874, section 8). NaN where the
    weights leave one class only.
    """

    def __init__(
        self, truth: ArrayLike, score: ArrayLike, unit: NDArray[np.int64] | None = None
    ) -> None:
        truth, score = np.asarray(truth, bool), np.asarray(score, np.float64)
        unit = np.arange(len(score)) if unit is None else unit
        order = np.argsort(score, kind="stable")
        truth, score, unit = truth[order], score[order], unit[order]
        self._positive_unit, self._negative_unit = unit[truth], unit[~truth]
        self._below = np.searchsorted(score[~truth], score[truth], "left")
        self._not_above = np.searchsorted(score[~truth], score[truth], "right")

    def __call__(self, weights: NDArray[Any]) -> Floats:
        weights = np.asarray(weights, np.float64)
        positive = np.take(weights, self._positive_unit, axis=1)
        negative = np.zeros((len(weights), len(self._negative_unit) + 1))
        np.cumsum(np.take(weights, self._negative_unit, axis=1), axis=1, out=negative[:, 1:])
        beaten = np.take(negative, self._below, axis=1) + np.take(negative, self._not_above, axis=1)
        return _ratio((positive * beaten).sum(axis=1) / 2, positive.sum(axis=1) * negative[:, -1])


def auc(truth: ArrayLike, score: ArrayLike) -> float:
    """Area under the ROC curve: truth [N] bool, score [N]; NaN where one class is absent."""
    return float(RocArea(truth, score)(np.ones((1, np.size(score))))[0])


# --- the operating point


def operating_point(
    grade: ArrayLike, probabilities: NDArray[Any], rule: str = "youden"
) -> OperatingPoint:
    """The thresholds that `rule` picks on these images: on the probability of grade 2 or more
    for referable, of grade 3 or more for sight-threatening DR; see `choose_threshold`.

    grade [N], probabilities [N, 5].
    """
    true, p = np.asarray(grade), np.asarray(probabilities, np.float64)
    referable, sight_threatening = (
        choose_threshold(true >= first, p[:, first:].sum(axis=1), rule)
        for first in (REFERABLE_FROM, SIGHT_THREATENING_FROM)
    )
    return OperatingPoint(referable, sight_threatening)


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
        return Threshold(0.5, ONE_CLASS, **_rates(truth, score, 0.5))
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
    return Threshold(float(threshold), rule, **_rates(truth, score, threshold))


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


def _rates(truth: NDArray[np.bool_], score: Floats, threshold: float) -> dict[str, float | None]:
    positive = score >= threshold
    return {
        "sensitivity": float(positive[truth].mean()) if truth.any() else None,
        "specificity": float(1 - positive[~truth].mean()) if not truth.all() else None,
    }


# --- calibration


def reliability_curve(
    grade: ArrayLike, probabilities: NDArray[Any], bins: int = CALIBRATION_BINS
) -> list[dict[str, Any]]:
    """How often the likeliest grade is right, by how likely it was called.

    grade [N], probabilities [N, K] -> for each of `bins` equal intervals (low, high] of the
    largest probability {"low", "high", "n", "confidence", "accuracy"}: the mean largest
    probability and the share in which that grade is the true one; None in an empty interval.
    It judges the probabilities, so it looks at the likeliest grade even where the run decides
    by thresholds.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == np.asarray(grade)
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    n = np.bincount(place, minlength=bins)
    mean_confidence = _ratio(np.bincount(place, confidence, bins), n)
    mean_right = _ratio(np.bincount(place, right, bins), n)
    return [
        {
            "low": i / bins,
            "high": (i + 1) / bins,
            "n": int(n[i]),
            "confidence": float(mean_confidence[i]) if n[i] else None,
            "accuracy": float(mean_right[i]) if n[i] else None,
        }
        for i in range(bins)
    ]


def expected_calibration_error(
    grade: ArrayLike, probabilities: NDArray[Any], bins: int = CALIBRATION_BINS
) -> float:
    """Mean gap between confidence and accuracy over `reliability_curve`, weighted by images.

    Naeini et al., AAAI 2015; equal-width intervals on the largest probability as in Guo et al.
    2017. NaN without images.
    """
    curve = [b for b in reliability_curve(grade, probabilities, bins) if b["n"]]
    gaps = sum(b["n"] * abs(b["confidence"] - b["accuracy"]) for b in curve)
    return float(_ratio(gaps, len(probabilities)))


def brier_score(grade: ArrayLike, probabilities: NDArray[Any]) -> float:
    """Mean over images of the squared distance to the true grade's one-hot row.

    grade [N], probabilities [N, K]. Summed over the classes (Brier, Monthly Weather Review
    1950, 78(1):1-3), in [0, 2]; halved for K = 2, in [0, 1]: scikit-learn's `brier_score_loss`.
    """
    wrong = np.array(probabilities, np.float64)
    wrong[np.arange(len(wrong)), np.asarray(grade)] -= 1
    halved = 0.5 if wrong.shape[1] == 2 else 1.0
    return float(_ratio(halved * (wrong**2).sum(), len(wrong)))


def negative_log_likelihood(grade: ArrayLike, probabilities: NDArray[Any]) -> float:
    """Mean over images of -ln p(true grade), in nats.

    p is taken for at least `LEAST`: files hold six decimals, so their 0.000000 is anything below
    it, and the 36 nats that 2.2e-16 would cost are the file's, not the network's.
    """
    p = np.asarray(probabilities, np.float64)
    true = p[np.arange(len(p)), np.asarray(grade)]
    return float(_ratio(-np.log(np.maximum(true, LEAST)).sum(), len(p)))


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


def retemper(probabilities: NDArray[Any], temperature: float) -> Floats:
    """softmax(temperature * ln p), [N, K] -> [N, K].

    With the T that was divided by, it gives the probabilities before T; with 1 / T, after it. A
    p of 0 is taken for `LEAST`, which it may have been.
    """
    p = np.asarray(probabilities, np.float64)
    p = np.where(p > 0, p, LEAST)
    return softmax(temperature * np.log(p))


# --- cuts on the expected grade


def fit_thresholds(grade: ArrayLike, probabilities: NDArray[Any]) -> list[float]:
    """Four rising cuts on the expected grade that raise QWK, from validation images.

    grade [N], probabilities [N, 5] -> [t1, t2, t3, t4] for `Calibration`. Deterministic.

    From .5/1.5/2.5/3.5 each cut in turn goes where QWK is highest with the others held, until
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
        return start.tolist()
    draw = np.random.Generator(np.random.Philox(0)).integers
    resamples = (draw(0, len(true), len(true)) for _ in range(50))
    cuts = np.mean([_climb(true[rows], value[rows], start) for rows in resamples], axis=0)
    helped = _kappa_with(cuts, true, value) > _kappa_with(start, true, value)
    return cuts.tolist() if helped else start.tolist()


def _kappa_with(cuts: Floats, true: NDArray[np.int64], value: Floats) -> float:
    return quadratic_weighted_kappa(true, np.digitize(value, cuts))


def _climb(true: NDArray[np.int64], value: Floats, cuts: Floats) -> Floats:
    """Coordinate ascent of QWK over the cuts; each step is exact, so it cannot fall."""
    order = np.argsort(value, kind="stable")
    true, value, cuts = true[order], value[order], cuts.copy()
    for _ in range(10):
        before = cuts.copy()
        for k in range(len(cuts)):
            cuts[k] = _best_cut(true, value, cuts, k)
        if np.array_equal(before, cuts):
            break
    return cuts


def _best_cut(true: NDArray[np.int64], value: Floats, cuts: Floats, k: int) -> float:
    """Where cut k does best between its neighbours; where it stands unless that is better.

    Written with sums alone, QWK is 2 cov(g, p) / (var g + var p + (mean g - mean p)^2) (Lin's
    concordance, Biometrics 1989, 45(1):255-268), so running sums give every place at once.
    """
    n, low, high = len(value), 0, len(value)
    if k > 0:
        low = int(np.searchsorted(value, cuts[k - 1]))
    if k + 1 < len(cuts):
        high = int(np.searchsorted(value, cuts[k + 1]))
    place = np.arange(low + 1, high)  # images low..place-1 become grade k, the rest k + 1
    place = place[value[place - 1] < value[place]]
    now = np.searchsorted(value, cuts[k])
    at = np.append((value[place - 1] + value[place]) / 2, cuts[k])
    place = np.append(place, now)
    below, above = place - low, high - place
    fixed = np.concatenate([np.arange(low), np.arange(high, n)])
    called = np.digitize(value[fixed], cuts)
    running = np.concatenate([[0], np.cumsum(true)])
    p = called.sum() + k * below + (k + 1) * above
    pp = (called**2).sum() + k**2 * below + (k + 1) ** 2 * above
    gp = (
        (true[fixed] * called).sum()
        + k * (running[place] - running[low])
        + (k + 1) * (running[high] - running[place])
    )
    g, gg = true.sum(), (true**2).sum()
    kappa = _ratio(2 * (n * gp - g * p), n * (gg + pp) - 2 * g * p)
    kappa = np.where(np.isnan(kappa), -np.inf, kappa)
    best = int(kappa.argmax())
    return float(at[best] if kappa[best] > kappa[-1] + 1e-12 else cuts[k])
