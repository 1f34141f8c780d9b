"""A folder of graded photographs -> one table: path, grade, patient, eye, split, reason.

What layouts look like is said in `layouts`, which one a folder has in `recognise`; here its
tables are read and checked, and every row finds its image. Wrong values are refused before any
image is matched. No row is dropped: one that cannot be used keeps its place, with a reason.
"""

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dr_cli.errors import UsageError
from dr_cli.events import NOTHING, Observer
from dr_cli.labels import layouts, recognise, tables
from dr_cli.labels import matching as files
from dr_cli.labels.layouts import Layout, Source
from dr_cli.labels.matching import Found
from dr_cli.labels.recognise import Columns, Recognised
from dr_cli.labels.tables import Table, listed
from dr_cli.photographs import packed as npz

__all__ = ["Columns", "Labels", "fingerprint", "leave_out", "need_images", "read"]

COLUMNS = ("path", "grade", "patient", "eye", "split", "reason")
NO_GRADE = -1

MISSING = "image missing"
UNREADABLE = "unreadable"
UNGRADABLE = "ungradable"
REPEATED = "named twice"
CONTESTED = "its file fits rows of two splits"
NO_GRADE_FOLDER = "its folder is no grade"

_UNKNOWN = ["", "nan", "na", "n/a", "none", "null"]  # how tables say that a patient is not known


@dataclass(frozen=True)
class Labels:
    """A data set as it was found.

    table: one row an image, RangeIndex: `path` (str, posix, relative to `root`; absolute if
    outside; as the table names it if missing), `grade` (int8; -1: none), `patient` (str or
    None), `eye` ("left", "right" or None), `split` ("train", "val", "test" or None: undecided),
    `reason` (str: why the row is left out; None: it can be used), then `extra_columns` as they
    came, as text. layout: a name of `layouts.BY_NAME`. notes: what was found and chosen, a
    sentence each. source: the folder or table that was read, absolute. mark: the fingerprint of
    the table as it was read, whatever is added to it or decided later.
    """

    root: Path
    layout: str
    table: pd.DataFrame
    notes: tuple[str, ...] = ()
    extra_columns: tuple[str, ...] = ()
    source: Path | None = None
    mark: str = ""
    columns: Columns = field(default_factory=Columns)  # as a person named them

    def __post_init__(self) -> None:
        if not self.mark:
            object.__setattr__(self, "mark", fingerprint(self.table))

    @property
    def left_out(self) -> dict[str, int]:
        """How many rows stand aside for each reason, the most frequent first."""
        return count_reasons(self.table)

    @property
    def images_found(self) -> int:
        """Rows whose image is there, whether they can be used or not."""
        return int((self.table["reason"] != MISSING).sum())


def read(
    root: Path | str,
    *,
    layout: str = "auto",
    columns: Columns | None = None,
    observer: Observer = NOTHING,
) -> Labels:
    """Read the graded photographs of `root`, a folder or a table file.

    layout: a name of `layouts.BY_NAME`, or "auto": the first one that fits. columns: names that
    a person gave; with an image or a grade column any table that has it is read.
    Where tables are there but no image is, every row says "image missing" (`need_images` refuses).
    Raises UsageError: no such folder, no known layout, a needed column that is not there, a grade
    outside 0-4, two grades for one name, an empty set; with file, row and column.
    """
    given = Path(root).expanduser()
    columns = columns or Columns()
    if layout != "auto" and layout not in layouts.BY_NAME:
        raise UsageError(f"no layout '{layout}'; known are {listed(layouts.BY_NAME)}")
    if not given.exists():
        raise UsageError(f"{given}: no such folder or table")
    if not given.is_dir() and given.suffix.lower() not in {*tables.SUFFIXES, ".npz"}:
        raise UsageError(f"{given}: give a folder, or a table (.csv, .tsv, .txt, .xlsx, .npz)")
    found = files.scan(given if given.is_dir() else given.parent)
    if not given.is_dir():
        found = replace(found, tables=[given.name])
    fit = recognise.recognise(found, layout, columns)
    labels, warnings = _Reading(found, fit, columns).labels()
    for note in labels.notes:
        observer.note(note)
    shut = (f"{found.root / f}: cannot be opened, or has no valid name" for f in found.shut)
    for warning in [*shut, *warnings]:
        observer.warning(warning)
    return replace(labels, source=given.resolve(), columns=columns)


def need_images(labels: Labels) -> None:
    """Raise UsageError when not a single image that the tables name is there."""
    if labels.images_found == 0:
        first = labels.table["path"].iloc[0]
        raise UsageError(
            f"{labels.root}: none of the {len(labels.table)} images that its tables name is here"
            f" (the first is '{first}'); put the images anywhere below this folder"
        )


def leave_out(table: pd.DataFrame, failed: Mapping[str, str]) -> pd.DataFrame:
    """The table with each failed path (path -> why) left out as unreadable, without a split."""
    why = table["path"].map(failed)
    hit = why.notna() & table["reason"].isna()
    table = table.copy()
    table.loc[hit, "reason"] = f"{UNREADABLE}: " + why[hit].astype(object)
    table.loc[hit, "split"] = None
    return table


def count_reasons(table: pd.DataFrame) -> dict[str, int]:
    """Left-out rows by reason, without what is said after its colon; the most frequent first."""
    reasons = table["reason"].dropna().str.replace(r":.*", "", regex=True)
    return {str(reason): int(n) for reason, n in reasons.value_counts().items()}


def fingerprint(table: pd.DataFrame) -> str:
    """SHA-256 of paths, grades and splits, in the order of paths: the same on every machine.

    It says whether two runs saw the same rows in the same splits. Pixels do not enter.
    """
    split = table["split"].astype(object).where(table["split"].notna(), "")
    lines = table["path"].astype(object) + "\t" + table["grade"].astype(str) + "\t" + split
    return hashlib.sha256("\n".join(sorted(lines)).encode("utf-8", "surrogateescape")).hexdigest()


# --- one folder being read ----------------------------------------------------------------------


@dataclass
class _Part:
    """One table's rows on their way. `rows` has the columns of a label table, but for `path` a
    `name` (as the table has it, cleaned) and an `index` (of its image in `found`; -1: none)."""

    source: Source
    table: Table
    image: str
    near: str
    rows: pd.DataFrame


@dataclass
class _Reading:
    found: Found
    fit: Recognised
    columns: Columns
    warnings: list[str] = field(default_factory=list)

    def labels(self) -> tuple[Labels, list[str]]:
        layout = self.fit.layout
        if layout.name == layouts.NPZ:
            rows = self._stack()
        elif layout.name == layouts.FOLDERS:
            rows = self._folders()
        else:
            rows = self._tables()
        rows = _with_eyes(rows, layout)
        extra = tuple(column for column in rows.columns if column not in COLUMNS)
        table = rows[[*COLUMNS, *extra]].reset_index(drop=True)
        notes = (f"layout: {layout.title}; {self.fit.said()}", *self.fit.notes)
        return Labels(self.found.root, layout.name, table, notes, extra), self.warnings

    # --- from tables ---

    def _tables(self) -> pd.DataFrame:
        parts = [self._part(source, name) for source, name in self.fit.sources]
        for part in parts:
            _settle_repeats(part)
        for part in parts:
            self.found = files.with_outside(self.found, part.rows["name"])
        shared = pd.concat([_stems(part.rows["name"]) for part in parts]).duplicated().any()
        for part in parts:
            self._match(part, bool(shared))
        rows = pd.concat([part.rows for part in parts], ignore_index=True)
        _settle_claims(rows)
        rows = self._with_pairs(rows)
        index = rows["index"].to_numpy()
        there = index >= 0
        self._count_unnamed(index[there])
        rows["path"] = rows["name"].astype(object)
        rows.loc[there, "path"] = self.found.paths()[index[there]]
        rows.loc[~there & rows["reason"].isna(), "reason"] = MISSING
        return rows.drop(columns=["name", "index"])

    def _part(self, source: Source, name: str) -> _Part:
        """Read one table, refuse wrong values, and give its columns their meaning."""
        layout, flags = self.fit.layout, self.columns
        table = self._table(source, name)
        if not len(table):
            raise UsageError(f"{table.path}: an empty data set: no row below the header")
        near = name.rpartition("/")[0]
        image = _named_or(table, flags.image, "--image-column", layout.image) or _image(table)
        names = files.clean(table.cells[image], near)
        if not (names != "").all():
            raise table.error(int(np.argmax(names == "")), image, "no image is named")
        grades = self._grade_columns(table, image)
        grade, reason = _grades(table, grades, layout)
        rows = pd.DataFrame({"name": names.astype(object), "grade": grade, "patient": None,
                             "eye": None, "split": source.split, "reason": reason})  # fmt: skip
        used = {image, *grades}
        patient = _named_or(table, flags.patient, "--patient-column", layout.patient)
        if patient:
            known = table.cells[patient].astype(object)
            rows["patient"] = known.where(~known.str.lower().isin(_UNKNOWN), None)
            used.add(patient)
        if (eye := table.find(layout.eye)) and (sides := _eyes(table, eye)) is not None:
            rows["eye"] = sides
            used.add(eye)
        for column, side in layout.side_of:
            if graded := table.find((column,)):
                rows.loc[table.cells[graded] != "", "eye"] = side
        split = _named_or(table, flags.split, "--split-column", layout.split)
        if split and (said := self._splits(table, split)) is not None:
            rows["split"] = said
            used.add(split)
        for column in table.columns:
            if column not in used and (table.cells[column] != "").any():
                rows[_free(column, rows.columns)] = table.cells[column].astype(object)
        return _Part(source, table, image, near, rows.assign(index=np.int64(-1)))

    def _table(self, source: Source, name: str) -> Table:
        path = self.found.root / name
        if source.grades is not None:
            grades = recognise.beside(self.found, name, source.grades)
            return _side_by_side(path, self.found.root / str(grades))
        if self.fit.layout.name == layouts.TABLE:
            return tables.read(path, lambda first: not recognise.is_data(first, self.columns))
        return tables.read(path, self.fit.layout.header)

    def _grade_columns(self, table: Table, image: str) -> list[str]:
        layout, flag = self.fit.layout, self.columns.grade
        if flag:
            return [table.named(flag, "--grade-column")]
        there = [column for key in layout.grade if (column := table.find((key,)))]
        if layout.side_of:
            return there
        if len(there) > 1:
            self.fit.notes.append(
                f"{table.path.name}: column '{there[0]}' is taken as the grade, not"
                f" {listed(there[1:])} (--grade-column decides)"
            )
        return there[:1] or _graded(table, image)

    def _splits(self, table: Table, column: str) -> Any:
        """A split column's cells as splits, None where empty; None when it means something else."""
        codes, words = pd.factorize(table.cells[column])
        meant = [layouts.split_of(word) for word in words]
        wrong = [i for i, word in enumerate(words) if word and meant[i] is None]
        if wrong and self.columns.split:
            position = int(np.argmax(codes == wrong[0]))
            raise table.error(position, column, f"'{words[wrong[0]]}' is not train, val or test")
        if wrong:
            self.fit.notes.append(
                f"{table.path.name}: column '{column}' is not taken as the split: it says"
                f" {listed((words[i] for i in wrong), 3)}"
            )
            return None
        return np.array(meant, object)[codes]

    # --- which image ---

    def _match(self, part: _Part, shared: bool) -> None:
        """Give each row its image, none to two rows of a split.

        A layout's own folders are binding: IDRiD's test row never takes a training photograph.
        Elsewhere a row keeps to folders that name its split or none; where no folder names it
        and no two splits share a name (`shared`), any image that nobody else means will do: a
        validation split that a table takes out of a training folder.
        """
        rows, source = part.rows, part.source
        of_image = _split_of_folders(self.found.folders, part.near)[self.found.folder]
        neutral = pd.isna(of_image)
        once = (rows["reason"] != REPEATED).to_numpy(bool)
        if source.folder:
            self._take(part, once, neutral | (of_image == source.folder))
            return
        own = _split_in_name(rows["name"])
        wanted = np.where(pd.isna(own), rows["split"].to_numpy(object), own)
        wanted[pd.isna(wanted)] = None
        self._take(part, once & pd.isna(wanted), neutral | True)
        for split in layouts.SPLITS:
            self._take(part, once & (wanted == split), neutral | (of_image == split))
        homeless = [split for split in layouts.SPLITS if not (of_image == split).any()]
        left = once & (rows["index"] < 0).to_numpy(bool) & pd.isna(own) & np.isin(wanted, homeless)
        free = np.ones(len(self.found), bool)
        free[rows["index"][rows["index"] >= 0]] = False
        self._take(part, left & (not shared), free, unique=True)

    def _take(self, part: _Part, which: Any, usable: Any, unique: bool = False) -> None:
        if not which.any() or not len(self.found):
            return
        names = part.rows["name"][which].reset_index(drop=True)
        match = files.match(names, self.found, usable, part.near, unique)
        part.rows.loc[which, "index"] = match.index
        if len(match.several):
            row = match.several[0]
            self.warnings.append(
                f"{part.table.path.name}: {len(match.several)} names fit more than one file; for"
                f" '{names[row]}' {self.found.paths()[match.index[row]]} was taken"
            )

    def _count_unnamed(self, taken: Any) -> None:
        unnamed = np.ones(len(self.found), bool)
        unnamed[taken] = False
        if unnamed.any():
            first = self.found.paths()[np.argmax(unnamed)]
            self.fit.notes.append(
                f"{int(unnamed.sum())} images are in no table and stand aside (such as {first})"
            )

    def _with_pairs(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Patients and eyes from a table of left and right images (Messidor-2)."""
        pattern = self.fit.layout.pairs
        fitting = [t for t in self.found.tables
                   if pattern and re.fullmatch(pattern, Path(t).name, re.IGNORECASE)]  # fmt: skip
        if not fitting:
            return rows
        table = tables.read(self.found.root / fitting[0])
        stem = _stems(rows["name"]).str.lower()
        for eye in ("left", "right"):
            if (column := table.find((eye,))) is None:
                raise UsageError(f"{table.path}: no column '{eye}'; it has {listed(table.columns)}")
            names = _stems(files.clean(table.cells[column])).str.lower()
            pair = pd.Series([f"pair-{row}" for row in table.rows], index=names, dtype=object)
            pair = stem.map(pair[(names != "").to_numpy(bool) & ~pair.index.duplicated()])
            rows["patient"] = rows["patient"].where(pair.isna(), pair)
            rows["eye"] = rows["eye"].where(pair.isna(), eye)
        self.fit.notes.append(f"the two eyes of a patient: from {fitting[0]}")
        return rows

    # --- without a table ---

    def _folders(self) -> pd.DataFrame:
        self._no_columns()
        meant = recognise.grade_folders(self.found.folders, at_least=1)
        known = [meant.get(folder, (NO_GRADE, folder)) for folder in self.found.folders]
        reasons = [_folder_reason(grade, rest) for grade, rest in known]
        folder = self.found.folder
        return pd.DataFrame({
            "path": self.found.paths(),
            "grade": np.array([grade for grade, _ in known], np.int8)[folder],
            "patient": None,
            "eye": None,
            "split": np.array([layouts.split_of_folder(rest) for _, rest in known], object)[folder],
            "reason": np.array(reasons, object)[folder],
        })  # fmt: skip

    def _stack(self) -> pd.DataFrame:
        self._no_columns()
        name = self.fit.sources[0][1]
        file = self.found.root / name
        there = npz.keys(file)
        parts = []
        for split in layouts.SPLITS:
            if not {f"{split}_labels", f"{split}_images"} <= there:
                continue
            grade = npz.array(file, f"{split}_labels").ravel()
            wrong = np.flatnonzero(~np.isin(grade, range(5)))
            if len(wrong):
                raise UsageError(
                    f"{file}, array '{split}_labels', place {wrong[0]}: {grade[wrong[0]]} is not a"
                    " grade 0-4; is this RetinaMNIST?"
                )
            if len(grade) != (images := npz.count(file, f"{split}_images")):
                raise UsageError(
                    f"{file}: '{split}_labels' holds {len(grade)} grades for {images} images"
                )
            paths = [f"{name}#{split}/{i}" for i in range(len(grade))]
            parts.append(pd.DataFrame({"path": paths, "grade": grade.astype(np.int8),
                                       "patient": None, "eye": None, "split": split,
                                       "reason": None}))  # fmt: skip
        rows = pd.concat(parts, ignore_index=True)
        if rows.empty:
            raise UsageError(f"{file}: an empty data set")
        return rows

    def _no_columns(self) -> None:
        if flags := self.columns.flags():
            raise UsageError(
                f"{' '.join(flags)}: {self.found.root} is read as {self.fit.layout.title}, which"
                " has no columns"
            )


# --- columns and their values -------------------------------------------------------------------


def _named_or(
    table: Table, name: str | None, flag: str, known: Iterable[str]
) -> str | None:  # fmt: skip
    """The column that a person named, else the first known one."""
    return table.named(name, flag) if name else table.find(known)


def _image(table: Table) -> str:
    """Of a table without header, the column whose first cell has an image's extension."""
    for column in table.columns:
        if Path(str(table.cells[column].iloc[0])).suffix.lower() in files.EXTENSIONS:
            return column
    raise UsageError(
        f"{table.path}: no column of images among {listed(table.columns)}; name it with"
        " --image-column"
    )


def _graded(table: Table, image: str) -> list[str]:
    """Of a table without header, the one other column that starts with a grade."""
    others = [column for column in table.columns if column != image]
    graded = [c for c in others if layouts.grade_of(str(table.cells[c].iloc[0])) is not None]
    if len(graded) == 1:
        return graded
    raise UsageError(
        f"{table.path}: which of {listed(table.columns)} holds the grades? name it with"
        " --grade-column"
    )


def _side_by_side(names: Path, grades: Path) -> Table:
    """The course's two files as one table. They have no header; one that somebody gave them
    is told by its first grade, which is none."""
    left = tables.read(names, header=False)
    right = tables.read(grades, header=False)
    if layouts.grade_of(str(right.cells.iloc[0, 0])) is None and len(right) > 1:
        left = tables.read(names, header=len(left) == len(right))
        right = tables.read(grades, header=True)
    if len(left) != len(right):
        raise UsageError(
            f"{names} names {len(left)} images, {grades.name} has {len(right)} grades: the two"
            " files must go row by row"
        )
    apart = np.flatnonzero(left.rows - right.rows != left.rows[0] - right.rows[0])
    if len(apart):
        raise UsageError(
            f"{names}, row {left.rows[apart[0]]}, stands beside row {right.rows[apart[0]]} of"
            f" {grades.name}: take the blank line out of one of the two"
        )
    cells = pd.DataFrame({"image": left.cells.iloc[:, 0], "grade": right.cells.iloc[:, 0]})
    return Table(grades, cells, right.rows)


def _grades(table: Table, columns: Sequence[str], layout: Layout) -> tuple[Any, Any]:
    """Each row's grade ([N] int8, -1: none) and reason ([N] object). Raises on a wrong value."""
    cells = table.cells[columns[0]]
    for column in columns[1:]:
        cells = cells.where(cells != "", table.cells[column])
    codes, words = pd.factorize(cells)
    meant = [layouts.grade_of(word) for word in words]
    grade = np.array([NO_GRADE if one is None else one for one in meant], np.int8)[codes]
    reason = np.array([None] * len(grade), object)
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
            what += " (DDR's 5 is 'ungradable': --layout ddr leaves it out; here, take it out)"
        raise table.error(int(wrong[0]), columns[0], what)
    return grade, reason


def _eyes(table: Table, column: str) -> Any:
    """A column's cells as "left"/"right"/None; None when it holds anything else."""
    codes, words = pd.factorize(table.cells[column])
    keys = [tables.key(word).removesuffix("_eye") for word in words]
    if any(key and key not in layouts.EYES for key in keys):
        return None
    return np.array([layouts.EYES.get(key) for key in keys], object)[codes]


def _free(column: str, taken: Iterable[str]) -> str:
    """The column's own name, with `_` behind it where that name means something else here."""
    while column in taken or column in (*COLUMNS, "name", "index"):
        column += "_"
    return column


# --- rows that contradict each other ------------------------------------------------------------


def _settle_repeats(part: _Part) -> None:
    """A name that stands twice in one split of a table counts once; with two grades nobody can
    say which is right, and the table is refused."""
    rows, table = part.rows, part.table
    later = rows.duplicated(["name", "split"])
    if not later.any():
        return
    twice = rows[rows.duplicated(["name", "split"], keep=False)]
    same = twice.groupby(["name", "split"], dropna=False)["grade"]
    differ = twice["grade"] != same.transform("first")
    if differ.any():
        two = int(differ.index[differ][0])
        alike = (rows["name"] == rows["name"][two]) & (rows["grade"] != rows["grade"][two])
        one = int(np.argmax(alike))
        raise UsageError(
            f"{table.path}, rows {table.rows[one]} and {table.rows[two]}, column '{part.image}':"
            f" '{rows['name'][two]}' is graded {rows['grade'][one]} and {rows['grade'][two]};"
            " keep one of them"
        )
    rows.loc[later & rows["reason"].isna(), "reason"] = REPEATED


def _settle_claims(rows: pd.DataFrame) -> None:
    """A file that rows of two splits took: its name alone cannot say whose it is."""
    claimed = rows["index"].where(rows["index"] >= 0)
    contested = claimed.notna() & claimed.duplicated(keep=False)
    rows.loc[contested & rows["reason"].isna(), "reason"] = CONTESTED


def _split_of_folders(folders: Sequence[str], near: str) -> Any:
    """[folders] object: the split that each path says below what it shares with the table's
    folder `near`; None where it says none. A data set unpacked into `test/` is no test split."""
    home = near.split("/")
    below = []
    for folder in folders:
        parts = folder.split("/")
        shared = itertools.takewhile(lambda two: two[0] == two[1], zip(parts, home, strict=False))
        below.append("/".join(parts[len(list(shared)) :]))
    return np.array([layouts.split_of_folder(path) for path in below], object)


def _split_in_name(names: pd.Series) -> Any:
    """[N] object: the split that a name's own folders say, None where they say none."""
    codes, folders = pd.factorize(names.str.replace(r"[^/]*$", "", regex=True))
    return np.array([layouts.split_of_folder(folder) for folder in folders], object)[codes]


def _folder_reason(grade: int, rest: str) -> str | None:
    if grade != NO_GRADE:
        return None
    return f"{UNGRADABLE} (grade 5)" if rest.rpartition("/")[2] == "5" else NO_GRADE_FOLDER


# --- patients from names ------------------------------------------------------------------------


def _stems(names: pd.Series) -> pd.Series:
    """Names without folders and extension."""
    return names.astype(object).str.replace(r"^.*/|\.\w+$", "", regex=True)


def _with_eyes(rows: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """Patient and eye from an image's name where no column told them; None for unknown."""
    pattern = layout.name_pattern or layouts.EYE_NAME
    told = _stems(rows["path"]).str.extract(pattern, flags=re.IGNORECASE)
    told["eye"] = told["eye"].str.lower().map(layouts.EYES)
    for column in ("patient", "eye"):
        rows[column] = rows[column].where(rows[column].notna(), told[column])
    for column in ("patient", "eye", "split", "reason"):
        values = rows[column].astype(object)
        rows[column] = values.where(values.notna(), None)
    return rows
