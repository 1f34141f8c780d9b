"""Crops on disk: whole or absent, shared, bounded, and right whatever happens to the files."""

import errno
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from dr_cli.errors import UsageError
from dr_cli.photographs import cache, quality
from dr_cli.photographs.crop import Preprocessing, load_crop
from dr_cli.photographs.decoding import UnreadableImage
from tests.builders.listener import Listener

SIZE = 16
WAY = Preprocessing(SIZE)
CROP = 3 * SIZE * SIZE


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DR_CACHE_MAX", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(cache, "_rows_a_shard", lambda count, size: 4)


@pytest.fixture
def photographs(tmp_path):
    """A folder of ten pictures, each of another colour, and their paths in it."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for k in range(10):
        Image.new("RGB", (20, 20), (20 * k + 30, 90, 30)).save(folder / f"{k}.png")
    return folder, [f"{k}.png" for k in range(10)]


class Counted:
    """Decodes, and remembers what it was asked for."""

    def __init__(self, folder, paths, way=WAY):
        self.folder, self.paths, self.way, self.asked = folder, paths, way, []

    def __call__(self, number):
        self.asked.append(number)
        return load_crop(self.paths[number], self.way, self.folder)


def build(folder, paths, way=WAY, observer=None, workers=1):
    load = Counted(folder, paths, way)
    crops = cache.Crops(folder, paths, way, workers)
    crops._load = load
    crops.fill(observer or Listener())
    return crops, load


def right(crops, folder, paths, way=WAY):
    expected = [load_crop(folder / path, way).pixels for path in paths]
    return np.array_equal(crops.gather(range(len(paths))), expected)


def shards(own_cache):
    return sorted(own_cache.rglob("*.crops"))


def test_each_photograph_is_decoded_once_for_all_runs(photographs):
    folder, paths = photographs
    watcher = Listener()
    crops, load = build(folder, paths, observer=watcher, workers=3)
    assert sorted(load.asked) == list(range(10))
    assert crops.kept == "disk"
    assert right(crops, folder, paths)
    assert watcher.steps[-1] == ("decoding photographs", 10, 10)
    again, load = build(folder, paths[::-1])  # another order: found by key, not by place
    assert load.asked == []
    assert right(again, folder, paths[::-1])
    more, load = build(folder, paths[:3])
    assert load.asked == []
    assert right(more, folder, paths[:3])


def test_another_way_of_making_crops_has_crops_of_its_own(photographs):
    folder, paths = photographs
    build(folder, paths)
    for way in (Preprocessing(8), Preprocessing(SIZE, field="whole")):
        crops, load = build(folder, paths, way)
        assert len(load.asked) == 10
        assert right(crops, folder, paths, way)


def test_a_changed_photograph_is_decoded_anew(photographs):
    folder, paths = photographs
    build(folder, paths)
    Image.new("RGB", (20, 20), (250, 10, 10)).save(folder / "4.png")
    os.utime(folder / "4.png", ns=(1, 1))
    crops, load = build(folder, paths)
    assert load.asked == [4]
    assert right(crops, folder, paths)


def test_equal_names_sizes_and_times_in_two_folders_are_two_photographs(tmp_path):
    for name, colour in (("a", (200, 90, 30)), ("b", (30, 200, 90))):
        (tmp_path / name).mkdir()
        Image.new("RGB", (20, 20), colour).save(tmp_path / name / "1.bmp")
        os.utime(tmp_path / name / "1.bmp", ns=(1, 1))
    build(tmp_path / "a", ["1.bmp"])
    crops, load = build(tmp_path / "b", ["1.bmp"])
    assert load.asked == [0]
    assert right(crops, tmp_path / "b", ["1.bmp"])


def test_copied_renamed_and_identical_photographs_find_their_crops(photographs, tmp_path):
    folder, paths = photographs
    build(folder, paths)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    names = [f"sub-{path}" for path in paths]
    for path, name in zip(paths, names, strict=True):
        shutil.copyfile(folder / path, moved / name)  # its time is now
    (moved / "twice.png").write_bytes((moved / names[3]).read_bytes())
    crops, load = build(moved, [*names, "twice.png"])
    assert load.asked == []
    assert right(crops, moved, [*names, "twice.png"])


def test_a_file_is_read_once_and_again_when_it_changed(photographs, monkeypatch):
    folder, paths = photographs
    read, digest_file = [], cache.digest_file

    def watch(root, path):
        read.append(path)
        return digest_file(root, path)

    monkeypatch.setattr(cache, "digest_file", watch)

    def look(paths, workers=2):
        return cache.contents(folder, paths, cache.keys(folder, paths), workers)

    first = look(paths)
    assert sorted(read) == paths
    assert len(set(first)) == 10
    os.utime(folder / "4.png", ns=(1, 1))
    read.clear()
    assert look(paths) == first
    assert read == ["4.png"]
    read.clear()
    (folder / "5.png").unlink()
    if hasattr(os, "mkfifo"):  # nothing is waited for
        os.mkfifo(folder / "5.png")
    assert look([*paths, "none.png"]) == [*first[:5], None, *first[6:], None]
    assert read == ["5.png"] * hasattr(os, "mkfifo")
    next((cache.folder() / "contents").iterdir()).write_bytes(b"no array")
    assert look(["0.png"], 1) == first[:1]


def test_pages_of_one_file_are_photographs_of_their_own(tmp_path):
    stack = np.random.default_rng(0).integers(0, 255, (3, 28, 28, 3), np.uint8)
    np.savez(tmp_path / "set.npz", train_images=stack)
    paths = [f"set.npz#train/{k}" for k in range(3)]
    found = cache.contents(tmp_path, paths, cache.keys(tmp_path, paths), 1)
    assert len(set(found)) == 3
    assert None not in found


def test_a_photograph_that_changes_between_looking_and_decoding_is_not_kept(photographs, own_cache):
    """Its crop would stand under the digest of what the file held before, for every copy of it."""
    folder, paths = photographs
    before = (folder / "4.png").read_bytes()

    def change(what, done, total):
        if (what, done) == ("decoding photographs", 1):
            Image.new("RGB", (20, 20), (250, 10, 10)).save(folder / "4.png")

    crops, _ = build(folder, paths, observer=Listener(progress=change))
    assert right(crops, folder, paths)
    (folder / "copy.png").write_bytes(before)
    crops, load = build(folder, ["copy.png"])
    assert load.asked == [0]
    assert right(crops, folder, ["copy.png"])


def test_a_whole_shard_of_the_same_name_stays(photographs, own_cache, monkeypatch):
    """On a share without locks two machines build the same; who reads the first shard maps that
    very file, which a share would take away under them."""
    folder, paths = photographs
    build(folder, paths)
    [shard] = shards(own_cache)
    there = shard.stat().st_ino
    look, asked = cache._index, []
    monkeypatch.setattr(
        cache, "_index", lambda *given: look(*given) if len(asked) > 1 else asked.append(1) or {}
    )
    _, load = build(folder, paths)
    assert len(load.asked) == 10
    assert shards(own_cache) == [shard]
    assert shard.stat().st_ino == there
    assert list(own_cache.rglob("*.partial")) == []


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("harm", ["cut", "longer", "keys", "other", "empty"])
def test_a_damaged_shard_is_made_again(photographs, own_cache, harm):
    folder, paths = photographs
    build(folder, paths)
    shard = shards(own_cache)[1]
    content = shard.read_bytes()
    keys = len(content) - cache._END.size - 1
    flipped = content[:keys] + bytes([content[keys] ^ 1]) + content[keys + 1 :]
    shard.write_bytes(
        {
            "cut": content[:-7],
            "longer": content + bytes(5),
            "keys": flipped,
            "other": bytes(len(content)),
            "empty": b"",
        }[harm]
    )
    crops, load = build(folder, paths)
    assert len(load.asked) in (2, 4)  # what that shard held
    assert right(crops, folder, paths)


@pytest.mark.usefixtures("small_shards")
def test_a_crop_whose_bytes_rotted_is_found_decoded_anew_and_its_shard_made_again(
    photographs, own_cache
):
    folder, paths = photographs
    build(folder, paths)
    shard = shards(own_cache)[1]
    content = bytearray(shard.read_bytes())
    content[7] ^= 1  # a bit of a pixel of the first crop
    shard.write_bytes(content)
    crops, load = build(folder, paths)
    assert load.asked == []  # as far as keys and lengths tell, all is well
    assert right(crops, folder, paths)
    assert right(crops, folder, paths)
    assert len(load.asked) == len(crops.rotten) == 1
    assert not shard.exists()
    again, load = build(folder, paths)
    assert len(load.asked) in (2, 4)  # what that shard held
    assert right(again, folder, paths)
    assert not again.rotten


@pytest.mark.usefixtures("small_shards")
def test_a_shard_cut_off_under_its_reader_is_decoded_anew_and_ends_no_process(
    photographs, own_cache
):
    """What is mapped behind a file's end is SIGBUS to look at."""
    folder, paths = photographs
    crops, load = build(folder, paths)
    assert right(crops, folder, paths)
    os.truncate(shards(own_cache)[1], CROP)  # the first crop is still there
    del load.asked[:]
    assert right(crops, folder, paths)
    assert len(load.asked) == len(crops.rotten) in (1, 3)
    os.truncate(shards(own_cache)[0], 0)
    assert right(crops, folder, paths)
    assert len(shards(own_cache)) == 1


def test_unreadable_photographs_are_told_and_the_rest_is_there(photographs):
    folder, paths = photographs
    (folder / "3.png").write_bytes(b"no picture")
    (folder / "7.png").unlink()
    for _ in range(2):
        crops, _ = build(folder, paths, workers=2)
        assert sorted(crops.failed) == [3, 7]
        assert "not an image" in crops.failed[3]
        assert crops.failed[7] == "no such file"
        good = [k for k in range(10) if k not in (3, 7)]
        assert crops.gather(good).shape == (8, 3, SIZE, SIZE)
        with pytest.raises(UnreadableImage, match="no such file"):
            crops.gather([1, 7])


def test_a_folder_that_cannot_be_made_leaves_crops_in_memory(photographs, own_cache):
    folder, paths = photographs
    own_cache.write_text("a file stands where the cache's folder should be", encoding="utf-8")
    watcher = Listener()
    crops, load = build(folder, paths, observer=watcher)
    assert crops.kept == "memory"
    assert len(watcher.warnings) == 1
    assert "DR_CACHE" in watcher.warnings[0]
    assert right(crops, folder, paths)
    assert len(load.asked) == 10


@pytest.mark.usefixtures("small_shards")
def test_a_disk_that_fills_up_midway_keeps_the_finished_shards(photographs, own_cache, monkeypatch):
    folder, paths = photographs
    add, added = cache._Writer.add, []

    def full(self, key, crop, quality):
        if len(added) == 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        added.append(key)
        add(self, key, crop, quality)

    monkeypatch.setattr(cache._Writer, "add", full)
    watcher = Listener()
    crops, _ = build(folder, paths, observer=watcher)
    assert len(shards(own_cache)) == 1  # of four; the two after them are in memory
    assert list(own_cache.rglob("*.partial")) == []
    assert len(crops._memory) == 6
    assert len(watcher.warnings) == 1
    assert "No space left" in watcher.warnings[0]
    assert right(crops, folder, paths)


def test_without_room_on_disk_or_in_memory_photographs_are_decoded_each_time(
    photographs, monkeypatch
):
    folder, paths = photographs
    (folder / "3.png").write_bytes(b"no picture")
    monkeypatch.setenv("DR_CACHE_MAX", "0")
    monkeypatch.setattr(cache.machine, "free_memory", lambda: 10 * CROP)
    watcher = Listener()
    crops, load = build(folder, paths, observer=watcher)
    assert crops.kept == "nowhere"
    assert "decodes anew" in watcher.warnings[0]
    assert list(crops.failed) == [3]
    load.asked.clear()
    assert crops.gather([5, 6]).shape == (2, 3, SIZE, SIZE)
    assert load.asked == [5, 6]


def test_what_does_not_fit_on_disk_is_decoded_each_time_and_the_rest_is_not(
    photographs, own_cache, monkeypatch
):
    folder, paths = photographs
    monkeypatch.setenv("DR_CACHE_MAX", str(6 * (CROP + 64)))
    monkeypatch.setattr(cache.machine, "free_memory", lambda: 7 * CROP)
    for asked in ([*range(10)], [6, 7, 8, 9]):  # the second run finds six, and looks at four
        watcher = Listener()
        crops, load = build(folder, paths, observer=watcher)
        assert sorted(load.asked) == asked
        assert crops.kept == "disk"
        assert len(watcher.warnings) == 1
        assert watcher.warnings[0].startswith("4 of 10 crops cannot be kept on disk (")
        assert "DR_CACHE_MAX" in watcher.warnings[0]
        assert "decodes anew" in watcher.warnings[0]
    load.asked.clear()
    assert right(crops, folder, paths)
    assert load.asked == [6, 7, 8, 9]
    monkeypatch.setattr(cache.machine, "free_memory", lambda: 100 * CROP)
    crops, _ = build(folder, paths, observer=watcher)
    assert "4 of 10 crops" in watcher.warnings[-1]
    assert "held in memory" in watcher.warnings[-1]
    assert right(crops, folder, paths)


# --- the bound


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1000", 1000),
        ("2k", 2048),
        ("1.5M", 1572864),
        ("50G", 50 * 2**30),
        ("1 TiB", 2**40),
        ("3gb", 3 * 2**30),
    ],
)
def test_the_bound_is_read_with_its_unit(monkeypatch, text, size):
    monkeypatch.setenv("DR_CACHE_MAX", text)
    assert cache.limit(used=0, free=0) == size


@pytest.mark.parametrize("text", ["much", "-1", "5X", "1G2"])
def test_a_bound_that_is_no_size_is_refused(monkeypatch, text):
    monkeypatch.setenv("DR_CACHE_MAX", text)
    with pytest.raises(UsageError, match="DR_CACHE_MAX"):
        cache.limit(used=0, free=0)


def test_by_default_half_of_what_is_free_or_ours_and_at_most_100_gib():
    assert cache.limit(used=2 * 2**30, free=8 * 2**30) == 5 * 2**30
    assert cache.limit(used=0, free=2**50) == 100 * 2**30


@pytest.mark.usefixtures("small_shards")
def test_the_least_recently_used_shards_go_first_and_never_ones_own(
    photographs, own_cache, monkeypatch
):
    folder, paths = photographs
    first, _ = build(folder, paths[:4])
    build(folder, paths[4:8])
    old, new = shards(own_cache)
    if not np.array_equal(cache._open_shard(old, SIZE)[0], first.gather(range(4))):
        old, new = new, old
    os.utime(old, ns=(10**18, 10**18))
    os.utime(new, ns=(10**18 + 1, 10**18 + 1))
    room = old.stat().st_size * 2 + CROP  # for one crop more, not for two
    monkeypatch.setenv("DR_CACHE_MAX", str(room))
    build(folder, paths[:4])  # used again, so now it is the other's turn
    crops, load = build(folder, [*paths[:4], *paths[8:]])
    assert old.exists()
    assert not new.exists()
    assert load.asked == [4, 5]
    assert right(crops, folder, [*paths[:4], *paths[8:]])
    assert sum(s.stat().st_size for s in shards(own_cache)) <= room
    assert right(first, folder, paths[:4])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps files that are mapped")
def test_crops_whose_file_was_removed_meanwhile_are_still_right(photographs, own_cache):
    folder, paths = photographs
    crops, load = build(folder, paths)
    load.asked.clear()
    packed = pickle.dumps(crops)
    for shard in shards(own_cache):
        shard.unlink()
    assert right(crops, folder, paths)  # its maps outlive the file
    assert load.asked == []
    elsewhere = pickle.loads(packed)  # as in a DataLoader's worker: decodes anew
    assert right(elsewhere, folder, paths)
    assert len(elsewhere._load.asked) == 10


def test_old_leftovers_of_killed_builds_are_removed(photographs, own_cache):
    folder, paths = photographs
    build(folder, paths)
    where = cache.shards_folder(WAY)
    for name, age in (("1-a.partial", 7200), ("2-b.partial", 60)):
        (where / name).write_bytes(b"half")
        os.utime(where / name, (time.time() - age,) * 2)
    build(folder, paths)
    assert [p.name for p in where.glob("*.partial")] == ["2-b.partial"]


# --- several processes

BUILD = """
import sys, time
from pathlib import Path
from dr_cli.photographs import cache
from dr_cli.photographs.crop import Preprocessing, load_crop
from dr_cli.events import Observer
cache._rows_a_shard = lambda count, size: 4
folder, pause = Path(sys.argv[1]), float(sys.argv[2])
paths = sorted(p.name for p in folder.glob("*.png"))
way = Preprocessing(16)
decoded = []
def load(number):
    time.sleep(pause)
    decoded.append(number)
    return load_crop(paths[number], way, folder)
class Tell(Observer):
    def progress(self, what, done, total):
        if what == "decoding photographs":
            print(done, flush=True)
crops = cache.Crops(folder, paths, way, 1)
crops._load = load
crops.fill(Tell())
print("decoded", len(decoded), crops.gather(range(len(paths))).sum(), flush=True)
"""


def start(folder, pause=0.0):
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(folder), str(pause)], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.usefixtures("small_shards")
def test_a_killed_build_keeps_its_finished_shards_and_the_next_completes_them(
    photographs, own_cache
):
    folder, paths = photographs
    process = start(folder, pause=0.05)
    for line in process.stdout:
        if line.strip() == "6":
            process.kill()
            break
    process.wait(timeout=60)
    assert len(shards(own_cache)) == 1  # four of the six that were decoded
    crops, load = build(folder, paths)
    assert len(load.asked) == 6
    assert right(crops, folder, paths)


def test_two_builds_at_once_share_the_work(photographs):
    folder, paths = photographs
    both = [start(folder, pause=0.03), start(folder, pause=0.03)]
    ends = [process.communicate(timeout=60)[0].split("decoded ")[1].split() for process in both]
    assert sorted(int(decoded) for decoded, _ in ends) == [0, 10]
    assert len({total for _, total in ends}) == 1
    crops, load = build(folder, paths)
    assert load.asked == []
    assert right(crops, folder, paths)


def test_an_interrupted_build_keeps_what_it_decoded(photographs):
    folder, paths = photographs

    def stop(what, done, total):
        if (what, done) == ("decoding photographs", 5):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(folder, paths, observer=Listener(progress=stop))
    crops, load = build(folder, paths)
    assert load.asked == [5, 6, 7, 8, 9]
    assert right(crops, folder, paths)


def test_several_threads_may_read_at_once(photographs):
    folder, paths = photographs
    crops, _ = build(folder, paths)
    crops = pickle.loads(pickle.dumps(crops))  # nothing mapped yet
    wrong = []

    def read():
        for _ in range(5):
            if not right(crops, folder, paths):
                wrong.append(1)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- where


def test_the_folder_follows_the_platform(monkeypatch):
    monkeypatch.setenv("DR_CACHE", "~/mine")
    assert cache.folder() == Path("~/mine").expanduser()
    monkeypatch.delenv("DR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path("/x")))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache.folder() == Path("/x/dr")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache.folder() == Path("~/Library/Caches/dr").expanduser()
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", "L")
    assert cache.folder() == Path("L/dr/Cache")


def test_a_shard_that_another_machine_removed_from_a_share_is_decoded_anew(
    photographs, monkeypatch
):
    """NFS says so to whoever asks (ESTALE), and ends the process that looks (SIGBUS)."""
    folder, paths = photographs
    crops, load = build(folder, paths)

    class Stale:
        def size(self):
            raise OSError(errno.ESTALE, "Stale file handle")

    class Mapped:
        base = Stale()

    crops._maps = dict.fromkeys(crops._maps, Mapped())
    load.asked.clear()
    assert right(crops, folder, paths)
    assert sorted(load.asked) == list(range(10))


def test_shards_are_neither_tiny_nor_too_many_to_open():
    crop = 3 * 512 * 512
    for count in (100, 5_000, 88_702, 10**6, 10**8):
        rows = cache._rows_a_shard(count, crop)
        assert rows * crop <= max(2**25, count * crop / 96)  # that much a killed build loses
        assert -(-count // rows) <= 130
    assert cache._rows_a_shard(10, 2**31) == 1


def test_quality_is_kept_beside_the_crops(photographs):
    folder, paths = photographs
    first, _ = build(folder, paths)
    again, load = build(folder, paths[::-1])
    assert load.asked == []
    expected = [load_crop(folder / path, WAY).judgement.quality for path in paths]
    np.testing.assert_allclose(first.quality, expected, rtol=1e-6)
    np.testing.assert_array_equal(again.quality, first.quality[::-1])


def test_a_changed_quality_rule_judges_anew(photographs, monkeypatch):
    """Qualities lie beside the crops: a folder filled by an older rule must not give them."""
    folder, paths = photographs
    build(folder, paths)
    monkeypatch.setattr(quality, "VERSION", quality.VERSION + 1)
    monkeypatch.setattr(quality, "judge", lambda picture, found: quality.Judgement(0.75, ""))
    again, load = build(folder, paths)
    assert len(load.asked) == 10
    assert again.quality.tolist() == [0.75] * 10


def test_mean_and_deviation_do_not_change_the_crops():
    """They are taken off later: other weights must not decode a whole data set again."""
    other = Preprocessing(SIZE, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    assert cache.shards_folder(other) == cache.shards_folder(WAY)


def test_a_number_sign_in_a_file_name_is_no_place_within_a_file(photographs):
    folder, _ = photographs
    (folder / "3.png").rename(folder / "eye#3.png")
    crops, _ = build(folder, ["eye#3.png"])
    assert crops.kept == "disk"


def test_a_second_build_tells_that_it_waits(photographs):
    folder, paths = photographs
    where = cache.shards_folder(WAY)
    where.mkdir(parents=True)
    lock = FileLock(where / "building")
    lock.acquire()
    waiting = Listener(note=lambda text: lock.release())
    crops, load = build(folder, paths, observer=waiting)
    assert waiting.notes == ["another process is filling the same cache: waiting for it"]
    assert len(load.asked) == 10
    assert crops.kept == "disk"


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_builds_go_side_by_side(photographs, monkeypatch, error):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*given):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", refuse)
    folder, paths = photographs
    watcher = Listener()
    for _ in range(2):
        crops, _ = build(folder, paths, observer=watcher)
        assert crops.kept == "disk"
    assert watcher.warnings == watcher.notes == []


def test_a_reader_of_a_folder_that_it_may_not_write_uses_what_is_there(photographs, monkeypatch):
    folder, paths = photographs
    build(folder, paths[:8])

    def refuse(*given, **named):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)  # root may write anywhere, so no chmod
    watcher = Listener()
    crops, load = build(folder, paths[:8], observer=watcher)
    assert (crops.kept, load.asked, watcher.warnings) == ("disk", [], [])
    crops, load = build(folder, paths, observer=watcher)
    assert load.asked == [8, 9]
    assert "held in memory" in watcher.warnings[0]
    assert right(crops, folder, paths)
