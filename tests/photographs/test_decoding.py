"""The door to a photograph: formats, orientation, and what cannot be read."""

import os
import pickle
import struct
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dr_cli.photographs import decoding
from dr_cli.photographs.crop import Preprocessing, load_crop
from dr_cli.photographs.decoding import UnreadableImage
from tests.builders.photographs import eye


def save(picture, path, **options):
    Image.fromarray(picture).save(path, **options)
    return path


def decode(path, at_least=None):
    return decoding.decode(path.parent, path.name, at_least).picture


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_exif_orientation_is_honoured(tmp_path, orientation, suffix):
    """Each orientation is the inverse of a turn; a picture stored turned comes out upright."""
    upright = Image.fromarray(eye(600, 400, centre=(200, 150), radius=120))
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that stores it so
    stored = upright.transpose(Image.Transpose(turns[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"eye{suffix}"
    stored.save(path, exif=exif)
    back = decode(path, 200)
    assert back.size in ((600, 400), (300, 200))
    same = np.asarray(back.resize((60, 40))).astype(int) - np.asarray(upright.resize((60, 40)))
    assert np.abs(same).mean() < 3
    assert load_crop(path, Preprocessing(64)).original_size == (600, 400)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_broken_exif_block_does_not_lose_the_picture(tmp_path):
    path = save(eye(), tmp_path / "eye.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    assert decode(path).size == (400, 300)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_grey_of_any_depth_fills_8_bits(tmp_path, bits):
    grey = np.linspace(0, 2**bits - 1, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    pixels = np.asarray(decode(tmp_path / "deep.png"))
    assert pixels.shape == (64, 64, 3)
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert np.abs(pixels[..., 0] - grey * (255 / (2**bits - 1))).max() <= 1


def test_float_pictures_in_0_to_1_fill_8_bits(tmp_path):
    Image.fromarray(np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)).save(
        tmp_path / "unit.tif"
    )
    pixels = np.asarray(decode(tmp_path / "unit.tif"))
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_transparent_parts_are_black(tmp_path):
    rgba = np.full((20, 30, 4), (200, 90, 30, 0), np.uint8)
    rgba[5:15, 10:20, 3] = 255
    for mode in ("RGBA", "P"):
        Image.fromarray(rgba).convert(mode).save(tmp_path / f"{mode}.png")
        pixels = np.asarray(decode(tmp_path / f"{mode}.png"))
        assert pixels[0, 0].max() == 0, mode
        assert pixels[10, 15].tolist() == [200, 90, 30], mode


def test_a_cmyk_jpeg_has_its_colours(tmp_path):
    Image.new("RGB", (64, 64), (200, 90, 30)).convert("CMYK").save(tmp_path / "press.jpg")
    pixels = np.asarray(decode(tmp_path / "press.jpg")).astype(int)
    assert np.abs(pixels - (200, 90, 30)).max() <= 6


def tiff(pixels, path):
    """An uncompressed TIFF of [H, W, 3] uint16, which Pillow reads and cannot write."""
    height, width, _ = pixels.shape
    fields = [  # tag, type (3: two bytes, 4: four), count, value
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 122), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 1, 128), (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, 6 * width * height),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *field) for field in fields)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(fields)) + entries + bytes(4)
    head += struct.pack("<HHH", 16, 16, 16)  # at 122
    path.write_bytes(head + pixels.astype("<u2").tobytes())
    return path


def test_colours_of_16_bits_fill_8(tmp_path):
    path = tiff(eye(60, 50, radius=20).astype(np.uint16) * 257, tmp_path / "deep.tif")
    assert (np.asarray(decode(path)) == eye(60, 50, radius=20)).all()


@pytest.mark.parametrize(
    ("suffix", "form", "note"),
    [
        (".tif", "TIFF", "the first of several pages"),
        (".jpg", "MPO", "the first of several pictures"),  # as phones write them
        (".heic", "HEIF", "the first of several pictures"),
    ],
)
def test_of_several_pages_the_first_and_it_is_said(tmp_path, suffix, form, note):
    if form == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    path, more = tmp_path / f"eye{suffix}", [Image.new("RGB", (64, 48), "blue")]
    one = Image.new("RGB", (64, 48), "red")
    one.save(path, form, save_all=True, append_images=more)
    found = decoding.decode(tmp_path, path.name)
    assert found.note == note
    red, green, blue = found.picture.getpixel((9, 9))
    assert (red > 200, green < 50, blue < 50) == (True, True, True)
    one.save(path, form)
    assert decoding.decode(tmp_path, path.name).note == ""


def test_heic_is_turned_by_its_own_mark_and_not_by_exif_again(tmp_path):
    """libheif has turned the picture when Pillow sees it; the EXIF mark, which phones write, too,
    does not count there."""
    pytest.importorskip("pillow_heif").register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(eye(120, 80, radius=30))
    picture.save(tmp_path / "eye.heic", exif=exif)
    back = decode(tmp_path / "eye.heic")
    assert back.size == (120, 80)
    assert np.abs(np.asarray(back).astype(int) - np.asarray(picture)).mean() < 4


def test_without_pillow_heif_the_row_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "eye.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(200))
    with pytest.raises(UnreadableImage, match=r"pip install 'dr-cli\[heic\]'"):
        decode(tmp_path / "eye.heic")


def unreadable(folder: Path):
    """Path and what the reason must say, one of each kind."""
    whole = save(eye(), folder / "whole.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    yield folder / "cut.jpg", "truncated"
    png = save(eye(), folder / "whole.png").read_bytes()
    (folder / "cut.png").write_bytes(png[: len(png) // 2])
    yield folder / "cut.png", "truncated"
    (folder / "start.jpg").write_bytes(whole[:10])
    yield folder / "start.jpg", "truncated"
    (folder / "text.jpg").write_text("hello", encoding="utf-8")
    yield folder / "text.jpg", "not an image"
    (folder / "empty.png").touch()
    yield folder / "empty.png", "empty"
    (folder / "scan.dcm").write_bytes(bytes(128) + b"DICM" + bytes(40))
    yield folder / "scan.dcm", "DICOM"
    (folder / "folder.jpg").mkdir()
    yield folder / "folder.jpg", "folder"
    yield folder / "absent.jpg", "no such file"
    if os.name != "nt":  # where it is no such file
        yield folder / f"{'x' * 300}.jpg", "too long"
        yield Path("/".join(["x" * 200] * 25)) / "a.jpg", "too long"
    # A PNG header that promises 65,500 x 65,500 pixels.
    bomb = bytearray(png)
    bomb[16:24] = (65500).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    (folder / "bomb.png").write_bytes(bomb)
    yield folder / "bomb.png", "more pixels"


def test_each_unreadable_file_is_refused_with_its_reason(tmp_path):
    for path, said in unreadable(tmp_path):
        with pytest.raises(UnreadableImage, match=said) as caught:
            load_crop(path, Preprocessing(32))
        assert str(caught.value) == f"{path}: {caught.value.reason}"
        assert "\n" not in str(caught.value)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.skipif(
    sys.platform == "win32" or getattr(os, "geteuid", lambda: 1)() == 0,
    reason="needs a user whom permissions bind",
)
def test_a_forbidden_file_says_so(tmp_path):
    path = save(eye(), tmp_path / "mine.jpg")
    path.chmod(0)
    with pytest.raises(UnreadableImage, match="permission"):
        load_crop(path, Preprocessing(32))


def test_a_disk_that_does_not_answer_is_given_up(tmp_path, monkeypatch):
    """The read hangs, as on a network share whose server is gone."""
    save(eye(), tmp_path / "a.png")
    answered = threading.Event()
    monkeypatch.setattr(os, "stat", lambda *args, **kwargs: answered.wait(30))
    monkeypatch.setattr(decoding, "_patience", [0.2])
    with pytest.raises(UnreadableImage, match="not read within"):
        decode(tmp_path / "a.png")
    answered.set()


def test_a_file_that_is_written_meanwhile_is_refused(tmp_path, monkeypatch):
    path, load = save(eye(), tmp_path / "a.png"), Image.Image.load

    def grow(image):
        with path.open("ab") as file:
            file.write(b"more")
        return load(image)

    monkeypatch.setattr(decoding.Image.Image, "load", grow)
    with pytest.raises(UnreadableImage, match="changed while it was read"):
        decode(path)


def test_formats_that_start_other_programs_are_not_opened(tmp_path):
    Image.fromarray(eye()).save(tmp_path / "eye.eps")
    with pytest.raises(UnreadableImage, match="not an image"):
        decode(tmp_path / "eye.eps")


# --- pictures within an .npz


def pack(path, *greys):
    stack = np.stack([np.full((20, 30), grey, np.uint8) for grey in greys])
    np.savez(path, train_images=stack, val_images=stack[:1])


def test_a_picture_within_a_file_comes_through_the_same_door(tmp_path):
    pack(tmp_path / "set.npz", 40, 90)
    opened = decoding.decode(tmp_path, "set.npz#train/1", 224)
    picture = opened.picture
    assert (picture.mode, picture.size, opened.size) == ("RGB", (30, 20), (30, 20))
    assert picture.getpixel((3, 3)) == (90, 90, 90)
    assert load_crop(tmp_path / "set.npz#val/0", Preprocessing(16)).pixels.max() == 40


def test_a_changed_npz_file_is_read_anew(tmp_path):
    pack(tmp_path / "set.npz", 40)
    decoding.decode(tmp_path, "set.npz#train/0")
    pack(tmp_path / "set.npz", 90)
    os.utime(tmp_path / "set.npz", ns=(1, 1))
    assert decoding.decode(tmp_path, "set.npz#train/0").picture.getpixel((3, 3)) == (90, 90, 90)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("set.npz#train/2", "no photograph 'train/2'; train has 2"),
        ("set.npz#test/0", "'test_images' cannot be read"),
        ("absent.npz#train/0", "no such file"),
        ("broken.npz#train/0", "cannot be read"),
        ("real.npz#train/0", "not pictures"),
        ("five.npz#train/0", "cannot be decoded"),
        ("set.npz#train/x", "no such file"),
        ("set.npz", "not an image"),
    ],
)
def test_what_is_not_within_a_file_is_refused_with_its_reason(tmp_path, path, said):
    pack(tmp_path / "set.npz", 40, 90)
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    np.savez(tmp_path / "real.npz", train_images=np.zeros((2, 8, 8)))
    np.savez(tmp_path / "five.npz", train_images=np.zeros((2, 8, 8, 5), np.uint8))
    with pytest.raises(UnreadableImage, match=said):
        decoding.decode(tmp_path, path)
