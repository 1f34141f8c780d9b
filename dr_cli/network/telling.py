"""What a grader says of a photograph: probabilities and what was seen of it -> a `Record`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dr_cli.grades import (
    NAMES,
    REFERABLE_FROM,
    Calibration,
    expected_grade,
    referable_probability,
)  # fmt: skip
from dr_cli.network.given import Decoded
from dr_cli.network.records import Record
from dr_cli.photographs.crop import Crop

FIELDS = (
    "path", "predicted", "name", "probabilities", "expected_grade", "referable",
    "referable_probability", "gradable", "quality", "verdict", "reason",
    "error", "trained_on", "referable_threshold", "note", "heatmap", "novelty",
)  # fmt: skip


@dataclass(frozen=True)
class Telling:
    """How a grader decides, and what its records say of itself."""

    calibration: Calibration
    threshold: float
    """The probability from which an eye is referable."""
    trained_on: str | None

    def blank(self) -> dict[str, Any]:
        """The fields of a record, with those that every record has."""
        always = {"trained_on": self.trained_on, "referable_threshold": self.threshold}
        return dict.fromkeys(FIELDS) | always

    def fail(self, one: Decoded) -> Record:
        """Of a photograph that cannot be read."""
        return Record(self.blank(), path=one.path, error=one.problem)

    def tell(
        self, path: str, row: NDArray[np.float64], crop: Crop, novelty: float | None
    ) -> Record:
        """row: the probabilities of the five grades, [5]."""
        seen, row = crop.judgement, row.round(6)  # as a run's prediction files hold them
        predicted = int(self.calibration.decide(row[None])[0])
        referable = float(referable_probability(row[None])[0])
        expected = round(float(expected_grade(row[None])[0]), 4)
        notes = (self._note(predicted, referable), crop.note)
        values = (
            path, predicted, NAMES[predicted], row.tolist(), expected, referable >= self.threshold,
            round(referable, 6), seen.gradable, seen.quality, seen.verdict, seen.reason, None,
            self.trained_on, self.threshold, "; ".join(filter(None, notes)), None, novelty,
        )  # fmt: skip
        return Record(zip(FIELDS, values, strict=True))

    def _note(self, predicted: int, referable: float) -> str:
        """Why grade and referral disagree, which they may: the operating point is mostly below
        where grade 2 becomes the likeliest. "" where they agree."""
        refer = referable >= self.threshold
        if refer == (predicted >= REFERABLE_FROM):
            return ""
        what = "referable" if refer else "not referable"
        than = "not below" if refer else "below"
        return (
            f"graded {predicted}, yet {what}: the probability of grade 2 or more, {referable:.3g}, "
            f"is {than} the threshold {self.threshold:.3g}"
        )
