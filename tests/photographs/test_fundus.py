"""One photograph: decoding, the field, the crop, quality."""

import io
import json
import os
import pickle
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from dr_cli.errors import DrError
from dr_cli.photographs import decoding
from dr_cli.photographs.crop import Preprocessing, auto_size, field_size, from_image, load_crop
from dr_cli.photographs.decoding import UnreadableImage
from dr_cli.photographs.field import find_field

BORDER = (2, 1, 1)


def eye(width=400, height=300, centre=None, radius=120, seed=0):
    """A disc on a border of (2, 1, 1) and noise, as a camera writes it; [H, W, 3] uint8."""
    rng = np.random.default_rng(seed)
    x0, y0 = centre or (width / 2, height / 2)
    y, x = np.mgrid[:height, :width] + 0.5
    inside = (x - x0) ** 2 + (y - y0) ** 2 <= radius**2
    shade = np.where(inside, 0.7 + 0.3 * (x - x0) / radius, 0)[..., None]
    picture = BORDER + shade * np.array([168, 84, 15]) + rng.normal(0, 2, (height, width, 3))
    return picture.clip(0, 255).astype(np.uint8)


def save(picture, path, **options):
    Image.fromarray(picture).save(path, **options)
    return path


def decode(path, at_least=None):
    return decoding.decode(path.parent, path.name, at_least)[0]


def field_of(pixels):
    return find_field(Image.fromarray(pixels)).box


def near(box, expected, tolerance=2):
    return all(abs(a - b) <= tolerance for a, b in zip(box, expected, strict=True))


# --- the field


@pytest.mark.parametrize(
    ("centre", "radius", "expected"),
    [
        ((200, 150), 120, (80, 30, 320, 270)),  # whole
        ((200, 150), 180, (20, 0, 380, 300)),  # cut at top and bottom
        ((200, 30), 120, (80, 0, 320, 150)),  # cut at the top alone
        ((330, 150), 120, (210, 30, 400, 270)),  # cut at the right
        ((100, 200), 60, (40, 140, 160, 260)),  # small and off the centre
    ],
)
def test_the_field_is_found_wherever_the_disc_is(centre, radius, expected):
    assert near(field_of(eye(centre=centre, radius=radius)), expected)


def test_a_notch_jpeg_noise_and_text_in_the_border_move_nothing():
    picture = Image.fromarray(eye(1200, 900, radius=400))
    draw = ImageDraw.Draw(picture)
    draw.polygon([(800, 100), (1000, 300), (1010, 90)], fill=BORDER)  # a notch in the rim
    draw.text((10, 10), "OD 45 2019-03-01", fill="white", font_size=28)
    draw.text((1020, 850), "ID 12345", fill="white", font_size=28)
    draw.rectangle((5, 400, 60, 500), fill="white")  # a label beside the field
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=40)
    with Image.open(file) as noisy:
        assert near(field_of(np.asarray(noisy)), (200, 50, 1000, 850), tolerance=8)


def test_a_dark_field_is_found_in_a_border_that_is_not_quite_black():
    picture = eye(radius=120) // 5 + np.uint8(10)  # field 30 and less above 10
    assert near(field_of(picture), (80, 30, 320, 270), tolerance=6)


@pytest.mark.parametrize("value", [0, 3, 120, 255])
def test_a_flat_picture_is_taken_whole(value):
    assert field_of(np.full((40, 70, 3), value, np.uint8)) == (0, 0, 70, 40)


def test_a_picture_without_a_border_is_taken_whole():
    inside = eye(400, 400, radius=600)
    assert field_of(inside) == (0, 0, 400, 400)


# --- the crop


@pytest.mark.parametrize(("width", "height"), [(400, 300), (300, 400), (401, 299), (900, 260)])
def test_a_circle_stays_a_circle_and_fills_the_crop(width, height):
    crop = from_image(Image.fromarray(eye(width, height, radius=120)), Preprocessing(size=96))
    mask = crop.pixels.max(axis=0) > 20
    columns, rows = mask.any(axis=0).sum(), mask.any(axis=1).sum()
    assert abs(int(columns) - int(rows)) <= 2
    assert columns >= 92
    assert abs(mask.mean() - np.pi / 4) < 0.03  # what a disc covers of its square


def test_a_cut_field_is_padded_with_black_not_stretched():
    crop = from_image(Image.fromarray(eye(400, 240, radius=200)), Preprocessing(size=100))
    lit = np.flatnonzero((crop.pixels.max(axis=0) > 8).any(axis=1))
    assert (lit[0], lit[-1]) == (20, 79)  # 240 of 400, in the middle
    assert crop.pixels[:, :20].max() == crop.pixels[:, 80:].max() == 0


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(1, 64),
    st.sampled_from(["L", "RGB", "RGBA", "LA", "P", "CMYK", "1", "I;16", "I", "F", "YCbCr"]),
    st.integers(0, 9),
)
def test_any_size_and_mode_gives_a_square_of_the_wanted_size(width, height, size, mode, seed):
    rng = np.random.default_rng(seed)
    if mode in ("I;16", "I", "F"):
        dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        image = Image.fromarray(rng.integers(0, 4096, (height, width)).astype(dtype))
    else:
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).convert(mode)
    crop = from_image(image, Preprocessing(size))
    assert crop.pixels.shape == (3, size, size)
    assert crop.pixels.dtype == np.uint8
    assert crop.original_size == (width, height)
    assert 0 <= crop.box.left < crop.box.right <= width
    assert 0 <= crop.box.top < crop.box.bottom <= height
    assert 0 <= crop.quality <= 1


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 3000), (20000, 2), (1, 2)])
def test_extreme_shapes_cost_no_more_memory_than_the_picture(width, height):
    image = Image.new("RGB", (width, height), (200, 90, 30))
    crop = from_image(image, Preprocessing(32))
    assert crop.pixels.max() == 200


def test_a_crop_that_needs_no_scaling_is_the_pictures_own_pixels():
    picture = eye(200, 200, radius=150)
    crop = from_image(Image.fromarray(picture), Preprocessing(200, field="whole"))
    assert np.array_equal(crop.pixels, picture.transpose(2, 0, 1))
    assert (crop.scale, crop.origin) == (1.0, (0.0, 0.0))


@pytest.mark.parametrize("scale", [1, 4, 8])
def test_points_of_the_crop_lead_back_to_the_original(tmp_path, scale):
    """A white dot is found in the crop, and its place there leads to where it was drawn."""
    width, height, dot = 500 * scale, 360 * scale, (300 * scale, 120 * scale)
    small = eye(500, 360, radius=160)
    picture = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    r = 8 * scale
    box = (dot[0] - r, dot[1] - r, dot[0] + r, dot[1] + r)
    ImageDraw.Draw(picture).ellipse(box, fill="white")
    picture.save(tmp_path / "eye.jpg", quality=95)
    crop = load_crop(tmp_path / "eye.jpg", Preprocessing(160))
    assert crop.original_size == (width, height)
    bright = crop.pixels[2] > 128  # blue is dark everywhere else
    y, x = (places.mean() + 0.5 for places in np.nonzero(bright))
    back = crop.to_original(x, y)
    assert np.hypot(back[0] - dot[0], back[1] - dot[1]) < crop.scale
    assert near(crop.box, [v * scale for v in (90, 20, 410, 340)], tolerance=3 * scale)


def test_small_detail_is_averaged_not_skipped():
    """Stripes finer than a crop pixel become their mean: the resizing is antialiased."""
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 200
    crop = from_image(Image.fromarray(stripes), Preprocessing(64, field="whole"))
    assert abs(crop.pixels.astype(int)[:, 4:-4, 4:-4] - 100).max() <= 3


# --- scaled decoding


def test_draft_decoding_leaves_enough_pixels_for_the_field(tmp_path):
    """A field of a quarter of the picture's width is decoded larger, not enlarged."""
    fine = eye(1600, 1600, centre=(800, 800), radius=200)
    fine[::2, :, 1] //= 2  # detail that only the full size holds
    path = save(fine, tmp_path / "small_field.jpg", quality=95, subsampling=0)
    draft = load_crop(path, Preprocessing(384))
    full = load_crop(path, Preprocessing(384, decoding="full"))
    assert np.array_equal(draft.pixels, full.pixels)


def test_draft_and_full_decoding_agree_closely(tmp_path):
    path = tmp_path / "large.jpg"
    Image.fromarray(eye(300, 220, radius=100)).resize((2400, 1760)).save(path, quality=92)
    draft = load_crop(path, Preprocessing(128))
    full = load_crop(path, Preprocessing(128, decoding="full"))
    difference = np.abs(draft.pixels.astype(int) - full.pixels)
    assert 0 < difference.mean() < 1.5
    assert decode(path, 200).size == (300, 220)
    assert decode(path, 221).size == (600, 440)
    assert decode(path).size == (2400, 1760)


def test_a_small_picture_is_enlarged_when_asked():
    crop = from_image(Image.fromarray(eye(60, 50, radius=20)), Preprocessing(200))
    assert crop.pixels.shape == (3, 200, 200)
    assert crop.scale < 1


# --- formats


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


# --- what cannot be read


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


def test_formats_that_start_other_programs_are_not_opened(tmp_path):
    Image.fromarray(eye()).save(tmp_path / "eye.eps")
    with pytest.raises(UnreadableImage, match="not an image"):
        decode(tmp_path / "eye.eps")


# --- the record


def test_preprocessing_survives_json_and_refuses_what_it_does_not_know():
    way = Preprocessing(320, decoding="full", field="whole")
    assert Preprocessing.from_dict(json.loads(json.dumps(way.to_dict()))) == way
    for wrong in ({"field": "runs-2"}, {"colour": "lab"}, {"resize": "nearest"}, {"size": 0}):
        with pytest.raises(DrError):
            Preprocessing.from_dict(way.to_dict() | wrong)
    with pytest.raises(DrError, match="no size"):
        Preprocessing.from_dict({"decoding": "draft"})
    with pytest.raises(DrError, match="newer dr"):
        Preprocessing.from_dict(way.to_dict() | {"field": "runs-2"})


@pytest.mark.parametrize(
    ("sizes", "size"),
    [
        ([], 224),
        ([(3400, 2848)] * 3, 512),
        ([(209, 224)] * 5, 224),
        ([(250, 255), (2000, 2000), (230, 230)], 224),
        ([(28, 28)], 32),
    ],
)
def test_auto_size_never_enlarges_most_and_stays_within_512(sizes, size):
    assert auto_size(sizes) == size


def test_field_size_is_measured_in_the_original(tmp_path):
    picture = Image.fromarray(eye(500, 360, radius=160)).resize((2000, 1440))
    picture.save(tmp_path / "eye.jpg")
    width, height = field_size(tmp_path / "eye.jpg")
    assert abs(width - 1280) <= 20
    assert abs(height - 1280) <= 20


# --- quality


def page() -> Image.Image:
    image = Image.new("RGB", (900, 900), "white")
    draw = ImageDraw.Draw(image)
    for y in range(20, 880, 24):
        draw.text(
            (20, y), "the quick brown fox jumps over the lazy dog " * 3, "black", font_size=16
        )
    return image


def no_photographs():
    rng = np.random.default_rng(0)
    ramp = np.tile(np.linspace(0, 255, 400), (400, 1)).astype(np.uint8)
    disc = eye(400, 400, radius=180)
    flat = np.where(disc.max(axis=2, keepdims=True) > 20, [168, 84, 15], 0)
    pictures = {
        "black": np.zeros((400, 400, 3)),
        "white": np.full((400, 400, 3), 255),
        "flat": np.full((400, 400, 3), (168, 84, 15)),
        "flat disc": flat,
        "noise": rng.integers(0, 256, (400, 400, 3)),
        "gradient": np.stack([ramp] * 3, axis=2),
    }
    for name, pixels in pictures.items():
        yield name, Image.fromarray(pixels.astype(np.uint8))
    yield "page", page()


def test_what_is_no_photograph_is_not_gradable():
    for name, image in no_photographs():
        crop = from_image(image, Preprocessing(64))
        assert not crop.gradable, f"{name}: {crop.quality}"


def test_blur_and_darkness_lower_quality():
    """A drawn fundus: a disc with vessels; worse when blurred, worse when dark."""
    image = Image.fromarray(eye(500, 500, radius=240))
    draw = ImageDraw.Draw(image)
    for k in range(8):
        draw.line([(60 * k, 20), (200 + 20 * k, 250), (70 * k, 480)], (120, 40, 10), width=5)

    def quality(picture):
        return from_image(picture, Preprocessing(64)).quality

    assert quality(image) > 0.9
    assert quality(image.filter(ImageFilter.GaussianBlur(14))) < 0.5
    assert quality(image.point(lambda v: v * 0.2)) < 0.5


def test_nearly_all_real_photographs_are_gradable(shared):
    files = sorted((shared / "data" / "idrid").rglob("*.jpg"))[::12]
    files += sorted((shared / "data" / "aptos" / "train_images").glob("*.jpg"))[::60]
    crops = [load_crop(file, Preprocessing(96)) for file in files]
    assert len(crops) > 80
    assert sum(not crop.gradable for crop in crops) <= 0.01 * len(crops)


def test_the_field_of_real_photographs_is_where_idrid_has_it(shared):
    """In IDRiD's originals the field is 3,400 of 4,288 pixels wide, cut at top and bottom."""
    files = sorted((shared / "data" / "idrid_full_resolution").glob("*.jpg"))
    for file in files:
        crop = load_crop(file, Preprocessing(224))
        assert crop.original_size == (4288, 2848)
        assert near(crop.box, (270, 0, 3680, 2848), tolerance=60), crop.box


def test_no_heavy_package_is_imported():
    code = "import dr_cli.photographs.crop, sys; print([m for m in sys.modules if m in " + (
        "{'torch', 'pandas', 'sklearn', 'matplotlib', 'scipy', 'torchvision'}])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
