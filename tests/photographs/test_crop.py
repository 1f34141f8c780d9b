"""A photograph as a network sees it: its square, its record, its size."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from dr_cli.errors import DrError
from dr_cli.photographs import decoding
from dr_cli.photographs.crop import (
    Preprocessing,
    choose_size,
    from_image,
    load_crop,
    measure_field,
)
from tests.builders.photographs import eye


def save(picture, path, **options):
    Image.fromarray(picture).save(path, **options)
    return path


def near(box, expected, tolerance=2):
    return all(abs(a - b) <= tolerance for a, b in zip(box, expected, strict=True))


def decode(path, at_least=None):
    return decoding.decode(path.parent, path.name, at_least).picture


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
@example(1, 3, 1, "I;16", 2)  # a field of two pixels: no rim to look for
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
    assert 0 <= crop.judgement.quality <= 1


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


def test_preprocessing_survives_json_and_refuses_what_it_does_not_know():
    way = Preprocessing(320, decoding="full", field="whole")
    assert Preprocessing.from_dict(json.loads(json.dumps(way.to_dict()))) == way
    for wrong in ({"field": "runs-9"}, {"colour": "lab"}, {"resize": "nearest"}, {"size": 0}):
        with pytest.raises(DrError):
            Preprocessing.from_dict(way.to_dict() | wrong)
    with pytest.raises(DrError, match="no size"):
        Preprocessing.from_dict({"decoding": "draft"})
    with pytest.raises(DrError, match="newer dr"):
        Preprocessing.from_dict(way.to_dict() | {"field": "runs-9"})


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
    assert choose_size(sizes) == size


def test_field_size_is_measured_in_the_original(tmp_path):
    picture = Image.fromarray(eye(500, 360, radius=160)).resize((2000, 1440))
    picture.save(tmp_path / "eye.jpg")
    width, height = measure_field(tmp_path / "eye.jpg")
    assert abs(width - 1280) <= 20
    assert abs(height - 1280) <= 20


def test_no_heavy_package_is_imported():
    code = "import dr_cli.photographs.crop, sys; print([m for m in sys.modules if m in " + (
        "{'torch', 'pandas', 'sklearn', 'matplotlib', 'scipy', 'torchvision'}])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("size", [64, 300, 600])
def test_what_is_shown_is_the_same_square_and_nothing_is_decoded_again(tmp_path, size):
    """Of 1600x1200 a draft of 800x600 suffices for 300 pixels, of which the field has 430."""
    path = save(eye(1600, 1200, radius=430), tmp_path / "eye.jpg", quality=95)
    crop = load_crop(path, Preprocessing(size), show=400)
    plain = load_crop(path, Preprocessing(size))
    assert (crop.pixels == plain.pixels).all()
    assert plain.shown is None
    side = crop.shown.shape[1]
    assert side == {64: 214, 300: 400, 600: 600}[size]
    wanted = load_crop(path, Preprocessing(side)).pixels
    assert np.abs(crop.shown.astype(float) - wanted).mean() < 3
    with Image.open(path) as image:
        assert from_image(image, Preprocessing(64), 400).shown.shape == (3, 400, 400)


def test_weights_of_before_get_the_crops_that_they_learned_from():
    """The box with its blur; what a record without a field says, is that."""
    blurred = Image.fromarray(eye(400, 300, radius=120)).filter(ImageFilter.GaussianBlur(5))
    new, old = (from_image(blurred, Preprocessing(64, field=name)) for name in ("runs-2", "runs-1"))
    assert old.box.side > new.box.side + 6
    assert (new.judgement, new.original_size) == (old.judgement, old.original_size)
    assert Preprocessing.from_dict({"size": 64}) == Preprocessing(64, field="runs-1")
    assert Preprocessing(64).recipe() != Preprocessing(64, field="runs-1").recipe()
    assert Preprocessing(64).field == "runs-2"
