"""A folder of graded photographs -> one table: path, grade, patient, eye, split, reason.

What layouts look like is said in `layouts`; here a folder is recognised, its tables are read
and checked, and every row finds its image. Wrong values are refused before any image is looked
for. No row is dropped: one that cannot be used keeps its place with a reason.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dr_cli import files, layouts, npz, tables
from dr_cli.errors import UsageError
from dr_cli.events import NOTHING, Observer
from dr_cli.files import Found
from dr_cli.layouts import Layout, Source
from dr_cli.tables import Table, listed

COLUMNS = ("path", "grade", "patient", "eye", "split", "reason")
NO_GRADE = -1
MISSING = "image missing"
UNREADABLE = "unreadable"

_PEEKED = 300  # tables whose first row is looked at; a folder of annotations may hold thousands


@dataclass(frozen=True)
class Columns:
    """Column names that a person gave; each wins over what would be recognised."""

    image: str | None = None
    grade: str | None = None
    patient: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Labels:
    """A data set as it was found.

    table: one row an image, RangeIndex: `path` (str, posix, relative to `root`; absolute if
    outside), `grade` (int8; -1 where none is known), `patient` (str or None), `eye` ("left",
    "right" or None), `split` ("train", "val", "test" or None: undecided), `reason` (str: why
    the row is left out; None: it can be used), then `extra_columns` as they came, as text.
    layout: a name of `layouts.BY_NAME`. notes: what was found and chosen, a sentence each.
    """

    root: Path
    layout: str
    table: pd.DataFrame
    notes: tuple[str, ...] = ()
    extra_columns: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()

    @property
    def left_out(self) -> dict[str, int]:
        """How many rows stand aside for each reason, the most frequent first."""
        return count_reasons(self.table)

    @property
    def images_found(self) -> int:
        """Rows whose image is there, whether they are used or not."""
        return int((self.table["reason"] != MISSING).sum())


def read(
    root: Path | str,
    *,
    layout: str = "auto",
    columns: Columns | None = None,
    observer: Observer = NOTHING,
) -> Labels:
    """Read the graded photographs under `root`, a folder or a table file.

    layout: a name of `layouts.BY_NAME`, or "auto": the first one that fits. columns: names that
    a person gave; with an image or a grade column any table that has it is read.
    Where tables are there but no image is, every row says "image missing" (`need_images` refuses).
    Raises UsageError: no such folder, no known layout, a needed column that is not there, a grade
    outside 0-4, two grades for one name, an empty set; with file, row and column.
    """
    given = Path(root).expanduser()
    if layout != "auto" and layout not in layouts.BY_NAME:
        raise UsageError(f"no layout '{layout}'; known are {listed(layouts.BY_NAME)}")
    if not given.exists():
        raise UsageError(f"{given}: no such folder or table")
    folder = given if given.is_dir() else given.parent
    reader = _Reader(folder, files.scan(folder), columns or Columns())
    labels = reader.read(layout, None if given.is_dir() else given.name)
    for note in labels.notes:
        observer.note(note)
    for warning in reader.warnings:
        observer.warning(warning)
    return labels


def need_images(labels: Labels) -> None:
    """UsageError when not a single image of the tables is there."""
    if len(labels.table) and labels.images_found == 0:
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
    table.loc[hit, "reason"] = UNREADABLE + ": " + why[hit].astype(object)
    table.loc[hit, "split"] = None
    return table


def count_reasons(table: pd.DataFrame) -> dict[str, int]:
    """Left-out rows by reason, whatever is said after its colon; the most frequent first."""
    reasons = table["reason"].dropna().str.replace(r":.*", "", regex=True)
    return {str(reason): int(n) for reason, n in reasons.value_counts(sort=True).items()}


def fingerprint(table: pd.DataFrame) -> str:
    """SHA-256 of paths, grades and splits, in the order of paths: the same on every machine.

    It says whether two runs saw the same rows in the same splits. Pixels do not enter.
    """
    lines = (
        table["path"].astype(str) + "\t" + table["grade"].astype(str) + "\t"
        + table["split"].astype(object).where(table["split"].notna(), "")
    )  # fmt: skip
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


# --- one folder being read ----------------------------------------------------------------------


@dataclass
class _Reader:
    folder: Path
    found: Found
    columns: Columns
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    first_rows: dict[str, list[str]] = field(default_factory=dict)

    def read(self, layout: str, only: str | None) -> Labels:
        for shut in self.found.shut:
            self.warnings.append(f"{self.folder / shut}: cannot be opened; passed over")
        if only is not None:
            self.found = replace(self.found, tables=[only])
        chosen, sources = self._recognise(layout, only)
        if chosen.name == layouts.NPZ:
            rows = self._read_stack(sources[0][1])
        elif chosen.name == layouts.FOLDERS:
            rows = self._read_folders()
        else:
            rows = self._read_tables(chosen, sources)
        if rows.empty:
            raise UsageError(f"{self.folder}: an empty data set: no row in {self._said(sources)}")
        rows = _with_eyes(rows, chosen)
        extra = tuple(column for column in rows.columns if column not in COLUMNS)
        self.notes.insert(0, f"layout: {chosen.title}; {self._said(sources)}")
        return Labels(
            self.folder,
            chosen.name,
            rows[[*COLUMNS, *extra]].reset_index(drop=True),
            tuple(self.notes),
            extra,
            tuple(table for _, table in sources),
        )

    def _said(self, sources: Sequence[tuple[Source, str]]) -> str:
        return "tables: " + ", ".join(table for _, table in sources) if sources else "no table"

    # --- which layout ---

    def _recognise(self, name: str, only: str | None) -> tuple[Layout, list[tuple[Source, str]]]:
        """The layout and its tables (relative paths)."""
        by_column = self.columns.image or self.columns.grade
        if name == "auto" and by_column:
            name = layouts.TABLE
        asked = layouts.LAYOUTS if name == "auto" else (layouts.BY_NAME[name],)
        fitting = [(layout, sources) for layout in asked if (sources := self._fits(layout))]
        if not fitting:
            raise UsageError(self._unrecognised(name, only))
        others = [layout.name for layout, _ in fitting[1:]]
        particular = [other for other in others if other not in (layouts.TABLE, layouts.FOLDERS)]
        if particular:
            self.notes.append(
                f"taken as {fitting[0][0].name}; it could also be {', '.join(particular)}"
                " (--layout decides)"
            )
        return fitting[0]

    def _fits(self, layout: Layout) -> list[tuple[Source, str]]:
        """Its tables; empty when the folder does not fit. Class folders have no table: one
        nameless source stands for them."""
        if layout.name == layouts.NPZ:
            return self._stacks()
        if layout.name == layouts.FOLDERS:
            return [(Source(""), "")] if _grade_folders(self.found.folders) else []
        if layout.name == layouts.TABLE:
            return self._any_table(layout)
        sources: list[tuple[Source, str]] = []
        for source in layout.sources:
            tables_ = [table for table in self.found.tables if self._is(table, source, layout)]
            if not tables_ and not source.optional:
                return []
            if tables_:
                sources.append((source, self._one_of(tables_, sources)))
        return sources

    def _is(self, table: str, source: Source, layout: Layout) -> bool:
        folder, _, name = table.rpartition("/")
        if not re.fullmatch(source.table, name, re.IGNORECASE):
            return False
        if source.grades is not None:
            return self._beside(folder, source.grades) is not None
        first = self._first_row(table)
        if not layout.header:
            return bool(re.fullmatch(layout.first_row or ".*", " ".join(first)))
        keys = {tables.key(cell) for cell in first}
        return (
            any(name in keys for name in layout.image)
            and any(name in keys for name in layout.grade)
            and keys.issuperset(layout.needs)
        )

    def _beside(self, folder: str, pattern: str) -> str | None:
        there = [table for table in self.found.tables if table.rpartition("/")[0] == folder]
        named = [t for t in there if re.fullmatch(pattern, t.rpartition("/")[2], re.IGNORECASE)]
        return named[0] if named else None

    def _first_row(self, table: str) -> list[str]:
        if table not in self.first_rows:
            self.first_rows[table] = tables.peek(self.folder / table)
        return self.first_rows[table]

    def _one_of(self, candidates: list[str], taken: Sequence[tuple[Source, str]] = ()) -> str:
        """Of several tables the one beside those taken, nearest to the top, largest."""
        home = {table.rpartition("/")[0] for _, table in taken}

        def rank(table: str) -> tuple[bool, int, int, str]:
            size = (self.folder / table).stat().st_size
            return table.rpartition("/")[0] not in home, table.count("/"), -size, table

        best, *others = sorted(candidates, key=rank)
        if others:
            self.notes.append(
                f"took {best}, the nearest to the top, then the largest, of {len(candidates)}"
                f" tables that could be meant; not {listed(others, 4)} (give the table itself as"
                " DATA to decide)"
            )
        return best

    def _any_table(self, layout: Layout) -> list[tuple[Source, str]]:
        """A table with an image and a grade column, or one a split where their names say so."""
        known = sorted(self.found.tables, key=lambda table: (table.count("/"), table))
        fitting = [t for t in known[:_PEEKED] if self._has_columns(self._first_row(t), layout)]
        if not fitting:
            return []
        home = min(table.count("/") for table in fitting)
        by_split: dict[str, list[str]] = {}
        for table in fitting:
            split = layouts.split_of_folder(Path(table).stem)
            if split and table.count("/") == home:
                by_split.setdefault(split, []).append(table)
        if layouts.TRAIN in by_split and all(len(t) == 1 for t in by_split.values()):
            chosen = [(Source("", split), by_split[split][0]) for split in layouts.SPLITS
                      if split in by_split]  # fmt: skip
            rest = sorted(set(fitting) - {table for _, table in chosen})
            if rest:
                self.notes.append(f"not read: {listed(rest, 4)}, further tables of that form")
            return chosen
        table = self._one_of(fitting)
        return [(Source(""), table)]

    def _has_columns(self, first: list[str], layout: Layout) -> bool:
        keys = {tables.key(cell) for cell in first if cell}
        wanted = [
            ({tables.key(self.columns.image)} if self.columns.image else set(layout.image)),
            ({tables.key(self.columns.grade)} if self.columns.grade else set(layout.grade)),
        ]
        if all(keys & names for names in wanted):
            return True
        return _is_data(first) and not (self.columns.image and self.columns.grade and
            not all(tables.key(name).startswith("column_") for name in
                    (self.columns.image, self.columns.grade)))  # fmt: skip

    def _unrecognised(self, name: str, only: str | None) -> str:
        """One line: what was looked for, what was found, what to do next."""
        where = self.folder / only if only else self.folder
        known = [t for t in self.found.tables if t.endswith(".npz") or self._first_row(t)]
        seen = "; ".join(
            f"{t} with {listed(self._first_row(t), 8)}" if self._first_row(t) else t
            for t in known[:3]
        )
        found = (
            f"{len(self.found)} images in {len(self.found.folders)} folders"
            f" and {len(self.found.tables)} tables{': ' + seen if seen else ''}"
        )
        if not len(self.found) and not self.found.tables:
            return f"{where}: an empty data set: no image and no table below it"
        flags = [f"--{what}-column {value}" for what, value in vars(self.columns).items() if value]
        asked = f"layout '{name}'" if name != "auto" else "a known layout"
        if flags:
            asked = f"a table with {' and '.join(flags)}"
        return (
            f"{where}: {asked} was looked for, and not found among {found}. Name the columns with"
            f" --image-column and --grade-column, or give --layout, one of"
            f" {', '.join(layouts.BY_NAME)}"
        )

    # --- tables ---

    def _read_tables(self, layout: Layout, sources: Sequence[tuple[Source, str]]) -> pd.DataFrame:
        parts = [self._rows(layout, source, table) for source, table in sources]
        self._refuse_contradictions(parts)
        for source, part in zip((source for source, _ in sources), parts, strict=True):
            self._locate(source, part)
        rows = pd.concat([part.rows for part in parts], ignore_index=True)
        self._settle_claims(rows)
        rows = self._with_pairs(rows, layout)
        paths = pd.Series(self.found.paths(), dtype=object)
        index = rows["index"].to_numpy()
        rows["path"] = np.where(index >= 0, paths.reindex(index).to_numpy(object), rows["name"])
        rows.loc[(index < 0) & rows["reason"].isna(), "reason"] = MISSING
        return rows.drop(columns=["name", "index"])

    def _rows(self, layout: Layout, source: Source, name: str) -> "_Part":
        table = self._table(layout, source, name)
        flags = self.columns
        if flags.image:
            image = table.named(flags.image, "--image-column")
        else:
            image = table.find(layout.image) or _image_column(table)
        if flags.grade:
            grades = [table.named(flags.grade, "--grade-column")]
        else:
            grades = [c for key in layout.grade if (c := table.find((key,)))]
            grades = grades if layout.side_of else grades[:1]
            grades = grades or _grade_columns(table, image)
        patient = table.named(flags.patient, "--patient-column") if flags.patient else None
        patient = patient or table.find(layout.patient)
        eye = table.find(layout.eye)
        gradable = table.find((layout.gradable,)) if layout.gradable else None
        if not len(table):
            raise UsageError(f"{table.path}: an empty data set: no row below the header")
        near = name.rpartition("/")[0]
        names = files.clean(table.cells[image], near)
        _refuse_empty(table, names, image)
        rows = pd.DataFrame({"name": names, "reason": None, "patient": None, "eye": None,
                             "split": source.split}, dtype=object)  # fmt: skip
        rows["grade"], rows["reason"] = _grades(table, grades, layout, gradable)
        if patient:
            rows["patient"] = table.cells[patient].where(table.cells[patient] != "", None)
        used = {image, patient, gradable, *grades}
        if eye and (sides := _eyes(table, eye)) is not None:
            rows["eye"] = sides
            used.add(eye)
        for column, side in layout.side_of:
            if graded := table.find((column,)):
                rows.loc[table.cells[graded] != "", "eye"] = side
        split = table.named(flags.split, "--split-column") if flags.split else None
        if column := split or table.find(layout.split):
            said = self._splits(table, column, insist=split is not None)
            if said is not None:
                rows["split"] = said
                used.add(column)
        for column in table.columns:
            if column not in used and (table.cells[column] != "").any():
                rows[_free(column, rows.columns)] = table.cells[column]
        rows["index"] = np.int64(-1)
        return _Part(table, image, near, rows)

    def _table(self, layout: Layout, source: Source, name: str) -> Table:
        path = self.folder / name
        if source.grades is not None:
            other = self._beside(name.rpartition("/")[0], source.grades)
            assert other is not None  # `_is` saw it
            return _side_by_side(path, self.folder / other)
        header = (lambda first: not _is_data(first)) if layout.name == layouts.TABLE else None
        return tables.read(path, header or layout.header)

    def _splits(self, table: Table, column: str, insist: bool) -> Any:
        """A split column's cells as splits, None where empty; None when it means something else."""
        codes, words = pd.factorize(table.cells[column])
        meant = [layouts.split_of(word) if word else None for word in words]
        wrong = [word for word, split in zip(words, meant, strict=True) if word and split is None]
        if wrong and insist:
            position = int(np.flatnonzero(codes == list(words).index(wrong[0]))[0])
            raise table.error(position, column, f"'{wrong[0]}' is not train, val or test")
        if wrong:
            self.notes.append(
                f"column '{column}' of {table.path.name} is not taken as the split: it says"
                f" {listed(wrong, 3)}"
            )
            return None
        return np.array(meant, object)[codes]

    def _refuse_contradictions(self, parts: Sequence["_Part"]) -> None:
        """A name that stands twice in a table: with one grade it counts once, with two nobody
        can say which is right."""
        for part in parts:
            rows, table = part.rows, part.table
            again = rows["name"].duplicated(keep=False)
            if not again.any():
                continue
            twice = rows[again]
            differ = twice.groupby("name", sort=False)["grade"].transform("nunique") > 1
            if differ.any():
                name = twice["name"][differ].iloc[0]
                one, two = np.flatnonzero((rows["name"] == name).to_numpy())[:2]
                raise UsageError(
                    f"{table.path}, rows {table.rows[one]} and {table.rows[two]}, column"
                    f" '{part.image}': '{name}' is graded {rows['grade'][one]} and"
                    f" {rows['grade'][two]}; keep one of them"
                )
            later = rows["name"].duplicated() & rows["reason"].isna()
            rows.loc[later, "reason"] = "named twice"

    # --- which image ---

    def _locate(self, source: Source, part: "_Part") -> None:
        rows = part.rows
        self.found = files.with_outside(self.found, rows["name"])
        if not len(self.found):
            return
        of_folder = np.array([layouts.split_of_folder(f) for f in self.found.folders], object)
        of_image = of_folder[self.found.folder]
        neutral = of_image == np.array(None)
        once = (rows["reason"] != "named twice").to_numpy(bool)
        if source.folder:
            self._match(part, np.flatnonzero(once), neutral | (of_image == source.folder))
            return
        wanted = _wanted_folders(rows)
        for split in (None, *layouts.SPLITS):
            mine = np.flatnonzero(once & (wanted == np.array(split)))
            self._match(part, mine, neutral | (of_image == split) if split else neutral | True)
        # A validation row's image may well lie in the training folder, but nobody else's does.
        own = rows["name"].str.contains("/").to_numpy(bool)
        left = np.flatnonzero(once & (rows["index"] < 0).to_numpy(bool) & ~own)
        free = np.ones(len(self.found), bool)
        free[rows["index"][rows["index"] >= 0]] = False
        self._match(part, left, free, unique=True)

    def _match(self, part: "_Part", mine: Any, usable: Any, unique: bool = False) -> None:
        names = part.rows["name"].iloc[mine].reset_index(drop=True)
        match = files.match(names, self.found, usable, part.near, unique)
        index = part.rows["index"].to_numpy(copy=True)
        index[mine] = match.index
        part.rows["index"] = index
        if len(match.several):
            row = match.several[0]
            self.warnings.append(
                f"{part.table.path.name}: {len(match.several)} names fit more than one file; for"
                f" '{names[row]}' {self.found.paths()[match.index[row]]} was taken"
            )

    def _settle_claims(self, rows: pd.DataFrame) -> None:
        """A file that rows of two tables mean: its name alone cannot say whose it is."""
        claimed = rows["index"] >= 0
        again = claimed & rows["index"].where(claimed).duplicated(keep=False)
        if again.any():
            rows.loc[again & rows["reason"].isna(), "reason"] = "its file fits rows of two splits"

    def _with_pairs(self, rows: pd.DataFrame, layout: Layout) -> pd.DataFrame:
        """Patients and eyes from a table of left and right images (Messidor-2)."""
        named = [t for t in self.found.tables
                 if layout.pairs and re.fullmatch(layout.pairs, Path(t).name, re.IGNORECASE)
                 and {"left", "right"} <= {tables.key(c) for c in self._first_row(t)}]  # fmt: skip
        if not named:
            return rows
        table = tables.read(self.folder / named[0])
        stem = rows["name"].str.rpartition("/")[2].str.replace(r"\.\w+$", "", regex=True)
        for eye in ("left", "right"):
            names = files.clean(table.cells[table.find((eye,))])
            names = names.str.replace(r"\.\w+$", "", regex=True).str.lower()
            exams = pd.Series([f"pair-{n}" for n in table.rows], index=names, dtype=object)
            exams = exams[(exams.index != "") & ~exams.index.duplicated()]
            exam = stem.str.lower().map(exams)
            rows["patient"] = rows["patient"].where(exam.isna(), exam)
            rows["eye"] = rows["eye"].where(exam.isna(), eye)
        self.notes.append(f"the two eyes of a patient: from {named[0]}")
        return rows

    # --- class folders ---

    def _read_folders(self) -> pd.DataFrame:
        meant = _grade_folders(self.found.folders)
        known = [meant.get(folder, (NO_GRADE, folder)) for folder in self.found.folders]
        reasons = [
            None if grade != NO_GRADE
            else "ungradable (grade 5)" if rest.rpartition("/")[2] == "5"
            else "its folder is no grade"
            for grade, rest in known
        ]  # fmt: skip
        splits = [layouts.split_of_folder(rest) for _, rest in known]
        folder = self.found.folder
        return pd.DataFrame(
            {
                "path": self.found.paths(),
                "grade": np.array([grade for grade, _ in known], np.int8)[folder],
                "patient": None,
                "eye": None,
                "split": np.array(splits, object)[folder],
                "reason": np.array(reasons, object)[folder],
            }
        )

    # --- .npz ---

    def _stacks(self) -> list[tuple[Source, str]]:
        """The .npz with the largest pictures; other sizes of the set are named."""
        fitting = []
        for table in self.found.tables:
            if table.endswith(".npz") and npz.keys(self.folder / table) >= {
                f"{layouts.TRAIN}_images", f"{layouts.TRAIN}_labels"
            }:  # fmt: skip
                fitting.append(table)
        return [(Source(""), self._one_of(fitting))] if fitting else []

    def _read_stack(self, name: str) -> pd.DataFrame:
        file = self.folder / name
        there = npz.keys(file)
        parts = []
        for split in layouts.SPLITS:
            if f"{split}_labels" not in there or f"{split}_images" not in there:
                continue
            grade = npz.array(file, f"{split}_labels").ravel()
            wrong = np.flatnonzero(~np.isin(grade, range(5)))
            if len(wrong):
                raise UsageError(
                    f"{file}, array '{split}_labels', place {wrong[0]}: {grade[wrong[0]]} is not"
                    " a grade 0-4"
                )
            paths = [f"{name}#{split}/{i}" for i in range(len(grade))]
            parts.append(pd.DataFrame({"path": paths, "grade": grade.astype(np.int8),
                                       "patient": None, "eye": None, "split": split,
                                       "reason": None}))  # fmt: skip
        return pd.concat(parts, ignore_index=True)


@dataclass
class _Part:
    """One table's rows on their way: `rows` has name, grade, ..., index (of the image, -1)."""

    table: Table
    image: str
    near: str
    rows: pd.DataFrame


def _is_data(first: Sequence[str]) -> bool:
    """Whether a table's first row holds an image and a grade, not two titles."""
    suffixes = [Path(cell).suffix.lower() in files.EXTENSIONS for cell in first]
    return any(suffixes) and any(layouts.grade_of(cell) is not None for cell in first)


def _image_column(table: Table) -> str:
    """Of a table without header, the column whose first cell has an image's extension."""
    for column in table.columns:
        if Path(str(table.cells[column].iloc[0])).suffix.lower() in files.EXTENSIONS:
            return column
    raise UsageError(
        f"{table.path}: no column of images among {listed(table.columns)}; name it with"
        " --image-column"
    )


def _grade_columns(table: Table, image: str) -> list[str]:
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
    again is told by its first grade, which is no number."""
    left = tables.read(names, header=False)
    right = tables.read(grades, header=False)
    first = str(right.cells.iloc[0, 0])
    if layouts.grade_of(first) is None and len(right) > 1:
        titled = len(left) == len(right)
        left = tables.read(names, header=True) if titled else left
        right = tables.read(grades, header=True)
    if len(left) != len(right):
        raise UsageError(
            f"{names.name} names {len(left)} images, {grades.name} grades {len(right)}"
            f" ({names.parent}): the two files must go row by row"
        )
    cells = pd.DataFrame({"image": left.cells.iloc[:, 0], "grade": right.cells.iloc[:, 0]})
    return Table(grades, cells, right.rows)


def _refuse_empty(table: Table, names: pd.Series, image: str) -> None:
    empty = np.flatnonzero((names == "").to_numpy(bool))
    if len(empty):
        raise table.error(int(empty[0]), image, "no image is named")


def _grades(
    table: Table, columns: Sequence[str], layout: Layout, gradable: str | None
) -> tuple[Any, Any]:
    """Each row's grade ([N] int8, -1: none) and reason ([N] object). Raises on a wrong value."""
    cells = table.cells[columns[0]]
    for column in columns[1:]:
        cells = cells.where(cells != "", table.cells[column])
    codes, words = pd.factorize(cells)
    meant = [layouts.grade_of(word) for word in words]
    grade = np.array([NO_GRADE if one is None else one for one in meant], np.int8)[codes]
    reason = np.array([None] * len(grade), object)
    for word in layout.ungradable:
        reason[(cells == word).to_numpy(bool)] = f"ungradable (grade {word})"
    if gradable:
        ungradable = np.isin(table.cells[gradable].to_numpy(object), ["0", "0.0"])
        reason[ungradable] = "ungradable"
        grade[ungradable] = NO_GRADE
    wrong = np.flatnonzero((grade == NO_GRADE) & (reason == np.array(None)))
    if len(wrong):
        word = cells.iloc[wrong[0]]
        what = f"'{word}' is not a grade 0-4" if word else "no grade is given"
        if word == "5":
            what += " (where 5 means ungradable, leave those rows out; --layout ddr does)"
        raise table.error(int(wrong[0]), columns[0], what)
    return grade, reason


def _eyes(table: Table, column: str) -> Any:
    """A column's cells as "left"/"right"/None; None when it holds anything else."""
    codes, words = pd.factorize(table.cells[column])
    keys = [tables.key(word).removesuffix("_eye") for word in words]
    if any(word and key not in layouts.EYES for word, key in zip(words, keys, strict=True)):
        return None
    return np.array([layouts.EYES.get(key) for key in keys], object)[codes]


def _free(column: str, taken: Iterable[str]) -> str:
    """The column's own name, or with `_` behind it where that means something else here."""
    while column in taken or column in COLUMNS:
        column += "_"
    return column


def _wanted_folders(rows: pd.DataFrame) -> Any:
    """[N] the split that a name's own folder says, else the row's; None: no matter."""
    wanted = rows["split"].to_numpy(object, copy=True)
    folders = rows["name"].str.rpartition("/")[0]
    codes, words = pd.factorize(folders)
    said = np.array([layouts.split_of_folder(word) for word in words], object)[codes]
    wanted[pd.isna(wanted)] = None
    return np.where(said != np.array(None), said, wanted)


def _with_eyes(rows: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """Patient and eye from an image's name where no column told them."""
    stems = rows["path"].str.rpartition("/")[2].str.replace(r"\.\w+$", "", regex=True)
    told = stems.str.extract(layout.name_pattern or layouts.EYE_NAME, flags=re.IGNORECASE)
    eye = told["eye"].str.lower().map(layouts.EYES)
    for column, said in (("patient", told["patient"]), ("eye", eye)):
        merged = rows[column].where(rows[column].notna(), said).astype(object)
        rows[column] = merged.where(merged.notna(), None)
    rows["split"] = rows["split"].astype(object).where(rows["split"].notna(), None)
    rows["reason"] = rows["reason"].astype(object).where(rows["reason"].notna(), None)
    rows["grade"] = rows["grade"].astype(np.int8)
    return rows


def _grade_folders(folders: Iterable[str]) -> dict[str, tuple[int, str]]:
    """Folder -> (grade, its path without the part that names the grade); {} unless at least two
    grades are named and the folders beside them could be grades too.

    Folders of patients "1", "2", ... "265" are no grades: one beside them says so.
    """
    beside: dict[str, set[str]] = {}
    meant: dict[str, tuple[int, str]] = {}
    for folder in folders:
        parts = folder.split("/")
        for place in range(len(parts) - 1, -1, -1):
            beside.setdefault("/".join(parts[:place]), set()).add(parts[place])
            grade = layouts.grade_of(parts[place])
            if grade is not None and folder not in meant:
                meant[folder] = grade, "/".join(parts[:place] + parts[place + 1 :])
    for names in beside.values():
        if any(re.fullmatch(r"\d+", name) and int(name) > 5 for name in names):
            graded = {name for name in names if layouts.grade_of(name) is not None}
            if graded:
                return {}
    return meant if len({grade for grade, _ in meant.values()}) > 1 else {}
