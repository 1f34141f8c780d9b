"""Anybody's predictions as a table: from a file or stdin, CSV or JSON, with the true grades of
another table where they lack them.

What a table to score has is said in `predictions`; here columns of other names are found, and rows
joined. What `dr predict` prints is read like any other table.
"""

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dr_cli.errors import UsageError
from dr_cli.labels.layouts import (
    EYE_COLUMNS,
    GRADE_COLUMNS,
    IMAGE_COLUMNS,
    PATIENT_COLUMNS,
    SPLIT_COLUMNS,
)
from dr_cli.labels.tables import simplify
from dr_cli.photographs.decoding import EXTENSIONS
from dr_cli.scoring.predictions import PROBABILITIES, check

if TYPE_CHECKING:
    import pandas as pd

    from dr_cli.labels.reading import Labels

STDIN = "-"
Given = Mapping[str, str | None]
FindRoles = Callable[[Sequence[str]], dict[str, str]]
EXTENSION = "(" + "|".join(re.escape(e) for e in sorted(EXTENSIONS)) + ")$"
TEXT = ("path", "patient", "eye", "split")
SCORES = ("p0", "predicted", "referable_probability")  # a table with none of them predicts nothing
# What `dr predict` says besides; its `referable` is a call, which would be taken for the truth.
SAID = ("name", "expected_grade", "referable", "reason", "error")


@dataclass(frozen=True)
class Theirs:
    """Somebody's predictions with true grades, as `predictions.check` wants them."""

    name: str
    """Where they were read, for sentences."""
    table: "pd.DataFrame"
    failed: int = 0
    """Rows that name an error in place of a grade, as `dr predict` does."""
    warnings: tuple[str, ...] = ()

    def take(self, split: str | None) -> "pd.DataFrame":
        """The rows of a split, by the column of that name; None, "all": every row. UsageError
        where there are none."""
        if split in (None, "all"):
            return self.table
        if "split" not in self.table:
            raise UsageError(
                f"{self.name} has no column split: --split {split} cannot be told from the rest"
            )
        rows = self.table[self.table["split"] == split]
        if rows.empty:
            there = ", ".join(sorted(self.table["split"].dropna().unique()))
            raise UsageError(
                f"{self.name} has no row of split {split!r}: it has {there or 'none named'}"
            )
        return rows.reset_index(drop=True)


def read_predictions(
    source: str | Path,
    labels: "Labels | None" = None,
    columns: Given | None = None,
) -> Theirs:
    """Predictions with their true grades, from a table or, where `source` is "-", from stdin.

    The text is CSV with commas, semicolons or tabs, a JSON list or JSON lines. Columns: an image
    (`path`, or what other people call it), its true `grade` (or `referable` 0/1), and `p0 … p4`,
    `predicted`, or `referable_probability`; optional `patient`, `eye`, `split`, `gradable`, and any
    others, kept as they are. The patients' rows of `dr predict --pair` are passed over. columns:
    names that a person gave, by "image", "grade", "patient", "split". labels: the true grades,
    where another table has them; then a lone column of grades (`id_code,diagnosis`) is what was
    predicted, and rows are joined by their images' names.

    Raises UsageError, naming file, line and column, for a table that cannot be read or scored.
    """
    name = "stdin" if str(source) == STDIN else str(source)
    table, lines = _parse(_read_text(source, name), name, dict(columns or {}), labels is not None)
    patients = _are_patients(table)
    table, lines = table[~patients].reset_index(drop=True), lines[~patients]
    failed = np.zeros(len(table), bool)
    if {"error", "predicted"} <= {*table}:
        failed = table["error"].notna().to_numpy() & (table["error"] != "").to_numpy()
        table = table[~failed].drop(columns=[c for c in SAID if c in table]).reset_index(drop=True)
    check(table, name, lines[~failed], truth=labels is None)
    warnings: tuple[str, ...] = ()
    if labels is not None:
        table, warnings = _join(table, labels, name)
    return Theirs(name, table, int(failed.sum()), warnings)


def _are_patients(table: "pd.DataFrame") -> NDArray[np.bool_]:
    """bool [rows]: those that `dr predict --pair` adds, of a patient and no photograph."""
    if not {"path", "patient", "p0"} <= {*table}:
        return np.zeros(len(table), bool)
    alone = table["path"].isna() & table["p0"].isna() & table["patient"].notna()
    return alone.to_numpy()


# --- text to rows


def _read_text(source: str | Path, name: str) -> str:
    try:
        if str(source) == STDIN:
            raw = sys.stdin.buffer.read()
        elif Path(source).is_dir():
            raise UsageError(f"{name} is a folder: name a table of predictions, such as a CSV file")
        elif Path(source).is_char_device():  # which has no end; a pipe has one
            raise UsageError(f"{name} is a device: name a table of predictions")
        else:
            raw = Path(source).read_bytes()
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is no table: {error}") from None


def _parse(
    text: str, name: str, columns: Given, joined: bool
) -> tuple["pd.DataFrame", NDArray[np.int64]]:
    """The rows under the names that are known here, and the line in which each begins."""
    import pandas as pd

    parse = _parse_json if text.lstrip()[:1] in ("[", "{") else _parse_csv
    try:
        return parse(text, lambda titles: _find_roles(titles, columns, name, joined))
    except UsageError:
        raise
    except (ValueError, TypeError, pd.errors.ParserError, csv.Error) as error:
        raise UsageError(f"{name} is no table: {str(error).strip()}") from None


def _parse_json(text: str, find_roles: FindRoles) -> tuple["pd.DataFrame", NDArray[np.int64]]:
    """A list of objects, or an object a line, as `dr predict --format json|jsonl` prints them."""
    import pandas as pd

    if text.lstrip().startswith("["):
        records = json.loads(text)
        lines = list(range(1, len(records) + 1))
    else:
        lines = [i for i, line in enumerate(text.splitlines(), 1) if line.strip()]
        records = [json.loads(line) for line in text.splitlines() if line.strip()]
    for record in records:
        if not isinstance(record, dict):
            raise ValueError("a row is no object")
        if isinstance(p := record.pop("probabilities", None), list):
            record |= dict(zip(PROBABILITIES, p, strict=True))
    table = pd.DataFrame(records)
    roles = find_roles([str(title) for title in table])
    table = table.drop(columns=[c for c in table if c in roles.values() and c not in roles])
    table = table.rename(columns=roles)
    for column in {*TEXT} & {*table}:
        table[column] = table[column].map(str, na_action="ignore").astype(object)
    return table, np.array(lines, np.int64)


def _parse_csv(text: str, find_roles: FindRoles) -> tuple["pd.DataFrame", NDArray[np.int64]]:
    import pandas as pd

    header = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(",;\t", key=header.count)
    # where ; parts the cells, a comma may part units from tenths
    decimal = "," if separator == ";" and re.search(r";\d*,\d", text) else "."
    titles = next(csv.reader([header], delimiter=separator, skipinitialspace=True), [])
    roles = find_roles(titles)
    as_text: Any = {title: str for title, role in roles.items() if role in TEXT}
    table = pd.read_csv(
        io.StringIO(text), sep=separator, dtype=as_text, skipinitialspace=True, decimal=decimal
    )
    table = table.drop(columns=[c for c in table if c in roles.values() and c not in roles])
    table, lines = table.rename(columns=roles), _find_lines(text, separator)
    _refuse_swallowed(table, lines, separator, len(titles))
    return table, lines


def _refuse_swallowed(
    table: "pd.DataFrame", lines: NDArray[np.int64], separator: str, width: int
) -> None:
    """A double quote that stands alone takes lines up to the next one into its cell. A name may
    hold a line end, and no row: ValueError for one that does."""
    for column in {*TEXT} & {*table}:
        cells = table[column].astype(str)
        for row in np.flatnonzero(cells.str.contains("\n", regex=False)):
            if max(line.count(separator) for line in cells.iloc[row].split("\n")) >= width - 1 > 1:
                raise ValueError(
                    f"line {lines[row]}, column {column}: a cell of several rows; a double quote "
                    "stands alone in it"
                )


def _find_lines(text: str, separator: str) -> NDArray[np.int64]:
    """The line in which each row begins: pandas skips blank ones, and a quoted cell may hold
    line breaks."""
    found, begin = [], 1
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    for row in rows:
        if len(row) > 1 or "".join(row).strip():
            found.append(begin)
        begin = rows.line_num + 1
    return np.array(found[1:], np.int64)


def _find_roles(titles: Sequence[str], given: Given, name: str, joined: bool) -> dict[str, str]:
    """Title -> what it is here, of those that have another name or hold text.

    joined: true grades come from another table, so that a column of grades is what was predicted,
    and a name given for the other table may be no column of this one.
    """
    known = {simplify(title): title for title in reversed(titles)}
    roles: dict[str, str] = {}

    def find(role: str, names: Iterable[str]) -> None:
        asked = given.get(role.replace("path", "image")) if role != "predicted" else None
        if asked and (title := asked if asked in titles else known.get(simplify(asked))):
            roles[title] = role
        elif asked and not joined:
            there = ", ".join(titles)
            flag = f"--{role.replace('path', 'image')}-column"
            raise UsageError(f"{name}: no column {asked!r} ({flag}); it has {there}")
        elif title := next((known[n] for n in names if known.get(n) not in (None, *roles)), None):
            roles[title] = role

    find("path", ("path", *IMAGE_COLUMNS))
    find("patient", PATIENT_COLUMNS)
    find("eye", EYE_COLUMNS)
    find("split", SPLIT_COLUMNS)
    if not joined and "referable" not in known:
        find("grade", GRADE_COLUMNS)
    if joined and not {*SCORES} & {*known}:
        find("predicted", GRADE_COLUMNS)
    return roles


# --- rows to their labels


def _join(
    table: "pd.DataFrame", labels: "Labels", name: str
) -> tuple["pd.DataFrame", tuple[str, ...]]:
    """The predictions whose images `labels` grade, with what it says of them; and what is to be
    said of the others.

    An image is known by its path without extension, else by its name with one folder, else by
    its name alone: the first of these that means one row of each table.
    """
    graded = labels.table[labels.table["grade"] >= 0].reset_index(drop=True)
    row = np.full(len(table), -1)
    for parts in (None, 2, 1):
        open_rows, free = row < 0, ~np.isin(np.arange(len(graded)), row)
        asked, there = _shorten(table["path"], parts), _shorten(graded["path"], parts)
        once = free & ~there.where(free).duplicated(keep=False).to_numpy()
        place = dict(zip(there[once], np.flatnonzero(once), strict=True))
        alone = open_rows & ~asked.where(open_rows).duplicated(keep=False).to_numpy()
        row[alone] = [place.get(key, -1) for key in asked[alone]]
    met = row >= 0
    if not met.any():
        raise UsageError(
            f"no image of {name} (such as {table['path'].iloc[0]}) is graded in {labels.source} "
            f"(such as {graded['path'].iloc[0] if len(graded) else 'none'})"
        )
    told = graded.iloc[row[met]].reset_index(drop=True).drop(columns=["path", "reason"])
    own = table[met].reset_index(drop=True)
    for column in told:
        if column not in own or column == "grade":
            own[column] = told[column]
        elif column in ("patient", "eye", "split"):
            own[column] = own[column].where(own[column].notna(), told[column])
    own = own.drop(columns=[c for c in ("eye", "split") if c in own and own[c].isna().all()])
    warnings = []
    if (~met).any():
        first = table["path"][int(np.argmin(met))]
        warnings.append(
            f"{int((~met).sum()):,} of {len(table):,} predictions have no grade in "
            f"{labels.source.name} and are in no figure, such as {first}"
        )
    missing = ~np.isin(np.arange(len(graded)), row)
    if missing.any():
        first = graded["path"][int(np.argmax(missing))]
        warnings.append(
            f"{int(missing.sum()):,} of the {len(graded):,} graded images of {labels.source.name} "
            f"have no prediction: figures are without them, such as {first}"
        )
    return own, tuple(warnings)


def _shorten(paths: "pd.Series", parts: int | None) -> "pd.Series":
    """Paths without the extension of a photograph, of which the last parts are kept."""
    names = paths.astype(str).str.replace("\\", "/", regex=False).str.lower()
    names = names.str.replace(EXTENSION, "", regex=True)
    return names if parts is None else names.str.split("/").str[-parts:].str.join("/")
