"""The five grades of diabetic retinopathy, and how probabilities become one of them.

The scale is the International Clinical Diabetic Retinopathy scale (Wilkinson et al.,
Ophthalmology 2003, 110(9):1677-82). Grades are ordered. What a run chose on its validation
images, so that its probabilities become grades and alarms, is a `Calibration`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAMES = ("No DR", "Mild", "Moderate", "Severe", "Proliferative DR")
NUM_GRADES = len(NAMES)
REFERABLE_FROM = 2
SIGHT_THREATENING_FROM = 3
DECISIONS = ("qwk", "accuracy", "argmax")  # what decides the grade: see `Calibration.decision`
THRESHOLDS = "thresholds"  # what cuts are called in records; of an option another word for "qwk"
GIVEN = "given by --threshold"  # the rule of a threshold that no images chose
UNTRIED = (
    "temperature and thresholds were chosen without --tta: the mean over eight views is less sure, "
    "so sensitivity and specificity may have moved along the curve"
)


def name_decision(word: str) -> str:
    """One of DECISIONS, for a word of `--decision`."""
    return "qwk" if word == THRESHOLDS else word


def expected_grade(probabilities: NDArray[Any]) -> NDArray[np.float64]:
    """Mean grade under each row's distribution: [N, 5] in [0, 1] -> [N] in [0, 4], rounded to nine
    decimals as `probability_from`."""
    return (np.asarray(probabilities, np.float64) @ np.arange(NUM_GRADES)).round(9)


def probability_from(probabilities: NDArray[Any], first: int) -> NDArray[np.float64]:
    """Probability of grade `first` or more: [N, 5] -> [N].

    Rounded to nine decimals: .3 + .2 + .1 and .1 + .2 + .3 are one score, and no threshold may come
    between them, though floats make two of them.
    """
    return np.asarray(probabilities, np.float64)[:, first:].sum(axis=1).round(9)


def referable_probability(probabilities: NDArray[Any]) -> NDArray[np.float64]:
    """Probability of grade 2 or more: [N, 5] -> [N]."""
    return probability_from(probabilities, REFERABLE_FROM)


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities of logits, row by row: [N, K] -> [N, K] float64."""
    logits = np.asarray(logits, np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Threshold:
    """From which probability on a yes-no question is answered yes."""

    value: float
    rule: str
    """What chose it, in words: see `calibration.choose_threshold`."""
    sensitivity: float | None = None
    specificity: float | None = None
    """Both on the images that it was chosen on; None where those tell none."""

    def to_record(self) -> dict[str, Any]:
        """As it stands with the weights."""
        told = asdict(self)
        return {"threshold": told.pop("value"), **told}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Threshold":
        """The inverse of `to_record`. Raises ValueError for numbers that are none."""
        rates = [record.get(name) for name in ("sensitivity", "specificity")]
        known = [rate for rate in rates if rate is not None]
        if not _are_numbers(record["threshold"], *known) or not isinstance(record["rule"], str):
            raise ValueError(f"threshold {record['threshold']!r}, {record['rule']!r}")
        return cls(record["threshold"], record["rule"], *rates)


@dataclass(frozen=True)
class OperatingPoint:
    """From where on an eye is called referable, and sight-threatening, and who chose that."""

    referable: Threshold
    sight_threatening: Threshold | None = None
    source: str | None = None
    """Whose images it was chosen on, in words: "val of resnet18"."""
    data: str | None = None
    """The data set that those images are of, if known: a threshold that travels is warned of."""

    def to_record(self) -> dict[str, Any]:
        """As it stands with the weights, without `source` and `data`: those are the run's."""
        below = self.sight_threatening
        further = {"sight_threatening": below.to_record()} if below else {}
        return self.referable.to_record() | further

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "OperatingPoint":
        """The inverse of `to_record`."""
        below = record.get("sight_threatening")
        return cls(Threshold.from_record(record), below and Threshold.from_record(below))


@dataclass(frozen=True)
class Fellow:
    """What the other eye's photograph says of an eye: fellow eyes mostly have the same grade."""

    joint: tuple[tuple[float, ...], ...]
    """[5][5]: the share of training patients with these grades in one eye and the other, symmetric,
    none of them 0."""
    weight: float
    """How far that is believed, in ]0, 1]; 1 would be Bayes' rule for two photographs that have
    nothing in common but the grades. Chosen on validation images."""

    def join(self, own: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
        """Probabilities of an eye, [N, 5], by its own photograph's and the other's, both [N, 5]:
        own(g) · (Σ_h other(h) · joint(g, h) / (share(g) · share(h)))^weight, over their sum."""
        joint = np.asarray(self.joint)
        share = joint.sum(axis=1)
        said = np.asarray(other, np.float64) @ (joint / np.outer(share, share))
        both = np.asarray(own, np.float64) * said**self.weight
        return both / both.sum(axis=1, keepdims=True)

    def to_record(self) -> dict[str, Any]:
        """As it stands with the weights."""
        return {"joint": [list(row) for row in self.joint], "weight": self.weight}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Fellow":
        """The inverse of `to_record`. Raises ValueError on other values."""
        joint, weight = record["joint"], record["weight"]
        square = np.shape(joint) == (NUM_GRADES, NUM_GRADES)
        numbers = [weight, *(share for row in joint for share in row)] if square else []
        if not square or not _are_numbers(*numbers) or min(numbers) <= 0 or weight > 1:
            raise ValueError(f"both_eyes {record!r}")
        return cls(tuple(tuple(row) for row in joint), weight)

    @classmethod
    def pooled(cls, several: "Sequence[Fellow | None]") -> "Fellow | None":
        """The mean of several; None where one is missing."""
        known = [one for one in several if one]
        if not known or len(known) < len(several):
            return None
        joint = np.mean([one.joint for one in known], axis=0)
        weight = float(np.mean([one.weight for one in known]))
        return cls(tuple(tuple(row) for row in joint.tolist()), weight)


@dataclass(frozen=True)
class Calibration:
    """How a network's logits become probabilities, a grade, an alarm: all chosen on validation
    images. Without any: the probabilities as they are, the likeliest grade, an alarm from 0.5.
    """

    cuts: tuple[float, ...] | None = None
    """Four rising cuts on the expected grade (a value of exactly the first is grade 1); None: the
    likeliest grade is predicted."""
    temperature: float | None = 1.0
    """What logits are divided by; None where several networks each have their own."""
    operating_point: OperatingPoint | None = None
    objective: str = "qwk"
    """What the cuts raise on the images that they were chosen on: "qwk" or "accuracy"."""
    fellow: Fellow | None = None
    """With --both-eyes: what the other eye says, where it is there; None: each eye by itself."""

    @property
    def decision(self) -> str:
        """What predicts the grade, one of DECISIONS: cuts that raise QWK, cuts that raise accuracy,
        or the likeliest grade."""
        return "argmax" if self.cuts is None else self.objective

    def probabilities(self, logits: NDArray[Any]) -> NDArray[np.float64]:
        """[N, 5] -> [N, 5], each row summing to 1."""
        return softmax(np.asarray(logits) / (self.temperature or 1.0))

    def decide(self, probabilities: NDArray[Any]) -> NDArray[np.int64]:
        """The predicted grade of each row: [N, 5] -> [N]."""
        if self.cuts is None:
            return np.asarray(probabilities).argmax(axis=1).astype(np.int64)
        return np.digitize(expected_grade(probabilities), self.cuts).astype(np.int64)

    @classmethod
    def pooled(cls, several: "Sequence[Calibration]") -> "Calibration":
        """For the mean probabilities of several networks: the mean of their cuts and thresholds,
        and where one of them has none, none. One alone is itself."""
        if len(several) == 1:
            return several[0]
        cuts = [one.cuts for one in several if one.cuts is not None]
        mean = tuple(np.mean(cuts, axis=0).tolist()) if len(cuts) == len(several) else None
        points = [one.operating_point for one in several]
        referable = _mean([point.referable if point else None for point in points])
        below = _mean([point.sight_threatening if point else None for point in points])
        point = OperatingPoint(referable, below) if referable else None
        fellow = Fellow.pooled([one.fellow for one in several])
        return cls(mean, None, point, several[0].objective, fellow)

    def to_record(self) -> dict[str, Any]:
        """decision, temperature, operating_point, both_eyes: as they stand with the weights."""
        cuts, point = self.cuts, self.operating_point
        decision: dict[str, Any] = {"kind": "argmax" if cuts is None else THRESHOLDS}
        if cuts is not None:
            decision |= {"thresholds": list(cuts), "objective": self.objective}
        return {
            "decision": decision,
            "temperature": self.temperature,
            "operating_point": point and point.to_record(),
            **({"both_eyes": self.fellow.to_record()} if self.fellow else {}),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Calibration":
        """The inverse of `to_record`. Raises ValueError on another kind of decision, and for
        numbers that are none."""
        decision, point = record["decision"], record.get("operating_point")
        if decision["kind"] not in ("argmax", THRESHOLDS):
            raise ValueError(f"unknown decision {decision['kind']!r}")
        objective = decision.get("objective", "qwk")  # runs of before had no other
        if objective not in DECISIONS:
            raise ValueError(f"unknown objective {objective!r}")
        cuts, temperature = decision.get("thresholds"), record["temperature"]
        if (cuts is None) != (decision["kind"] == "argmax"):
            raise ValueError(f"decision {decision!r}")
        if cuts is not None and (np.shape(cuts) != (NUM_GRADES - 1,) or not _are_numbers(*cuts)):
            raise ValueError(f"cuts {cuts!r}")
        if cuts is not None and sorted(cuts) != list(cuts):
            raise ValueError(f"cuts {cuts!r}, which do not rise")
        if temperature is not None and not (_are_numbers(temperature) and temperature > 0):
            raise ValueError(f"temperature {temperature!r}")
        point = point and OperatingPoint.from_record(point)
        cuts, both = None if cuts is None else tuple(cuts), record.get("both_eyes")
        fellow = Fellow.from_record(both) if both else None
        return cls(cuts, temperature, point, objective, fellow)


def _are_numbers(*values: Any) -> bool:
    """Whether all are, none infinite, true or false: a record may come from anybody."""
    known = all(isinstance(one, int | float) and not isinstance(one, bool) for one in values)
    return known and all(abs(one) < 1e300 for one in values)


def _mean(thresholds: Sequence[Threshold | None]) -> Threshold | None:
    """Of all of them; None where one is missing."""
    known = [one for one in thresholds if one]
    if len(known) < len(thresholds):
        return None
    rule = f"{known[0].rule}, mean of {len(known)} networks"
    return Threshold(float(np.mean([one.value for one in known])), rule)
