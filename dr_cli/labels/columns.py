"""Which columns of a table count, and what their cells mean: grades, patients, eyes, splits.

Wrong values are refused here, with file, row and column.
"""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dr_cli.errors import UsageError
from dr_cli.grades import NUM_GRADES
from dr_cli.labels import layouts, tables
from dr_cli.labels.layouts import Layout
from dr_cli.labels.listing import clean
from dr_cli.labels.scale import Scale, find_doubt, offer_map, suggest_map
from dr_cli.labels.tables import Table, quote
from dr_cli.photographs.decoding import EXTENSIONS

COLUMNS = ("path", "grade", "patient", "eye", "split", "reason")
NO_GRADE = -1

UNGRADABLE = "ungradable"
REPEATED = "named twice"
UNGRADED = "no grade"
MAPPED_OUT = "left out by --grade-map"

_FEW = 15  # different values in a column that a map is offered for
_UNKNOWN = ["", "nan", "na", "n/a", "none", "null"]  # how tables say that a patient is not known


@dataclass(frozen=True)
class Columns:
    """Column names that a person gave, and what its grades mean (`--grade-map`, see `Scale.read`);
    each wins over what would be recognised. Raises UsageError for a map that is none."""

    image: str | None = None
    grade: str | None = None
    patient: str | None = None
    split: str | None = None
    grade_map: str | None = None

    def __post_init__(self) -> None:
        _ = self.scale

    @cached_property
    def scale(self) -> Scale:
        """What the values of the grade column, or the names of folders, mean."""
        return Scale.read(self.grade_map)

    @property
    def counted(self) -> bool:
        """Whether they are counted ("column 2"), as those of a table without titles are."""
        named = [name for name in (self.image, self.grade) if name]
        return bool(named) and all(map(is_counted, named))

    def to_record(self) -> dict[str, str]:
        """Those that were given: {"image": "photo"}."""
        return {what: name for what, name in dataclasses.asdict(self).items() if name}

    def flags(self) -> list[str]:
        """The columns as they were given: `--image-column name`."""
        given = self.to_record()
        return [f"--{what}-column {name}" for what, name in given.items() if what != "grade_map"]


def is_counted(column: str) -> bool:
    """Whether a column's name is its number."""
    return re.fullmatch(r"column_\d+", tables.simplify(column)) is not None


@dataclass
class ColumnReader:
    """One table's columns, given their meaning. notes: what was decided is added to them."""

    table: Table
    layout: Layout
    given: Columns
    notes: list[str]

    def read(self, split: str | None, home: str) -> pd.DataFrame:
        """A row an image: `name` (as the table has it, cleaned), `COLUMNS` but for `path`, then
        the further columns as text. split: where no column says it; home: the table's folder.

        Raises UsageError for a column that is not there, a grade outside 0-4, no image's name,
        two grades for one name.
        """
        table = self.table
        image = self._find("image") or self._find_images()
        names = clean(table.cells[image], home)
        if not (names != "").all():
            raise table.error(int(np.argmax(names == "")), image, "no image is named")
        graded = self._find_grades(image)
        _refuse_swallowed(table, image, graded, self.given.scale)
        grade, reason = self._read_grades(graded)
        rows = pd.DataFrame({"name": names.astype(object), "grade": grade, "patient": None})
        rows = rows.assign(eye=None, split=split, reason=reason)
        used = {image, *graded}
        roles = {"patient": self._read_patients, "eye": self._read_eyes, "split": self._read_splits}
        for role, read in roles.items():
            if (column := self._find(role)) and (values := read(column)) is not None:
                rows[role] = values
                used.add(column)
        for key, side in self.layout.side_of:
            if column := table.find((key,)):
                rows.loc[table.cells[column] != "", "eye"] = side
        for column in table.columns:
            if column not in used and (table.cells[column] != "").any():
                name = column  # with `_` behind it where that name means something else here
                while name in rows or name in (*COLUMNS, "index"):
                    name += "_"
                rows[name] = table.cells[column].astype(object)
        _mark_repeats(table, rows, image)
        return rows

    def _find(self, role: str) -> str | None:
        """The image, patient, eye or split column: the one a person named, else the first known."""
        if name := getattr(self.given, role, None):
            return self.table.find_given(name, f"--{role}-column")
        return self.table.find(getattr(self.layout, role))

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
            return [table.find_given(self.given.grade, "--grade-column")]
        known = [column for key in self.layout.grade if (column := table.find((key,)))]
        if len(known) > 1 and not self.layout.side_of:
            self.notes.append(
                f"{table.path.name}: column '{known[0]}' is taken as the grade, not"
                f" {quote(known[1:])} (--grade-column decides)"
            )
        if known:
            return known if self.layout.side_of else known[:1]
        others = [column for column in table.columns if column != image]
        graded = [c for c in others if self.given.scale.knows(str(table.cells[c].iloc[0]))]
        if len(graded) == 1:
            return graded
        raise UsageError(
            f"{table.path}: which of {quote(table.columns)} holds the grades? name it"
            " with --grade-column"
        )

    def _read_grades(self, columns: Sequence[str]) -> tuple[NDArray[np.int8], NDArray[Any]]:
        """Each row's grade ([N] int8, -1: none) and reason ([N] object). Raises UsageError."""
        table, layout, scale = self.table, self.layout, self.given.scale
        cells = table.cells[columns[0]]
        for column in columns[1:]:
            cells = cells.where(cells != "", table.cells[column])
        meant = tables.map_values(cells, scale.grade)
        grade = np.where(pd.isna(meant), NO_GRADE, meant).astype(np.int8)
        reason = np.full(len(grade), None, object)
        if scale.meant is None:
            self._refuse_doubt(cells, columns[0])
            for word in layout.ungradable:
                reason[(cells == word).to_numpy(bool)] = f"{UNGRADABLE} (grade {word})"
        for word in filter(scale.leaves_out, cells.unique()):
            reason[(cells == word).to_numpy(bool)] = f"{MAPPED_OUT} ({word})"
        if layout.gradable and (gradable := table.find((layout.gradable,))):
            ungradable = table.cells[gradable].isin(["0", "0.0"]).to_numpy(bool)
            reason[ungradable], grade[ungradable] = UNGRADABLE, NO_GRADE
        empty = (grade == NO_GRADE) & pd.isna(reason) & cells.str.lower().isin(_UNKNOWN).to_numpy()
        if empty.any():
            self._tell_empty(np.flatnonzero(empty), int(pd.isna(reason).sum()), columns[0])
            reason[empty] = UNGRADED
        wrong = np.flatnonzero((grade == NO_GRADE) & pd.isna(reason))
        if len(wrong):
            what = self._explain_value(cells.iloc[wrong[0]], cells)
            raise table.error(int(wrong[0]), columns[0], what)
        return grade, reason

    def _refuse_doubt(self, cells: pd.Series, column: str) -> None:
        """Raise UsageError where the column may hold another scale; a layout whose 5 is known to
        mean ungradable is doubted only with all of 1-5 and no 0."""
        words = [word for word in cells.unique() if word]
        if self.layout.ungradable and {*map(layouts.parse_number, words)} != {*range(1, 6)}:
            return
        if doubt := find_doubt(words):
            raise UsageError(f"{self.table.path}, column '{column}': {doubt}")

    def _tell_empty(self, rows: NDArray[np.intp], of: int, column: str) -> None:
        """Rows without a grade are left out and said; where they are more than half of those that
        could have one, the column is the wrong one: UsageError."""
        if 2 * len(rows) > of:
            what = (
                f"no grade is given, in {len(rows)} of {of} rows: is this the column of grades?"
                " (--grade-column decides)"
            )
            raise self.table.error(int(rows[0]), column, what)
        first = self.table.rows[rows[0]]
        self.notes.append(
            f"{self.table.path.name}: {len(rows)} of {of} rows have no grade and are left out (the"
            f" first is row {first}, column '{column}')"
        )

    def _explain_value(self, word: str, cells: pd.Series) -> str:
        """Why a cell is no grade, and what to do."""
        if self.given.scale.meant is not None:
            return f"'{word}' is not in --grade-map"
        what = f"'{word}' is not a grade 0-4"
        if word == "5":
            kept = {str(n): n if n < NUM_GRADES else None for n in range(NUM_GRADES + 1)}
            what += f" (5 means ungradable in DDR and DeepDRiD: {offer_map(kept)} leaves it out)"
        elif cells.nunique() <= _FEW and (offer := suggest_map([w for w in cells.unique() if w])):
            what += f"; say what the values mean: {offer}"
        return what

    def _read_patients(self, column: str) -> NDArray[Any]:
        """A column's cells, None where they say that nobody knows."""
        cells = self.table.cells[column].astype(object)
        return cells.where(~cells.str.lower().isin(_UNKNOWN), None).to_numpy(object)

    def _read_eyes(self, column: str) -> NDArray[Any] | None:
        """A column's cells as "left"/"right"/None; None when it holds anything else."""
        codes, words = pd.factorize(self.table.cells[column])
        coded = dict(self.layout.eye_codes)
        keys = [coded.get(w, tables.simplify(w).removesuffix("_eye")) for w in words]
        if not {*keys} <= {"", *layouts.EYES}:
            return None
        return np.array([layouts.EYES.get(key) for key in keys], object)[codes]

    def _read_splits(self, column: str) -> NDArray[Any] | None:
        """A column's cells as splits, None where empty; None when it holds anything else."""
        table, cells = self.table, self.table.cells[column]
        meant = tables.map_values(cells, layouts.parse_split)
        wrong = np.flatnonzero(pd.isna(meant) & (cells != ""))
        if not len(wrong):
            return meant
        if self.given.split:
            what = f"'{cells.iloc[wrong[0]]}' is not train, val or test"
            raise table.error(int(wrong[0]), column, what)
        self.notes.append(
            f"{table.path.name}: column '{column}' is not taken as the split: it says"
            f" {quote(cells.iloc[wrong].unique(), 3)}"
        )
        return None


def _refuse_swallowed(table: Table, image: str, graded: Sequence[str], scale: Scale) -> None:
    """A double quote that stands alone takes lines up to the next one into its cell, and their
    rows would be lost in silence: UsageError."""
    for column in table.columns:
        cells = table.cells[column]
        if "\n" not in "".join(cells):
            continue  # a column of a million at once
        for row in np.flatnonzero(cells.str.contains("\n", regex=False)):
            if column in (image, *graded) or _holds_row(table, cells.iloc[row], graded[0], scale):
                what = "more than one line in a cell: a double quote stands alone here"
                raise table.error(int(row), column, what)


def _holds_row(table: Table, cell: str, graded: str, scale: Scale) -> bool:
    """Whether a line within a cell has a row's cells, and a grade where that stands."""
    place, width = table.columns.index(graded), len(table.columns)
    rows = (re.split(r"[,;\t|]", line) for line in cell.split("\n")[1:])
    return any(len(r) >= width and scale.knows(r[place].strip(' "')) for r in rows)


def _mark_repeats(table: Table, rows: pd.DataFrame, image: str) -> None:
    """A name that stands twice in one split of a table counts once; with two grades nobody
    can say which is right, and the table is refused."""
    graded = rows["reason"] != UNGRADED  # such a row beside a graded one says nothing
    order = rows[graded.to_numpy(bool)].index.append(rows[~graded.to_numpy(bool)].index)
    later = rows.loc[order].duplicated(["name", "split"]).reindex(rows.index)
    if not later.any():
        return
    first = rows[graded].groupby(["name", "split"], dropna=False)["grade"].transform("first")
    if (differ := rows["grade"][graded] != first).any():
        two = int(differ.index[int(np.argmax(differ))])
        alike = graded & (rows["name"] == rows["name"][two])
        one = int(np.argmax(alike & (rows["grade"] != rows["grade"][two])))
        numbers = table.rows
        raise UsageError(
            f"{table.path}, rows {numbers[one]} and {numbers[two]}, column '{image}':"
            f" '{rows['name'][two]}' is graded {rows['grade'][one]} and {rows['grade'][two]};"
            " keep one of them"
        )
    rows.loc[later & (rows["reason"].isna() | ~graded), "reason"] = REPEATED
