"""Which image a name means: the dictionary of tails gives what passes over all names would."""

import itertools
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr_cli.labels.listing import Listing, scan
from dr_cli.labels.matching import match
from dr_cli.photographs.decoding import EXTENSIONS
from tests.builders.tables import images, put

FOLDERS = st.lists(st.sampled_from(["x", "y", "X", "z"]), max_size=4).map("/".join)
STEMS = st.sampled_from(["a", "A", "b", "a.b", "a.png"])
IMAGES = st.builds(
    os.path.join, FOLDERS, st.builds(str.__add__, STEMS, st.sampled_from([".png", ".PNG", ".jpg"]))
)
ENDINGS = st.sampled_from(["", ".png", ".jpg", ".JPG", ".tif", ".v2"])
NAMES = st.builds(os.path.join, FOLDERS, st.builds(str.__add__, STEMS, ENDINGS))


def list_images(paths: list[str]) -> Listing:
    return Listing(Path("/set"), np.array(sorted(paths, key=os.path.split), object))


def match_in_passes(
    names: list[str], listing: Listing, usable: list[bool], home: str, unique: bool
) -> tuple[list[int], list[int]]:
    """The rules one after another, as `match` once went: in each pass every name that has no
    image asks for what the pass compares, and who asks alone gets the first that fits."""

    def cut(path: str) -> tuple[list[str], str]:
        stem, extension = os.path.splitext(path)
        known = extension.lower() in EXTENSIONS
        return (stem if known else path).split("/"), extension.lower() * known

    def distance(image: int) -> tuple[int, int, int]:
        parts = os.path.dirname(listing.paths[image])
        parts = parts.split("/") if parts else []
        same = [a == b for a, b in zip(parts, home.split("/"), strict=False)]
        return -[*same, False].index(False), len(parts), image

    index, several, free = [-1] * len(names), [], list(usable)
    for fold, level, lost, typed in itertools.product(
        (False, True), range(6, -1, -1), (False, True), (True, False)
    ):
        wanted: dict[tuple[str, str], list[int]] = {}
        offered: dict[tuple[str, str], list[int]] = {}
        for asked, paths in ((wanted, names), (offered, listing.paths)):
            for place, path in enumerate(paths):
                parts, extension = cut(path)
                tail = "/".join(parts[len(parts) - 1 - level :])
                key = tail.lower() if fold else tail, extension if typed else ""
                if len(parts) <= level or (typed and not extension):
                    continue
                if asked is offered or (index[place] < 0 and lost == (len(parts) - 1 > level)):
                    asked.setdefault(key, []).append(place)
        for key, rows in wanted.items():
            fitting = sorted(filter(free.__getitem__, offered.get(key, [])), key=distance)
            if len(rows) == 1 and fitting and not (unique and len(fitting) > 1):
                index[rows[0]], free[fitting[0]] = fitting[0], False
                several += rows if len(fitting) > 1 else []
    return index, sorted(several)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(IMAGES, max_size=12, unique=True),
    st.lists(NAMES, max_size=10),
    st.sampled_from(["", "x", "x/y", "q/x"]),
    st.booleans(),
    st.data(),
)
def test_one_look_up_gives_what_passes_give(
    there: list[str], names: list[str], home: str, unique: bool, data: st.DataObject
) -> None:
    listing = list_images(there)
    usable = data.draw(st.lists(st.booleans(), min_size=len(there), max_size=len(there)))
    found = match(pd.Series(names, dtype=object), listing, np.array(usable, bool), home, unique)
    expected = match_in_passes(names, listing, usable, home, unique)
    assert (found[0].tolist(), found[1]) == expected


@pytest.mark.parametrize(
    ("names", "there", "taken"),
    [
        (["x/a"], ["a.png", "x/a.png", "y/x/a.png"], ["x/a.png"]),
        (["a", "x/a"], ["x/a.png"], [None, "x/a.png"]),
        (["a.jpg", "a.png"], ["a.png", "a.jpg"], ["a.jpg", "a.png"]),
        (["a.jpg"], ["a.tif"], ["a.tif"]),
        (["A", "a"], ["a.png", "A.png"], ["A.png", "a.png"]),
        (["A"], ["a.png"], ["a.png"]),
        (["/elsewhere/a"], ["x/a.png"], ["x/a.png"]),
        (["a.jpg", "a.png"], ["a.tif"], [None, None]),
        (["x/a", "y/a"], ["a.png"], [None, None]),
        (["a.png"], ["a.png.jpg"], [None]),
    ],
)
def test_which_image_a_name_means(
    names: list[str], there: list[str], taken: list[str | None]
) -> None:
    listing = list_images(there)
    index, _ = match(pd.Series(names, dtype=object), listing, np.ones(len(there), bool))
    assert [listing.paths[i] if i >= 0 else None for i in index] == taken


def test_the_folder_nearest_to_the_table_is_taken_and_said() -> None:
    listing = list_images(["x/a.png", "y/a.png", "y/z/a.png"])
    names, usable = pd.Series(["a"], dtype=object), np.ones(3, bool)
    for home, taken in (("", "x/a.png"), ("y", "y/a.png"), ("y/z", "y/z/a.png")):
        index, several = match(names, listing, usable, home)
        assert listing.paths[index[0]] == taken
        assert several == [0]
        assert match(names, listing, usable, home, unique=True)[0].tolist() == [-1]


def test_the_order_of_files_has_no_say(tmp_path: Path) -> None:
    put(tmp_path, images("b/2.png", "a/1.png", "b/10.png", "0.png"))
    listing = scan(tmp_path)
    assert listing.paths.tolist() == ["0.png", "a/1.png", "b/10.png", "b/2.png"]
    assert listing.folders == ["", "a", "b", "b"]
