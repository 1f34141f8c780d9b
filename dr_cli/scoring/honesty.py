"""How honest the probabilities are: ECE, Brier and NLL with their intervals, and before the
temperature."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dr_cli.grades import Calibration
from dr_cli.scoring import influence, intervals, metrics
from dr_cli.scoring.calibration import retemper, tell_temperature
from dr_cli.scoring.metrics import Floats, Statistic
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


def sum_gaps(
    grade: NDArray[Any], probabilities: Floats, unit: NDArray[np.int64], units: int
) -> Statistic:
    """What ECE rests on, as a function of how often each unit was drawn.

    grade, unit [N], probabilities [N, K] -> [B, 1 + parts]: the images, then the sum of right less
    confidence in each part of `metrics`' curve that has images.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == grade
    part, gap = metrics.find_bin(confidence), right - confidence
    columns: list[NDArray[Any]] = [np.bincount(unit, minlength=units)]
    for place in np.unique(part):
        columns.append(np.bincount(unit, np.where(part == place, gap, 0), units))
    sums = np.stack(columns, axis=1)
    return lambda weights: weights @ sums


def bound_errors(
    grade: NDArray[np.int64], probabilities: Floats, unit: NDArray[np.int64], gaps: Floats
) -> dict[str, list[float] | None]:
    """The 95% intervals by name. grade, unit [N], probabilities [N, K]; gaps [1 + B, 1 + parts] of
    `sum_gaps`, of the images, then of each replicate."""
    images = np.bincount(unit).astype(np.float64)

    def bound_mean(error: Floats) -> list[float] | None:
        moved = influence.of_ratio(np.bincount(unit, error), images)
        return intervals.bound_smooth(float(error.mean()), moved, intervals.LOG)

    if len(gaps) < 2:
        return dict.fromkeys(ERRORS)
    return {
        "ece": intervals.gap_interval(gaps[:, 1:] / gaps[:, :1]),
        "brier": bound_mean(metrics.brier_errors(grade, probabilities)),
        "nll": bound_mean(metrics.surprises(grade, probabilities)),
    }


def judge_probabilities(
    sample: Sample, calibration: Calibration, found: Mapping[str, Floats]
) -> Record:
    """A record's `calibration`: the errors with their intervals, and before the temperature (None
    where each eye has heard its fellow since).

    found: `gaps` as `sum_gaps` gives them, of the images, then of each replicate.
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
        "ci95": bound_errors(true, probabilities, sample.unit, found["gaps"]),
    }


def _measure_errors(true: NDArray[np.int64], probabilities: NDArray[np.float64]) -> Record:
    return {
        "ece": metrics.expected_calibration_error(true, probabilities),
        "brier": metrics.brier_score(true, probabilities),
        "nll": metrics.negative_log_likelihood(true, probabilities),
        "curve": metrics.reliability_curve(true, probabilities),
    }
