"""White borders become black; what is no field on white stays as it is."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dr_cli.photographs.border import blacken
from dr_cli.photographs.crop import Preprocessing, load_crop
from dr_cli.sample import drawn_set


def on_white(size, place, paper=(255, 255, 255)):
    """A drawn eye of 256 pixels on paper, as JPEG; and where it is."""
    pixels = drawn_set.draw(0, 3, "left", 2, 256).pixels
    field = Image.fromarray((pixels != (2, 1, 1)).any(axis=2))
    picture, mask = Image.new("RGB", size, paper), Image.new("1", size)
    picture.paste(Image.fromarray(pixels), place, field)
    mask.paste(field, place)
    picture.save(data := io.BytesIO(), "JPEG", quality=70)
    return data.getvalue(), mask.getbbox()


@pytest.mark.parametrize(
    ("size", "place", "paper"),
    [
        ((300, 300), (22, 22), (255, 255, 255)),
        ((500, 280), (120, 12), (244, 250, 247)),
        ((320, 200), (32, -28), (255, 255, 255)),  # cut above and below
    ],
)
def test_a_field_on_white_is_found_and_no_longer_refused(size, place, paper):
    data, (left, top, right, bottom) = on_white(size, place, paper)
    crop = load_crop(data, Preprocessing(128))
    box = crop.box
    wide = min(right, box.right) - max(left, box.left)
    high = min(bottom, box.bottom) - max(top, box.top)
    areas = (right - left) * (bottom - top) + (box.right - box.left) * (box.bottom - box.top)
    assert wide * high / (areas - wide * high) > 0.95
    assert crop.judgement.gradable
    assert crop.pixels[:, 0, 0].max() < 30


def page():
    picture = Image.new("RGB", (400, 500), "white")
    draw = ImageDraw.Draw(picture)
    for y in range(20, 480, 18):
        draw.text((20, y), "what is written on a page of paper, and more of it", "black")
    return picture


def cross():
    picture = Image.new("RGB", (300, 300), "white")
    ImageDraw.Draw(picture).rectangle((130, 20, 170, 280), "red")
    ImageDraw.Draw(picture).rectangle((20, 130, 280, 170), "red")
    return picture


@pytest.mark.parametrize(
    "picture",
    [
        page(),
        cross(),
        Image.new("RGB", (200, 200), "white"),
        Image.new("RGB", (1, 1), "white"),
        Image.fromarray(drawn_set.draw(0, 3, "left", 2, 128).pixels),
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)),
    ],
)
def test_anything_else_stays_as_it_is(picture):
    assert blacken(picture) is picture
