"""Which of the known layouts a folder has, and which of its files are that layout's tables."""

import functools
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dr_cli.errors import UsageError
from dr_cli.grades import NUM_GRADES
from dr_cli.labels import layouts, tables
from dr_cli.labels.columns import Columns, is_counted
from dr_cli.labels.layouts import Layout
from dr_cli.labels.listing import Listing
from dr_cli.labels.scale import Scale, suggest_map
from dr_cli.labels.tables import quote
from dr_cli.photographs import packed
from dr_cli.photographs.decoding import EXTENSIONS

ITSELF = Scale()  # values mean what they say
_OFFERED = 40  # folders' names that a map is offered for
_PEEKED = 300  # tables whose first row is looked at; a folder of annotations may hold thousands
_NOT_LABELS = re.compile(r"sample_?submission|challenge\d_upload", re.IGNORECASE)  # empty forms


@dataclass(frozen=True)
class Recognised:
    """A folder's layout and its tables: split -> path relative to the folder; class folders have
    none. notes, warnings: what was decided; whoever reads the tables adds to them."""

    listing: Listing
    columns: Columns
    layout: Layout
    tables: dict[str | None, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def describe(self) -> str:
        """Its tables in words: "tables: train.csv, test.csv"."""
        names = self.tables.values()
        return f"table{'s' * (len(names) > 1)}: {', '.join(names)}" if names else "no table needed"


def recognise(listing: Listing, name: str, columns: Columns) -> Recognised:
    """The layout called `name`, or with "auto" the first of `layouts.LAYOUTS` that fits.

    An image or a grade column that a person named leaves only tables that have it. Raises
    UsageError that says what was looked for, what is there, and what to do.
    """
    if name == "auto" and (columns.image or columns.grade):
        name = layouts.TABLE
    asked = layouts.LAYOUTS if name == "auto" else (layouts.BY_NAME[name],)
    search = _Search(listing, columns, forced=name != "auto")
    fitting = [fit for layout in asked if (fit := search.fit(layout))]
    if not fitting:
        raise UsageError(search.explain(name))
    best, *others = fitting
    if columns.grade_map is None:
        search.refuse_foreign(best)
    also = [o.layout.name for o in others if o.layout.name not in (layouts.TABLE, layouts.FOLDERS)]
    if also:
        best.notes.append(
            f"taken as {best.layout.name}; it could also be {', '.join(also)} (--layout decides)"
        )
    return best


def is_data(first: Sequence[str], columns: Columns) -> bool:
    """Whether a table's first row holds an image and a grade, not two titles: an image has an
    extension, or a person counted the columns."""
    if columns.counted and not any(map(is_counted, first)):
        return True
    suffixes = [Path(cell).suffix.lower() in EXTENSIONS for cell in first]
    return any(suffixes) and any(map(columns.scale.knows, first))


def find_beside(listing: Listing, table: str, pattern: str) -> str | None:
    """The table in the same folder whose whole name is like `pattern`."""
    home = table.rpartition("/")[0]
    near = (other for other in listing.tables if other.rpartition("/")[0] == home)
    matches = (t for t in near if re.fullmatch(pattern, t.rpartition("/")[2], re.IGNORECASE))
    return next(matches, None)


def grade_folders(
    folders: Iterable[str], scale: Scale = ITSELF, at_least: int = 2
) -> dict[str, tuple[str, str]]:
    """Folder -> (the part of its path that names its grade, or is left out by the map; the path
    without it); {} unless `at_least` different grades are named and the folders beside them could
    be grades too.

    Folders of patients "1", "2", ... "265" are no grades: one beside them says so.
    """
    beside: dict[str, set[str]] = {}
    meant: dict[str, tuple[str, str]] = {}
    for folder in folders:
        parts = folder.split("/")
        for place in range(len(parts) - 1, -1, -1):
            beside.setdefault("/".join(parts[:place]), set()).add(parts[place])
            if scale.knows(parts[place]) and folder not in meant:
                meant[folder] = parts[place], "/".join(parts[:place] + parts[place + 1 :])
    for names in beside.values() if scale.meant is None else ():
        counted = any(name.isdecimal() and int(name) > NUM_GRADES for name in names)
        if counted and any(map(scale.knows, names)):
            return {}
    return meant if len({scale.grade(name) for name, _ in meant.values()}) >= at_least else {}


class _Search:
    """One folder, tried against one layout after another; first rows are read once."""

    def __init__(self, listing: Listing, columns: Columns, forced: bool) -> None:
        self.listing, self.columns, self.forced = listing, columns, forced
        self._first_row = functools.cache(lambda table: tables.peek(listing.root / table))
        self.tables = [table for table in listing.tables if not _NOT_LABELS.search(table)]

    def fit(self, layout: Layout) -> Recognised | None:
        """The layout with its tables, or None."""
        fit = Recognised(self.listing, self.columns, layout)
        if layout.name == layouts.FOLDERS:
            scale = self.columns.scale
            at_least = 1 if self.forced or scale.meant else 2
            return fit if grade_folders(set(self.listing.folders), scale, at_least) else None
        if layout.name == layouts.TABLE:
            return self._take_any(fit)
        for split in layout.files:
            candidates = [table for table in self.tables if self._fits(table, split, layout)]
            if candidates:
                fit.tables[split] = self._take_one(candidates, fit)
            elif split not in (layouts.VAL, layouts.TEST):
                return None
        return fit

    def _fits(self, table: str, split: str | None, layout: Layout) -> bool:
        if not re.fullmatch(layout.files[split], table.rpartition("/")[2], re.IGNORECASE):
            return False
        if layout.name == layouts.NPZ:
            return packed.keys(self.listing.root / table) >= {"train_images", "train_labels"}
        if layout.grade_files:
            return find_beside(self.listing, table, layout.grade_files[split]) is not None
        first = self._first_row(table)
        if layout.first_row:
            return re.fullmatch(layout.first_row, " ".join(first)) is not None
        return self._has_titles(first, layout)

    def _take_one(self, candidates: list[str], fit: Recognised) -> str:
        """Of several tables the one beside those already taken, nearest to the top, largest."""
        home = {table.rpartition("/")[0] for table in fit.tables.values()}

        def rank(table: str) -> tuple[bool, int, int, str]:
            size = (self.listing.root / table).stat().st_size
            return table.rpartition("/")[0] not in home, table.count("/"), -size, table

        best, *others = sorted(candidates, key=rank)
        if others:
            fit.notes.append(
                f"took {best}, the nearest to the top, then the largest, of {len(candidates)}"
                f" tables that could be meant; not {quote(others, 4)} (give the table itself as"
                " DATA to decide)"
            )
        return best

    def _take_any(self, fit: Recognised) -> Recognised | None:
        """A table with an image and a grade column, or one a split where their paths say so."""
        nearest = sorted(self.tables, key=lambda table: (table.count("/"), table))[:_PEEKED]
        fitting = [t for t in nearest if self._has_columns(self._first_row(t), fit.layout)]
        if not fitting:
            return None
        by_split: dict[str, list[str]] = {}
        for table in fitting:
            split = layouts.parse_folder(str(Path(table).with_suffix("")))
            if split and table.count("/") == fitting[0].count("/"):
                by_split.setdefault(split, []).append(table)
        if layouts.TRAIN not in by_split or any(len(t) > 1 for t in by_split.values()):
            fit.tables[None] = self._take_one(fitting, fit)
            return fit
        fit.tables.update((s, by_split[s][0]) for s in layouts.SPLITS if s in by_split)
        rest = sorted(set(fitting) - set(fit.tables.values()))
        if rest:
            fit.notes.append(f"not read: {quote(rest, 4)}, further tables of that form")
        return fit

    def _has_columns(self, first: list[str], layout: Layout) -> bool:
        """Titles, or without titles a first row that is data (whose columns are numbered)."""
        if is_data(first, self.columns):
            keys = {f"column_{i + 1}" for i in range(len(first))}
            given = [self.columns.image, self.columns.grade]
            return all(tables.simplify(column) in keys for column in given if column)
        return self._has_titles(first, layout)

    def _has_titles(self, first: list[str], layout: Layout) -> bool:
        keys = {tables.simplify(cell) for cell in first}
        image, grade = self.columns.image, self.columns.grade
        return (
            not keys.isdisjoint([tables.simplify(image)] if image else layout.image)
            and not keys.isdisjoint([tables.simplify(grade)] if grade else layout.grade)
            and layout.gradable in {None, *keys}
        )

    def explain(self, name: str) -> str:
        """One line: what was looked for, what was found, what to do next."""
        listing = self.listing
        if not len(listing) and not listing.tables:
            passed = f" (passed over: {told})" if (told := listing.passed.tell()) else ""
            shut = f" (cannot be opened: {quote(listing.shut, 4)})" if listing.shut else ""
            return f"{listing.root}: an empty data set: no image and no table in it{passed}{shut}"
        csv = [table for table in listing.tables if not table.endswith(".npz")]
        if self.columns.grade_map is None and (foreign := self._find_foreign(csv[:_PEEKED], True)):
            return f"{listing.root}: {foreign}"
        if not csv and name in ("auto", layouts.FOLDERS) and (folders := self._explain_folders()):
            return f"{listing.root}: {folders}"
        asked = "a known layout" if name == "auto" else f"layout '{name}'"
        if flags := self.columns.flags():
            asked = f"a table with {' and '.join(flags)}"
        seen = [f"{t} with {quote(self._first_row(t), 8)}" for t in csv[:3] if self._first_row(t)]
        faults = itertools.islice(filter(None, map(self._find_fault, listing.tables)), 3)
        return (
            f"{listing.root}: {asked} was looked for, not found among {len(listing)} images in"
            f" {len(set(listing.folders))} folders and {len(listing.tables)} tables"
            f"{' (' + '; '.join(seen) + ')' if seen else ''}"
            f"{''.join(f'; {fault}' for fault in faults)}"
            f"; name the columns with --image-column and --grade-column ('column 1', 'column 2' of"
            f" a table without titles), or give --layout, one of {', '.join(layouts.BY_NAME)}"
        )

    def refuse_foreign(self, fit: Recognised) -> None:
        """Raise UsageError where the tables, or folders, are known to hold no grades 0-4."""
        if foreign := self._find_foreign(list(fit.tables.values()), not fit.tables):
            raise UsageError(f"{self.listing.root}: {foreign}")

    def _find_foreign(self, names: Sequence[str], folders: bool) -> str | None:
        """What to say of a set whose tables or folders look like grades and are none."""
        for table in names:
            for title in map(tables.simplify, self._first_row(table)):
                if said := layouts.FOREIGN_COLUMNS.get(title):
                    return f"{table}: {said}"
        for pattern, said in layouts.FOREIGN.items() if folders else ():
            if any(re.match(pattern, f, re.IGNORECASE) for f in set(self.listing.folders)):
                return said
        return None

    def _explain_folders(self) -> str | None:
        """Which folders' names were not understood, and the map that would do; None where they
        do not look like grades."""
        last = {folder.rpartition("/")[2] for folder in self.listing.folders}
        names = sorted(name for name in last if name and layouts.parse_folder(name) is None)
        unknown = [name for name in names if not self.columns.scale.knows(name)]
        if self.columns.grade_map is not None:
            return f"--grade-map names none of the folders {quote(names)}"
        if len(names) > _OFFERED or (offer := suggest_map(names)) is None:
            return None
        return (
            f"the folders {quote(unknown)} are not understood as grades 0-4; look this over, and"
            f" give it (a folder with no grade in it is left out): {offer}"
        )

    def _find_fault(self, table: str) -> str:
        """Why no first row could be had of a table; "" where one was."""
        path = self.listing.root / table
        if packed.keys(path) if table.endswith(".npz") else self._first_row(table):
            return ""
        if table.endswith(".npz"):
            return f"{table}: no NumPy archive"
        try:
            tables.read(path)
        except UsageError as error:
            return str(error).removeprefix(f"{self.listing.root}/")
        return f"{table}: its first row cannot be told"
