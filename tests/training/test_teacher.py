"""`--start drawn`: made once, recorded, resumed, and never called drawn once photographs taught."""

import dataclasses
import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch

from dr_cli import device, interrupts, runs
from dr_cli.dataset.drawn_stream import KINDS, Stream, batches
from dr_cli.errors import DrError
from dr_cli.events import NOTHING
from dr_cli.network.grader import Grader
from dr_cli.photographs.crop import Preprocessing
from dr_cli.sample import drawn_set
from dr_cli.sample.lesions import LESIONS
from dr_cli.training import teacher
from tests.builders import photographs
from tests.builders.listener import Listener
from tests.builders.program import dr

SMALL = teacher.Recipe(eyes=24, batch_size=8, judged=8)
WAY = Preprocessing(size=64)


# ------------------------------------------------------------------ the stream


def test_an_eye_of_the_stream_depends_on_its_number_alone():
    stream = Stream(3, WAY)
    whole = list(batches(stream, 12, 5, 1))
    assert [len(batch.grades) for batch in whole] == [5, 5, 2]
    assert whole[0].pixels.shape == (5, 3, 64, 64)
    assert whole[0].pixels.dtype == torch.uint8
    assert whole[0].maps.shape == (5, KINDS, 4, 4)
    later = next(iter(batches(stream, 2, 2, 1, start=10)))
    assert torch.equal(later.pixels, whole[2].pixels)
    assert torch.equal(later.maps, whole[2].maps)
    apart = next(iter(batches(stream, 12, 12, 2)))
    assert torch.equal(apart.pixels, torch.cat([batch.pixels for batch in whole]))
    pixels = torch.cat([batch.pixels for batch in whole]).flatten(1)
    assert len(torch.unique(pixels, dim=0)) == 12
    assert not np.array_equal(stream.eye(0)[0], Stream(4, WAY).eye(0)[0])


def test_the_maps_lie_where_the_lesions_are(monkeypatch):
    """A field off the middle, with one white lesion; turned alike by whatever chance."""
    y, x = np.mgrid[:147, :147]
    pixels = np.where(np.hypot(x - 80, y - 70) < 60, 90, 0).astype(np.uint8)
    lesion = (abs(x - 60) < 8) & (abs(y - 100) < 8)
    pixels[lesion] = 250
    drawing = drawn_set.draw(0, 1, "left", 2, 147)
    masks = drawing.masks | {"haemorrhage": lesion}
    fake = dataclasses.replace(drawing, pixels=np.stack([pixels] * 3, 2), masks=masks)
    monkeypatch.setattr(drawn_set, "draw", lambda *_: fake)
    seen = set()
    for number in range(48):
        crop, _, maps = Stream(0, Preprocessing(size=128)).eye(number)
        cells = (crop[1] > 170).reshape(8, 16, 8, 16).mean((1, 3))
        assert np.abs(cells - maps[LESIONS.index("haemorrhage")] / 255).max() < 0.15
        assert cells.max() > 0.4
        seen.add(int(cells.argmax()))
    assert len(seen) == 8


# ------------------------------------------------------------------ the start


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache with a start of a ResNet18 for crops of 64 px in it."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DR_CACHE", str(folder))
        seen = Listener()
        made = teacher.ensure(
            "resnet18", WAY, device.choose("cpu"), SMALL, workers=1, observer=seen
        )
        assert seen.steps[-1] == (teacher.TEACHING, 24, 24)
    return folder, made


def test_a_start_is_a_whole_grader_that_says_what_it_saw(cache):
    _, start = cache
    grader = Grader.load(start.weights)
    assert grader.trained_on == "drawn eyes"
    record = json.loads((start.folder / teacher.RECORD).read_text())
    assert record["recipe"] == dataclasses.asdict(SMALL)
    assert record["figures"]["eyes"] == 8
    assert record["seconds"] > 0
    assert "24 drawn eyes" in teacher.tell(start)
    tensors, _ = runs.read_model(start.weights)
    assert not any(key.startswith("head") for key in tensors)


def test_it_is_made_once_and_anew_for_another_way(cache, monkeypatch):
    folder, start = cache
    monkeypatch.setenv("DR_CACHE", str(folder))
    monkeypatch.setattr(teacher, "Lesson", lambda *_, **__: pytest.fail("taught again"))
    again = teacher.ensure("resnet18", WAY, device.choose("cpu"), SMALL)
    assert again == start
    for way, recipe in (
        (Preprocessing(size=96), SMALL),
        (WAY, dataclasses.replace(SMALL, seed=1)),
    ):
        with pytest.raises(pytest.fail.Exception, match="taught again"):
            teacher.ensure("resnet18", way, device.choose("cpu"), recipe)
    whole = [file.parent for file in (folder / "start").rglob(teacher.RECORD)]
    assert whole == [start.folder]


def make_again(observer=NOTHING):
    return teacher.ensure(
        "resnet18", WAY, device.choose("cpu"), SMALL, workers=1, observer=observer
    )


def test_broken_off_it_is_gone_on_with_to_the_same_bits(cache, tmp_path, monkeypatch):
    _, start = cache
    monkeypatch.setenv("DR_CACHE", str(tmp_path))
    monkeypatch.setattr(interrupts, "_asked", None)

    def stop(what, done, total):
        if done == 16:
            interrupts.hear(signal.SIGINT)

    stopped = Listener(progress=stop)
    with pytest.raises(interrupts.Interrupted):
        make_again(stopped)
    assert stopped.steps[-1] == (teacher.TEACHING, 16, 24)
    monkeypatch.setattr(interrupts, "_asked", None)
    later = Listener()
    again = make_again(later)
    assert later.notes[-1] == "start: gone on with after 16 drawn eyes"
    assert later.steps == [(teacher.TEACHING, 24, 24)]
    (tensors, _), (whole, _) = (runs.read_model(one.weights) for one in (again, start))
    assert all(torch.equal(tensors[name], value) for name, value in whole.items())
    assert not (again.folder / teacher.UNFINISHED).exists()


def test_what_no_start_left_is_named(cache, tmp_path, monkeypatch):
    _, start = cache
    monkeypatch.setenv("DR_CACHE", str(tmp_path))
    file = tmp_path / "start" / start.folder.name / teacher.UNFINISHED
    file.parent.mkdir(parents=True)
    torch.save({"pupil": {}}, file)
    with pytest.raises(DrError, match=r"unfinished\.pt is no unfinished start: remove it"):
        make_again()


@pytest.mark.parametrize(
    ("name", "left"),
    [(teacher.RECORD, 0), (teacher.RECORD, 40), (runs.MODEL, 1000), (runs.MODEL, None)],
)
def test_a_start_that_is_damaged_in_the_cache_is_named(cache, tmp_path, monkeypatch, name, left):
    """left: bytes of the file; None where it is gone."""
    _, start = cache
    monkeypatch.setenv("DR_CACHE", str(tmp_path))
    folder = shutil.copytree(start.folder, tmp_path / "start" / start.folder.name)
    if left is None:
        (folder / name).unlink()
    else:
        os.truncate(folder / name, left)
    with pytest.raises(DrError, match=f"{folder} is damaged: remove that folder"):
        make_again()


def test_a_run_on_photographs_starts_from_it_and_is_not_called_drawn(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("DR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DR_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(teacher, "RECIPE", SMALL)
    data = photographs.course(tmp_path / "clinic", train=20, test=10)
    how = ("--epochs", 1, "--size", 64, "--start", "drawn", "--workers", 1)
    done = dr("train", data, *how)
    assert done.exit_code == 0, done.output
    run = runs.Run(tmp_path / "runs" / "resnet18-drawn")
    assert "start: taught with 24 drawn eyes" in run["log.txt"].read_text(encoding="utf-8")
    made = run.config()
    assert made.drawn_start is not None
    assert made.drawn_start["recipe"]["eyes"] == 24
    assert runs.read_record(run.folder).trained_on.name == "clinic"
    assert not runs.read_record(run.folder).trained_on.drawn
    told = json.loads(dr("report", run.folder, "--format", "json").stdout)["runs"][0]
    assert told["start"] == "drawn eyes"
    assert "--start drawn" in told["command"]
    # What is resumed has its weights: the start is not needed again.
    monkeypatch.setattr(teacher, "ensure", lambda *_, **__: pytest.fail("taught again"))
    done = dr("train", "--resume", run.folder, "--epochs", 2)
    assert done.exit_code == 0, done.output
    assert run.config().drawn_start == made.drawn_start


@pytest.mark.parametrize("other", [("--pretrained",), ("--weights", "x.safetensors")])
def test_two_starts_are_refused(tmp_path, other):
    done = dr("train", tmp_path, "--start", "drawn", *other)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"--start drawn and {other[0]} both name a start" in done.stderr
