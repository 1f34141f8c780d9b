"""Whatever lies among photographs keeps a row of its own, and all others are graded."""

import csv
import os
import socket
from pathlib import Path

import pytest
from PIL import Image

from dr_cli.photographs import decoding
from tests.builders import photographs
from tests.builders.program import dr

pytestmark = [
    pytest.mark.timeout(120),  # a pipe that is waited for would hang
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes"),
]


def lay_out(folder: Path, monkeypatch) -> dict[str, str]:
    """Odd things below a folder; the name of each, and what its error must say."""
    photographs.picture(1).save(folder / "good.png")
    jpeg = Image.new("RGB", (64, 64), "orange")
    jpeg.save(folder / "whole.jpg")
    (folder / "cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:400])
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("hello", encoding="utf-8")
    (folder / "folder.jpg").mkdir()
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    os.mkfifo(folder / "pipe.png")
    monkeypatch.chdir(folder)  # a socket's path has room for 100 letters
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("socket.png")
    frames = [Image.new("L", (8, 8), grey) for grey in (10, 200)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    (folder / "scan.jpg").write_bytes(bytes(128) + b"DICM" + bytes(40))
    Image.new("L", (100, 60)).save(folder / "large.png")
    return {
        "cut.jpg": "truncated",
        "empty.png": "empty",
        "text.jpg": "not an image",
        "folder.jpg": "a folder, not a photograph",
        "dangling.png": "a link to a file that is not there",
        "loop.png": "a link that leads back to itself",
        "pipe.png": "a pipe, a socket or a device",
        "socket.png": "a pipe, a socket or a device",
        "moving.gif": "an animation",
        "scan.jpg": "a DICOM file whose header is damaged",
        "large.png": "more pixels than is safe to decode (over 0.005 million)",
    }


@pytest.fixture
def _pixels_unlimited_after(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)


@pytest.mark.usefixtures("_pixels_unlimited_after")
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # pytest resets filters
def test_each_odd_thing_in_a_folder_keeps_its_row(world, tmp_path, monkeypatch):
    said = lay_out(tmp_path, monkeypatch)
    run = world / "runs" / "first"
    done = dr("predict", tmp_path, "--run", run, "--format", "csv", "--max-pixels", 5000)
    assert done.exit_code == 1, done.output
    rows = {Path(row["path"]).name: row for row in csv.DictReader(done.stdout.splitlines())}
    assert set(rows) == {*said, "good.png", "whole.jpg"}
    for name, text in said.items():
        assert text in rows[name]["error"], name
        assert name not in rows[name]["error"]  # the path has a column of its own
        assert rows[name]["predicted"] == ""
    assert rows["good.png"]["predicted"]
    assert "2 graded" in done.stderr
    assert "11 failed" in done.stderr


def test_each_odd_name_on_stdin_keeps_its_row(world, tmp_path):
    """A line end, a blank, a folder; bytes that are no UTF-8 are test_predict's."""
    photographs.picture(1).save(tmp_path / "a\nb.png")
    run, here = world / "runs" / "first", os.fsencode(tmp_path)
    names = [here + b"/a\nb.png", b" ", here, here + b"/gone.png"]
    ask = ("predict", "-0", "--run", run, "--format", "csv")
    done = dr(*ask, input=b"\0".join(names))
    assert done.exit_code == 1, done.output
    rows = list(csv.DictReader(done.stdout.splitlines(True)))
    assert [os.fsencode(row["path"]) for row in rows] == names
    assert [row["error"] for row in rows] == [
        "", "no such file", "a folder, not a photograph", "no such file",
    ]  # fmt: skip
    done = dr("predict", "-", "--run", run, "--format", "csv", input=b"a.png\0b.png\0\n")
    (row,) = csv.DictReader(done.stdout.splitlines(True))
    assert "NUL byte" in row["error"]
    assert done.exit_code == 1


def test_a_photograph_that_vanishes_keeps_its_row(tmp_path, world):
    from dr_cli.cli.inputs import list_photographs
    from dr_cli.cli.predict import predict
    from dr_cli.network.grader import Grader

    for name in ("a.png", "b.png", "c.png"):
        photographs.picture(1).save(tmp_path / name)

    def listed():
        for path in list_photographs([str(tmp_path)]):
            if path.endswith("b.png"):
                os.unlink(path)
            yield path

    records = list(predict(listed(), Grader.load(world / "runs" / "first", device="cpu")))
    assert [record["error"] for record in records] == [None, "no such file", None]


def test_what_is_passed_over_in_a_folder_is_said(world, tmp_path):
    for name in ("a.psd", "b.psd", "scan", "notes.txt", ".hidden", "._c.png"):
        (tmp_path / name).write_bytes(b"x")
    run = world / "runs" / "first"
    done = dr("predict", tmp_path, "--run", run)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "2 .psd" in done.stderr
    assert "1 without an extension" in done.stderr
    assert "no photograph in" in done.stderr
    photographs.picture(1).save(tmp_path / "good.png")
    done = dr("predict", tmp_path, "--run", run)
    assert done.exit_code == 0
    assert "2 .psd" in done.stderr


def test_linked_folders_are_followed_once(world, tmp_path):
    (tmp_path / "set" / "inner").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    photographs.picture(1).save(tmp_path / "elsewhere" / "a.png")
    photographs.picture(1).save(tmp_path / "set" / "inner" / "b.png")
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "inner" / "back").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "inner" / "itself").symlink_to(tmp_path / "set" / "inner")
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "elsewhere")
    done = dr("predict", tmp_path / "set", "--run", world / "runs" / "first", "--format", "csv")
    assert done.exit_code == 0, done.output
    found = [Path(row["path"]) for row in csv.DictReader(done.stdout.splitlines())]
    assert [path.relative_to(tmp_path / "set").as_posix() for path in found] == [
        "inner/b.png", "linked/a.png",
    ]  # fmt: skip


def test_a_folder_that_cannot_be_opened_is_told(world, tmp_path, monkeypatch):
    photographs.picture(1).save(tmp_path / "a.png")
    (tmp_path / "shut").mkdir()
    scandir = os.scandir

    def forbid(path):
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbid)
    done = dr("predict", tmp_path, "--run", world / "runs" / "first", "--format", "csv")
    assert done.exit_code == 1
    assert f"{tmp_path / 'shut'} (Permission denied): not looked into" in done.stderr
    assert len(done.stdout.splitlines()) == 2


def test_a_file_that_may_not_be_read_says_so(world, tmp_path, monkeypatch):
    photographs.picture(1).save(tmp_path / "a.png")

    def forbid(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(decoding.Image, "open", forbid)
    done = dr("predict", tmp_path, "--run", world / "runs" / "first", "--format", "csv")
    (row,) = csv.DictReader(done.stdout.splitlines())
    assert row["error"] == "may not be read (permission denied)"


@pytest.mark.skipif("AVIF" not in decoding.FORMATS, reason="this Pillow reads no AVIF")
def test_avif_is_read_where_pillow_reads_it(world, tmp_path):
    photographs.picture(1).save(tmp_path / "a.avif")
    done = dr("predict", tmp_path, "--run", world / "runs" / "first", "--format", "csv")
    assert done.exit_code == 0, done.output
