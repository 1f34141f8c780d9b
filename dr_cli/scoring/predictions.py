"""A prediction table: checked, and as arrays.

It has a row an image: `path, grade, patient, eye, p0 … p4, predicted`, or `predicted` alone in
place of probabilities, or, from programs that only tell referable from not, `path, referable,
referable_probability`. It may have more columns: `gradable`, and any
that figures are wanted by (camera, site, eye).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dr_cli.errors import UsageError
from dr_cli.grades import (
    NUM_GRADES,
    REFERABLE_FROM,
    SIGHT_THREATENING_FROM,
    OperatingPoint,
    Threshold,
    probability_from,
)
from dr_cli.runs import Run
from dr_cli.scoring import influence, intervals, metrics

if TYPE_CHECKING:
    import pandas as pd

PROBABILITIES = [f"p{k}" for k in range(NUM_GRADES)]
REFERABLE, GRADE_ALONE = ["referable_probability"], ["predicted"]
TARGETS = {"referable": REFERABLE_FROM, "sight_threatening": SIGHT_THREATENING_FROM}
OWN_THRESHOLDS = {name: f"own_threshold.{name}" for name in TARGETS}
"""Columns of a cross-validation's table: each image is decided by the threshold of its own fold."""
Lines = Sequence[int] | NDArray[np.int64]
SUM_TOLERANCE = 0.026  # five probabilities rounded to two decimals miss 1 by up to 0.025

_GRADE = ("a grade of 0-4", lambda values: np.isin(values, range(NUM_GRADES)))
_FLAG = ("0 or 1", lambda values: np.isin(values, (0, 1)))
_PROBABILITY = ("a probability", lambda values: (values >= 0) & (values <= 1))
CELLS: dict[str, tuple[str, Callable[[NDArray[Any]], NDArray[np.bool_]]]] = {
    **dict.fromkeys(("grade", "predicted"), _GRADE),
    **dict.fromkeys(("referable", "gradable"), _FLAG),
    **dict.fromkeys((*PROBABILITIES, "referable_probability"), _PROBABILITY),
}


def read_checked(run: Run, split: str) -> "pd.DataFrame":
    """A run's own predictions of a split. Raises UsageError as `check` does: they may have been
    written by anybody."""
    table = run.predictions(split)
    check(table, str(run[f"predictions-{split}.csv"]))
    return table


def check(
    table: "pd.DataFrame",
    name: str = "predictions",
    lines: Lines | None = None,
    truth: bool = True,
) -> None:
    """Raises UsageError unless every row can be scored; names the first line that cannot.

    lines: where in the file each row stands; by default from line 2 on, one after the other.
    truth: whether true grades are asked for, too.

    Grades are whole and in 0-4, probabilities are numbers in [0, 1] that sum to 1 (within
    0.026), `referable` and `gradable` are 0/1 or true/false, no image stands there twice.
    """
    told = find_told(table)
    wanted = ["path", *told]
    if truth:
        known = "grade" if told != REFERABLE or "grade" in table else "referable"
        wanted.insert(1, known)
    lines = range(2, len(table) + 2) if lines is None else lines
    missing = [column for column in wanted if column not in table]
    if missing:
        raise UsageError(
            f"{name} has no column {', '.join(missing)}: a table to score has path, grade, and "
            "p0, p1, p2, p3, p4 or predicted; or path, referable, referable_probability. True "
            "grades of another table are joined by --labels"
        )
    if table.empty:
        raise UsageError(f"{name} has no row")
    asked = {*wanted, "grade", "predicted", "referable", "gradable"} & set(table)
    for column in CELLS:
        if column in asked:
            _check_column(table, column, name, lines)
    if told == PROBABILITIES:
        total = table[PROBABILITIES].to_numpy(np.float64).sum(axis=1)
        off = np.abs(total - 1) > SUM_TOLERANCE
        if off.any():
            row = int(off.argmax())
            raise UsageError(f"{name}, line {lines[row]}: p0 to p4 sum to {total[row]:.4g}, not 1")
    key = [column for column in ("split", "path") if column in table]
    twice = table.duplicated(key).to_numpy()
    if twice.any():
        row = int(twice.argmax())
        raise UsageError(f"{name}, line {lines[row]}: {table['path'].iloc[row]} stands there twice")


def find_told(table: "pd.DataFrame") -> list[str]:
    """The columns that say what was predicted: five probabilities, that of referable, or the
    grade alone."""
    if "p0" in table or not {*REFERABLE, *GRADE_ALONE} & {*table}:
        return PROBABILITIES
    return REFERABLE if "referable_probability" in table else GRADE_ALONE


def _check_column(table: "pd.DataFrame", column: str, name: str, lines: Lines) -> None:
    import pandas as pd

    what, is_good = CELLS[column]
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    bad = ~is_good(values)
    if bad.any():
        row = int(bad.argmax())
        found = table[column].iloc[row]
        shown = "nothing" if pd.isna(found) else repr(str(found))
        raise UsageError(f"{name}, line {lines[row]}, column {column}: {shown} is not {what}")


@dataclass(frozen=True)
class Answers:
    """What each image shows, and what it was called: one of so many kinds."""

    truth: NDArray[Any]  # [N], in 0..kinds-1 or bool
    said: NDArray[Any]  # [N]

    kinds: ClassVar[int]

    @property
    def right(self) -> NDArray[np.bool_]:
        """[N]: whether each image was called what it is."""
        return self.said == self.truth

    def count_by(self, unit: NDArray[np.int64]) -> metrics.Statistic:
        """Confusion counts as a function of how often each unit was drawn; unit [N]."""
        return intervals.count_confusion(self.truth, self.said, self.kinds, unit)


@dataclass(frozen=True)
class Target(Answers):
    """A yes-no question about each image, called yes from a threshold on its score."""

    score: NDArray[np.float64] | None  # [N]; None where only yes or no was said

    kinds = 2

    @classmethod
    def from_table(
        cls, table: "pd.DataFrame", name: str, point: OperatingPoint | None = None
    ) -> "Target":
        """Is it "referable", is it "sight_threatening": called yes from the image's own threshold
        on (`OWN_THRESHOLDS`), else from what `point` says, else from 0.5."""
        first = TARGETS[name]
        graded = "grade" in table
        truth = table["grade"].to_numpy() >= first if graded else table["referable"].to_numpy() == 1
        if "p0" in table:
            score = probability_from(table[PROBABILITIES].to_numpy(), first)
        elif find_told(table) == GRADE_ALONE:
            return cls(truth, table["predicted"].to_numpy() >= first, None)
        else:
            score = table["referable_probability"].to_numpy(np.float64).round(9)
        if OWN_THRESHOLDS[name] in table:
            return cls(truth, score >= table[OWN_THRESHOLDS[name]].to_numpy(np.float64), score)
        chosen = find_threshold(point, name)
        return cls(truth, score >= (chosen.value if chosen else 0.5), score)


def find_threshold(point: OperatingPoint | None, target: str) -> Threshold | None:
    """What was chosen on validation for "referable" or "sight_threatening"; None: nothing was."""
    return getattr(point, target, None)


@dataclass(frozen=True)
class Graded(Answers):
    """What a program that knows five grades said of each image."""

    probabilities: NDArray[np.float64] | None  # [N, 5]; None where only the grade was said

    kinds = NUM_GRADES

    @property
    def counts(self) -> NDArray[np.int64]:
        """Confusion counts [5, 5], rows true."""
        return metrics.confusion_counts(self.truth, self.said)


def number_units(
    table: "pd.DataFrame",
) -> tuple[NDArray[np.int64], int, NDArray[np.bool_]]:
    """Whose each image is ([N], in 0..units-1), how many units there are, and whose is known ([N]).

    Units are numbered by sorted name, so that the order of rows changes no interval. An image
    without a patient is a unit of its own.
    """
    import pandas as pd

    path = table["path"].astype(str)
    patient = table["patient"] if "patient" in table else pd.Series(index=path.index, dtype=str)
    known = patient.notna().to_numpy()
    # "0" and "1" keep a patient's name apart from an image's that happens to be the same
    unit, names = pd.factorize(("0" + patient.astype(str)).where(known, "1" + path), sort=True)
    return unit, len(names), known


@dataclass(frozen=True)
class Sample:
    """N images: whose they are, what they show, what was said of them."""

    unit: NDArray[np.int64]  # [N] in 0..units-1: the patient, or the image where none is known
    units: int
    patients: int | None  # None where no patient is known
    known: NDArray[np.bool_]  # [N]: whether the patient is
    graded: Graded | None  # None where only referable or not is known
    targets: dict[str, Target]

    @classmethod
    def from_table(cls, table: "pd.DataFrame", point: OperatingPoint | None = None) -> "Sample":
        """The table as arrays; see `number_units`."""
        unit, units, known = number_units(table)
        graded = None
        if find_told(table) != REFERABLE:
            probabilities = table[PROBABILITIES].to_numpy(np.float64) if "p0" in table else None
            if "predicted" in table or probabilities is None:
                said = table["predicted"].to_numpy()
            else:
                said = probabilities.argmax(axis=1)
            truth = table["grade"].to_numpy(np.int64)
            graded = Graded(truth, np.asarray(said, np.int64), probabilities)
        asked = TARGETS if graded else ("referable",)
        targets = {name: Target.from_table(table, name, point) for name in asked}
        patients = units - int((~known).sum()) if known.any() else None
        return cls(unit, units, patients, known, graded, targets)

    @property
    def unknown(self) -> int:
        """Images without a patient."""
        return int((~self.known).sum())

    def by_patient(self) -> "Sample | None":
        """Each known patient as one image: of the worst grade and the worst call of their images,
        and alarmed where one of these is. None where no patient is known."""
        if self.patients is None:
            return None
        known = self.known
        names, unit = np.unique(self.unit[known], return_inverse=True)

        def worst(column: NDArray[Any] | None) -> Any:
            if column is None:
                return None
            found = np.zeros(len(names), column.dtype)
            np.maximum.at(found, unit, column[known])
            return found

        graded = self.graded and Graded(worst(self.graded.truth), worst(self.graded.said), None)
        targets = {
            name: Target(worst(each.truth), worst(each.said), worst(each.score))
            for name, each in self.targets.items()
        }
        own = np.arange(len(names))
        return Sample(own, len(names), len(names), own >= 0, graded, targets)

    def units_with(self, images: NDArray[np.bool_]) -> int:
        """How many units have one of these images [N]."""
        return len(np.unique(self.unit[images]))

    @cached_property
    def worth(self) -> float:
        """How much of an independent image each is worth, by how alike one patient's are in being
        called right: from one image a patient up to 1."""
        right = (self.graded or self.targets["referable"]).right
        images = np.bincount(self.unit).astype(np.float64)
        moved = influence.of_ratio(np.bincount(self.unit, right), images)
        share, variance = right.mean(), float(moved @ moved)
        least = self.units / len(right)
        if not variance > 0:
            return least
        return float(np.clip(share * (1 - share) / len(right) / variance, least, 1))

    def bound_share(self, found: metrics.Floats, of: NDArray[np.bool_]) -> dict[str, Any]:
        """A share of some images with its interval, as a record has it: {"value", "ci95"}.

        found: of the images, then of each replicate, [1 + B]; of: which images [N].
        """
        value, ci95 = metrics.as_plain(float(found[0])), None
        if value is not None and len(found) > 1:
            patients, images = self.units_with(of), int(of.sum())
            ci95 = intervals.proportion_interval(found[1:], value, patients, images, self.worth)
        return {"value": value, "ci95": ci95}

    @property
    def kind(self) -> str:
        """What a unit is."""
        return "image" if self.patients is None else "patient"
