"""What is a photograph to be graded, and what is not."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from dr_cli.photographs import quality
from dr_cli.photographs.crop import Preprocessing, from_image, load_crop
from tests.builders.photographs import eye


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
        seen = from_image(image, Preprocessing(64)).judgement
        assert (seen.verdict, seen.gradable) == ("reject", False), f"{name}: {seen}"
        assert seen.reason, name


def drawn() -> Image.Image:
    """A disc with vessels."""
    image = Image.fromarray(eye(500, 500, radius=240))
    draw = ImageDraw.Draw(image)
    for k in range(8):
        draw.line([(60 * k, 20), (200 + 20 * k, 250), (70 * k, 480)], (120, 40, 10), width=5)
    return image


def judged(picture: Image.Image) -> float:
    return from_image(picture, Preprocessing(64)).judgement.quality


def test_blur_and_darkness_lower_quality():
    assert judged(drawn()) > 0.9
    assert judged(drawn().filter(ImageFilter.GaussianBlur(14))) < 0.5
    assert judged(drawn().point(lambda v: v * 0.2)) < 0.5


def test_nearly_all_real_photographs_are_gradable(shared):
    files = sorted((shared / "data" / "idrid").rglob("*.jpg"))[::12]
    files += sorted((shared / "data" / "aptos" / "train_images").glob("*.jpg"))[::60]
    crops = [load_crop(file, Preprocessing(96)) for file in files]
    assert len(crops) > 80
    assert sum(not crop.judgement.gradable for crop in crops) <= 0.01 * len(crops)


def half(picture: Image.Image) -> Image.Image:
    """Cut along a diagonal."""
    light = Image.linear_gradient("L").resize(picture.size).rotate(45)
    mask = light.point(lambda v: 255 * (v > 150))
    return Image.composite(picture, Image.new("RGB", picture.size), mask)


def test_a_changed_rule_has_a_new_version():
    """Qualities are kept beside the crops. Where this fails, raise `quality.VERSION`, then write
    the new values here."""
    found = [
        judged(drawn()),
        judged(drawn().filter(ImageFilter.GaussianBlur(6))),
        judged(drawn().point(lambda v: v * 0.25)),
        judged(drawn().point(lambda v: v * 6)),
        judged(half(drawn())),
    ]
    assert (quality.VERSION, found) == (1, pytest.approx([1, 0.74, 0.24, 0.47, 0.50], abs=0.03))
