"""The five grades of diabetic retinopathy, and how probabilities become one of them.

The scale is the International Clinical Diabetic Retinopathy scale (Wilkinson et al.,
Ophthalmology 2003, 110(9):1677-82). Grades are ordered.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAMES = ("No DR", "Mild", "Moderate", "Severe", "Proliferative DR")
NUM_GRADES = len(NAMES)
REFERABLE_FROM = 2
SIGHT_THREATENING_FROM = 3

ARGMAX: Mapping[str, Any] = {"kind": "argmax"}


def expected_grade(probabilities: NDArray[Any]) -> NDArray[np.float64]:
    """Mean grade under each row's distribution: [N, 5] in [0, 1] -> [N] in [0, 4]."""
    return np.asarray(probabilities, np.float64) @ np.arange(NUM_GRADES)


def referable_probability(probabilities: NDArray[Any]) -> NDArray[np.float64]:
    """Probability of grade 2 or more: [N, 5] -> [N]."""
    return np.asarray(probabilities, np.float64)[:, REFERABLE_FROM:].sum(axis=1)


def decide(probabilities: NDArray[Any], decision: Mapping[str, Any] = ARGMAX) -> NDArray[np.int64]:
    """Predicted grade of each row, [N, 5] -> [N] int64.

    decision: `{"kind": "argmax"}`, or `{"kind": "thresholds", "thresholds": [t1, t2, t3, t4]}`
    with rising cuts on the expected grade: a value of exactly t1 is grade 1.
    Raises ValueError on another kind.
    """
    if decision["kind"] == "argmax":
        return np.asarray(probabilities).argmax(axis=1).astype(np.int64)
    if decision["kind"] == "thresholds":
        cuts: Sequence[float] = decision["thresholds"]
        return np.digitize(expected_grade(probabilities), cuts).astype(np.int64)
    raise ValueError(f"unknown decision {decision['kind']!r}")


def pooled_decision(decisions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """For the mean probabilities of several networks: the mean of their cuts, and argmax where
    one of them has none."""
    if any(decision["kind"] != "thresholds" for decision in decisions):
        return dict(ARGMAX)
    cuts = np.mean([decision["thresholds"] for decision in decisions], axis=0)
    return {"kind": "thresholds", "thresholds": cuts.tolist()}


def pooled_point(points: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """The operating point for the mean probabilities of several networks: the mean of their
    thresholds, and None where one of them has none."""
    there = [point for point in points if point]
    if not there or len(there) < len(points):
        return None
    mean = {
        "threshold": float(np.mean([point["threshold"] for point in there])),
        "rule": f"{there[0]['rule']}, mean of {len(there)} networks",
    }
    below = pooled_point([point.get("sight_threatening") for point in there])
    return mean | ({"sight_threatening": below} if below else {})


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities of logits, row by row: [N, K] -> [N, K] float64."""
    logits = np.asarray(logits, np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
