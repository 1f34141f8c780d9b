"""What lies in a folder: every image and every table, found in one walk.

The order in which a file system lists its files never matters.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dr_cli.errors import UsageError
from dr_cli.labels import tables
from dr_cli.photographs.decoding import EXTENSIONS


@dataclass(frozen=True)
class Listing:
    """A folder's images and tables, sorted.

    folders: those that hold images, relative to `root`, "" for itself, posix; absolute outside it.
    paths: [N] str, the images, written as their folders are; folder: [N] int64 into `folders`.
    tables: relative paths of what may hold labels; shut: folders that cannot be opened, and
    whatever has a name that is no valid text.
    """

    root: Path
    folders: list[str]
    folder: NDArray[np.int64]
    paths: NDArray[Any]
    tables: Sequence[str] = ()
    shut: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.paths)


def scan(root: Path) -> Listing:
    """Walk `root` once. Hidden files and folders and macOS's `__MACOSX` are passed over; a
    folder that links lead back to is entered once."""
    images: dict[str, list[str]] = {}
    label_files: list[str] = []
    shut: list[str] = []
    entered = {os.path.realpath(root)}
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            entries = list(os.scandir(root / folder))
        except OSError as error:
            if not folder:
                raise UsageError(f"{root}: cannot be opened ({error.strerror})") from error
            shut.append(folder)
            continue
        for entry in entries:
            name = entry.name
            if name.startswith((".", "__MACOSX")):
                continue
            if not _is_text(name):
                shut.append(f"{folder}/{name}".encode(errors="backslashreplace").decode())
                continue
            path = f"{folder}/{name}" if folder else name
            if entry.is_dir():
                if not entry.is_symlink() or (real := os.path.realpath(entry)) not in entered:
                    if entry.is_symlink():
                        entered.add(real)
                    pending.append(path)
                continue
            suffix = os.path.splitext(name)[1].lower()
            if suffix in EXTENSIONS:
                images.setdefault(folder, []).append(name)
            elif suffix in tables.SUFFIXES or suffix == ".npz":
                label_files.append(path)
    return replace(_list(root, images), tables=sorted(label_files), shut=sorted(shut))


def add_outside(listing: Listing, names: pd.Series) -> Listing:
    """The listing with the folders outside it that absolute or `../` names lead to, if they
    exist."""
    outside = names[names.str.match(r"(?:[A-Za-z]:)?/|(?:.*/)?\.\./")]
    images: dict[str, list[str]] = {}
    here = os.path.realpath(listing.root)
    for folder in outside.str.rpartition("/")[0].drop_duplicates() if len(outside) else ():
        where = os.path.abspath(listing.root / (folder or "/"))
        real = os.path.realpath(where)
        if os.path.isdir(where) and real != here and not real.startswith(here + os.sep):
            files = [entry.name for entry in os.scandir(where) if entry.is_file()]
            images[Path(where).as_posix()] = [
                name for name in files if os.path.splitext(name)[1].lower() in EXTENSIONS
            ]
    more = _list(listing.root, images)
    return replace(
        listing,
        folders=listing.folders + more.folders,
        folder=np.concatenate([listing.folder, more.folder + len(listing.folders)]),
        paths=np.concatenate([listing.paths, more.paths]),
    )


def clean(names: pd.Series, home: str = "") -> pd.Series:
    """Names as posix paths: `\\` is `/`, no leading `./` or blank. `../` names, which start from
    the table's folder `home`, are made to start from the root."""
    names = names.str.strip().str.replace("\\", "/", regex=False)
    names = names.str.replace(r"/{2,}", "/", regex=True).str.replace(r"^(\./)+", "", regex=True)
    dotted = names.str.contains("../", regex=False)
    if dotted.any():
        names = names.where(~dotted, f"{home}/" * bool(home) + names)
    return names


def _list(root: Path, images: dict[str, list[str]]) -> Listing:
    """images: folder -> the names of its images."""
    folders = sorted(images)
    paths = [
        f"{folder}/{name}" if folder else name
        for folder in folders
        for name in sorted(images[folder])
    ]
    sizes = [len(images[folder]) for folder in folders]
    folder = np.repeat(np.arange(len(folders), dtype=np.int64), sizes)
    return Listing(root, folders, folder, np.array(paths, object))


def _is_text(name: str) -> bool:
    """Whether a name can be written into a UTF-8 table; those from an old code page cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
