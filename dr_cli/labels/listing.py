"""What lies in a folder: every image and every table, found in one walk.

The order in which a file system lists its files never matters.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dr_cli.errors import UsageError
from dr_cli.labels import tables
from dr_cli.photographs.decoding import EXTENSIONS
from dr_cli.photographs.passed import Entered, Passed, is_hidden

LABEL_SUFFIXES = tables.SUFFIXES | {".npz"}

_OUTSIDE = re.compile(r"(?:[A-Za-z]:)?/|(?:.*/)?\.\./")

# Names from an old code page: they cannot be written into a UTF-8 table.
_NO_TEXT = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Listing:
    """A folder's images and tables.

    paths: [N] str, the images, posix, relative to `root`, absolute outside it; by folder, then by
    name. tables: relative paths of what may hold labels; shut: folders that cannot be opened, and
    whatever has a name that is no valid text; passed: the other files, counted; alone: nothing was
    looked for, because a table was given by itself.
    """

    root: Path
    paths: NDArray[Any]
    tables: Sequence[str] = ()
    shut: Sequence[str] = ()
    passed: Passed = field(default_factory=Passed)
    alone: bool = False

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def folders(self) -> list[str]:
        """[N] each image's folder, "" for the root."""
        return [path.rpartition("/")[0] for path in self.paths]

    @cached_property
    def by_folder(self) -> tuple[NDArray[np.int64], list[str]]:
        """[N] the number of each image's folder, and the folders: many images, few folders."""
        codes, folders = pd.factorize(np.array(self.folders, object))
        return codes.astype(np.int64), folders.tolist()


def scan(root: Path) -> Listing:
    """Walk `root` once; links and hidden names as in `photographs.passed`."""
    files: dict[str, list[str]] = {}
    shut: list[str] = []
    entered = Entered(root)

    def refuse(error: OSError) -> None:
        if error.filename == str(root):
            raise UsageError(f"{root}: cannot be opened ({error.strerror})") from error
        shut.append(Path(error.filename).relative_to(root).as_posix())

    for above, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        home = "" if above == str(root) else f"{Path(above).relative_to(root).as_posix()}/"
        inner = sorted(_drop_hidden(folders, home, shut))
        folders[:] = [name for name in inner if entered.is_new(os.path.join(above, name))]
        for name in _drop_hidden(names, home, shut):
            files.setdefault(split_extension(name)[1], []).append(home + name)
    label_files = sorted(file for kind in LABEL_SUFFIXES for file in files.pop(kind, ()))
    shut += [file for file in label_files if not os.path.isfile(root / file)]  # pipes, dead links
    label_files = [file for file in label_files if file not in shut]
    shut = sorted(path.encode(errors="backslashreplace").decode() for path in shut)
    images = [file for kind in EXTENSIONS for file in files.pop(kind, ())]
    passed = Passed(Counter({kind: len(others) for kind, others in files.items()}))
    return Listing(root, _sort(images), label_files, shut, passed)


def _drop_hidden(names: list[str], home: str, shut: list[str]) -> list[str]:
    """Those that a person sees and that are text; the others of these are added to `shut`."""
    seen = [name for name in names if not is_hidden(name)]
    if _NO_TEXT.search("\n".join(seen)) is None:
        return seen
    shut += [home + name for name in seen if _NO_TEXT.search(name)]
    return [name for name in seen if not _NO_TEXT.search(name)]


def look_near(listing: Listing, names: pd.Series) -> Listing:
    """The listing with the images in its root and in the folders that names give from there."""
    folders = {"", *(name.rpartition("/")[0] for name in names)}
    files: set[str] = set()
    for folder in folders:
        if not folder.startswith(("/", "../")) and "/../" not in folder:
            there = next(os.walk(listing.root / folder), ("", [], []))[2]
            files.update(f"{folder}/{name}" if folder else name for name in there)
    seen = (file for file in files if not os.path.basename(file).startswith("."))
    return replace(listing, paths=np.concatenate([_take_images(seen), listing.paths]))


def add_outside(listing: Listing, names: pd.Series) -> Listing:
    """The listing with the folders outside it that absolute or `../` names lead to, if they
    exist."""
    whole = "\n".join(["", *names])
    some = any(way in whole for way in ("\n/", ":/", "../"))  # a million are seen at once
    outside = [name for name in names if _OUTSIDE.match(name)] if some else []
    files: set[str] = set()
    here = os.path.realpath(listing.root)
    for folder in {name.rpartition("/")[0] for name in outside}:
        where = os.path.abspath(listing.root / (folder or "/"))
        real = os.path.realpath(where)
        if os.path.isdir(where) and real != here and not real.startswith(here + os.sep):
            there = next(os.walk(where), ("", [], []))[2]
            files.update(f"{Path(where).as_posix()}/{name}" for name in there)
    return replace(listing, paths=np.concatenate([listing.paths, _take_images(files)]))


def clean(names: pd.Series, home: str = "") -> pd.Series:
    """Names as posix paths: `\\` is `/`, no leading `./` or blank. `../` names, which start from
    the table's folder `home`, are made to start from the root."""
    whole = "\n".join(names)
    if not any(odd in whole for odd in ("\\", "//", "./")):
        return names  # a million are seen at once
    names = names.str.strip().str.replace("\\", "/", regex=False)
    names = names.str.replace(r"/{2,}", "/", regex=True).str.replace(r"^(\./)+", "", regex=True)
    dotted = names.str.contains("../", regex=False)
    if dotted.any():
        names = names.where(~dotted, f"{home}/" * bool(home) + names)
    return names


def split_extension(path: str) -> tuple[str, str]:
    """`os.path.splitext` of a posix path in half its time, the extension in lower case."""
    stem, dot, extension = path.rpartition(".")
    if not dot or "/" in extension or not stem.rpartition("/")[2].strip("."):
        return path, ""
    return stem, f".{extension.lower()}"


def _take_images(files: Iterable[str]) -> NDArray[Any]:
    return _sort(file for file in files if split_extension(file)[1] in EXTENSIONS)


def _sort(images: Iterable[str]) -> NDArray[Any]:
    """By folder, then by name: each folder by itself, as pairs of a million are slow to compare."""
    names: dict[str, list[str]] = {}
    for image in images:
        names.setdefault(image.rpartition("/")[0], []).append(image)
    return np.array([image for folder in sorted(names) for image in sorted(names[folder])], object)
