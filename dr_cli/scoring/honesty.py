"""How honest the probabilities are: ECE, Brier and NLL with their intervals, and before the
temperature."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dr_cli.grades import Calibration
from dr_cli.scoring import intervals, metrics
from dr_cli.scoring.calibration import retemper, tell_temperature
from dr_cli.scoring.metrics import LEAST, Floats, Statistic
from dr_cli.scoring.predictions import Sample

Record = dict[str, Any]
ERRORS = ("ece", "brier", "nll")


def find_probabilities(sample: Sample) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """The five, and the grades, or, where they are not known, of referable or not: [N], [N, K].
    None where only the answers are."""
    target = sample.targets["referable"]
    if sample.graded and sample.graded.probabilities is not None:
        return sample.graded.truth, sample.graded.probabilities
    if target.score is None:
        return None
    return target.truth.astype(np.int64), np.stack([1 - target.score, target.score], axis=1)


def sum_errors(
    grade: NDArray[Any], probabilities: Floats, unit: NDArray[np.int64], units: int
) -> Statistic:
    """What the three rest on, as a function of how often each unit was drawn.

    grade, unit [N], probabilities [N, K] -> [B, 8 + parts]: sums over patients of Brier's y, y^2,
    y n, then NLL's, then n and n^2 (see `intervals.studentised_interval`), then of right less
    confidence in each part of `metrics`' curve that has images.
    """
    row = np.arange(len(grade))
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == grade
    wrong = probabilities - (np.arange(probabilities.shape[1]) == np.asarray(grade)[:, None])
    brier = (wrong**2).sum(axis=1) * (0.5 if wrong.shape[1] == 2 else 1.0)
    surprise = -np.log(np.maximum(probabilities[row, grade], LEAST))
    n = np.bincount(unit, minlength=units).astype(np.float64)
    columns = []
    for error in (brier, surprise):
        y = np.bincount(unit, error, units)
        columns += [y, y**2, y * n]
    columns += [n, n**2]
    part, gap = metrics.find_bin(confidence), right - confidence
    for place in np.unique(part):
        columns.append(np.bincount(unit, np.where(part == place, gap, 0), units))
    sums = np.stack(columns, axis=1)
    return lambda weights: weights @ sums


def bound_errors(found: Floats) -> dict[str, list[float] | None]:
    """The 95% intervals by name. found: [1 + B, 8 + parts] of `sum_errors`, of the images, then of
    each replicate."""
    n, n_squared = found[:, 6], found[:, 7]

    def bound_mean(first: int) -> list[float] | None:
        y, y_squared, y_n = found[:, first : first + 3].T
        return intervals.studentised_interval(np.stack([y, n, y_squared, y_n, n_squared], axis=1))

    return {
        "ece": intervals.gap_interval(found[:, 8:] / n[:, None]),
        "brier": bound_mean(0),
        "nll": bound_mean(3),
    }


def judge_probabilities(
    sample: Sample, calibration: Calibration, found: Mapping[str, Floats]
) -> Record:
    """A record's `calibration`: the errors with their intervals, and before the temperature (None
    where each eye has heard its fellow since).

    found: `errors` as `sum_errors` gives them, of the images, then of each replicate.
    """
    told = find_probabilities(sample)
    if told is None:
        names = ("ece", "brier", "nll", "temperature", "temperature_note", "before")
        nothing = dict.fromkeys(names)
        return {**nothing, "curve": [], "ci95": dict.fromkeys(ERRORS)}
    true, probabilities = told
    temperature = calibration.temperature
    before = None
    if temperature and not calibration.fellow:
        before = _measure_errors(true, retemper(probabilities, temperature))
    after = _measure_errors(true, probabilities)
    curve = after.pop("curve")
    return {
        **after,
        "temperature": temperature,
        "temperature_note": tell_temperature(temperature),
        "before": before,
        "curve": curve,
        "ci95": bound_errors(found["errors"]),
    }


def _measure_errors(true: NDArray[np.int64], probabilities: NDArray[np.float64]) -> Record:
    return {
        "ece": metrics.expected_calibration_error(true, probabilities),
        "brier": metrics.brier_score(true, probabilities),
        "nll": metrics.negative_log_likelihood(true, probabilities),
        "curve": metrics.reliability_curve(true, probabilities),
    }
