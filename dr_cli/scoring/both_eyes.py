"""A patient's two eyes read together: what the other one says, fitted and applied."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dr_cli.grades import NUM_GRADES, Fellow
from dr_cli.scoring.metrics import LEAST, Floats

if TYPE_CHECKING:
    import pandas as pd

WEIGHTS = np.linspace(0, 1, 21)
NOTHING_SAID = "the other eye adds nothing on validation: each eye is graded by itself"


def find_fellows(
    table: "pd.DataFrame", known: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """For each row, the first row (among `known`) that shows the patient's other eye; -1: none."""
    eyes = table[["patient", "eye"]].astype(object).reset_index(drop=True)
    kept = eyes if known is None else eyes[known]
    first = kept.dropna().drop_duplicates().reset_index(names="row")
    other = eyes.assign(eye=eyes["eye"].map({"left": "right", "right": "left"}).astype(object))
    return other.merge(first, how="left")["row"].fillna(-1).to_numpy(np.int64)


@dataclass(frozen=True)
class Pairs:
    """What the second step is fitted on."""

    joint: Floats
    """[5, 5] of `Fellow.joint`, of training patients."""
    fellow: NDArray[np.int64]
    """Of each validation image the row of its fellow among them; -1: none."""

    @classmethod
    def of(cls, train: "pd.DataFrame", val: "pd.DataFrame") -> "Pairs":
        """Of the training and the validation rows: patient, eye, grade. Each pair of grades gets a
        count besides, shared out as if eyes were independent, so that none is impossible."""
        grade, fellow = train["grade"].to_numpy(np.int64), find_fellows(train)
        counts, has = np.zeros((NUM_GRADES, NUM_GRADES)), fellow >= 0
        np.add.at(counts, (grade[has], grade[fellow[has]]), 1)
        share = (np.bincount(grade, minlength=NUM_GRADES) + 1) / (len(grade) + NUM_GRADES)
        counts = counts + counts.T + NUM_GRADES * np.outer(share, share)
        return cls(counts / counts.sum(), find_fellows(val))

    def fit(self, grade: NDArray[np.int64], probabilities: Floats) -> Fellow | None:
        """The weight under which validation's grades [N] are likeliest, by their probabilities
        [N, 5]; None where that is 0."""
        has = self.fellow >= 0
        joint = tuple(tuple(row) for row in self.joint.tolist())
        rows = np.flatnonzero(has)

        def loss(weight: float) -> float:
            joined = join(probabilities, self.fellow, Fellow(joint, weight))
            return -float(np.log(np.maximum(joined[rows, grade[rows]], LEAST)).sum())

        best = float(min(WEIGHTS, key=loss))
        return Fellow(joint, best) if best else None


def join(probabilities: Floats, fellow: NDArray[np.int64], rule: Fellow | None) -> Floats:
    """Probabilities [N, 5] where each eye hears its fellow, the row `fellow` [N] (-1: none)."""
    has = fellow >= 0
    if rule is None or not has.any():
        return probabilities
    joined = np.array(probabilities, np.float64)
    joined[has] = rule.join(joined[has], np.asarray(probabilities)[fellow[has]])
    return joined


def join_rows(rows: "pd.DataFrame", probabilities: NDArray[Any], rule: Fellow | None) -> Floats:
    """`join`, of the eyes of a table with patient and eye."""
    return join(probabilities, find_fellows(rows), rule) if rule else probabilities
