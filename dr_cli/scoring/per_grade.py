"""Each grade on its own, and the figures that are means over the grades.

A grade of which few patients are left tells little, and whatever is a mean over the grades tells
no more than its rarest one: so each rate has the interval of the patients it rests on, and the
mean has what those give together (`intervals.mean_interval`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dr_cli.grades import NAMES, NUM_GRADES
from dr_cli.scoring import influence, intervals, metrics
from dr_cli.scoring.intervals import FEW
from dr_cli.scoring.metrics import Floats
from dr_cli.scoring.predictions import Graded, Sample

RATES: Mapping[str, Callable[[NDArray[Any]], Floats]] = {
    "precision": metrics.precision_of,
    "recall": metrics.recall_of,
    "specificity": metrics.specificity_of,
    "f1": metrics.f1_of,
}


@dataclass(frozen=True)
class Rates:
    """One rate of every grade."""

    found: Floats  # [1 + B, 5]: of the images, then of each replicate; NaN where undefined
    ci95: list[list[float] | None]

    @property
    def value(self) -> Floats:
        """[5]: of the images."""
        return self.found[0]

    def bound_mean(self) -> list[float] | None:
        """The interval of the mean over the grades that have the rate."""
        told = ~np.isnan(self.value)
        if len(self.found) < 2 or not told.any():
            return None
        bounds = [bound for bound, has in zip(self.ci95, told, strict=True) if has]
        return intervals.mean_interval(self.found[:, told], bounds)


def measure_rates(sample: Sample, counts: Floats) -> dict[str, Rates]:
    """`RATES` with their intervals. counts: [1 + B, 5, 5], of the images, then of replicates."""
    if not sample.graded:
        return {}
    grades = np.arange(NUM_GRADES)[:, None]
    true, said = sample.graded.truth == grades, sample.graded.said == grades  # [5, N]
    rests_on = {"precision": said, "recall": true, "specificity": ~true, "f1": true | said}
    found = {}
    for name, rate in RATES.items():
        values = rate(counts)
        bound = partial(_bound_f1, sample) if name == "f1" else sample.bound_share
        ci95 = [
            None if np.isnan(values[0, k]) else bound(values[:, k], images)["ci95"]
            for k, images in enumerate(rests_on[name])
        ]
        found[name] = Rates(values, ci95)
    return found


def measure_grades(graded: Graded, sample: Sample, rates: Mapping[str, Rates]) -> list[Any]:
    """The record's `per_grade`: a row a grade, with intervals in its `ci95`."""
    drawn = all(len(rate.found) > 1 for rate in rates.values())
    rows = []
    for grade in range(NUM_GRADES):
        truth = graded.truth == grade
        values = {name: metrics.as_plain(rate.value[grade]) for name, rate in rates.items()}
        ci95 = {name: rate.ci95[grade] for name, rate in rates.items()}
        area = bounds = None
        if graded.probabilities is not None:
            score = graded.probabilities[:, grade]
            area, bounds = bound_area(truth, score, sample.unit, drawn).values()
        rows.append(
            {
                "grade": grade,
                "name": NAMES[grade],
                "support": int(truth.sum()),
                **values,
                "auc": area,
                "patients": sample.units_with(truth),
                "ci95": {**ci95, "auc": bounds},
            }
        )
    return rows


def bound_area(
    truth: NDArray[np.bool_], score: Floats, unit: NDArray[np.int64], drawn: bool
) -> dict[str, Any]:
    """An area under the ROC curve with its interval; drawn: whether one is asked for."""
    area, ci95 = metrics.auc(truth, score), None
    if drawn and not np.isnan(area):
        ci95 = intervals.bound_smooth(area, influence.of_area(truth, score, unit), intervals.LOGIT)
    return {"value": metrics.as_plain(area), "ci95": ci95}


def find_rare(sample: Sample) -> list[str]:
    """What rests on fewer than `FEW` patients, in words: of the rarest grade, and of those to
    refer or not, where only that is known."""
    if sample.graded:
        kinds = {f"grade {k}": sample.graded.truth == k for k in range(NUM_GRADES)}
    else:
        truth = sample.targets["referable"].truth
        kinds = {"referable DR": truth, "no referable DR": ~truth}
    counted = {name: sample.units_with(images) for name, images in kinds.items()}
    return [f"{n} with {name}" for name, n in counted.items() if 0 < n < FEW]


def _bound_f1(sample: Sample, found: Floats, of: NDArray[np.bool_]) -> dict[str, Any]:
    """F1 = 2 J / (1 + J) rises with J, the share that is hit of the images that are of the grade
    or were called it (Jaccard's index): the interval of that share, turned into F1."""
    bounds = sample.bound_share(found / (2 - found), of)["ci95"]
    turned = bounds and [2 * share / (1 + share) for share in bounds]
    return {"value": metrics.as_plain(float(found[0])), "ci95": turned}
