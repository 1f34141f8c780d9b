"""A table of labels as somebody wrote it: separator, encoding, header and row numbers found out.

Everything is read as text, so that a wrong value can be shown as it stands in the file, with
the row it stands in. Knows nothing of grades or photographs.
"""

import csv
import errno
import functools
import io
import re
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dr_cli.errors import UsageError

SUFFIXES = frozenset({".csv", ".tsv", ".txt", ".xlsx"})

_SEPARATORS = ",\t;|"
_PEEK_BYTES = 1 << 16
_MOST_CELLS = 10_000_000  # of a table whose rows have far fewer than its widest has


def simplify(column: str) -> str:
    """What two spellings of a column have in common: `Image name ` and `image_name` are one."""
    return re.sub(r"[\W_]+", "_", column.strip().lower()).strip("_")


@dataclass(frozen=True)
class Table:
    """`cells`: stripped text, "" where empty, one column a header cell; `rows`: [N] int64, the
    number of each row as a text editor or spreadsheet counts it (the header is row 1)."""

    path: Path
    cells: pd.DataFrame
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def columns(self) -> list[str]:
        return list(self.cells.columns)

    @cached_property
    def _by_key(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for column in self.columns:
            found.setdefault(simplify(column), []).append(column)
        return found

    def find(self, names: Iterable[str]) -> str | None:
        """The first of `names` (as `simplify` spells them) that is a column; None when none is."""
        return next((self._by_key[name][0] for name in names if name in self._by_key), None)

    def find_given(self, column: str, flag: str) -> str:
        """The column that a person named with `flag`, exactly or but for case and punctuation.

        Raises UsageError, naming the columns there are.
        """
        if column in self.columns:
            return column
        alike = self._by_key.get(simplify(column), [])
        if len(alike) == 1:
            return alike[0]
        raise UsageError(
            f"{self.path}: no column '{column}' ({flag}); it has {quote(self.columns)}"
        )

    def error(self, position: int, column: str, what: str) -> UsageError:
        """An error about the cell in `column` of the row at `position` (0-based)."""
        return UsageError(f"{self.path}, row {self.rows[position]}, column '{column}': {what}")


def stack(table: Table, columns: Iterable[str]) -> Table:
    """The table with a row for each filled cell of `columns` (as `simplify` spells them; those
    that are there), all of which then stand in the first of them; a row's own stay together."""
    found = [column for name in columns if (column := table.find((name,)))]
    rest = table.cells.drop(columns=found[1:])
    parts = [rest.assign(**{found[0]: table.cells[column]}) for column in found]
    order = np.tile(np.arange(len(table)), len(found)).argsort(kind="stable")
    cells = pd.concat(parts, ignore_index=True).iloc[order]
    filled = (cells[found[0]] != "").to_numpy(bool)
    rows = np.tile(table.rows, len(found))[order]
    return Table(table.path, cells[filled].reset_index(drop=True), rows[filled])


def map_values(cells: pd.Series, change: Callable[[str], Any]) -> NDArray[Any]:
    """[N] object: `change` of each cell, asked once for each different one, as most columns have
    few."""
    codes, values = pd.factorize(cells.to_numpy(object))
    changed = np.empty(len(values), object)
    changed[:] = [change(value) for value in values]
    return changed[codes]


def quote(names: Iterable[str], limit: int = 12) -> str:
    """`a, b, c` for a sentence, cut after `limit` names."""
    names = [repr(name) for name in names]
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" * (len(names) > limit))


def read(path: Path, header: bool | Callable[[list[str]], bool] = True) -> Table:
    """Read a .csv, .tsv, .txt or .xlsx file (of a workbook: its first sheet).

    header: whether the first row names the columns, or a function that says so of its cells.
    Without one the columns are "column 1", "column 2", ... Blank rows are skipped, trailing
    empty columns dropped. Raises UsageError when the file is empty or is no table.
    """
    grid = _read_grid(path).apply(_strip)
    filled = (grid != "").to_numpy(bool)
    rows = np.flatnonzero(filled.any(axis=1))
    if not len(rows):
        raise UsageError(f"{path}: the table is empty")
    width = int(np.flatnonzero(filled.any(axis=0))[-1]) + 1
    titles = [str(cell) for cell in grid.iloc[rows[0], :width]]
    if header(titles) if callable(header) else header:
        width, rows = int(np.flatnonzero(filled[rows[0]])[-1]) + 1, rows[1:]
        spilled = rows[filled[rows, width:].any(axis=1)]
        if len(spilled):  # a comma inside a name, most often
            raise UsageError(
                f"{path}, row {spilled[0] + 1}: more cells than the header's {width} columns;"
                " put names that hold a separator in double quotes"
            )
    else:
        titles = [""] * width
    cells = grid.iloc[rows, :width].reset_index(drop=True)
    cells.columns = pd.Index(_name_columns(titles[:width]))
    return Table(path, cells, (rows + 1).astype(np.int64))


def peek(path: Path) -> list[str]:
    """The cells of the first row that has any, without reading the whole file; [] when that
    cannot be found out (`read` says why)."""
    try:
        grid = _read_grid(path, first_row=True)
    except UsageError:
        return []
    rows = grid[(grid.map(str.strip) != "").any(axis=1)]
    return [str(cell).strip() for cell in rows.iloc[0]] if len(rows) else []


def _strip(cells: pd.Series) -> pd.Series:
    """Cells without blanks around them; most columns have not one, which is seen at once."""
    whole = "".join(cells)
    if not whole or whole.split(None, 1) == [whole]:
        return cells
    return pd.Series(map_values(cells, str.strip), cells.index, dtype=object)


def _name_columns(titles: list[str]) -> list[str]:
    """Titles, numbers in place of empty ones; "x" and "x" become "x" and "x (2)"."""
    seen: Counter[str] = Counter()
    names = []
    for number, title in enumerate(titles, 1):
        name = title or f"column {number}"
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return names


def _read_grid(path: Path, first_row: bool = False) -> pd.DataFrame:
    """Every row as text; of a text file with `first_row` only the first that is not blank, from
    the file's start."""
    if path.suffix.lower() == ".xlsx":
        return _read_sheet(path)
    try:
        if not path.is_file() and path.exists():
            raise OSError(errno.EINVAL, "no file")
        with path.open("rb") as file:
            text = _decode(path, file.read(_PEEK_BYTES if first_row else -1))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    sample = [line for line in text[:_PEEK_BYTES].split("\n") if line.strip()]
    if first_row:
        text, sample = "".join(sample[:1]), sample[:-1] or sample  # the last line may be cut
    return _split_text(path, text, _find_separator(sample, path.suffix))


def _decode(path: Path, raw: bytes) -> str:
    """UTF-8 with or without its mark, UTF-16 with its mark, else Windows' own Western code."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = raw.decode("utf-16", errors="replace")
    else:
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = raw.decode("cp1252", errors="replace")
    if "\0" in text:
        raise UsageError(f"{path}: not a text table (it holds zero bytes)")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _split_text(path: Path, text: str, separator: str | None) -> pd.DataFrame:
    """Every row as text, ragged ones filled up with ""; separator None: runs of blanks."""
    lines = text.split("\n")
    widths = [line.count(separator) + 1 if separator else len(line.split()) for line in lines]
    width = max(widths)
    if width * len(lines) > _MOST_CELLS and width > 10 * sum(widths) / len(lines):
        raise UsageError(
            f"{path}, row {widths.index(width) + 1}: {width:,} cells, where most have few"
        )
    try:
        with warnings.catch_warnings():  # of cells that it leaves out
            warnings.simplefilter("error", pd.errors.ParserWarning)
            grid = pd.read_csv(
                io.StringIO(text), sep=separator or r"\s+", header=None, names=range(max(width, 1)),
                dtype=str, na_filter=False, skip_blank_lines=False, index_col=False,
            )  # fmt: skip
    except pd.errors.EmptyDataError:
        return pd.DataFrame(columns=range(1), dtype=str)
    except pd.errors.ParserWarning as error:
        raise UsageError(
            f"{path}: not a table (a row of several lines, in quotes, has more cells than any line)"
        ) from error
    except (pd.errors.ParserError, csv.Error, ValueError) as error:
        reason = str(error).removeprefix("Error tokenizing data. C error: ").strip()
        # pandas counts rows from 0, lines from 1
        reason = re.sub(r"row (\d+)", lambda found: f"row {int(found[1]) + 1}", reason)
        raise UsageError(f"{path}: not a table ({reason})") from error
    return grid.astype(object).fillna("")


def _find_separator(sample: list[str], suffix: str) -> str | None:
    """The one that every line has most often, else the first line; None: runs of blanks."""
    sample = sample[:20]
    for lines in (sample, sample[:1]):
        fewest = {s: min((line.count(s) for line in lines), default=0) for s in _SEPARATORS}
        best = max(_SEPARATORS, key=lambda separator: fewest[separator])
        if fewest[best]:
            return best
    blanks = suffix.lower() == ".txt" and all(len(line.split()) > 1 for line in sample)
    return None if blanks and sample else ","


_BROKEN = (LookupError, AttributeError, ValueError, OSError, EOFError, RuntimeError, zlib.error)
_XLSX = {"x": "http://schemas.openxmlformats.org/spreadsheetml/2006/main"}
_MOST_XML = 1 << 28  # bytes of a part, unpacked; a sheet of a million rows of three takes half


class _Plain(ElementTree.TreeBuilder):
    """Refuses a document type, which no workbook has: its entities may grow without end, or name
    other files."""

    def doctype(self, *_: object) -> None:
        raise ValueError("a document type")


def _parse_part(book: zipfile.ZipFile, name: str) -> ElementTree.Element:
    """One part of a workbook; no more of it is unpacked than it may have, whatever it claims."""
    with book.open(name) as part:
        raw = part.read(_MOST_XML + 1)
    if len(raw) > _MOST_XML:
        raise ValueError("too large")
    return ElementTree.fromstring(raw, ElementTree.XMLParser(target=_Plain()))


def _read_sheet(path: Path) -> pd.DataFrame:
    """The first sheet of a workbook as text. DeepDRiD gives its test grades in this form only;
    pandas would need a further dependency for it."""
    try:
        with zipfile.ZipFile(path) as book:
            shared = []
            if "xl/sharedStrings.xml" in book.namelist():
                for item in _parse_part(book, "xl/sharedStrings.xml"):
                    shared.append("".join(t.text or "" for t in item.iterfind(".//x:t", _XLSX)))
            sheet = _parse_part(book, "xl/worksheets/sheet1.xml")
        cells = {}
        for cell in sheet.iterfind(".//x:c", _XLSX):
            letters, row = re.fullmatch(r"([A-Z]{1,3})(\d{1,7})", cell.get("r", "")).groups()  # type: ignore[union-attr]
            value = "".join(part.text or "" for part in cell.iterfind(".//x:t", _XLSX))
            value = value or cell.findtext("x:v", "", _XLSX)
            value = shared[int(value)] if cell.get("t") == "s" else value
            cells[int(row) - 1, _count_letters(letters)] = value
        height, width = np.max([*cells, (-1, -1)], axis=0) + 1
        if height * width > _MOST_CELLS and height * width > 10 * len(cells):
            raise ValueError("a cell far from all others")
    except (zipfile.BadZipFile, ElementTree.ParseError, *_BROKEN) as error:
        raise UsageError(f"{path}: not a workbook that can be read; save it as CSV") from error
    grid = np.full((height, width), "", object)
    for (row, column), value in cells.items():
        grid[row, column] = value
    return pd.DataFrame(grid)


def _count_letters(letters: str) -> int:
    """A -> 0, Z -> 25, AA -> 26."""
    digits = (ord(letter) - ord("A") + 1 for letter in letters)
    return functools.reduce(lambda number, digit: number * 26 + digit, digits, 0) - 1
