"""Photographs that stand in a data set more than once: pixel by pixel, or nearly so.

*Exact*: the decoded pixels are the same, whatever the files' bytes, names and metadata. Decoded
at full size by the integer decoders of libjpeg-turbo and libpng, which give the same pixels on
every platform.

*Near*: the same photograph stored again (compressed, scaled, brightened, its border cut), or the
same eye photographed twice from one place. Two perceptual hashes of 1,024 bits differ in at most
`NEAR` of them. The usual hashes of 64 bits see field, disc and fovea, which all fundus photographs
share; this one keeps the signs of what is 1.2 to 2.4 pixels wide when the field is 64 pixels: the
course of the vessels.

Measured on IDRiD and APTOS (3,000 photographs, 4,498,500 pairs): 102 pairs differ in 74 bits or
fewer, all of them the same photograph or the same eye once more (those that differ at all were
looked at); the next are at 205 (one eye, photographed twice) and 234 (two eyes). So at 180 bits
there was no false match in 4.5 million pairs: a rate below 1 in 1.5 million, with 95% confidence.
Of 300 altered copies these were found: halved 100%, blurred 100%, darkened by 40% 99.7%, padded
99.3%, cut by 2% of each side 98.7%, at two thirds of the size with JPEG quality 75 97%, turned
by 3 degrees 97%, JPEG quality 50 97%; but cut by 5% only 18%. Mirrored copies are not looked for.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from dr_cli import machine
from dr_cli.errors import WriteError
from dr_cli.events import NOTHING, Observer
from dr_cli.photographs import cache
from dr_cli.photographs.decoding import UnreadableImage, decode
from dr_cli.photographs.field import find_field
from dr_cli.writing import whole

NEAR = 180
"""Bits of `BITS` in which the hashes of two near duplicates may differ."""
BITS = 1024

_SIDE = 64  # pixels of the field that the hash looks at
_NARROW, _WIDE = 1.2, 2.4  # standard deviations whose difference is kept, pixels
_RADIUS = 26  # of the disc that bits are taken from: the field without its rim
_FLAT = 0.3  # grey levels; real photographs have 0.6 and more. Less is noise: no hash
_DECODED_AT = 256  # pixels of the shorter side that a scaled JPEG keeps for the hash
VERSION = 2
"""Of what is kept of a photograph; hashes of two versions cannot be compared. 2: sizes are upright,
scipy blurs."""

HASH = np.dtype([("bits", np.uint64, BITS // 64), ("textured", np.bool_), ("size", np.int32, 2),
                 ("digest", np.uint8, 16)])  # fmt: skip
"""What a photograph is known again by: `hash_photograph`'s two, upright width and height (0: it
could not be read), and a digest of its pixels, decoded to 256 or more of its shorter side."""


def _places() -> NDArray[np.int64]:
    """The pixels that give the bits: `BITS` of the inner disc, evenly, row by row."""
    y, x = np.mgrid[:_SIDE, :_SIDE] - (_SIDE - 1) / 2
    disc = np.flatnonzero((x**2 + y**2 < _RADIUS**2).ravel())
    return disc[np.linspace(0, len(disc) - 1, BITS).astype(np.int64)]


_PLACES = _places()


@dataclass(frozen=True)
class Duplicates:
    """exact, near: [N] int64, a number a group, in the order of the paths; near groups hold whole
    exact ones. An image without a double has a number of its own. failed: path -> why it cannot
    be read. sizes: [N, 2] int64, upright width and height, 0 where unreadable. hashes: [N] HASH."""

    exact: NDArray[np.int64]
    near: NDArray[np.int64]
    sizes: NDArray[np.int64]
    failed: dict[str, str]
    hashes: NDArray[np.void]


def find(
    root: Path, paths: Sequence[str], *, workers: int | None = None, observer: Observer = NOTHING
) -> Duplicates:
    """Decode every photograph (`paths` are relative to root) and group the doubles.

    What was seen of a file is kept in the cache folder, so that a second time costs no decoding.
    """
    workers = workers or machine.cores()
    seen, failed = _see(root, paths, workers, observer)
    near = _near(seen, observer)
    _, first, alike = np.unique(seen[["size", "digest"]], return_index=True, return_inverse=True)
    read = seen["size"].any(axis=1)
    same = np.stack([first[alike], np.arange(len(paths))], axis=1)[read]
    candidates = connect(len(paths), np.concatenate([near, same]))
    # Only candidates of one size can be exact: nobody else is decoded a second time.
    sized = np.column_stack([candidates, seen["size"]])
    doubt = np.unique(sized, axis=0, return_inverse=True)[1].ravel()
    rows = np.flatnonzero((np.bincount(doubt)[doubt] > 1) & read)
    firsts = _match_pixels(root, paths, rows.tolist(), workers, observer)
    together = np.stack([firsts, np.arange(len(paths))], axis=1)
    near = connect(len(paths), np.concatenate([near, together]))
    exact = np.unique(firsts, return_inverse=True)[1].astype(np.int64)
    return Duplicates(exact, near, seen["size"].astype(np.int64), failed, _strip(seen))


def look(
    root: Path, paths: Sequence[str], *, workers: int | None = None, observer: Observer = NOTHING
) -> NDArray[np.void]:
    """[N] HASH of photographs, decoded now or seen before; see `find`."""
    return _strip(_see(root, paths, workers or machine.cores(), observer)[0])


def match(
    ours: NDArray[np.void], theirs: NDArray[np.void], observer: Observer = NOTHING
) -> NDArray[np.int64]:
    """For each of ours [N] the first of theirs [M] that is its double, exact or near; -1: none.

    Exact is here the same size and the same pixels as decoded for the hash.
    """
    known = {_name(row): i for i, row in reversed(list(enumerate(theirs))) if row["size"].any()}
    exact = np.array([known.get(_name(row), len(theirs)) for row in ours], np.int64)
    both = np.concatenate([ours, theirs])
    first, second = find_near(both["bits"], np.flatnonzero(both["textured"]), observer).T
    across = (first < len(ours)) & (second >= len(ours))
    np.minimum.at(exact, first[across], second[across] - len(ours))
    return np.where(exact < len(theirs), exact, -1)


def _name(row: np.void) -> bytes:
    return row["size"].tobytes() + row["digest"].tobytes()


def _strip(seen: NDArray[np.void]) -> NDArray[np.void]:
    """`_SEEN` without what names the file."""
    hashes = np.zeros(len(seen), HASH)
    for name in HASH.names or ():
        hashes[name] = seen[name]
    return hashes


def count(groups: NDArray[np.int64]) -> int:
    """How many groups have two members or more."""
    return int((np.bincount(groups, minlength=1) > 1).sum())


def conflicts(groups: NDArray[np.int64], grades: NDArray[np.integer]) -> list[NDArray[np.int64]]:
    """The groups whose members differ in grade: positions of each, rising."""
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    return [rows for rows in members if len(rows) > 1 and len(set(grades[rows].tolist())) > 1]


def hash_photograph(photograph: Image.Image) -> tuple[NDArray[np.uint64], bool]:
    """([16] uint64, whether it may be compared): the hash of an upright RGB photograph.

    Of the field's green channel, squashed to 64 x 64 so that a photograph and its squashed copy
    agree. A field of fewer pixels, or without structure, must not be compared.
    """
    from scipy.ndimage import gaussian_filter  # type: ignore[import-untyped]

    box = find_field(photograph).box
    large = min(box.right - box.left, box.bottom - box.top) >= _SIDE
    green = photograph.getchannel("G").resize(
        (_SIDE, _SIDE), Image.Resampling.BOX if large else Image.Resampling.BILINEAR, box=(*box,)
    )
    pixels = np.asarray(green, np.float32)
    band = (gaussian_filter(pixels, _NARROW) - gaussian_filter(pixels, _WIDE)).ravel()[_PLACES]
    bits = np.packbits(band > 0).view(np.uint64)
    return bits, bool(large and band.std() >= _FLAT)


def find_near(
    bits: NDArray[np.uint64], which: NDArray[np.int64], observer: Observer = NOTHING
) -> NDArray[np.int64]:
    """[M, 2] positions a < b whose hashes differ in at most `NEAR` bits.

    bits: [N, 16] uint64; which: positions to compare. Every pair is looked at: first in 128 bits,
    where unrelated photographs agree that well once in 140 times (and true doubles, measured,
    always), then in all. The 3.9e9 pairs of 88,702 photographs take 12 s on one core; more threads
    gain nothing.
    """
    chosen = bits[which]
    # Bits lie row by row over the field: every eighth byte of a hash is spread over all of it.
    some = np.ascontiguousarray(chosen.view(np.uint8).reshape(len(chosen), BITS // 8)[:, ::8])
    first, second = np.ascontiguousarray(some.view(np.uint64).T)  # 128 bits of each

    def compare(start: int) -> NDArray[np.int64]:
        a, b = first[start : start + _ROWS, None], second[start : start + _ROWS, None]
        found = []
        for left in range(start, len(chosen), _COLUMNS):
            columns = slice(left, left + _COLUMNS)
            apart = np.bitwise_count(a ^ first[columns])
            apart += np.bitwise_count(b ^ second[columns])
            i, j = np.divmod(np.flatnonzero(apart <= _FIRST), apart.shape[1])
            i, j = i + start, j + left
            i, j = i[i < j], j[i < j]
            close = np.bitwise_count(chosen[i] ^ chosen[j]).sum(axis=1, dtype=np.int64) <= NEAR
            found.append(np.stack([which[i[close]], which[j[close]]], axis=1))
        return np.concatenate(found)

    blocks = range(0, len(chosen), _ROWS)
    tell = partial(observer.progress, "comparing photographs", total=len(blocks))
    found = cache.spread(compare, blocks, 1, progress=tell)
    return np.concatenate([np.zeros((0, 2), np.int64), *(pairs.result() for pairs in found)])


_MANY = 20_000  # photographs from which on what was found is kept: they take half a second


def _near(seen: NDArray[np.void], observer: Observer) -> NDArray[np.int64]:
    """`find_near` of all that may be compared; what the same many gave before is in the cache: of
    a million it takes a quarter of an hour."""
    which = np.flatnonzero(seen["textured"])
    if len(which) < _MANY:
        return find_near(seen["bits"], which, observer)
    compared = hashlib.blake2b(which.tobytes(), digest_size=8)
    compared.update(np.ascontiguousarray(seen["bits"]).tobytes())
    file = cache.folder() / "hashes" / f"near-{compared.hexdigest()}-{VERSION}-{NEAR}.npy"
    with suppress(OSError, ValueError, EOFError):
        kept = np.load(file, allow_pickle=False)
        if kept.dtype == np.int64 and kept.shape[1:] == (2,) and np.isin(kept, which).all():
            return kept
    found = find_near(seen["bits"], which, observer)
    _write(file, found)
    return found


_FIRST = 45  # of 128 bits; NEAR is 22.5 of them
_ROWS, _COLUMNS = 32, 1 << 12  # a block of comparisons is 1 MiB: larger ones leave the cache


# --- looking ------------------------------------------------------------------------------------

_SEEN = np.dtype([("key", np.uint8, 16), *HASH.descr])


def _see(
    root: Path, paths: Sequence[str], workers: int, observer: Observer
) -> tuple[NDArray[np.void], dict[str, str]]:
    """[N] `_SEEN`, from the cache or decoded now, and the unreadable."""
    seen, failed = np.zeros(len(paths), _SEEN), {}
    keys = cache.keys(root, paths)
    kept = _kept(root)
    missing = [i for i, key in enumerate(keys) if key not in kept]
    for i, key in enumerate(keys):
        if key in kept:
            seen[i] = kept[key]

    def see(i: int) -> tuple[Any, ...]:
        opened = decode(root, paths[i], _DECODED_AT)
        return (*hash_photograph(opened.picture), opened.size, _digest(opened.picture))

    tell = partial(observer.progress, "decoding", total=len(missing))
    results = cache.spread(see, missing, workers, progress=tell)
    for i, result in zip(missing, results, strict=True):
        try:
            seen[i] = (np.frombuffer(keys[i] or bytes(16), np.uint8), *result.result())
        except UnreadableImage as problem:
            failed[paths[i]] = problem.reason
    if len(missing) > len(failed):
        _keep(root, seen[seen["key"].any(axis=1)])
    return seen, failed


def _digest(photograph: Image.Image) -> NDArray[np.uint8]:
    """[16] of its size and pixels."""
    content = repr(photograph.size).encode() + photograph.tobytes()
    return np.frombuffer(hashlib.blake2b(content, digest_size=16).digest(), np.uint8)


def _match_pixels(
    root: Path, paths: Sequence[str], rows: Sequence[int], workers: int, observer: Observer
) -> NDArray[np.int64]:
    """[N] int64: for each of these rows the first that is the same at full size, else itself."""
    tell = partial(observer.progress, "comparing pixels", total=len(rows))
    opened = cache.spread(
        lambda i: _digest(decode(root, paths[i]).picture), rows, workers, progress=tell
    )
    first: dict[bytes, int] = {}
    firsts = np.arange(len(paths))
    for row, digest in zip(rows, opened, strict=True):
        firsts[row] = first.setdefault(digest.result().tobytes(), row)
    return firsts


def connect(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """[count] int64: the same number for whatever pairs [M, 2] connect, in however many steps."""
    from scipy.sparse import coo_array  # type: ignore[import-untyped]
    from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]

    graph = coo_array((np.ones(len(pairs), bool), tuple(pairs.T)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


# --- what was seen is kept ----------------------------------------------------------------------


def _file(root: Path) -> Path:
    name = cache.digest(str(root.resolve()), size=8).hex()
    return cache.folder() / "hashes" / f"{name}-{VERSION}-pillow{PIL.__version__}.npy"


def _kept(root: Path) -> dict[bytes, np.void]:
    """Key -> what was seen; a file that cannot be read is as good as none."""
    try:
        rows = np.load(_file(root), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return {}
    return {row["key"].tobytes(): row for row in rows} if rows.dtype == _SEEN else {}


def _keep(root: Path, rows: NDArray[np.void]) -> None:
    _write(_file(root), rows)


def _write(file: Path, rows: NDArray[Any]) -> None:
    with suppress(OSError, WriteError):  # a full disk costs time, no result
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole(file) as aside:
            np.save(aside, rows, allow_pickle=False)
