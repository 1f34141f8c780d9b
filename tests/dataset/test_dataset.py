"""FundusDataset and its batches."""

import doctest
import multiprocessing
import pickle
import threading
import time

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from dr_cli import FundusDataset
from dr_cli.dataset import dataset as dataset_module
from dr_cli.dataset.dataset import measured_size
from dr_cli.dataset.feeding import batches, hold
from dr_cli.device import choose
from dr_cli.errors import UsageError
from dr_cli.photographs import quality
from dr_cli.photographs.crop import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, load_crop
from dr_cli.photographs.decoding import UnreadableImage
from tests.builders.listener import Listener

WAY = Preprocessing(24)


@pytest.fixture
def photographs(tmp_path):
    """Twelve pictures, each of another red, and their grades."""
    for k in range(12):
        Image.new("RGB", (40, 40), (20 * k + 10, 90, 30)).save(tmp_path / f"{k}.png")
    return tmp_path, [f"{k}.png" for k in range(12)], [k % 5 for k in range(12)]


def reds(pixels):
    return [int(value) for value in pixels[:, 0, 12, 12]]


def test_an_item_is_a_normalised_picture_and_its_grade(photographs):
    root, paths, grades = photographs
    dataset = FundusDataset(root, paths, grades, WAY)
    assert len(dataset) == 12
    picture, grade = dataset[7]
    assert (picture.shape, picture.dtype) == ((3, 24, 24), torch.float32)
    assert (grade, type(grade)) == (2, int)
    for channel, value in enumerate((150, 90, 30)):
        expected = (value / 255 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
        assert abs(float(picture[channel, 12, 12]) - expected) < 1e-5
    assert torch.equal(dataset[-1][0], dataset[11][0])
    for index in (12, -13):
        with pytest.raises(IndexError):
            dataset[index]


def test_crops_are_uint8_in_the_order_asked_for(photographs):
    dataset = FundusDataset(*photographs, WAY)
    assert dataset.crop(3).shape == (3, 24, 24)
    assert dataset.crop(3).dtype == np.uint8
    assert reds(dataset.crops([5, 0, 5])) == [110, 10, 110]
    expected = load_crop(photographs[0] / "3.png", WAY).pixels
    assert np.array_equal(dataset.crop(3), expected)


@pytest.mark.parametrize("cache", [True, False])
def test_failed_photographs_are_listed_and_the_others_go_on(photographs, cache):
    root, paths, grades = photographs
    (root / "4.png").write_bytes(b"")
    dataset = FundusDataset(root, paths, grades, WAY, cache=cache, workers=2)
    dataset.prepare()
    assert dataset.failed == [("4.png", "the file is empty (0 bytes)")]
    assert dataset.readable.tolist() == [k for k in range(12) if k != 4]
    with pytest.raises(UnreadableImage, match=r"4\.png: the file is empty"):
        dataset[4]
    rest = dataset.subset(dataset.readable)
    assert rest.failed == []
    assert reds(rest.crops(range(11)))[4] == 110
    assert rest[4][1] == 0


def test_a_subset_is_numbered_anew_and_leaves_the_whole_alone(photographs):
    whole = FundusDataset(*photographs, WAY)
    part = whole.subset([9, 2])
    assert part.paths == ["9.png", "2.png"]
    assert part.grades.tolist() == [4, 2]
    assert reds(part.crops([0, 1])) == [190, 50]
    assert len(whole) == 12
    assert reds(whole.crops([0])) == [10]
    assert reds(part.subset([1]).crops([0])) == [50]


def test_a_subset_has_the_qualities_of_its_own_photographs(photographs, monkeypatch):
    scores = iter([0.1, 0.9] * 6)
    monkeypatch.setattr(quality, "VERSION", "of this test")
    monkeypatch.setattr(
        quality, "judge", lambda picture, found: quality.Judgement(next(scores), "")
    )
    part = FundusDataset(*photographs, WAY, workers=1).subset([4, 1, 0])
    rows = part.mark_gradable(pd.DataFrame({"path": part.paths}))
    assert rows["gradable"].tolist() == [0, 1, 0]


def test_without_a_cache_nothing_is_written_and_crops_are_the_same(photographs, monkeypatch):
    root, paths, grades = photographs
    monkeypatch.setenv("DR_CACHE", str(root / "cache"))
    plain = FundusDataset(root, paths, grades, WAY, cache=False)
    pixels = plain.crops(range(12))
    assert plain.kept == "nowhere"
    assert not (root / "cache").exists()
    cached = FundusDataset(root, paths, grades, WAY)
    assert cached.kept == "disk"
    assert np.array_equal(cached.crops(range(12)), pixels)


def test_as_many_grades_as_photographs(photographs):
    root, paths, grades = photographs
    with pytest.raises(UsageError, match="12 photographs but 11 grades"):
        FundusDataset(root, paths, grades[1:], WAY)


@pytest.mark.parametrize(
    ("start", "cache", "workers"), [("fork", True, 2), ("fork", False, 2), ("spawn", True, 1)]
)
def test_it_works_in_a_dataloader_with_workers(photographs, start, cache, workers):
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this platform has no {start}")
    dataset = FundusDataset(*photographs, WAY, cache=cache)
    loader = DataLoader(dataset, batch_size=5, num_workers=workers, multiprocessing_context=start)
    pictures, grades = zip(*loader, strict=True)
    assert [len(batch) for batch in pictures] == [5, 5, 2]
    assert torch.equal(torch.cat(pictures), torch.stack([dataset[k][0] for k in range(12)]))
    assert torch.cat(grades).tolist() == photographs[2]


def test_it_can_be_pickled(photographs):
    dataset = FundusDataset(*photographs, WAY)
    copy = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(copy.crops(range(12)), dataset.crops(range(12)))
    assert len(pickle.dumps(dataset)) < 20_000  # the pixels stay where they are


def test_the_example_in_its_docstring_runs():
    failed, run = doctest.testmod(dataset_module)
    assert run >= 8
    assert failed == 0


def test_pictures_in_an_npz_file_are_read(tmp_path):
    images = np.zeros((3, 28, 28, 3), np.uint8) + np.array([10, 90, 200])[:, None, None, None]
    np.savez(tmp_path / "set.npz", train_images=images.astype(np.uint8))
    paths = [f"set.npz#train/{k}" for k in range(4)]
    dataset = FundusDataset(tmp_path, paths, [0, 1, 2, 3], WAY)
    assert reds(dataset.crops([0, 1, 2])) == [10, 90, 200]
    assert [path for path, _ in dataset.failed] == ["set.npz#train/3"]
    assert measured_size(tmp_path, paths) == 32


# --- from a folder


@pytest.fixture
def folder(tmp_path):
    for grade in range(5):
        for k in range(6):
            place = tmp_path / "set" / ("train" if k < 4 else "test") / str(grade)
            place.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng((grade, k))
            pixels = rng.integers(60, 200, (100, 100, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{grade}{k}.png")
    return tmp_path / "set"


def test_a_folder_becomes_a_dataset_in_one_call(folder):
    train = FundusDataset.from_folder(folder)
    val = FundusDataset.from_folder(folder, "val")
    test = FundusDataset.from_folder(folder, "test")
    assert len(train) + len(val) == 20
    assert len(test) == 10
    assert sorted(test.grades.tolist()) == sorted([*range(5)] * 2)
    assert train.preprocessing.size == 96
    assert all(path.startswith("test/") for path in test.paths)
    assert not set(train.paths) & set(val.paths)
    assert len(FundusDataset.from_folder(folder, "all", size=32)) == 30
    with pytest.raises(UsageError, match="has no valid split; it has train, val, test"):
        FundusDataset.from_folder(folder, "valid")


@pytest.mark.parametrize("cache", [True, False])
def test_unreadable_files_of_a_folder_are_left_out_with_a_warning(folder, cache):
    (folder / "test" / "2" / "24.png").write_bytes(b"nothing")
    watcher = Listener()
    dataset = FundusDataset.from_folder(folder, "test", size=32, observer=watcher, cache=cache)
    assert len(dataset) == 9
    assert dataset.failed == []
    assert len(watcher.warnings) == 1
    assert "cannot be read: 1" in watcher.warnings[0]


def test_both_splits_of_idrid_get_photographs_of_their_own(shared):
    """Both number their files from IDRiD_001: a name alone would give test a training picture."""
    folder = shared / "data" / "idrid"
    test = FundusDataset.from_folder(folder, "test", size=64)
    assert len(test) == 103
    assert all("Testing Set" in path for path in test.paths)
    assert np.bincount(test.grades).tolist() == [34, 5, 32, 19, 13]
    expected = load_crop(folder / test.paths[0], Preprocessing(64)).pixels
    assert np.array_equal(test.crop(0), expected)


# --- batches


def test_batches_come_in_order_with_grades_and_indices(photographs):
    dataset = FundusDataset(*photographs, WAY)
    order = np.array([3, 1, 11, 0, 7])
    seen = list(batches(dataset, order, 2))
    assert [tuple(pixels.shape) for pixels, _, _ in seen] == [(2, 3, 24, 24)] * 2 + [(1, 3, 24, 24)]
    pixels, grades, indices = (torch.cat(parts) for parts in zip(*seen, strict=True))
    assert (pixels.dtype, grades.dtype, indices.dtype) == (torch.uint8, torch.int64, torch.int64)
    assert indices.tolist() == order.tolist()
    assert grades.tolist() == [3, 1, 1, 0, 2]
    assert reds(pixels) == [70, 30, 230, 10, 150]
    assert list(batches(dataset, [], 2)) == []


def no_threads_left():
    end = time.monotonic() + 5
    while any(thread.name.startswith("dr-work") for thread in threading.enumerate()):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize("prefetch", [1, 4])
def test_the_thread_ends_when_the_consumer_stops_early(photographs, prefetch):
    dataset = FundusDataset(*photographs, WAY)
    for _ in batches(dataset, range(12), 1, prefetch):
        break
    assert no_threads_left()

    def consume():
        for _ in batches(dataset, range(12), 1, prefetch):
            raise RuntimeError("the consumer fails")

    with pytest.raises(RuntimeError, match="consumer fails"):
        consume()
    assert no_threads_left()
    unused = batches(dataset, range(12), 1, prefetch)
    next(unused)
    del unused
    assert no_threads_left()


def test_what_goes_wrong_in_the_thread_is_raised_in_the_consumer(photographs):
    dataset = FundusDataset(*photographs, WAY)
    crops = dataset.readable_crops

    def broken(indices):
        if 6 in indices:
            raise OSError("the disk is gone")
        return crops(indices)

    dataset.readable_crops = broken
    seen = []
    with pytest.raises(OSError, match="disk is gone"):
        seen.extend(batches(dataset, range(12), 4))
    assert len(seen) <= 1
    assert no_threads_left()


@pytest.mark.parametrize("held", [False, True])
def test_a_photograph_that_is_lost_is_absent_from_its_batch(photographs, held):
    root, paths, grades = photographs
    dataset = FundusDataset(root, paths, grades, WAY, cache=False)
    whole = list(batches(dataset, range(12), 4))
    if held:
        dataset.keep_on(torch.device("cpu"))
    (root / "6.png").write_bytes(b"")
    (root / "7.png").unlink()
    with pytest.raises(UnreadableImage, match=r"6\.png"):
        dataset.crop(6)
    dataset.crop(0)
    assert dataset.lost() == 1
    found = list(batches(dataset, range(12), 4))
    lost = [6] if held else [6, 7]  # what is held needs no file
    assert [path for path, _ in dataset.failed] == [f"{k}.png" for k in lost]
    assert torch.cat([index for _, _, index in found]).tolist() == [
        k for k in range(12) if k not in lost
    ]
    for one, other in zip((found[0], found[2]), (whole[0], whole[2]), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert len(found[1][0]) == len(found[1][1]) == 4 - len(lost)


def test_gathering_runs_ahead_of_the_consumer_but_no_further_than_asked(photographs):
    dataset = FundusDataset(*photographs, WAY)
    gathered = []
    crops = dataset.readable_crops

    def counted(indices):
        gathered.append(list(indices))
        return crops(indices)

    dataset.readable_crops = counted
    stream = batches(dataset, range(12), 1, prefetch=2)
    next(stream)
    time.sleep(0.3)
    assert 2 <= len(gathered) <= 4  # one given, two waiting, one in hand
    stream.close()


def test_crops_held_on_a_device_give_the_same_batches(photographs):
    data = FundusDataset(*photographs, WAY, cache=False)
    order = [3, 0, 11, 11, 1]
    plain = list(batches(data, order, 2))
    data.keep_on(torch.device("cpu"))
    for one, other in zip(plain, batches(data, order, 2), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_where_crops_are_is_said(photographs):
    data = FundusDataset(*photographs, WAY)
    listener = Listener()
    hold(data, choose("cpu", "fp32"), listener)
    assert data.resident is None
    assert listener.notes == ["crops: 12 of 24 px, 0.0 GB, mapped from disk"]
