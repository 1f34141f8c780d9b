"""Which image each name in a table means, and which image each row may take.

A name is looked up among the images' path tails: its own stem with all its folders, then with
ever fewer of them. Two rows never take the same image, and a test row no training image.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dr_cli.labels import layouts
from dr_cli.labels.columns import REPEATED
from dr_cli.labels.listing import Listing, split_extension
from dr_cli.photographs.decoding import EXTENSIONS

CONTESTED = "its file fits rows of two splits"


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
    index, several = np.full(len(names), -1, np.int64), np.zeros(len(names), bool)
    free, order = np.array(usable, bool), _sort_by_nearness(listing, home)
    for fold in (False, True):  # as they are before in any case
        rows, images = np.flatnonzero(index < 0), order[free[order]]
        if not len(rows) or not len(images):
            break  # all tails would be cut for nobody
        wanted = _Tails(names.to_numpy(object)[rows], fold)
        there = _Tails(listing.paths[images], fold)
        for level, lost, typed in wanted.ranks():
            asking = np.flatnonzero(wanted.have(level, typed, lost) & (index[rows] < 0))
            offered = np.flatnonzero(there.have(level, typed) & free[images])
            if not len(asking) or not len(offered):
                continue
            first, fitting = _meet(
                wanted.take(asking, level, typed), there.take(offered, level, typed)
            )
            met = (first >= 0) & ((fitting == 1) | (not unique))
            row, image = rows[asking[met]], images[offered[first[met]]]
            index[row], several[row], free[image] = image, fitting[met] > 1, False
    return index, np.flatnonzero(several).tolist()


def take_images(
    rows: pd.DataFrame, folder: str | None, listing: Listing, home: str, shared: Callable[[], bool]
) -> tuple[NDArray[np.int64], list[str]]:
    """Each row's image ([N] int64, -1: none), none to two rows of a split; and a sentence for
    each choice between several. folder: the split whose folders a layout keeps these rows to, if
    it does; shared: tells whether two tables or splits share a name.

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
    codes, folders = listing.by_folder
    below = ("/".join(f.split("/")[_count_shared(f, home) :]) for f in folders)
    of_image = np.array([layouts.parse_folder(folder) for folder in below], object)[codes]
    neutral = pd.isna(of_image)
    once = (rows["reason"] != REPEATED).to_numpy(bool)
    if folder:
        take(once, neutral | (of_image == folder))
        return index, sentences
    own = np.array([layouts.parse_folder(n.rpartition("/")[0]) for n in rows["name"]], object)
    wanted = np.where(pd.isna(own), rows["split"].to_numpy(object), own)
    wanted[pd.isna(wanted)] = None
    take(once & pd.isna(wanted), np.ones(len(listing), bool))
    for split in layouts.SPLITS:
        take(once & (wanted == split), neutral | (of_image == split))
    homeless = [split for split in layouts.SPLITS if not (of_image == split).any()]
    left = once & (index < 0) & pd.isna(own) & pd.Series(wanted).isin(homeless).to_numpy(bool)
    if left.any() and not shared():
        take(left, ~np.isin(np.arange(len(listing)), index), unique=True)
    return index, sentences


def mark_contested(rows: pd.DataFrame) -> None:
    """Leave out the rows of an image that rows of two splits took: its name alone cannot say
    whose it is."""
    contested = (rows["index"] >= 0) & rows["index"].duplicated(keep=False)
    rows.loc[contested & rows["reason"].isna(), "reason"] = CONTESTED


class _Tails:
    """What paths are known by: their stems with ever fewer folders, with extension and without.

    One level is cut at a time, of all paths: a dictionary of every tail took a million images 20 s.
    """

    def __init__(self, paths: NDArray[Any], fold: bool) -> None:
        stems, extensions = list[str](), list[str]()
        for path in paths:
            stem, extension = split_extension(path)
            known = extension in EXTENSIONS
            stems.append(stem if known else path)
            extensions.append(extension if known else "")
        stems = [stem.lower() for stem in stems] if fold else stems
        self._stems, self._extensions = np.array(stems, object), np.array(extensions, object)
        self._levels = np.array([stem.count("/") + 1 for stem in stems], np.int64)

    def ranks(self) -> Iterator[tuple[int, bool, bool]]:
        """How many parts, whether folders are lost, whether with an extension; the surest first:
        more parts, none lost, an extension."""
        levels = range(int(self._levels.max(initial=0)), 0, -1)
        return itertools.product(levels, (False, True), (True, False))

    def have(self, level: int, typed: bool, lost: bool | None = None) -> NDArray[np.bool_]:
        """Which have a tail of so many parts; lost: only those that lose folders by it, or none."""
        enough = self._levels >= level
        if lost is not None:
            enough &= (self._levels > level) == lost
        return enough & (self._extensions != "") if typed else enough

    def take(self, which: NDArray[np.int64], level: int, typed: bool) -> NDArray[Any]:
        """The tails of those."""
        surplus = (self._levels[which] - level).tolist()
        stems = zip(self._stems[which], surplus, strict=True)
        tails = np.array([stem.split("/", lost)[lost] for stem, lost in stems], object)
        return tails + self._extensions[which] if typed else tails


def _meet(
    asked: NDArray[Any], offered: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each tail that is asked for once the first that is offered ([asked] int64 positions, -1:
    none), and how many are."""
    codes, tails = pd.factorize(asked)
    found = pd.Index(tails, dtype=object).get_indexer(offered)
    some = np.flatnonzero(found >= 0)
    first = np.full(len(tails), -1, np.int64)
    first[found[some[::-1]]] = some[::-1]  # of one tail's the last that is written: the first
    first[np.bincount(codes) > 1] = -1
    return first[codes], np.bincount(found[some], minlength=len(tails))[codes]


@functools.cache
def _count_shared(folder: str, home: str) -> int:
    """How many parts, from the first on, a folder has in common with the table's folder."""
    near = home.split("/") if home else []
    same = [one == other for one, other in zip(folder.split("/"), near, strict=False)]
    return [*same, False].index(False)


def _sort_by_nearness(listing: Listing, home: str) -> NDArray[np.int64]:
    """The images by their folders: most path parts shared with `home`, then fewest left."""
    codes, folders = listing.by_folder
    distances = [(-_count_shared(f, home), f.count("/")) for f in folders]
    ranks = {distance: rank for rank, distance in enumerate(sorted(set(distances)))}
    return np.argsort(np.array([ranks[d] for d in distances], np.int64)[codes], kind="stable")
