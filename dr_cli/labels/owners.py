"""Whose eye a photograph shows, told by its name or by a table: for `dr predict --pair`.

Free of pandas until a table is read: `dr predict` passes through here.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dr_cli.errors import UsageError
from dr_cli.labels import layouts
from dr_cli.photographs.decoding import EXTENSIONS

if TYPE_CHECKING:
    from dr_cli.labels.columns import Columns

Owner = tuple[str | None, str | None]
"""Patient, and left or right; None for unknown."""
Whose = Callable[[str], Owner]
_NAME = re.compile(layouts.EYE_NAME, re.IGNORECASE)
_UNSURE = object()


def by_name(path: str) -> Owner:
    """As `clinic/10_left.jpg` says: patient "clinic/10", left. The folder belongs to the patient,
    because each clinic, and each day, may count its patients from 1."""
    folder, name = os.path.split(path)
    found = _NAME.match(os.path.splitext(name)[0])
    if found is None:
        return None, None
    return os.path.join(folder, found["patient"]), layouts.EYES[found["eye"].lower()]


def read_owners(path: Path, columns: "Columns") -> Whose:
    """What the table says of a photograph's path: patient and eye, None where it does not.

    A name is found by as much of its end as the table gives, with the extension or without; one
    that means several patients tells nothing. Raises UsageError for a table without a column of
    images or patients.
    """
    from dr_cli.labels import tables

    table = tables.read(path)
    where = {}
    for role, known in (("image", layouts.IMAGE_COLUMNS), ("patient", layouts.PATIENT_COLUMNS)):
        given = getattr(columns, role)
        column = table.find_given(given, f"--{role}-column") if given else table.find(known)
        if column is None:
            raise UsageError(
                f"{path}: no column of {role}s; it has "
                f"{tables.quote(table.columns)}: name one with --{role}-column"
            )
        where[role] = table.cells[column]
    eyes = table.find(layouts.EYE_COLUMNS)
    sides = [""] * len(table) if eyes is None else [_side(cell) for cell in table.cells[eyes]]
    known_by: dict[str, object] = {}
    for name, patient, side in zip(where["image"], where["patient"], sides, strict=True):
        owner: Owner = patient or None, layouts.EYES.get(side)
        for tail in _tails(name):
            known_by[tail] = owner if known_by.get(tail, owner) == owner else _UNSURE

    def whose(photograph: str) -> Owner:
        found = next((known_by[tail] for tail in _tails(photograph) if tail in known_by), _UNSURE)
        return found if isinstance(found, tuple) else (None, None)

    return whose


def _side(cell: str) -> str:
    return re.sub(r"[\s_-]*eye$", "", cell.strip().lower())


def _tails(name: str) -> Iterator[str]:
    """A path without its extension, then with ever fewer of its first folders."""
    stem, extension = os.path.splitext(name.replace("\\", "/"))
    parts = (stem if extension.lower() in EXTENSIONS else stem + extension).split("/")
    for lost in range(len(parts)):
        yield "/".join(parts[lost:])
