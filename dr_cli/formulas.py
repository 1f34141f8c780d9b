"""Texts in CSV files that a spreadsheet would run as formulas, and what is written in their place.

Names of files and patients come from outside, and a spreadsheet evaluates `=HYPERLINK(…)` in a
table of them. A path gets `./` in front, which means the same file; any other text an apostrophe,
which `plain` takes away again: what is written is read back as it was. Numbers stay numbers.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_PATH = re.compile(r"[=+\-@\t\r]")
_TEXT = re.compile(rf"'*{_PATH.pattern}")  # an apostrophe before one may be the name's own
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WRITTEN = re.compile(rb"(?m)(?:^|[,\"])(?:'|\./)")


def defuse(text: str) -> str:
    """A text that no spreadsheet runs; `plain` gives it back."""
    return f"'{text}" if _TEXT.match(text) and not _NUMBER.fullmatch(text) else text


def plain(text: str) -> str:
    """The inverse of `defuse`."""
    return text[1:] if text.startswith("'") and _TEXT.match(text) else text


def defuse_path(path: str) -> str:
    """A path to the same file that no spreadsheet runs."""
    return f"./{path}" if _PATH.match(path) else path


def plain_path(path: str) -> str:
    """The inverse of `defuse_path` for paths that do not begin with `./`."""
    return path[2:] if path.startswith("./") and _PATH.match(path, 2) else path


def defuse_table(table: "pd.DataFrame") -> "pd.DataFrame":
    """All texts and titles of a table; its column `path` holds paths."""
    return _change(table, defuse, defuse_path)


def plain_table(table: "pd.DataFrame", written: bytes) -> "pd.DataFrame":
    """The inverse of `defuse_table`. written: the CSV file, which tells at once whether there is
    anything to change."""
    return _change(table, plain, plain_path) if _WRITTEN.search(written) else table


def _change(
    table: "pd.DataFrame", text: Callable[[str], str], path: Callable[[str], str]
) -> "pd.DataFrame":
    told = table.rename(columns=text)
    for column in told:
        if told[column].dtype.kind not in "biuf":
            change = path if column == "path" else text
            told[column] = told[column].map(
                lambda cell, change=change: change(cell) if isinstance(cell, str) else cell
            )
    return told
