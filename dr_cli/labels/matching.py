"""Which image each name in a table means, and which image each row may take.

A name is looked up among the images' path tails: its own stem with all its folders, then with
ever fewer of them. Two rows never take the same image, and a test row no training image.
"""

import functools
import itertools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dr_cli.labels import layouts
from dr_cli.labels.columns import REPEATED
from dr_cli.labels.listing import Listing
from dr_cli.photographs.decoding import EXTENSIONS

CONTESTED = "its file fits rows of two splits"

_Tail = tuple[str, str]  # stem with some of its folders, extension or ""


def match(
    names: pd.Series, listing: Listing, usable: Any, home: str = "", unique: bool = False
) -> tuple[NDArray[np.int64], list[int]]:
    """The image that each name means, no image twice: [N] int64, -1 where none fits; and the
    positions of names that fitted more than one image.

    names: cleaned paths or bare names, with or without extension. usable: [images] bool, those
    that may be taken. Of several that fit, a name's own folders and extension decide, then the
    same case, then the folder that shares most with the table's folder `home`, then the order of
    paths; with `unique` a name that fits several gets none. Names that mean the same get none.
    """
    wanted, paths = list(names), listing.paths.tolist()
    index = np.full(len(wanted), -1, np.int64)
    several: list[int] = []
    free, order = usable.copy(), _sort_by_nearness(listing, home)
    for fold in (False, True):  # as they are before in any case
        open_rows = np.flatnonzero(index < 0).tolist()
        if not open_rows:
            break  # all images' tails would be cut for nobody
        images: dict[_Tail, list[int]] = {}
        for image in filter(free.__getitem__, order):
            for _, tail in _cut_tails(paths[image], fold):
                images.setdefault(tail, []).append(image)
        asked: dict[tuple[int, bool, bool], dict[_Tail, list[int]]] = {}
        for row in open_rows:
            for rank, tail in _cut_tails(wanted[row], fold):
                if tail in images:
                    asked.setdefault(rank, {}).setdefault(tail, []).append(row)
        for tail, rows in itertools.chain(*(asked[rank].items() for rank in sorted(asked))):
            rows = [row for row in rows if index[row] < 0]
            fitting = [image for image in images[tail] if free[image]]
            if len(rows) == 1 and fitting and not (unique and len(fitting) > 1):
                index[rows[0]], free[fitting[0]] = fitting[0], False
                several += rows if len(fitting) > 1 else []
    return index, sorted(several)


def take_images(
    rows: pd.DataFrame, folder: str | None, listing: Listing, home: str, shared: bool
) -> tuple[NDArray[np.int64], list[str]]:
    """Each row's image ([N] int64, -1: none), none to two rows of a split; and a sentence for
    each choice between several. folder: the split whose folders a layout keeps these rows to, if
    it does; shared: whether two tables or splits share a name.

    A layout's own folders are binding: IDRiD's test row never takes a training photograph.
    Elsewhere a row keeps to folders that name its split or none; where no folder names it
    and no two splits share a name, any image that nobody else means will do: a validation split
    that a table takes out of a training folder.
    """
    index = np.full(len(rows), -1, np.int64)
    sentences: list[str] = []

    def take(which: Any, usable: Any, unique: bool = False) -> None:
        names = rows["name"][which]
        images, several = match(names, listing, usable, home, unique)
        index[which] = images
        if several:
            sentences.append(
                f"{len(several)} names fit more than one file; for '{names.iloc[several[0]]}'"
                f" {listing.paths[images[several[0]]]} was taken"
            )

    # Read below what is shared with the table's folder: a set unpacked into `test/` is no test set.
    below = ("/".join(f.split("/")[_count_shared(f, home) :]) for f in listing.folders)
    of_image = np.array([layouts.parse_folder(folder) for folder in below], object)
    neutral = pd.isna(of_image)
    once = (rows["reason"] != REPEATED).to_numpy(bool)
    if folder:
        take(once, neutral | (of_image == folder))
        return index, sentences
    own = np.array([layouts.parse_folder(os.path.dirname(n)) for n in rows["name"]], object)
    wanted = np.where(pd.isna(own), rows["split"].to_numpy(object), own)
    wanted[pd.isna(wanted)] = None
    take(once & pd.isna(wanted), np.ones(len(listing), bool))
    for split in layouts.SPLITS:
        take(once & (wanted == split), neutral | (of_image == split))
    homeless = [split for split in layouts.SPLITS if not (of_image == split).any()]
    if not shared:
        free = ~np.isin(np.arange(len(listing)), index)
        take(once & (index < 0) & pd.isna(own) & np.isin(wanted, homeless), free, unique=True)
    return index, sentences


def mark_contested(rows: pd.DataFrame) -> None:
    """Leave out the rows of an image that rows of two splits took: its name alone cannot say
    whose it is."""
    contested = (rows["index"] >= 0) & rows["index"].duplicated(keep=False)
    rows.loc[contested & rows["reason"].isna(), "reason"] = CONTESTED


def _cut_tails(path: str, fold: bool) -> Iterator[tuple[tuple[int, bool, bool], _Tail]]:
    """What a path is known by: its stem with ever fewer folders, with its extension and without.
    Each with its rank, the lowest the surest: more folders, none lost, an extension."""
    stem, extension = os.path.splitext(path)
    extension = extension.lower()
    if extension not in EXTENSIONS:
        stem, extension = path, ""
    parts = (stem.lower() if fold else stem).split("/")
    for lost in range(len(parts)):
        tail = "/".join(parts[lost:])
        if extension:
            yield (lost - len(parts), lost > 0, False), (tail, extension)
        yield (lost - len(parts), lost > 0, True), (tail, "")


@functools.cache
def _count_shared(folder: str, home: str) -> int:
    """How many parts, from the first on, a folder has in common with the table's folder."""
    near = home.split("/") if home else []
    same = [one == other for one, other in zip(folder.split("/"), near, strict=False)]
    return [*same, False].index(False)


def _sort_by_nearness(listing: Listing, home: str) -> list[int]:
    """The images by their folders: most path parts shared with `home`, then fewest left."""
    distances = [(-_count_shared(f, home), f.count("/")) for f in listing.folders]
    return sorted(range(len(listing)), key=distances.__getitem__)
