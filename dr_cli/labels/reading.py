"""A folder of graded photographs -> one table: path, grade, patient, eye, split, reason.

What layouts look like is said in `layouts`, which one a folder has in `recognise`, what a table's
columns mean in `columns`, which image a row takes in `matching`; here it comes together. Wrong
values are refused before any image is matched. No row is dropped: one that cannot be used keeps
its place, with a reason.
"""

import functools
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from dr_cli.errors import UsageError
from dr_cli.events import NOTHING, Observer
from dr_cli.grades import NUM_GRADES
from dr_cli.labels import eyes, layouts, matching, recognise, tables
from dr_cli.labels.columns import (
    COLUMNS,
    MAPPED_OUT,
    NO_GRADE,
    UNGRADABLE,
    ColumnReader,
    Columns,
)
from dr_cli.labels.listing import LABEL_SUFFIXES, Listing, add_outside, look_near, scan
from dr_cli.labels.recognise import Recognised
from dr_cli.labels.scale import find_doubt
from dr_cli.labels.tables import Table, quote
from dr_cli.photographs import cache, packed
from dr_cli.sample import named

MISSING = "image missing"
UNREADABLE = "unreadable"
NO_GRADE_FOLDER = "its folder is no grade"


@dataclass(frozen=True)
class Labels:
    """A data set as it was found.

    table: one row an image, RangeIndex: `path` (str, posix, relative to `root`; absolute if
    outside; as the table names it if missing), `grade` (int8; -1: none), `patient` (str or
    None), `eye` ("left", "right" or None), `split` ("train", "val", "test" or None: undecided),
    `reason` (str: why the row is left out; None: it can be used), then `extra_columns` as they
    came, as text. layout: a name of `layouts.BY_NAME`. notes: what was found and decided, a
    sentence each. source: the folder or table that was read, absolute. columns: the names that a
    person gave. fingerprint: of the table as it was read, whatever is added or decided later.
    """

    root: Path
    layout: str
    table: pd.DataFrame
    notes: tuple[str, ...]
    extra_columns: tuple[str, ...]
    source: Path
    columns: Columns
    fingerprint: str

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
    """Read the graded photographs of `root`, a folder, a table file, or drawn eyes by their name
    (`sample.named`), which are drawn first.

    layout: a name of `layouts.BY_NAME`, or "auto": the first one that fits. columns: names that
    a person gave; with an image or a grade column any table that has it is read.
    Where tables are there but no image is, every row says "image missing" (`need_images` refuses).
    Raises UsageError: no such folder, no known layout, a needed column that is not there, a grade
    outside 0-4, two grades for one name, an empty set; with file, row and column.
    """
    columns = columns or Columns()
    check_layout(layout)
    if named.is_named(root):
        root = named.settle(str(root), cache.folder(), observer=observer)
    given = Path(root).expanduser()
    if not given.exists():
        raise UsageError(f"{given}: no such folder or table")
    if not given.is_dir() and given.suffix.lower() not in LABEL_SUFFIXES:
        raise UsageError(f"{given}: give a folder, or a table (.csv, .tsv, .txt, .xlsx, .npz)")
    if given.is_dir():
        listing = scan(given)
    else:  # what lies around it is looked for when its names are known
        listing = Listing(given.parent, np.array([], object), [given.name], alone=True)
    fit = recognise.recognise(listing, layout, columns)
    rows = eyes.read_dicom(_read_rows(fit), listing.root)
    rows = eyes.read_names(rows, fit.layout)
    extra = tuple(column for column in rows.columns if column not in COLUMNS)
    table = rows[[*COLUMNS, *extra]].reset_index(drop=True)
    notes = (f"layout: {fit.layout.title}; {fit.describe()}", *fit.notes)
    for note in notes:
        observer.note(note)
    if listing.passed.files:
        observer.note(f"passed over in {listing.root}: {listing.passed.tell()}")
    for warning in [*_tell_shut(listing), *fit.warnings]:
        observer.warning(warning)
    source, name = given.resolve(), fit.layout.name
    return Labels(listing.root, name, table, notes, extra, source, columns, fingerprint(table))


def check_layout(name: str) -> None:
    """Raise UsageError for a layout that nobody knows."""
    if name != "auto" and name not in layouts.BY_NAME:
        raise UsageError(f"no layout '{name}'; known are {quote(layouts.BY_NAME, 20)}")


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
    rows = zip(table["path"], table["grade"], split, strict=True)
    lines = [f"{path}\t{grade}\t{split}" for path, grade, split in rows]
    return hashlib.sha256("\n".join(sorted(lines)).encode("utf-8", "surrogateescape")).hexdigest()


def _read_rows(fit: Recognised) -> pd.DataFrame:
    """The rows. What is decided on the way is added to the notes and warnings of `fit`."""
    if fit.layout.name not in (layouts.NPZ, layouts.FOLDERS):
        return _read_tables(fit)
    if flags := fit.columns.flags():
        raise UsageError(
            f"{' '.join(flags)}: {fit.listing.root} is read as {fit.layout.title}, which has no"
            " columns"
        )
    if fit.layout.name == layouts.FOLDERS:
        return _read_folders(fit)
    return _read_stacks(fit.listing.root, fit.tables[None])


def _read_tables(fit: Recognised) -> pd.DataFrame:
    parts = [_read_table(fit, split) for split in fit.tables]
    names = pd.concat([part["name"] for part in parts])
    listing = add_outside(fit.listing, names)
    if fit.listing.alone:
        listing = look_near(listing, names)
    choices = _take_images(fit, parts, listing)
    if fit.listing.alone and any((part["index"] < 0).any() for part in parts):
        listing = add_outside(replace(scan(fit.listing.root), tables=fit.listing.tables), names)
        fit.warnings.extend(_tell_shut(listing))
        choices = _take_images(fit, parts, listing)
    fit.warnings.extend(choices)
    rows = pd.concat(parts, ignore_index=True)
    matching.mark_contested(rows)
    pattern = re.compile(fit.layout.pairs or "", re.IGNORECASE)
    pairs = [table for table in listing.tables if pattern.fullmatch(Path(table).name)]
    if pairs:
        rows = eyes.read_pairs(rows, tables.read(listing.root / pairs[0]))
        fit.notes.append(f"the two eyes of a patient: from {pairs[0]}")
    index = rows["index"].to_numpy()
    there = index >= 0
    unnamed = np.delete(listing.paths, index[there])
    if fit.listing.alone:  # its own folders' images; what else lies around is no part of the set
        own = {listing.folders[i] for i in index[there]}
        unnamed = unnamed[[os.path.dirname(path) in own for path in unnamed]]
    if len(unnamed):
        fit.notes.append(
            f"{len(unnamed)} images are in no table and stand aside (such as {unnamed[0]})"
        )
    rows["path"] = rows["name"].astype(object)
    rows.loc[there, "path"] = listing.paths[index[there]]
    rows.loc[~there & rows["reason"].isna(), "reason"] = MISSING
    return rows.drop(columns=["name", "index"])


def _take_images(fit: Recognised, parts: list[pd.DataFrame], listing: Listing) -> list[str]:
    """Each table's rows get the `index` of their image in the listing; returns what was chosen
    between several, a sentence each."""
    names = pd.concat([part["name"] for part in parts])
    shared = functools.cache(lambda: bool(eyes.take_stems(names).duplicated().any()))
    sentences = []
    for part, (split, table) in zip(parts, fit.tables.items(), strict=True):
        home, _, file = table.rpartition("/")
        folder = split if fit.layout.own_folders else None
        part["index"], choices = matching.take_images(part, folder, listing, home, shared)
        sentences += [f"{file}: {choice}" for choice in choices]
    return sentences


def _tell_shut(listing: Listing) -> list[str]:
    return [f"{listing.root / f}: cannot be opened, or has no valid name" for f in listing.shut]


def _read_table(fit: Recognised, split: str | None) -> pd.DataFrame:
    """One table's rows, as `ColumnReader` gives them."""
    name, layout = fit.tables[split], fit.layout
    path = fit.listing.root / name
    if layout.grade_files:
        grades = recognise.find_beside(fit.listing, name, layout.grade_files[split])
        table = _join(path, fit.listing.root / str(grades))
    elif layout.name == layouts.TABLE:
        table = tables.read(path, lambda first: not recognise.is_data(first, fit.columns))
    else:
        table = tables.read(path, header=layout.first_row is None)
    if not len(table):
        raise UsageError(f"{table.path}: an empty data set: no row below the header")
    if layout.stacked:
        table = tables.stack(table, layout.stacked)
    return ColumnReader(table, layout, fit.columns, fit.notes).read(split, name.rpartition("/")[0])


def _join(names: Path, grades: Path) -> Table:
    """The course's two files as one table. They have no header; one that somebody gave them
    is told by its first grade, which is none."""
    left = tables.read(names, header=False)
    right = tables.read(grades, header=False)
    if layouts.parse_grade(str(right.cells.iloc[0, 0])) is None and len(right) > 1:
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


def _read_folders(fit: Recognised) -> pd.DataFrame:
    """Class folders: the grade is in a folder's name. Raises UsageError where the names may be
    another scale."""
    listing, scale = fit.listing, fit.columns.scale
    meant = recognise.grade_folders(set(listing.folders), scale, at_least=1)
    if scale.meant is None and (doubt := find_doubt(_name_beside(listing, meant))):
        raise UsageError(f"{listing.root}, folders: {doubt}")
    known = [meant.get(folder, (None, folder)) for folder in listing.folders]
    rows = pd.DataFrame(known, columns=["name", "rest"])
    grades = [None if name is None else scale.grade(name) for name, _ in known]
    rows["grade"] = np.array([NO_GRADE if grade is None else grade for grade in grades], np.int8)
    last = rows["rest"].str.split("/").str[-1]
    of_5 = last.map(layouts.parse_number) == NUM_GRADES
    reason = of_5.map({True: f"{UNGRADABLE} (grade 5)", False: NO_GRADE_FOLDER}).astype(object)
    if scale.meant is not None:
        reason = f"{MAPPED_OUT} (" + rows["name"].astype(object) + ")"
        reason = reason.where(rows["name"].notna(), NO_GRADE_FOLDER)
    rows["reason"] = reason.where(rows["grade"] == NO_GRADE, None)
    if unused := scale.unused(name for name, _ in meant.values()):
        fit.warnings.append(f"--grade-map names {quote(unused)}, which no folder is called")
    lost = sorted(set(rows["rest"][rows["reason"] == NO_GRADE_FOLDER]) - {""})
    if lost:
        n = int((rows["reason"] == NO_GRADE_FOLDER).sum())
        fit.warnings.append(
            f"{n} images are left out, because their folders are no grade: {quote(lost, 4)}"
            " (--grade-map says what folders mean)"
        )
    split = np.array([layouts.parse_folder(rest) for rest in rows["rest"]], object)
    rows = rows.assign(path=listing.paths, patient=None, eye=None, split=split)
    return rows.drop(columns=["name", "rest"])


def _name_beside(listing: Listing, meant: Mapping[str, tuple[str, str]]) -> set[str]:
    """The names of the folders that stand where grades do."""
    homes = {folder: folder.split("/").index(name) for folder, (name, _) in meant.items()}
    above = {"/".join(folder.split("/")[:place]) for folder, place in homes.items()}
    names = {name for name, _ in meant.values()}
    for folder in set(listing.folders):
        parts = folder.split("/")
        names |= {parts[i] for i in range(len(parts)) if "/".join(parts[:i]) in above}
    return names


def _read_stacks(root: Path, name: str) -> pd.DataFrame:
    """RetinaMNIST: {train,val,test}_{images,labels} in one .npz."""
    file = root / name
    there = packed.keys(file)
    parts = []
    for split in layouts.SPLITS:
        if not {f"{split}_labels", f"{split}_images"} <= there:
            continue
        grade = packed.array(file, f"{split}_labels").ravel()
        wrong = np.flatnonzero(~np.isin(grade, range(NUM_GRADES)))
        if len(wrong):
            raise UsageError(
                f"{file}, array '{split}_labels', place {wrong[0]}: {grade[wrong[0]]} is not a"
                " grade 0-4; is this RetinaMNIST?"
            )
        if len(grade) != (images := packed.count(file, f"{split}_images")):
            raise UsageError(
                f"{file}: '{split}_labels' holds {len(grade)} grades for {images} images"
            )
        paths = [f"{name}#{split}/{i}" for i in range(len(grade))]
        rows = pd.DataFrame({"path": paths, "grade": grade.astype(np.int8), "patient": None})
        parts.append(rows.assign(eye=None, split=split, reason=None))
    table = pd.concat(parts, ignore_index=True)
    if table.empty:
        raise UsageError(f"{file}: an empty data set")
    return table
