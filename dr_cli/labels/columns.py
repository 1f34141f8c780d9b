"""Which columns of a table count, and what their cells mean: grades, patients, eyes, splits.

Wrong values are refused here, with file, row and column.
"""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dr_cli.errors import UsageError
from dr_cli.labels import layouts, tables
from dr_cli.labels.layouts import Layout
from dr_cli.labels.listing import clean
from dr_cli.labels.tables import Table, quote
from dr_cli.photographs.decoding import EXTENSIONS

COLUMNS = ("path", "grade", "patient", "eye", "split", "reason")
NO_GRADE = -1

UNGRADABLE = "ungradable"
REPEATED = "named twice"

_UNKNOWN = ["", "nan", "na", "n/a", "none", "null"]  # how tables say that a patient is not known


@dataclass(frozen=True)
class Columns:
    """Column names that a person gave; each wins over what would be recognised."""

    image: str | None = None
    grade: str | None = None
    patient: str | None = None
    split: str | None = None

    @property
    def counted(self) -> bool:
        """Whether they are counted ("column 2"), as those of a table without titles are."""
        named = [name for name in (self.image, self.grade) if name]
        return bool(named) and all(map(is_counted, named))

    def to_record(self) -> dict[str, str]:
        """Those that were given: {"image": "photo"}."""
        return {what: name for what, name in dataclasses.asdict(self).items() if name}

    def flags(self) -> list[str]:
        """As they were given: `--image-column name`."""
        return [f"--{what}-column {name}" for what, name in self.to_record().items()]


def is_counted(column: str) -> bool:
    """Whether a column's name is its number."""
    return re.fullmatch(r"column_\d+", tables.key(column)) is not None


@dataclass
class ColumnReader:
    """One table's columns, given their meaning. notes: what was decided is added to them."""

    table: Table
    layout: Layout
    given: Columns
    notes: list[str]

    def rows(self, split: str | None, home: str) -> pd.DataFrame:
        """A row an image: `name` (as the table has it, cleaned), `COLUMNS` but for `path`, then
        the further columns as text. split: where no column says it; home: the table's folder.

        Raises UsageError for a column that is not there, a grade outside 0-4, no image's name,
        two grades for one name.
        """
        table, layout, given = self.table, self.layout, self.given
        image = self._find(given.image, "--image-column", layout.image) or self._find_images()
        names = clean(table.cells[image], home)
        if not (names != "").all():
            raise table.error(int(np.argmax(names == "")), image, "no image is named")
        graded = self._find_grades(image)
        grade, reason = self._grades(graded)
        rows = pd.DataFrame({"name": names.astype(object), "grade": grade, "patient": None})
        rows = rows.assign(eye=None, split=split, reason=reason)
        used = {image, *graded}
        if patient := self._find(given.patient, "--patient-column", layout.patient):
            known = table.cells[patient].astype(object)
            rows["patient"] = known.where(~known.str.lower().isin(_UNKNOWN), None)
            used.add(patient)
        if (eye := table.find(layout.eye)) and (sides := self._eyes(eye)) is not None:
            rows["eye"] = sides
            used.add(eye)
        for column, side in layout.side_of:
            if of_side := table.find((column,)):
                rows.loc[table.cells[of_side] != "", "eye"] = side
        stands = self._find(given.split, "--split-column", layout.split)
        if stands and (splits := self._splits(stands)) is not None:
            rows["split"] = splits
            used.add(stands)
        for column in table.columns:
            if column not in used and (table.cells[column] != "").any():
                rows[_rename(column, rows.columns)] = table.cells[column].astype(object)
        self._mark_repeats(rows, image)
        return rows

    def _find(self, name: str | None, flag: str, known: Iterable[str]) -> str | None:
        """The column that a person named, else the first known one."""
        return self.table.named(name, flag) if name else self.table.find(known)

    def _find_images(self) -> str:
        """Of a table without header, the column whose first cell has an image's extension."""
        table = self.table
        for column in table.columns:
            if Path(str(table.cells[column].iloc[0])).suffix.lower() in EXTENSIONS:
                return column
        raise UsageError(
            f"{table.path}: no column of images among {quote(table.columns)}; name it with"
            " --image-column"
        )

    def _find_grades(self, image: str) -> list[str]:
        """The grade column: the one a person named, else the first known one (of a layout with a
        column an eye all of them), else the one beside `image` that starts with a grade."""
        table = self.table
        if self.given.grade:
            return [table.named(self.given.grade, "--grade-column")]
        known = [column for key in self.layout.grade if (column := table.find((key,)))]
        if len(known) > 1 and not self.layout.side_of:
            self.notes.append(
                f"{table.path.name}: column '{known[0]}' is taken as the grade, not"
                f" {quote(known[1:])} (--grade-column decides)"
            )
        if known:
            return known if self.layout.side_of else known[:1]
        others = [column for column in table.columns if column != image]
        graded = [c for c in others if layouts.grade_of(str(table.cells[c].iloc[0])) is not None]
        if len(graded) == 1:
            return graded
        raise UsageError(
            f"{table.path}: which of {quote(table.columns)} holds the grades? name it"
            " with --grade-column"
        )

    def _grades(self, columns: Sequence[str]) -> tuple[NDArray[np.int8], NDArray[Any]]:
        """Each row's grade ([N] int8, -1: none) and reason ([N] object). Raises UsageError."""
        table, layout = self.table, self.layout
        cells = table.cells[columns[0]]
        for column in columns[1:]:
            cells = cells.where(cells != "", table.cells[column])
        codes, words = pd.factorize(cells)
        meant = [layouts.grade_of(word) for word in words]
        grade = np.array([NO_GRADE if one is None else one for one in meant], np.int8)[codes]
        reason = np.full(len(grade), None, object)
        for word in layout.ungradable:
            reason[(cells == word).to_numpy(bool)] = f"{UNGRADABLE} (grade {word})"
        if layout.gradable and (gradable := table.find((layout.gradable,))):
            ungradable = table.cells[gradable].isin(["0", "0.0"]).to_numpy(bool)
            reason[ungradable], grade[ungradable] = UNGRADABLE, NO_GRADE
        wrong = np.flatnonzero((grade == NO_GRADE) & pd.isna(reason))
        if len(wrong):
            word = cells.iloc[wrong[0]]
            what = f"'{word}' is not a grade 0-4" if word else "no grade is given"
            if word == "5":
                what += " (5 means ungradable in DDR and DeepDRiD: take such rows out)"
            raise table.error(int(wrong[0]), columns[0], what)
        return grade, reason

    def _eyes(self, column: str) -> NDArray[Any] | None:
        """A column's cells as "left"/"right"/None; None when it holds anything else."""
        codes, words = pd.factorize(self.table.cells[column])
        keys = [tables.key(word).removesuffix("_eye") for word in words]
        if any(key and key not in layouts.EYES for key in keys):
            return None
        return np.array([layouts.EYES.get(key) for key in keys], object)[codes]

    def _splits(self, column: str) -> NDArray[Any] | None:
        """A column's cells as splits, None where empty; None when it holds anything else."""
        table = self.table
        codes, words = pd.factorize(table.cells[column])
        meant = [layouts.split_of(word) for word in words]
        wrong = [i for i, word in enumerate(words) if word and meant[i] is None]
        if wrong and self.given.split:
            position = int(np.argmax(codes == wrong[0]))
            raise table.error(position, column, f"'{words[wrong[0]]}' is not train, val or test")
        if wrong:
            self.notes.append(
                f"{table.path.name}: column '{column}' is not taken as the split: it says"
                f" {quote((words[i] for i in wrong), 3)}"
            )
            return None
        return np.array(meant, object)[codes]

    def _mark_repeats(self, rows: pd.DataFrame, image: str) -> None:
        """A name that stands twice in one split of a table counts once; with two grades nobody
        can say which is right, and the table is refused."""
        later = rows.duplicated(["name", "split"])
        if not later.any():
            return
        first = rows.groupby(["name", "split"], dropna=False)["grade"].transform("first")
        if (differ := rows["grade"] != first).any():
            two = int(np.argmax(differ))
            alike = (rows["name"] == rows["name"][two]) & (rows["grade"] != rows["grade"][two])
            one = int(np.argmax(alike))
            numbers = self.table.rows
            raise UsageError(
                f"{self.table.path}, rows {numbers[one]} and {numbers[two]}, column '{image}':"
                f" '{rows['name'][two]}' is graded {rows['grade'][one]} and {rows['grade'][two]};"
                " keep one of them"
            )
        rows.loc[later & rows["reason"].isna(), "reason"] = REPEATED


def _rename(column: str, taken: Iterable[str]) -> str:
    """The column's own name, with `_` behind it where that name means something else here."""
    while column in taken or column in (*COLUMNS, "index"):
        column += "_"
    return column
