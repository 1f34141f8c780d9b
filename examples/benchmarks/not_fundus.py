"""Pictures that are no photograph of a fundus: drawn, shipped by packages, disguised as one."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
from degrade import Picture, Rng, back, to_array
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from dr_cli.photographs.decoding import EXTENSIONS

SHIPPED = (
    "sklearn/datasets/images", "matplotlib/mpl-data/sample_data", "skimage/data",
    "mahotas/demos/data",
)  # fmt: skip


def shipped() -> list[Path]:
    """Photographs that installed packages ship, but for two of the fundus."""
    found: list[Path] = []
    for package, below in (place.split("/", 1) for place in SHIPPED):
        if spec := importlib.util.find_spec(package):
            found += sorted((Path(spec.submodule_search_locations[0]) / below).glob("*"))
    fundus = ("retina", "microaneurysms")
    return [one for one in found if one.suffix in EXTENSIONS and one.stem not in fundus]


def _canvas(rng: Rng, colour: tuple[int, int, int]) -> tuple[Picture, ImageDraw.ImageDraw]:
    picture = Image.new("RGB", (int(rng.integers(300, 900)), int(rng.integers(300, 900))), colour)
    return picture, ImageDraw.Draw(picture)


def _page(rng: Rng) -> Picture:
    light = rng.random() < 0.8
    paper = tuple(int(v) for v in (rng.integers(215, 256, 3) if light else (20, 22, 26)))
    picture, draw = _canvas(rng, paper)
    ink = (20, 20, 20) if paper[0] > 100 else (220, 220, 220)
    size = int(rng.integers(9, 30))
    for y in range(10, picture.height - size, int(size * 1.5)):
        words = "".join(chr(c) if rng.random() > 0.17 else " " for c in rng.integers(97, 123, 140))
        draw.text((10, y), words[: rng.integers(5, 140)], ink, font_size=size)
    return picture


def _screenshot(rng: Rng) -> Picture:
    picture, draw = _canvas(rng, _any(rng))
    for _ in range(rng.integers(4, 25)):
        x, y = rng.uniform(0, picture.width), rng.uniform(0, picture.height)
        window = (x, y, x + rng.uniform(10, 400), y + rng.uniform(8, 200))
        draw.rectangle(window, _any(rng), _any(rng))
        size = int(rng.integers(9, 20))
        draw.text((x + 4, y + 4), "File Edit View Help", _any(rng), font_size=size)
    return picture


def _any(rng: Rng) -> tuple[int, int, int]:
    red, green, blue = (int(v) for v in rng.integers(0, 256, 3))
    return red, green, blue


def _chart(rng: Rng) -> Picture:
    picture, draw = _canvas(rng, (255, 255, 255))
    width, height = picture.size
    draw.line((40, 20, 40, height - 30, width - 20, height - 30), (0, 0, 0), 2)
    for _ in range(rng.integers(1, 5)):
        xs = np.linspace(45, width - 25, 40)
        ys = height / 2 + np.cumsum(rng.normal(0, height / 40, 40))
        points = list(zip(xs.tolist(), ys.tolist(), strict=True))
        draw.line(points, _any(rng), int(rng.integers(1, 5)))
    if rng.random() < 0.5:
        for x in range(60, width - 40, 40):
            top = height - 30 - rng.uniform(0, height * 0.7)
            draw.rectangle((x, top, x + 25, height - 30), _any(rng))
    return picture


def _noise(rng: Rng) -> Picture:
    shape = (int(rng.integers(100, 500)), int(rng.integers(100, 500)), 3)
    pixels = rng.normal(rng.uniform(40, 200, 3), rng.uniform(15, 80), shape)
    if rng.random() < 0.5:
        pixels = pixels[..., :1].repeat(3, axis=2)
    picture = back(pixels)
    if rng.random() < 0.5:  # clouds
        small = picture.resize((int(rng.integers(4, 40)),) * 2)
        picture = small.resize(picture.size, Image.Resampling.BICUBIC)
    return _disc(picture, rng) if rng.random() < 0.4 else picture


def _disc(picture: Picture, rng: Rng) -> Picture:
    """In the shape of a fundus photograph."""
    side = min(picture.size)
    square = ImageOps.fit(picture, (side, side))
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).ellipse((2, 2, side - 3, side - 3), 255)
    out = Image.new("RGB", (side, side))
    out.paste(square, mask=mask)
    return out


def _warm(rng: Rng) -> NDArray[np.float64]:
    red = rng.uniform(120, 240)
    green = red * rng.uniform(0.3, 0.65)
    return np.array([red, green, green * rng.uniform(0.1, 0.8)])


def _gradient(rng: Rng) -> Picture:
    side = int(rng.integers(100, 600))
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    angle = rng.uniform(0, 6)
    along = np.hypot(x, y) if rng.random() < 0.5 else x * np.cos(angle) + y * np.sin(angle)
    ends = (_warm(rng), _warm(rng)) if rng.random() < 0.5 else rng.uniform(0, 255, (2, 3))
    share = ((along - along.min()) / np.ptp(along))[..., None] ** rng.uniform(0.5, 3)
    picture = back(ends[0] * share + ends[1] * (1 - share))
    return _disc(picture, rng) if rng.random() < 0.5 else picture


def _flat(rng: Rng) -> Picture:
    colour = rng.choice([0, 1, 2])
    tone = (np.zeros(3) + rng.uniform(0, 255), _warm(rng), rng.uniform(0, 255, 3))[colour]
    picture = back(np.tile(tone, (300, 400, 1)) + rng.normal(0, rng.choice([0, 2]), (300, 400, 3)))
    return _disc(picture, rng) if rng.random() < 0.5 else picture


def _moon(rng: Rng) -> Picture:
    """A disc with craters, grey or as it rises."""
    picture = Image.new("RGB", (400, 400), tuple(int(v) for v in rng.uniform(90, 230) * np.ones(3)))
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.integers(20, 120)):
        (x, y), r, tone = rng.uniform(0, 400, 2), rng.gamma(1.5, 8), int(rng.uniform(60, 255))
        draw.ellipse((x - r, y - r, x + r, y + r), (tone,) * 3, (min(255, tone + 40),) * 3)
    pixels = to_array(picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 3))))
    tint = np.ones(3) if rng.random() < 0.6 else _warm(rng) / 200
    disc = _disc(back((pixels + rng.normal(0, 5, pixels.shape)) * tint), rng)
    out = Image.new("RGB", (600, 500))
    out.paste(disc.resize((int(rng.integers(200, 480)),) * 2), (40, 10))
    return out


def _oct(rng: Rng) -> Picture:
    """Grey bands of layers, as optical coherence tomography shows them."""
    height, width = 400, int(rng.integers(400, 800))
    x, y = np.linspace(-1, 1, width), np.arange(height)[:, None]
    pit = 40 * rng.random() * np.exp(-(x**2) / 0.05)
    top = 140 + rng.uniform(-30, 30) - pit + 20 * x * rng.normal()
    pixels = np.full((height, width), rng.uniform(5, 40))
    for _ in range(rng.integers(4, 9)):
        thick = rng.uniform(8, 30)
        pixels += np.exp(-(((y - top) / thick) ** 2)) * rng.uniform(30, 120)
        top = top + thick * rng.uniform(0.8, 1.6)
    pixels *= rng.gamma(4, 0.25, pixels.shape)
    return back(pixels[..., None].repeat(3, axis=2))


def _eye_from_outside(rng: Rng) -> Picture:
    """Skin, the white, iris, pupil, and a glint."""
    picture = Image.new("RGB", (600, 400), tuple(int(v) for v in _warm(rng) * [1, 1.3, 1.6]))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((60, 90, 540, 310), tuple(int(v) for v in rng.uniform(205, 250, 3)))
    x, r = rng.uniform(240, 360), rng.uniform(75, 105)
    iris = tuple(int(v) for v in rng.uniform(20, 170, 3))
    draw.ellipse((x - r, 200 - r, x + r, 200 + r), iris)
    for a in rng.uniform(0, 2 * np.pi, 60):
        tone = tuple(int(v * rng.uniform(0.7, 1.3)) for v in iris)
        draw.line((x, 200, x + r * np.cos(a), 200 + r * np.sin(a)), tone, 2)
    draw.ellipse((x - r / 2.5, 200 - r / 2.5, x + r / 2.5, 200 + r / 2.5), (8, 6, 6))
    draw.ellipse((x - 20, 165, x - 5, 180), (255, 255, 255))
    for x0 in range(60, 540, 12):
        draw.line((x0, 100, x0 - 20 + x0 / 15, 40), (30, 20, 15), 3)
    pixels = to_array(picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 2.5))))
    return back(pixels + rng.normal(0, 4, pixels.shape))


def _bricks(rng: Rng) -> Picture:
    tone = _warm(rng)
    picture, draw = _canvas(rng, tuple(int(v) for v in rng.uniform(120, 210) * np.ones(3)))
    high = int(rng.integers(14, 60))
    for row, y in enumerate(range(0, picture.height, high)):
        for x in range(-(row % 2) * high, picture.width, high * 2):
            shade = tuple(int(v) for v in np.clip(tone * rng.uniform(0.7, 1.25), 0, 255))
            draw.rectangle((x, y, x + 2 * high - 4, y + high - 4), shade)
    pixels = to_array(picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 2))))
    picture = back(pixels + rng.normal(0, rng.uniform(2, 14), pixels.shape))
    return _disc(picture, rng) if rng.random() < 0.25 else picture


DRAWN: dict[str, Callable[[Rng], Picture]] = {
    "pages of text": _page,
    "screenshots": _screenshot,
    "charts": _chart,
    "noise and clouds": _noise,
    "gradients": _gradient,
    "flat colour": _flat,
    "moons": _moon,
    "OCT": _oct,
    "eyes from outside": _eye_from_outside,
    "brick walls": _bricks,
}


def disguise(picture: Picture, rng: Rng) -> Picture:
    """Another photograph, or a part of it, made to look like a fundus: its colours, its disc."""
    width, height = picture.size
    side = int(min(width, height) * rng.uniform(0.4, 1))
    left, top = int(rng.uniform(0, width - side)), int(rng.uniform(0, height - side))
    picture = picture.crop((left, top, left + side, top + side))
    if rng.random() < 0.4:
        pixels = to_array(picture)
        grey = pixels.mean(axis=2, keepdims=True) / max(1.0, float(pixels.mean()))
        share = rng.uniform(0.3, 1)
        picture = back(share * grey * _warm(rng) + (1 - share) * pixels)
    if rng.random() < 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.02) * side))
    return _disc(picture, rng) if rng.random() < 0.5 else picture
