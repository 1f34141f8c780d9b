"""What is reported: how good grades are, and how honest probabilities are.

Every figure that a confusion matrix decides is written once, as a function of counts
[..., K, K]: the value that is printed and its bootstrap replicates are the same code. The
area under the ROC curve likewise takes any number of weightings of the same images.

Undefined is NaN here (no image, one class only) and becomes null in `record`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dr_cli.grades import NUM_GRADES

Floats = NDArray[np.float64]
Statistic = Callable[[NDArray[Any]], Floats]  # weights [B, units] -> [B, ...]

BINS = 15  # as in Guo et al. 2017
LEAST = 5e-7  # half the last digit of a stored probability

# --- figures of a confusion matrix: counts [..., K, K], rows true, columns predicted -> [...]


def confusion_counts(grade: ArrayLike, predicted: ArrayLike) -> NDArray[np.int64]:
    """[N] and [N] grades in 0-4 -> counts [5, 5] int64, rows true, columns predicted."""
    cell = np.asarray(grade, np.int64) * NUM_GRADES + np.asarray(predicted, np.int64)
    return np.bincount(cell, minlength=NUM_GRADES**2).reshape(NUM_GRADES, NUM_GRADES)


def accuracy_of(counts: NDArray[Any]) -> Floats:
    """Share of images whose predicted grade is the true one."""
    return divide(_hits(counts).sum(-1), counts.sum((-2, -1)))


def balanced_accuracy_of(counts: NDArray[Any]) -> Floats:
    """Mean recall over the grades that occur (scikit-learn's `balanced_accuracy_score`)."""
    return _mean_of_defined(recall_of(counts))


def macro_f1_of(counts: NDArray[Any]) -> Floats:
    """Mean F1 over the grades that occur or were predicted (scikit-learn's default)."""
    return _mean_of_defined(f1_of(counts))


def mean_absolute_error_of(counts: NDArray[Any]) -> Floats:
    """Mean distance between predicted and true grade, in grades."""
    return divide((counts * _distance(counts)).sum((-2, -1)), counts.sum((-2, -1)))


def quadratic_weighted_kappa_of(counts: NDArray[Any]) -> Floats:
    """Cohen's kappa with weights (i - j)^2 (Cohen, Psychological Bulletin 1968, 70(4):213-220).

    1 - observed / expected disagreement, the latter from the margins. 0 where truth or
    prediction is constant; NaN where both are the same constant.
    """
    weights = _distance(counts) ** 2
    chance = counts.sum(-1)[..., :, None] * counts.sum(-2)[..., None, :]
    observed = (counts * weights).sum((-2, -1)) * counts.sum((-2, -1))
    return 1 - divide(observed, (chance * weights).sum((-2, -1)))


def recall_of(counts: NDArray[Any]) -> Floats:
    """Sensitivity a grade, [..., K, K] -> [..., K]; NaN for a grade without images."""
    return divide(_hits(counts), counts.sum(-1))


def precision_of(counts: NDArray[Any]) -> Floats:
    """Positive predictive value a grade, [..., K, K] -> [..., K]; NaN where never predicted."""
    return divide(_hits(counts), counts.sum(-2))


def specificity_of(counts: NDArray[Any]) -> Floats:
    """Share of the other grades' images not called this grade, [..., K, K] -> [..., K]."""
    others = counts.sum((-2, -1))[..., None] - counts.sum(-1)
    return divide(others - (counts.sum(-2) - _hits(counts)), others)


def f1_of(counts: NDArray[Any]) -> Floats:
    """Harmonic mean of precision and recall, [..., K, K] -> [..., K].

    0 where a grade occurs and is never hit; NaN where it neither occurs nor is predicted.
    """
    return divide(2 * _hits(counts), counts.sum(-1) + counts.sum(-2))


def quadratic_weighted_kappa(grade: ArrayLike, predicted: ArrayLike) -> float:
    """`quadratic_weighted_kappa_of` two columns [N]."""
    return float(quadratic_weighted_kappa_of(confusion_counts(grade, predicted)))


def as_plain(value: float) -> float | None:
    """As a record has it: undefined is None."""
    return None if np.isnan(value) else float(value)


def _hits(counts: NDArray[Any]) -> NDArray[Any]:
    return np.diagonal(counts, axis1=-2, axis2=-1)


def _distance(counts: NDArray[Any]) -> NDArray[np.int64]:
    place = np.arange(counts.shape[-1])
    return np.abs(place[:, None] - place)


def divide(part: ArrayLike, whole: ArrayLike) -> Floats:
    """part / whole, element by element; NaN where whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole != 0)


def _mean_of_defined(values: Floats) -> Floats:
    """Mean over the last axis of what is not NaN; NaN where nothing is defined."""
    defined = ~np.isnan(values)
    return divide(np.where(defined, values, 0).sum(-1), defined.sum(-1))


# --- their names


@dataclass(frozen=True)
class Figure:
    """A figure of a record, and how it is shown."""

    heading: str
    of: Callable[[NDArray[Any]], Floats] | None = None
    """What computes it of confusion counts; None for a figure of something else."""
    percent: bool = False
    """Shown as a percentage."""
    scale: str | None = None
    """Of `intervals.SCALES`, where its interval is taken; None for a share of images."""
    mean_of: str | None = None
    """The rate of `per_grade` that it is the mean of over the grades, and has its interval from."""
    lower_is_better: bool = False


FIGURES: Mapping[str, Figure] = {  # by the path to it in a record, in the order of tables
    "accuracy": Figure("Accuracy", accuracy_of, percent=True),
    "balanced_accuracy": Figure(
        "Balanced accuracy", balanced_accuracy_of, percent=True, mean_of="recall"
    ),
    "qwk": Figure("QWK", quadratic_weighted_kappa_of, scale="fisher"),
    "macro_f1": Figure("Macro F1", macro_f1_of, percent=True, mean_of="f1"),
    "mean_absolute_error": Figure(
        "Mean absolute error, grades", mean_absolute_error_of, scale="log", lower_is_better=True
    ),
    "referable.auc": Figure("Referable AUC"),
    "referable.sensitivity": Figure("Sensitivity, referable", percent=True),
    "referable.specificity": Figure("Specificity, referable", percent=True),
    "sight_threatening.auc": Figure("Sight-threatening AUC"),
    "sight_threatening.sensitivity": Figure("Sensitivity, sight-threatening", percent=True),
    "sight_threatening.specificity": Figure("Specificity, sight-threatening", percent=True),
    "calibration.ece": Figure("ECE", lower_is_better=True),
    "calibration.brier": Figure("Brier", lower_is_better=True),
    "calibration.nll": Figure("NLL", lower_is_better=True),
}

# --- ROC


def weigh_roc_area(
    truth: ArrayLike, score: ArrayLike, unit: NDArray[np.int64] | None = None
) -> Statistic:
    """Area under the ROC curve of one score, for any number of weightings of its images.

    truth [N] bool, score [N]; unit [N] int says whose weight an image takes (its patient's;
    by default each image has its own). Called with weights [B, units] it gives [B]: the
    weighted share of (positive, negative) pairs that the score orders rightly, ties counting
    half (Fawcett, Pattern Recognition Letters 2006, 27(8):861-874, section 8). NaN where the
    weights leave one class only.
    """
    truth, score = np.asarray(truth, bool), np.asarray(score, np.float64)
    unit = np.arange(len(score)) if unit is None else unit
    order = np.argsort(score, kind="stable")
    truth, score, unit = truth[order], score[order], unit[order]
    positive_unit, negative_unit = unit[truth], unit[~truth]
    below, not_above = (np.searchsorted(score[~truth], score[truth], s) for s in ("left", "right"))

    def area(weights: NDArray[Any]) -> Floats:
        weights = np.asarray(weights, np.float64)
        positive = np.take(weights, positive_unit, axis=1)
        negative = np.zeros((len(weights), len(negative_unit) + 1))
        np.cumsum(np.take(weights, negative_unit, axis=1), axis=1, out=negative[:, 1:])
        beaten = np.take(negative, below, axis=1) + np.take(negative, not_above, axis=1)
        return divide((positive * beaten).sum(axis=1) / 2, positive.sum(axis=1) * negative[:, -1])

    return area


def auc(truth: ArrayLike, score: ArrayLike) -> float:
    """Area under the ROC curve: truth [N] bool, score [N]; NaN where one class is absent."""
    return float(weigh_roc_area(truth, score)(np.ones((1, np.size(score))))[0])


# --- calibration


def reliability_curve(grade: ArrayLike, probabilities: NDArray[Any]) -> list[dict[str, Any]]:
    """How often the likeliest grade is right, by how likely it was called.

    grade [N], probabilities [N, K] -> for each of `BINS` equal intervals (low, high] of the
    largest probability {"low", "high", "n", "confidence", "accuracy"}: the mean largest
    probability and the share in which that grade is the true one; None in an empty interval.
    It judges the probabilities, so it looks at the likeliest grade even where the run decides
    by thresholds.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == np.asarray(grade)
    place = find_bin(confidence)
    n = np.bincount(place, minlength=BINS)
    mean_confidence = divide(np.bincount(place, confidence, BINS), n)
    mean_right = divide(np.bincount(place, right, BINS), n)
    return [
        {"low": i / BINS, "high": (i + 1) / BINS, "n": int(n[i]),
         "confidence": as_plain(mean_confidence[i]), "accuracy": as_plain(mean_right[i])}
        for i in range(BINS)
    ]  # fmt: skip


def find_bin(confidence: Floats) -> NDArray[np.int64]:
    """Which of the `BINS` equal intervals (low, high] each is in, [N] -> [N] from 0 on."""
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)


def expected_calibration_error(grade: ArrayLike, probabilities: NDArray[Any]) -> float:
    """Mean gap between confidence and accuracy over `reliability_curve`, weighted by images.

    Naeini et al., AAAI 2015; equal-width intervals on the largest probability as in Guo et al.
    2017. NaN without images.
    """
    curve = [b for b in reliability_curve(grade, probabilities) if b["n"]]
    gaps = sum(b["n"] * abs(b["confidence"] - b["accuracy"]) for b in curve)
    return float(divide(gaps, len(probabilities)))


def brier_score(grade: ArrayLike, probabilities: NDArray[Any]) -> float:
    """Mean of `brier_errors` over images. NaN without images."""
    return float(divide(brier_errors(grade, probabilities).sum(), len(probabilities)))


def brier_errors(grade: ArrayLike, probabilities: NDArray[Any]) -> Floats:
    """Squared distance of each image to the true grade's one-hot row, [N].

    grade [N], probabilities [N, K]. Summed over the classes (Brier, Monthly Weather Review
    1950, 78(1):1-3), in [0, 2]; halved for K = 2, in [0, 1]: scikit-learn's `brier_score_loss`.
    """
    wrong = np.array(probabilities, np.float64)
    wrong[np.arange(len(wrong)), np.asarray(grade)] -= 1
    return (wrong**2).sum(axis=1) * (0.5 if wrong.shape[1] == 2 else 1.0)


def negative_log_likelihood(grade: ArrayLike, probabilities: NDArray[Any]) -> float:
    """Mean of `surprises` over images. NaN without images."""
    return float(divide(surprises(grade, probabilities).sum(), len(probabilities)))


def surprises(grade: ArrayLike, probabilities: NDArray[Any]) -> Floats:
    """-ln p(true grade) of each image [N], in nats.

    p is taken for at least `LEAST`: files hold six decimals, so their 0.000000 is anything below
    it, and the 36 nats that 2.2e-16 would cost are the file's, not the network's.
    """
    p = np.asarray(probabilities, np.float64)
    return -np.log(np.maximum(p[np.arange(len(p)), np.asarray(grade)], LEAST))
