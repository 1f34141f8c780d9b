"""What lies in a folder, and which file a name in a table means.

One walk finds every image and every table; names are then matched by vectorised look-ups, so
that a hundred thousand rows take about a second. The order in which a file system lists its
files never matters.
"""

import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dr_cli.errors import UsageError
from dr_cli.labels import tables
from dr_cli.photographs.decoding import EXTENSIONS

_DEEPEST = 8  # folders above a name that are compared; a data set nests less


@dataclass(frozen=True)
class Found:
    """A folder's images and tables, sorted.

    folders: paths relative to `root`, "" for itself, posix; `folder`: [N] int64 into `folders`;
    `stems`, `extensions`: [N] str, an image's name in two parts (extension with its dot, as it
    is). `tables`: relative paths of what may hold labels; `shut`: folders that cannot be opened,
    and whatever has a name that is no valid text.
    """

    root: Path
    folders: list[str]
    folder: NDArray[np.int64]
    stems: NDArray[Any]
    extensions: NDArray[Any]
    tables: list[str] = field(default_factory=list)
    shut: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.stems)

    def paths(self) -> NDArray[Any]:
        """[N] str, relative to `root`, posix; absolute for images outside it."""
        above = np.array([f"{f}/" if f else "" for f in self.folders] or [""], object)
        return above[self.folder] + self.stems + self.extensions


def scan(root: Path) -> Found:
    """Walk `root` once. Hidden files and folders and macOS's `__MACOSX` are passed over; a
    folder that links lead back to is entered once."""
    inside: dict[str, list[str]] = {}
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
                inside.setdefault(folder, []).append(name)
            elif suffix in tables.SUFFIXES or suffix == ".npz":
                label_files.append(path)
    return _found(root, inside, sorted(label_files), sorted(shut))


def _is_text(name: str) -> bool:
    """Whether a name can be written into a UTF-8 table; those from an old code page cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _found(root: Path, inside: dict[str, list[str]], label_files: list[str], shut: list[str]
           ) -> Found:  # fmt: skip
    folders = sorted(inside)
    names = [os.path.splitext(name) for folder in folders for name in sorted(inside[folder])]
    counts = [len(inside[folder]) for folder in folders]
    return Found(
        root,
        folders,
        np.repeat(np.arange(len(folders)), counts).astype(np.int64),
        np.array([stem for stem, _ in names], object),
        np.array([extension for _, extension in names], object),
        label_files,
        shut,
    )


def with_outside(found: Found, names: pd.Series) -> Found:
    """`found` and the folders outside it that absolute or `../` names lead to, if they exist."""
    outside = names[names.str.match(r"(?:[A-Za-z]:)?/|(?:.*/)?\.\./")]
    if outside.empty:
        return found
    roots = outside.str.rpartition("/")[0].drop_duplicates()
    inside: dict[str, list[str]] = {}
    here = os.path.realpath(found.root)
    for folder in roots:
        where = os.path.normpath(found.root / (folder or "/"))
        real = os.path.realpath(where)
        if os.path.isdir(where) and real != here and not real.startswith(here + os.sep):
            listing = [entry.name for entry in os.scandir(where) if entry.is_file()]
            images = [n for n in listing if os.path.splitext(n)[1].lower() in EXTENSIONS]
            inside[Path(where).as_posix()] = images
    if not inside:
        return found
    more = _found(found.root, inside, [], [])
    return Found(
        found.root,
        found.folders + more.folders,
        np.concatenate([found.folder, more.folder + len(found.folders)]),
        np.concatenate([found.stems, more.stems]),
        np.concatenate([found.extensions, more.extensions]),
        found.tables,
        found.shut,
    )


def clean(names: pd.Series, near: str = "") -> pd.Series:
    """Names as posix paths: `\\` is `/`, no leading `./` or blank. `../` names are made relative
    to the root that the table's folder `near` is relative to."""
    names = names.str.strip().str.replace("\\", "/", regex=False)
    names = names.str.replace(r"/{2,}", "/", regex=True).str.replace(r"^(\./)+", "", regex=True)
    dotted = names.str.contains("../", regex=False)
    if dotted.any():
        names = names.where(~dotted, f"{near}/" * bool(near) + names)
    return names


@dataclass(frozen=True)
class Match:
    """`index`: [N] int64 into the images, -1 where none fits. `several`: positions of names that
    fitted more than one file."""

    index: NDArray[np.int64]
    several: NDArray[np.int64]


def match(
    names: pd.Series, found: Found, usable: NDArray[np.bool_], near: str = "", unique: bool = False
) -> Match:
    """The image that each name means, no image twice.

    names: cleaned paths or bare names, with or without extension. usable: [images] bool, those
    that may be taken. Of several that fit, a name's own folders and extension decide, then the
    same case, then the folder that shares most with the table's folder `near`, then the order of
    paths; with `unique` a name that fits several gets none.
    """
    index = np.full(len(names), -1, np.int64)
    several = np.zeros(len(names), bool)
    usable = usable.copy()
    if not len(names) or not usable.any():
        return Match(index, np.flatnonzero(several))
    stems, extensions, depth = _parts(names)
    rank = _nearness(found.folders, near)[found.folder]
    order = np.lexsort((np.arange(len(found)), rank))
    deepest = min(int(depth.max()), _DEEPEST)
    for fold, level, whole, typed in itertools.product(
        (False, True), range(deepest, -1, -1), (True, False), (True, False)
    ):  # as they are before in any case; by more folders before by fewer; names with no more
        # folders before those that lose some; with extension before without
        asked = (index < 0) & ((depth == level) if whole else (depth > level))
        rows = np.flatnonzero(asked & (extensions != "") if typed else asked)
        images = order[usable[order]]
        if not len(rows) or not len(images):
            continue
        wanted = _keys(stems[rows], extensions[rows] if typed else None, level, fold)
        there, images = _image_keys(found, images, level, typed, fold)
        hit, crowded = _look_up(wanted, there, unique)
        got = hit >= 0
        index[rows[got]] = images[hit[got]]
        several[rows[got]] = crowded[got]
        usable[images[hit[got]]] = False
    return Match(index, np.flatnonzero(several))


def _look_up(wanted: Any, there: Any, unique: bool) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Position in `there` of each wanted key (-1: none, or wanted by two), and if it had rivals."""
    if not len(there):
        return np.full(len(wanted), -1, np.int64), np.zeros(len(wanted), bool)
    later = pd.Index(there).duplicated()
    keys = pd.Index(there[~later])
    hit = keys.get_indexer(pd.Index(wanted))
    rivals = keys.isin(there[later])
    crowded = np.where(hit >= 0, rivals[hit], False)
    refused = pd.Index(wanted).duplicated(keep=False) | (crowded & unique)
    hit = np.where((hit >= 0) & ~refused, np.flatnonzero(~later)[hit], -1)
    return hit.astype(np.int64), crowded


def _parts(names: pd.Series) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    """Stem with its folders, lower-case image extension ("" if none), number of folders."""
    cut = names.str.extract(r"^(.*?)(\.[A-Za-z0-9]+)?$", expand=True)
    lower = cut[1].fillna("").str.lower()
    known = lower.isin(EXTENSIONS)
    stems = cut[0].where(known, names).to_numpy(object)
    extensions = lower.where(known, "").to_numpy(object)
    depth = names.str.count("/").to_numpy().astype(np.int64)
    return stems, extensions, depth


def _keys(stems: NDArray[Any], extensions: NDArray[Any] | None, level: int, fold: bool) -> Any:
    keys = pd.Series(stems, dtype=object)
    if level < _DEEPEST and keys.str.count("/").max() > level:
        keys = keys.str.extract(rf"((?:[^/]*/){{0,{level}}}[^/]*)$", expand=False)
    if fold:
        keys = keys.str.lower()
    return keys.to_numpy(object) + ("" if extensions is None else extensions)


def _image_keys(
    found: Found, images: NDArray[np.int64], level: int, typed: bool, fold: bool
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Keys of the images that stand at least `level` folders deep, and those images."""
    parts = [folder.split("/") if folder else [] for folder in found.folders]
    deep = np.array([len(part) >= level for part in parts], bool)
    above = np.array(
        ["".join(f"{name}/" for name in part[len(part) - level :]) for part in parts], object
    )
    images = images[deep[found.folder[images]]]
    keys = above[found.folder[images]] + found.stems[images]
    if fold:
        keys = np.array([key.lower() for key in keys], object)
    if typed:
        keys = keys + pd.Series(found.extensions[images], dtype=object).str.lower().to_numpy(object)
    return keys, images


def _nearness(folders: Iterable[str], near: str) -> NDArray[np.int64]:
    """Rank of each folder, 0 the nearest: most path parts shared with `near`, then fewest left."""
    home = near.split("/") if near else []

    def distance(folder: str) -> tuple[int, int]:
        parts = folder.split("/") if folder else []
        shared = itertools.takewhile(lambda two: two[0] == two[1], zip(home, parts, strict=False))
        return -len(list(shared)), len(parts)

    distances = [distance(folder) for folder in folders]
    places = {value: i for i, value in enumerate(sorted(set(distances)))}
    return np.array([places[value] for value in distances], np.int64)
