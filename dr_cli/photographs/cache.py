"""Crops on disk: decoded once for a size, then read by any number of runs and processes.

A shard is one file of raw uint8 pixels, memory-mapped when read, with the keys of its crops
behind them. It is written aside and renamed, so it is whole or absent, and a killed build keeps
what it had finished. A folder holds the crops of one recipe: preprocessing, the quality rule's
version and Pillow's. In it a crop's key is a digest of its file's content: a data set that was
copied, renamed or is mounted elsewhere on another machine finds its crops, a changed photograph has
another key, and identical ones share a crop. What a file holds is read once and remembered by its
place, size and time of change (`contents`). Each crop has a checksum, looked at when a process
first reads it (0.1 ms of 512 px, once a run): one whose bytes rotted is decoded anew, and its shard
removed.

Builds in one folder wait for each other, so runs that start together share the work; where a
share of several machines has no locks, each builds, and the first whole shard of a name stays: its
readers map that very file. What does not fit is decoded each time.

Why raw: crops of 512 px, read one by one in random order by one thread (examples/benchmarks/
input.py; AVX2 machine, IDRiD). A GPU trains a ResNet18 at thousands of images a second, and only
a memory map keeps up with it; what it costs is disk, 27.6 GB for the lab's 35,126 photographs.

    format            kB a crop    crops a second
    raw, mapped             786            18,500
    JPEG q95, lossy          69               490
    WebP, lossless          184               170
    PNG                     245               110
"""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import struct
import sys
import time
import zlib
from collections import deque
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import PIL
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from dr_cli import machine, words
from dr_cli.errors import UsageError, WriteError
from dr_cli.events import NOTHING, Observer
from dr_cli.photographs import packed, quality
from dr_cli.photographs.crop import Crop, Preprocessing, load_crop
from dr_cli.photographs.decoding import UnreadableImage, digest_file
from dr_cli.writing import whole

Keep = Callable[[int, NDArray[np.uint8]], None]  # its number, and the crop
Item = TypeVar("Item")
Result = TypeVar("Result")


# --- where, and how much ------------------------------------------------------------------------


def folder() -> Path:
    """`DR_CACHE`, else this platform's cache folder for `dr`. It may not exist yet."""
    if chosen := os.environ.get("DR_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", "~/AppData/Local")).expanduser() / "dr" / "Cache"
    if sys.platform == "darwin":
        return Path("~/Library/Caches/dr").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dr"


def limit(used: int, free: int) -> int:
    """Bytes that all crops together may take: `DR_CACHE_MAX` (such as 50G, 800M, 0), else half of
    the disk that is free or holds crops already, at most 100 GiB. UsageError on another value."""
    text = os.environ.get("DR_CACHE_MAX")
    if not text:
        return min(100 * 2**30, (used + free) // 2)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", text, re.IGNORECASE)
    if match is None:
        raise UsageError(f"DR_CACHE_MAX={text!r} is no size; write bytes, or such as 800M or 50G")
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " "))


def shards_folder(preprocessing: Preprocessing) -> Path:
    """Where the crops made in this way are kept, and their qualities judged by today's rule."""
    made_by = [preprocessing.recipe(), quality.VERSION, PIL.__version__]
    recipe = digest(json.dumps(made_by, sort_keys=True))
    return folder() / "crops" / f"{preprocessing.size}px-{recipe[:6].hex()}"


def keys(root: Path, paths: Iterable[str]) -> list[bytes | None]:
    """16 bytes a photograph that change with its file; None where there is no such file.

    paths: relative to root, as `decode` takes them.
    """
    whole, found = str(root.resolve()), list[bytes | None]()
    for path in paths:
        try:
            status = os.stat(os.path.join(root, packed.file_of(path)))
        except (OSError, ValueError):  # a NUL in a name
            found.append(None)
        else:
            text = json.dumps([whole, path, status.st_size, status.st_mtime_ns])
            found.append(digest(text))
    return found


_CONTENT = np.dtype([("place", "V16"), ("content", "V16")])


def contents(
    root: Path,
    paths: Sequence[str],
    places: Sequence[bytes | None],
    workers: int,
    observer: Observer = NOTHING,
) -> list[bytes | None]:
    """16 bytes a photograph that tell what its file holds, wherever that lies; None where it cannot
    be read. Files not seen before at this place, with this size and time of change, are read.

    paths: relative to root, as `decode` takes them; places: their `keys`.
    """
    memo = folder() / "contents" / f"{digest(str(root.resolve()), 8).hex()}.npy"
    known = _recall(memo)
    new = [(path, p) for path, p in zip(paths, places, strict=True) if p and p not in known]
    files = list(dict.fromkeys(packed.file_of(path) for path, _ in new))
    tell = partial(observer.progress, "reading photographs", total=len(files))
    with closing(spread(partial(digest_file, root), files, workers, progress=tell)) as digests:
        read = {file: one.result() for file, one in zip(files, digests, strict=True)}
    for path, place in new:
        content = read[packed.file_of(path)]
        if content and keys(root, [path]) == [place]:  # else it changed meanwhile
            within = f"{content.hex()} {path.rpartition('#')[2]}"
            known[place] = digest(within) if packed.inside(path) else content
    if new:
        _remember(memo, known)
    return [known.get(place or b"") for place in places]


def _recall(memo: Path) -> dict[bytes, bytes]:
    """Place -> content; a file that cannot be read is as good as none."""
    try:
        rows = np.load(memo, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return {}
    if rows.dtype != _CONTENT:
        return {}
    cut = (map(bytes, rows[name].view(("u1", 16))) for name in ("place", "content"))
    return dict(zip(*cut, strict=True))


def _remember(memo: Path, known: dict[bytes, bytes]) -> None:
    with suppress(OSError, WriteError):  # costs time, no result
        memo.parent.mkdir(parents=True, exist_ok=True)
        with whole(memo) as aside:
            np.save(aside, np.array(list(known.items()), _CONTENT), allow_pickle=False)


def digest(text: str, size: int = 16) -> bytes:
    """`size` bytes of a text, which may hold a path that is no UTF-8."""
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=size).digest()


def spread(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    ahead: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Generator[Future[Result], None, None]:
    """`work` of each item in order, up to `ahead` of the consumer (by default 4 a thread).

    progress: told how many the consumer has done with. Threads, because Pillow lets go of the
    interpreter's lock while it decodes and resizes: two of them do 1.9 times the work of one.
    They need no guarded main module, as processes do, and start with the first item.
    """
    pool, todo = ThreadPoolExecutor(threads, "dr-work"), iter(items)
    ahead = 4 * threads if ahead is None else ahead
    try:
        waiting = deque(pool.submit(work, item) for item in islice(todo, 1 + ahead))
        done = 0
        while waiting:
            yield waiting.popleft()
            progress(done := done + 1)
            waiting.extend(pool.submit(work, item) for item in islice(todo, 1))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


# --- the crops of one data set ------------------------------------------------------------------


class Crops:
    """The crops of a data set's photographs: on disk, in memory, or decoded at each call."""

    def __init__(
        self, root: Path, paths: Sequence[str], preprocessing: Preprocessing, workers: int | None
    ) -> None:
        self.root, self.paths, self.preprocessing = root, paths, preprocessing
        self.size, self.workers = preprocessing.size, workers or machine.cores()
        self._bytes = 3 * self.size**2  # of a crop
        self.failed: dict[int, str] = {}
        """What `fill` or `check` found unreadable: number of the photograph -> reason."""
        self.quality = np.full(len(paths), np.nan, np.float32)
        """What they saw of each photograph's quality, in [0, 1]; its verdict follows from it.
        NaN is not seen."""
        self._places: list[bytes | None] = []  # `keys`, as they were when
        self._keys: list[bytes | None] = []  # `contents` was asked
        self._shards: list[Path] = []
        self._maps: dict[int, NDArray[np.uint8] | None] = {}
        self._place = np.full((len(paths), 2), -1, np.int64)  # shard and row of each crop
        self._sums = np.zeros(len(paths), np.uint32)  # of the crops on disk
        self._sound = np.zeros(len(paths), bool)  # those whose sum was found right
        self.rotten: set[int] = set()
        """Those whose crop was damaged on disk: decoded anew, and held in memory."""
        self._memory: dict[int, NDArray[np.uint8]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": {}}  # another process maps the shards itself

    @property
    def kept(self) -> str:
        """Where most crops are: "disk", "memory", or "nowhere" (decoded at each call)."""
        if 2 * (self._place[:, 0] >= 0).sum() > len(self._place):
            return "disk"
        return "memory" if 2 * len(self._memory) > len(self._place) else "nowhere"

    def gather(self, numbers: Iterable[int]) -> NDArray[np.uint8]:
        """The crops of these photographs, [n, 3, S, S] uint8. Raises UnreadableImage."""
        wanted = [int(number) for number in numbers]
        crops, readable = self.gather_readable(wanted)
        if not readable.all():
            first = wanted[int(np.argmin(readable))]
            raise UnreadableImage(self.paths[first], self.failed[first])
        return crops

    def gather_readable(
        self, numbers: Iterable[int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The crops of those that can be read, [m, 3, S, S] uint8, and which those are, [n] bool;
        why not, stands in `failed`."""
        wanted = [int(number) for number in numbers]
        crops = dict[int, NDArray[np.uint8]]()
        for number in wanted:
            if number not in self.failed and (crop := self._find(number)) is not None:
                crops[number] = crop
        absent = [n for n in dict.fromkeys(wanted) if n not in crops and n not in self.failed]
        with closing(spread(self._load, absent, self.workers)) as decoded:
            for number, one in zip(absent, decoded, strict=True):
                try:
                    crops[number] = one.result().pixels
                except UnreadableImage as problem:
                    self.failed[number] = problem.reason
                else:
                    if number in self.rotten:
                        self._memory[number] = crops[number]
        found = [crops[number] for number in wanted if number in crops]
        out = np.empty((len(found), 3, self.size, self.size), np.uint8)
        for k, crop in enumerate(found):
            out[k] = crop
        return out, np.array([number in crops for number in wanted], bool)

    def _find(self, number: int) -> NDArray[np.uint8] | None:
        shard, row = self._place[number]
        if shard < 0:
            return self._memory.get(number)
        crops = self._map(int(shard))
        if crops is None:
            return None
        there = _length(crops) >= (int(row) + 1) * self._bytes
        if not there or not (self._sound[number] or zlib.crc32(crops[row]) == self._sums[number]):
            self._discard(number, self._shards[shard])
            return None
        self._sound[number] = True
        return crops[row]

    def _discard(self, number: int, shard: Path) -> None:
        """A crop that rotted: the next run makes its shard anew; the rest of it is still used."""
        self.rotten.add(number)
        self._place[number] = -1
        with suppress(OSError):
            shard.unlink()

    def _map(self, shard: int) -> NDArray[np.uint8] | None:
        """A shard's crops [n, 3, S, S]; None where another process has removed the file."""
        if shard not in self._maps:
            try:
                self._maps[shard] = _open_shard(self._shards[shard], self.size)[0]
            except (OSError, ValueError):
                self._maps[shard] = None
        return self._maps[shard]

    def _load(self, number: int) -> Crop:
        return load_crop(self.paths[number], self.preprocessing, self.root)

    def fill(self, observer: Observer = NOTHING) -> None:
        """Decode what is neither on disk nor in memory; note what is unreadable.

        A photograph whose file is absent is never put on disk. Where the folder cannot be written,
        or has not room for all, the others stay in memory; where that is too small as well, they
        are decoded at each call. Either is a warning.
        """
        where = shards_folder(self.preprocessing)
        self._places = keys(self.root, self.paths)
        self._keys = contents(self.root, self.paths, self._places, self.workers, observer)
        if self._look_up(where):
            try:
                where.mkdir(parents=True, exist_ok=True)
                with alone(where, "filling the same cache", observer):
                    missing = self._look_up(where)  # another build may have had the lock
                    fits = _make_room(where, len(missing), self._bytes, set(self._shards))
                    self._to_disk(missing[:fits], where, observer)
                    if fits < len(missing):
                        raise OSError(errno.ENOSPC, "DR_CACHE_MAX and the disk leave no room")
            except OSError as problem:
                self._without_disk(self._look_up(where), problem, observer)
            self._look_up(where)
        for number, shard in enumerate(self._shards):
            self._map(number)  # from here on its file may go: the crops stay readable
            with suppress(OSError):
                os.utime(shard)  # the least recently used go first

    def check(self, numbers: Sequence[int], observer: Observer = NOTHING) -> None:
        """Decode those of these photographs not yet seen, keep none: note what is unreadable."""
        unseen = [n for n in numbers if np.isnan(self.quality[n]) and n not in self.failed]
        self._note(unseen, lambda number, crop: None, observer)

    def _look_up(self, where: Path) -> list[int]:
        """Find what the folder holds; the numbers of what is neither there nor in memory."""
        index = _index(where, self.size)
        found = {n: index[k] for n, k in enumerate(self._keys) if k in index}
        self._shards = sorted({shard for shard, *_ in found.values()})
        self._maps, self._place[:] = {}, -1
        numbers = {shard: number for number, shard in enumerate(self._shards)}
        for n, (shard, row, seen, checksum) in found.items():
            self._place[n], self.quality[n] = (numbers[shard], row), seen
            self._sums[n], self._sound[n] = checksum, False
        known = found.keys() | self._memory.keys() | self.failed.keys()
        return [n for n in range(len(self.paths)) if n not in known]

    def _to_disk(self, missing: list[int], where: Path, observer: Observer) -> None:
        writer = _Writer(where, self.size, _rows_a_shard(len(missing), self._bytes))

        def keep(number: int, crop: NDArray[np.uint8]) -> None:
            key, path = self._keys[number], self.paths[number]
            if key and keys(self.root, [path]) == [self._places[number]]:  # else it changed since
                writer.add(key, crop, self.quality[number])
            else:
                self._memory[number] = crop

        try:
            self._note(missing, keep, observer)
            writer.finish()
        except OSError:
            writer.discard()
            raise
        except BaseException:  # interrupted: what was decoded is kept
            writer.finish()
            raise

    def _without_disk(self, missing: list[int], problem: OSError, observer: Observer) -> None:
        needed = len(missing) * self._bytes
        size, some = words.size(needed), len(missing) < len(self.paths)
        of = f"{len(missing):,} of {len(self.paths):,} " * some
        why = f"{of}crops cannot be kept on disk ({problem.strerror or problem}; set DR_CACHE)"
        if needed <= (machine.free_memory() or 2**32) // 2:
            observer.warning(f"{why}: held in memory, {size}, for this run alone")
            self._note(missing, self._memory.__setitem__, observer)
        else:
            observer.warning(f"{why}, and memory is too small for {size}: every epoch decodes anew")
            self.check(missing, observer)

    def _note(self, numbers: Sequence[int], keep: Keep, observer: Observer) -> None:
        """Decode these, hand each crop to `keep`, note what is unreadable, tell how far it is."""
        tell = partial(observer.progress, "decoding photographs", total=len(numbers))
        notes: dict[str, list[str]] = {}
        with closing(spread(self._load, numbers, self.workers, progress=tell)) as decoded:
            for number, one in zip(numbers, decoded, strict=True):
                try:
                    crop = one.result()
                except UnreadableImage as problem:
                    self.failed[number] = problem.reason
                else:
                    self.quality[number] = crop.judgement.quality
                    keep(number, crop.pixels)
                    if crop.note:
                        notes.setdefault(crop.note, []).append(self.paths[number])
        for note, paths in notes.items():
            files = words.count(len(paths), "file")
            observer.note(f"{note} is used, of {files} such as {paths[0]}")


# --- shards -------------------------------------------------------------------------------------

# A shard: n crops of 3 * S * S bytes, an entry for each (key, quality, CRC of its bytes), and this:
# magic, n, S, CRC of the entries.
_END = struct.Struct("<8sIII")
_ENTRY = np.dtype([("key", "V16"), ("quality", "<f4"), ("sum", "<u4")])
_MAGIC = b"DRCROPS3"
_SUFFIX, _PARTIAL = ".crops", ".partial"


def _rows_a_shard(count: int, size: int) -> int:
    """Shards of 32 MiB or more, about 96 a build: each costs an open file while it is mapped. macOS
    grants 256, most Linuxes 1,024; a million crops of 512 px in shards of 1 GiB took 733."""
    return max(1, max(count * size // 96, 2**25) // size)


class _Writer:
    """Crops in, shards out: each file aside until it is whole."""

    def __init__(self, where: Path, size: int, rows: int) -> None:
        self._where, self._size, self._rows = where, size, rows
        self._entries: list[tuple[bytes, float, int]] = []  # as _ENTRY has them
        self._file: BinaryIO | None = None

    def add(self, key: bytes, crop: NDArray[np.uint8], quality: float) -> None:
        if self._file is None:
            self._name = self._where / f"{os.getpid()}-{secrets.token_hex(4)}{_PARTIAL}"
            self._file = open(self._name, "xb")  # noqa: SIM115 - open from one call to the next
        self._file.write(crop.data)
        self._entries.append((key, quality, zlib.crc32(crop.data)))
        if len(self._entries) == self._rows:
            self.finish()

    def finish(self) -> None:
        """What was added becomes a shard."""
        if self._file is None:
            return
        listed = np.array(self._entries, _ENTRY)
        keys, entries = listed["key"].tobytes(), listed.tobytes()
        with self._file as file:
            file.write(entries)
            file.write(_END.pack(_MAGIC, len(self._entries), self._size, zlib.crc32(entries)))
            file.flush()
            os.fsync(file.fileno())
        shard = self._where / (hashlib.blake2b(keys, digest_size=16).hexdigest() + _SUFFIX)
        if _is_whole(shard, self._size):
            os.unlink(self._name)
        else:
            os.replace(self._name, shard)
        self._file, self._entries = None, []

    def discard(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # closing a file writes what is left, on a full disk
                self._file.close()
            os.unlink(self._name)
            self._file, self._entries = None, []


def _open_shard(shard: Path, size: int) -> tuple[NDArray[np.uint8], NDArray[np.void]]:
    """Its crops [n, 3, S, S], mapped, and an _ENTRY for each. ValueError where it is no whole
    shard of this size, or its entries are damaged."""
    with open(shard, "rb") as file:
        length = file.seek(0, os.SEEK_END)
        if length < _END.size:
            raise ValueError("too short")
        file.seek(length - _END.size)
        magic, count, pixels, checksum = _END.unpack(file.read())
        start = count * 3 * size**2
        if (magic, pixels, length) != (_MAGIC, size, start + _ENTRY.itemsize * count + _END.size):
            raise ValueError("not a whole shard")
        file.seek(start)
        entries = file.read(_ENTRY.itemsize * count)
        if zlib.crc32(entries) != checksum:
            raise ValueError("damaged entries")
        crops = np.memmap(file, np.uint8, "r", shape=(count, 3, size, size))
    return crops, np.frombuffer(entries, _ENTRY)


def _is_whole(shard: Path, size: int) -> bool:
    try:
        _open_shard(shard, size)
    except (OSError, ValueError):
        return False
    return True


def _length(crops: NDArray[np.uint8]) -> int:
    """Bytes of the file that is mapped, as it is now: what lies behind its end, where somebody has
    cut it off since, ends the process when it is looked at (SIGBUS). 0 of a file on a share that
    another machine has removed (ESTALE). 0.5 µs."""
    file: Any = crops.base
    try:
        return int(file.size())
    except OSError:
        return 0


def _index(where: Path, size: int) -> dict[bytes, tuple[Path, int, float, int]]:
    """Shard, row, quality and checksum of every crop in a folder; removes what is damaged or
    left over."""
    index = {}
    for shard in sorted(where.glob(f"*{_SUFFIX}")):
        try:
            entries = enumerate(_open_shard(shard, size)[1].tolist())
            index.update({key: (shard, row, *rest) for row, (key, *rest) in entries})
        except ValueError:
            with suppress(OSError):
                shard.unlink()
        except OSError:
            continue  # removed or locked by another process meanwhile
    for unfinished in where.glob(f"*{_PARTIAL}"):
        with suppress(OSError):
            if time.time() - unfinished.stat().st_mtime > 3600:  # of a killed build
                unfinished.unlink()
    return index


def _make_room(where: Path, count: int, size: int, keep: set[Path]) -> int:
    """Makes room for so many crops of so many bytes among all shards; for how many there is."""
    each = size + 64  # with its entry and its part of an end
    return make_room(where, where.parent.glob(f"*/*{_SUFFIX}"), count * each, keep=keep) // each


def make_room(
    where: Path,
    files: Iterable[Path],
    needed: int,
    most: int | None = None,
    keep: Container[Path] = (),
) -> int:
    """Remove the least recently used of these files until there is room for so many bytes beside
    the others; how many of them have room.

    where: a folder of the disk. most: bytes that all may take, where `limit` allows more. keep:
    files that stay. Who has one open, or mapped, still reads it.
    """
    known = []
    for file in files:
        with suppress(OSError):
            status = file.stat()
            known.append((status.st_mtime_ns, status.st_size, file))
    used = sum(size for _, size, _ in known)
    free = shutil.disk_usage(where).free
    allowed = limit(used, free) if most is None else min(most, limit(used, free))
    room = min(allowed - used, free - 2**28)  # a quarter GiB is left to everybody else
    for _, length, file in sorted(entry for entry in known if entry[2] not in keep):
        if room >= needed:
            break
        with suppress(OSError):  # Windows keeps what another process reads
            file.unlink()
            room += length
    return max(0, min(room, needed))


@contextmanager
def alone(where: Path, doing: str, observer: Observer) -> Iterator[None]:
    """One build at a time in a folder, so that runs started together share the work.

    doing: what is said of another process that has the folder. The system frees the lock of a
    process that dies. Where there are no locks, as on some network drives, builds go side by side:
    that repeats work and harms nothing. A marker file in place of a lock (`fallback_to_soft`) would
    outlive a killed build. OSError in a read-only folder.
    """
    (where / "building").touch()
    lock = FileLock(where / "building", fallback_to_soft=False, poll_interval=0.1)
    with suppress(OSError):
        try:
            lock.acquire(blocking=False)
        except Timeout:
            observer.note(f"another process is {doing}: waiting for it")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
