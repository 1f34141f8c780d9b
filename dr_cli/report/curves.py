"""A run's predictions -> what its charts and the cells of its confusion matrix hold."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dr_cli.grades import NUM_GRADES, REFERABLE_FROM, expected_grade, referable_probability
from dr_cli.scoring.calibration import retemper
from dr_cli.scoring.metrics import reliability_curve
from dr_cli.scoring.predictions import PROBABILITIES
from dr_cli.scoring.record import Record

MOST_ON_ROC = 200  # points kept of a curve: a page of ten runs stays under 4 MB
EXPECTED_BINS = 20  # of the expected grade, from 0 to 4


def list_cells(predictions: pd.DataFrame, most: int) -> dict[str, list[Record]]:
    """At most `most` images of each confusion cell: "true-predicted" -> path, probability."""
    cells: dict[str, list[Record]] = {}
    paths = predictions["path"].to_list()
    grade, predicted = (predictions[name].to_numpy(int) for name in ("grade", "predicted"))
    sure = predictions[PROBABILITIES].to_numpy()[np.arange(len(paths)), predicted]
    for i in np.argsort(-sure, kind="stable"):
        cell = cells.setdefault(f"{grade[i]}-{predicted[i]}", [])
        if len(cell) < most:
            cell.append({"path": paths[i], "probability": round(float(sure[i]), 4)})
    return cells


def find_curves(predictions: pd.DataFrame, temperature: float | None) -> Record:
    """What the charts of a run are drawn from.

    roc: [false positive rate, sensitivity] of referable retinopathy, None with one class
    reliability: before and after temperature, [confidence, share right, images] a bin
    expected: for each true grade, images in each of EXPECTED_BINS bins of the expected grade
    """
    grade, after = predictions["grade"].to_numpy(int), predictions[PROBABILITIES].to_numpy()
    before = _list_bins(grade, retemper(after, temperature)) if temperature else None
    roc = measure_roc(grade >= REFERABLE_FROM, referable_probability(after))
    if roc is not None and len(roc) > MOST_ON_ROC:
        roc = roc[np.linspace(0, len(roc) - 1, MOST_ON_ROC).round().astype(int)]
    ends = (0, NUM_GRADES - 1)
    return {
        "roc": None if roc is None else roc.round(4).tolist(),
        "reliability": {"before": before, "after": _list_bins(grade, after)},
        "expected": [
            np.histogram(expected_grade(after[grade == g]), EXPECTED_BINS, ends)[0].tolist()
            for g in range(NUM_GRADES)
        ],
    }


def measure_roc(truth: NDArray[np.bool_], score: NDArray[Any]) -> NDArray[np.float64] | None:
    """[M, 2] false positive rate and sensitivity, from (0, 0) to (1, 1): truth [N], score [N].

    A point a threshold, without those that lie on a line with their neighbours, as
    scikit-learn's `roc_curve` gives them. None where all images are of one class.
    """
    if truth.all() or not truth.any():
        return None
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)  # image of each score
    called = np.column_stack([~truth[order], truth[order]]).cumsum(axis=0)[last]
    bends = np.ones(len(called), bool)
    bends[1:-1] = np.diff(called, 2, axis=0).any(axis=1)
    return np.vstack([[0, 0], called[bends]]) / called[-1]


def _list_bins(grade: NDArray[np.int64], probabilities: NDArray[Any]) -> list[list[float]]:
    return [
        [round(b["confidence"], 4), round(b["accuracy"], 4), b["n"]]
        for b in reliability_curve(grade, probabilities)
        if b["n"]
    ]
