"""A prediction table: read, checked, and as arrays.

It has a row an image: `path, grade, patient, eye, p0 … p4, predicted`, or, from programs that
only tell referable from not, `path, referable, referable_probability`. It may have more
columns: `gradable`, and any that figures are wanted by (camera, site, eye).
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
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
)
from dr_cli.scoring import intervals, metrics

if TYPE_CHECKING:
    import pandas as pd

PROBABILITIES = [f"p{k}" for k in range(NUM_GRADES)]
TARGETS = {"referable": REFERABLE_FROM, "sight_threatening": SIGHT_THREATENING_FROM}
SUM_TOLERANCE = 0.026  # five probabilities rounded to two decimals miss 1 by up to 0.025

_GRADE = ("a grade of 0-4", lambda values: np.isin(values, range(NUM_GRADES)))
_FLAG = ("0 or 1", lambda values: np.isin(values, (0, 1)))
_PROBABILITY = ("a probability", lambda values: (values >= 0) & (values <= 1))
CELLS: dict[str, tuple[str, Callable[[NDArray[Any]], NDArray[np.bool_]]]] = {
    **dict.fromkeys(("grade", "predicted"), _GRADE),
    **dict.fromkeys(("referable", "gradable"), _FLAG),
    **dict.fromkeys((*PROBABILITIES, "referable_probability"), _PROBABILITY),
}


def read_predictions(path: str | Path, split: str | None = None) -> "pd.DataFrame":
    """Anybody's predictions with their true grades, from a CSV (or, by its name, TSV) file.

    Columns: `path, grade, p0 … p4` (`predicted` optional: without it the likeliest grade), or
    `path, referable, referable_probability`; optional `patient`, `eye`, `split`, `gradable`,
    and any others, kept as they are. split: only its rows, by that column.
    Raises UsageError, naming file, line and column, for a file that cannot be read or scored.
    """
    import pandas as pd

    path = Path(path)
    text: Any = dict.fromkeys(("path", "patient", "eye", "split"), str)
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        table = pd.read_csv(
            path, sep=separator, dtype=text, encoding="utf-8-sig", skipinitialspace=True
        )
        lines = _lines(path, separator)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    except (ValueError, pd.errors.ParserError, csv.Error) as error:
        raise UsageError(f"{path} is no table: {str(error).strip()}") from None
    check(table, str(path), lines)
    if split in (None, "all"):
        return table
    if "split" not in table:
        raise UsageError(
            f"{path} has no column split: --split {split} cannot be told from the rest"
        )
    rows = table[table["split"] == split]
    if rows.empty:
        there = ", ".join(sorted(table["split"].dropna().unique()))
        raise UsageError(f"{path} has no row of split {split!r}: it has {there or 'none named'}")
    return rows.reset_index(drop=True)


def _lines(path: Path, separator: str) -> list[int]:
    """The number of the line in which each row begins: pandas skips blank ones, and a quoted cell
    may hold line breaks."""
    found, begin = [], 1
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter=separator, skipinitialspace=True)
        for row in rows:
            if len(row) > 1 or "".join(row).strip():
                found.append(begin)
            begin = rows.line_num + 1
    return found[1:]


def check(
    table: "pd.DataFrame", name: str = "predictions", lines: Sequence[int] | None = None
) -> None:
    """Raises UsageError unless every row can be scored; names the first line that cannot.

    lines: where in the file each row stands; by default from line 2 on, one after the other.

    Grades are whole and in 0-4, probabilities are numbers in [0, 1] that sum to 1 (within
    0.026), `referable` and `gradable` are 0/1 or true/false, no image stands there twice.
    """
    graded = "p0" in table or "referable_probability" not in table
    truth = "grade" if graded or "grade" in table else "referable"
    wanted = ["path", truth, *(PROBABILITIES if graded else ["referable_probability"])]
    lines = range(2, len(table) + 2) if lines is None else lines
    missing = [column for column in wanted if column not in table]
    if missing:
        raise UsageError(
            f"{name} has no column {', '.join(missing)}: a table to score has path, grade, "
            "p0, p1, p2, p3, p4, or path, referable, referable_probability"
        )
    if table.empty:
        raise UsageError(f"{name} has no row")
    asked = {*wanted, "grade", "predicted", "referable", "gradable"} & set(table)
    for column in CELLS:
        if column in asked:
            _check_column(table, column, name, lines)
    if graded:
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


def _check_column(table: "pd.DataFrame", column: str, name: str, lines: Sequence[int]) -> None:
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
        """Is it "referable", is it "sight_threatening": called yes from what `point` says on,
        else from 0.5."""
        first = TARGETS[name]
        graded = "grade" in table
        truth = table["grade"].to_numpy() >= first if graded else table["referable"].to_numpy() == 1
        if "p0" in table:
            score = table[PROBABILITIES[first:]].to_numpy(np.float64).sum(axis=1)
        else:
            score = table["referable_probability"].to_numpy(np.float64)
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
        """The table as arrays. Units are numbered by sorted name, so that the order of its rows
        changes no interval. An image without a patient is a unit of its own."""
        import pandas as pd

        path = table["path"].astype(str)
        patient = table["patient"] if "patient" in table else pd.Series(index=path.index, dtype=str)
        known = patient.notna().to_numpy()
        # "0" and "1" keep a patient's name apart from an image's that happens to be the same
        unit, names = pd.factorize(("0" + patient.astype(str)).where(known, "1" + path), sort=True)
        graded = None
        if "p0" in table:
            probabilities = table[PROBABILITIES].to_numpy(np.float64)
            said = table["predicted"] if "predicted" in table else probabilities.argmax(axis=1)
            truth = table["grade"].to_numpy(np.int64)
            graded = Graded(truth, np.asarray(said, np.int64), probabilities)
        asked = TARGETS if graded else ("referable",)
        targets = {name: Target.from_table(table, name, point) for name in asked}
        patients = len(names) - int((~known).sum()) if known.any() else None
        return cls(unit, len(names), patients, known, graded, targets)

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

    @property
    def kind(self) -> str:
        """What a unit is."""
        return "image" if self.patients is None else "patient"
