"""Where the field of a photograph lies."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from dr_cli.photographs.crop import Preprocessing, load_crop
from dr_cli.photographs.field import find_field
from tests.builders.photographs import eye

BORDER = (2, 1, 1)


def field_of(pixels):
    found = find_field(Image.fromarray(pixels))
    assert found.box == found.rim  # sharp
    return found.rim


def near(box, expected, tolerance=2):
    return all(abs(a - b) <= tolerance for a, b in zip(box, expected, strict=True))


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


@pytest.mark.parametrize("light", [0.25, 1])
@pytest.mark.parametrize("sigma", [2, 4, 6])
@pytest.mark.parametrize(
    ("centre", "radius", "expected"),
    [
        ((200, 150), 120, (80, 30, 320, 270)),  # whole
        ((200, 150), 180, (20, 0, 380, 300)),  # cut at top and bottom
        ((330, 150), 120, (210, 30, 400, 270)),  # cut at the right
    ],
)
def test_a_blurred_rim_is_where_the_sharp_one_was(centre, radius, expected, sigma, light):
    sharp = Image.fromarray(eye(centre=centre, radius=radius)).point(lambda value: value * light)
    found = find_field(sharp.filter(ImageFilter.GaussianBlur(sigma)))
    assert near(found.rim, expected, tolerance=3)
    if (radius, sigma, light) == (120, 6, 1):
        assert not near(found.box, expected, tolerance=6)  # what the level alone finds


def test_the_glow_round_a_bright_field_is_not_the_field():
    rows, columns = np.mgrid[:300, :400]
    away = np.hypot(rows - 150, columns - 200)
    glow = 40 * np.exp(-np.maximum(away - 120, 0) / 30)
    pixels = np.where(away < 120, 240, glow)[..., None] * np.array([1, 0.6, 0.3])
    found = find_field(Image.fromarray(pixels.astype(np.uint8)))
    assert near(found.rim, (80, 30, 320, 270), tolerance=3)
    assert not near(found.box, (80, 30, 320, 270), tolerance=3)


def test_a_field_that_is_dim_towards_its_rim_is_not_drawn_in():
    rows, columns = np.mgrid[:300, :400]
    away = np.hypot(rows - 150, columns - 200)
    dim = np.clip(30 + 2.5 * (120 - away), 30, 200) + np.random.default_rng(0).normal(
        0, 2, (300, 400)
    )
    pixels = np.where(away < 120, dim, 2)[..., None] * np.array([1, 0.6, 0.3])
    assert near(field_of(pixels.clip(0, 255).astype(np.uint8)), (80, 30, 320, 270))


def test_a_picture_without_a_border_is_taken_whole():
    inside = eye(400, 400, radius=600)
    assert field_of(inside) == (0, 0, 400, 400)


def test_the_field_of_real_photographs_is_where_idrid_has_it(shared):
    """In IDRiD's originals the field is 3,400 of 4,288 pixels wide, cut at top and bottom."""
    files = sorted((shared / "data" / "idrid_full_resolution").glob("*.jpg"))
    for file in files:
        crop = load_crop(file, Preprocessing(224))
        assert crop.original_size == (4288, 2848)
        assert near(crop.box, (270, 0, 3680, 2848), tolerance=60), crop.box
