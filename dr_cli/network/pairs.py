"""Fellow eyes brought together: what all photographs of a patient say of that patient."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from dr_cli.grades import NAMES, Calibration, referable_probability
from dr_cli.labels.owners import Owner, Whose, by_name
from dr_cli.network.records import Record

OWNER = ("patient", "eye")
TOGETHER = "both eyes read together"


class _Seen(NamedTuple):
    """What is kept of a photograph."""

    eye: str | None
    predicted: int | None
    """None where it could not be read."""
    referable: bool
    probability: float
    gradable: bool
    reason: str
    probabilities: tuple[float, ...]
    """Five; none where it could not be read."""


@dataclass
class Pairs:
    """Photographs by patient, as they come: about 300 bytes are kept of each."""

    whose: Whose = by_name
    calibration: Calibration = Calibration()  # noqa: RUF009
    """The grader's: of a run of --both-eyes a patient's row is of both eyes together."""
    threshold: float = 0.5
    """The probability from which an eye is referable."""
    patients: dict[str, list[_Seen]] = field(default_factory=dict)

    def own(self, record: Record, owner: Owner) -> Record:
        """The record with `patient` and `eye`, remembered. owner: what the photograph's file
        says; `whose` counts before it, and its name where neither knows."""
        told = zip(self.whose(record["path"]), owner, by_name(record["path"]), strict=True)
        patient, eye = (next((one for one in each if one), None) for each in told)
        if patient is not None:
            failed = record["error"] is not None
            seen = _Seen(
                eye,
                record["predicted"],
                bool(record["referable"]),
                record["referable_probability"] or 0.0,
                bool(record["gradable"]),
                "not read" if failed else record["reason"],
                tuple(record["probabilities"] or ()),
            )
            self.patients.setdefault(patient, []).append(seen)
        return Record(record, patient=patient, eye=eye)

    def rows(self, empty: dict[str, Any]) -> Iterator[Record]:
        """A record a patient, in the order of their first photographs. empty: the fields, with
        what is true of every record."""
        for patient, seen in self.patients.items():
            yield Record(empty | _judge(seen) | self._join(seen), patient=patient)

    def _join(self, seen: list[_Seen]) -> dict[str, Any]:
        """What both eyes say together, each hearing the other; nothing of other runs, and where
        there are not one gradable photograph of the left eye and one of the right."""
        two = {one.eye: one.probabilities for one in seen if one.gradable}
        fellow = self.calibration.fellow
        if fellow is None or set(two) != {"left", "right"} or sum(s.gradable for s in seen) != 2:
            return {}
        own = np.array([two["left"], two["right"]])
        both = fellow.join(own, own[::-1]).round(6)
        grades, referable = self.calibration.decide(both), referable_probability(both)
        worst = int(np.lexsort((referable, grades))[-1])
        return {
            "predicted": int(grades[worst]),
            "name": NAMES[grades[worst]],
            "referable": bool(referable.max() >= self.threshold),
            "referable_probability": float(referable.max()),
            "eye": ("left", "right")[worst],
            "note": TOGETHER,
        }


def _judge(seen: list[_Seen]) -> dict[str, Any]:
    """Of a patient: the worst eye, among gradable photographs where there are any; referable where
    one of those is; gradable where each eye has a gradable photograph."""
    read = [one for one in seen if one.predicted is not None]
    counted = [one for one in read if one.gradable] or read
    if not counted:
        return {"error": f"none of this patient's {len(seen)} photographs could be graded"}
    worst = max(counted, key=lambda one: (one.predicted, one.probability))
    assert worst.predicted is not None
    lost = _lost(seen)
    sides = {one.eye for one in seen if one.eye}
    alone = f"the {sides.pop()} eye alone was given" if len(sides) == 1 else ""
    return {
        "predicted": worst.predicted,
        "name": NAMES[worst.predicted],
        "referable": any(one.referable for one in counted),
        "referable_probability": max(one.probability for one in counted),
        "gradable": not lost,
        "reason": "; ".join(lost),
        "eye": worst.eye,
        "note": alone,
    }


def _lost(seen: list[_Seen]) -> list[str]:
    """Each eye without a gradable photograph, and why. Where nobody knows which eye it is, each
    photograph is taken for one of its own: whether the other eye was seen cannot be told."""
    found = {one.eye for one in seen if one.gradable and one.eye}
    lost = [one for one in seen if not one.gradable and one.eye not in found]
    return list(dict.fromkeys(f"{one.eye or 'an'} eye: {one.reason}" for one in lost))
