"""Photographs of the fundus, and what spoils them: picture, severity, stream -> picture.

Severity 1 is where the grade is lost, as seen on contact sheets; 0.1 to 0.4 leaves it legible.
Imported by `quality.py`, which reports on the gate, and by `fit_quality.py`, which makes it.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from dr_cli.photographs.decoding import EXTENSIONS, decode
from dr_cli.photographs.field import find_field
from dr_cli.sample import drawn_set

Rng = np.random.Generator
Picture = Image.Image
Pixels = NDArray[np.float32]


def list_half(folder: Path, half: int) -> list[Path]:
    """Every second photograph below a folder, in sorted order: 0 was fitted to, 1 is reported."""
    found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in EXTENSIONS)
    return found[half::2]


def load(file: Path, rng: Rng) -> Picture:
    """At a side of 224 to 640 pixels, as far as the file has them."""
    picture = decode(file.parent, file.name, 640).picture
    picture.thumbnail((int(rng.integers(224, 641)),) * 2)
    return picture


def draw_eye(number: int, rng: Rng) -> Picture:
    """Of the built-in sample set's kind."""
    side = drawn_set.EYES[number % 2]
    seed, size = int(rng.integers(1000)), int(rng.integers(96, 400))
    drawing = drawn_set.draw(seed, number, side, number % 5, size=size)
    return Image.fromarray(drawing.pixels)


# --- what spoils them -----------------------------------------------------------------------------


# Severity 1 is where the grade is lost, as seen on contact sheets; 0.1 to 0.4 leaves it legible.


def blur(picture: Picture, severity: float, rng: Rng) -> Picture:
    """Out of focus: at 1 a standard deviation of 1.4% of the field, wider than a large vessel."""
    return picture.filter(ImageFilter.GaussianBlur(0.014 * severity * _side(picture)))


def motion(picture: Picture, severity: float, rng: Rng) -> Picture:
    """The eye moved while it was open: a smear of 7% of the field."""
    count, angle = 13, rng.uniform(0, np.pi)
    reach = 0.035 * severity * _side(picture)
    total = np.zeros((picture.height, picture.width, 3), np.float32)
    for at in np.linspace(-reach, reach, count):
        shift = (1, 0, at * np.cos(angle), 0, 1, at * np.sin(angle))
        how = Image.Transform.AFFINE, shift, Image.Resampling.BILINEAR
        total += np.asarray(picture.transform(picture.size, *how))
    return back(total / count)


def dark(picture: Picture, severity: float, rng: Rng) -> Picture:
    """Hardly any light: a field of typical brightness 20 of 255 at 1, with the camera's noise."""
    pixels = to_array(picture)
    gain = (20 / _typical(pixels)) ** min(1.5, severity)
    grains = rng.normal(0, 2 * severity, pixels.shape) * _seen(pixels)
    return back(pixels * min(1.0, gain) + grains)


def bright(picture: Picture, severity: float, rng: Rng) -> Picture:
    """Too much light: at 1 the typical pixel's green is white."""
    pixels = to_array(picture)
    green = pixels[..., 1][_seen(pixels)[..., 0]]
    gain = (330 / max(20.0, float(np.median(green)) if green.size else 255.0)) ** severity
    return back(pixels * max(1.0, gain))


def haze(picture: Picture, severity: float, rng: Rng) -> Picture:
    """A cloudy lens: contrast falls to 9% at 1, under a smooth veil of the field's own light."""
    pixels, seen = to_array(picture), _seen(to_array(picture))
    veil = to_array(picture.filter(ImageFilter.GaussianBlur(0.12 * _side(picture))))
    grey = rng.uniform(60, 190) * np.array([1.0, rng.uniform(0.7, 1), rng.uniform(0.4, 0.9)])
    veil = 0.7 * veil + 0.3 * grey
    keep = 0.09 ** min(1.5, severity)
    soft = to_array(picture.filter(ImageFilter.GaussianBlur(0.004 * severity * _side(picture))))
    return back(np.where(seen, keep * soft + (1 - keep) * veil, pixels))


def noise(picture: Picture, severity: float, rng: Rng) -> Picture:
    """A sensor's noise: at 1 a deviation of 60 of 255 a pixel of 224."""
    pixels = to_array(picture)
    size = (224, 224, 3)
    grains = Image.fromarray(rng.normal(128, 60 * severity, size).clip(0, 255).astype(np.uint8))
    grown = to_array(grains.resize(picture.size, Image.Resampling.BICUBIC)) - 128
    return back(pixels + grown * _seen(pixels))


def uneven(picture: Picture, severity: float, rng: Rng) -> Picture:
    """A pupil too small: most of the field in the dark at 1."""
    pixels = to_array(picture)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1 : 1 : picture.height * 1j, -1 : 1 : picture.width * 1j]
    along = np.cos(angle) * x + np.sin(angle) * y
    if rng.random() < 0.4:
        along = 0.9 - 1.6 * np.hypot(x - 0.3 * np.cos(angle), y - 0.3 * np.sin(angle))
    light = 1 / (1 + np.exp(-(along - 0.9 * severity + 0.6) / 0.15))
    least = 0.04 + 0.5 * max(0.0, 1 - severity)
    return back(pixels * (least + (1 - least) * light)[..., None])


def cut(picture: Picture, severity: float, rng: Rng) -> Picture:
    """Part of the field black behind a lid or a misplaced camera: over half of it at 1."""
    box = find_field(picture).box
    share = 0.55 * severity if severity < 1 else rng.uniform(0.52, 0.72)
    draw = ImageDraw.Draw(picture := picture.copy())
    left, top, right, bottom = box
    wide, high = (right - left) * share, (bottom - top) * share
    sides = ((left, top, left + wide, bottom), (right - wide, top, right, bottom),
             (left, top, right, top + high), (left, bottom - high, right, bottom))  # fmt: skip
    if rng.random() < 0.6:
        draw.rectangle(sides[rng.integers(4)], (0, 0, 0))
        return picture
    lid, at = Image.new("L", picture.size), rng.uniform(0, 2 * np.pi)
    middle, reach = np.array([(left + right) / 2, (top + bottom) / 2]), box.side
    away = middle + (1.5 - share) * reach * np.array([np.cos(at), np.sin(at)])
    ImageDraw.Draw(lid).ellipse((*(away - reach), *(away + reach)), 255)
    lid = lid.filter(ImageFilter.GaussianBlur(0.01 * reach))
    return Image.composite(Image.new("RGB", picture.size), picture, lid)


def half_black(picture: Picture, severity: float, rng: Rng) -> Picture:
    """Half of the picture black, as where a file was cut short."""
    draw, (width, height) = ImageDraw.Draw(picture := picture.copy()), picture.size
    halves = ((0, 0, width // 2, height), (width // 2, 0, width, height),
              (0, 0, width, height // 2), (0, height // 2, width, height))  # fmt: skip
    draw.rectangle(halves[rng.integers(4)], (0, 0, 0) if rng.random() < 0.8 else (128, 128, 128))
    return picture


def jpeg(picture: Picture, severity: float, rng: Rng) -> Picture:
    """Compressed at 224 pixels to where its blocks are all that is seen: quality 2 to 6."""
    small = picture.copy()
    small.thumbnail((224, 224))
    worst = round(4 / severity) if severity < 1 else int(rng.integers(1, 5))
    small.save(data := io.BytesIO(), "JPEG", quality=worst)
    return Image.open(data).convert("RGB").resize(picture.size, Image.Resampling.BICUBIC)


def _hue(picture: Picture, turn: int) -> Picture:
    hue, saturation, value = picture.convert("HSV").split()
    turned = hue.point(lambda v: (v + turn) % 256)
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def colours(picture: Picture, severity: float, rng: Rng) -> Picture:
    """What no eye looks like: channels exchanged, grey as an angiogram, inverted, hues turned."""
    red, green, blue = picture.split()
    grey = [ImageOps.autocontrast(green), picture.convert("L"), ImageOps.invert(green), red]
    ways: tuple[Callable[[], Picture], ...] = (
        lambda: Image.merge("RGB", (blue, green, red)),
        lambda: Image.merge("RGB", (green, red, blue)),
        lambda: Image.merge("RGB", (blue, red, green)),
        lambda: Image.merge("RGB", (green, blue, red)),
        lambda: grey[rng.integers(4)].convert("RGB"),
        lambda: ImageOps.invert(picture),
        lambda: _hue(picture, int(rng.integers(60, 205))),
    )
    return ways[rng.choice(7, p=(0.3, 0.1, 0.1, 0.1, 0.2, 0.1, 0.1))]()


DEGRADATIONS: dict[str, tuple[Callable[[Picture, float, Rng], Picture], str]] = {
    "blur": (blur, "blurred"),
    "motion": (motion, "blurred"),
    "darkness": (dark, "too dark"),
    "unevenness": (uneven, "too dark"),
    "overexposure": (bright, "too bright"),
    "haze": (haze, "too little contrast"),
    "noise": (noise, "noisy or compressed"),
    "JPEG": (jpeg, "noisy or compressed"),
    "cut field": (cut, "too little of the field"),
    "half black": (half_black, "too little of the field"),
    "colours": (colours, "not a fundus photograph"),
}
"""Each with the reason it should be refused for."""


def _side(picture: Picture) -> int:
    return find_field(picture).box.side


def to_array(picture: Picture) -> Pixels:
    return np.asarray(picture, np.float32)


def _seen(pixels: Pixels) -> NDArray[np.bool_]:
    """[H, W, 1]: the field, roughly."""
    return pixels.max(axis=2, keepdims=True) > 14


def _typical(pixels: Pixels) -> float:
    bright = pixels.max(axis=2)
    return max(20.0, float(np.quantile(bright[bright > 14], 0.6))) if (bright > 14).any() else 20.0


def back(pixels: NDArray[np.floating]) -> Picture:
    return Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))
