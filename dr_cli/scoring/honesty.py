"""How far the errors of the probabilities can be trusted: intervals of ECE, Brier and NLL."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dr_cli.scoring import intervals, metrics
from dr_cli.scoring.metrics import BINS, LEAST, Floats, Statistic

ERRORS = ("ece", "brier", "nll")


def sum_errors(
    grade: NDArray[Any], probabilities: Floats, unit: NDArray[np.int64], units: int
) -> Statistic:
    """What the three rest on, as a function of how often each unit was drawn.

    grade, unit [N], probabilities [N, K] -> [B, 2 * 5 + BINS]: for Brier and for NLL the sums of
    `intervals.studentised_interval`, then right less confidence in each part of `metrics`' curve.
    """
    row = np.arange(len(grade))
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == grade
    gaps = np.zeros((len(grade), BINS))
    gaps[row, metrics.find_bin(confidence)] = right - confidence
    wrong = probabilities - (np.arange(probabilities.shape[1]) == np.asarray(grade)[:, None])
    brier = (wrong**2).sum(axis=1) * (0.5 if wrong.shape[1] == 2 else 1.0)
    surprise = -np.log(np.maximum(probabilities[row, grade], LEAST))
    n = np.bincount(unit, minlength=units).astype(np.float64)
    columns = []
    for error in (brier, surprise):
        y = np.bincount(unit, error, units)
        columns += [y, n, y**2, y * n, n**2]
    columns += [np.bincount(unit, gap, units) for gap in gaps.T]
    sums = np.stack(columns, axis=1)  # [units, 2 * 5 + BINS]
    return lambda weights: weights @ sums


def bound_errors(found: Floats) -> dict[str, list[float] | None]:
    """The 95% intervals by name. found: [1 + B, 2 * 5 + BINS] of `sum_errors`, of the images, then
    of each replicate."""
    brier, nll, gaps = found[:, :5], found[:, 5:10], found[:, 10:]
    return {
        "ece": intervals.gap_interval(gaps / found[:, 1:2]),
        "brier": intervals.studentised_interval(brier),
        "nll": intervals.studentised_interval(nll),
    }
