"""What an eye is drawn with: where the retina lies in the picture, stencils, noise, blur, paint.

Lengths are in disc diameters (DD), positions on the retina are (u, v) from the disc's centre: u
towards the fovea, v downwards, so that a right eye is a left eye mirrored.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Rng = np.random.Generator
Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
Points = NDArray[np.float64]  # [..., 2]: (u, v), or (x, y) in pixels

SUPERSAMPLE = 4  # lesions and vessels are drawn this many times larger, then averaged


@dataclass(frozen=True)
class View:
    """Where the retina lies in the picture: (u, v) in DD to (x, y) in pixels and back."""

    size: int
    side: int  # +1: the fovea is to the right of the disc (left eye), -1: to the left
    dd: float  # pixels
    radius: float  # of the field, pixels
    centre: tuple[float, float]  # of the field, pixels
    looks_at: tuple[float, float]  # (u, v) in the middle of the field
    fovea: tuple[float, float]  # (u, v)
    cut: float  # half the height of the field, of its radius

    def pixels(self, points: Points) -> Points:
        """[..., 2] (u, v) -> [..., 2] (x, y)."""
        away = (np.asarray(points, np.float64) - self.looks_at) * (self.side, 1)
        return np.asarray(self.centre) + away * self.dd

    def grid(self) -> tuple[Floats, Floats, Floats]:
        """u, v and the distance from the field's centre over its radius, each [H, W]."""
        x, y = self.across()
        scale = np.float32(self.radius / self.dd)
        u = x * (self.side * scale) + np.float32(self.looks_at[0])
        return u, y * scale + np.float32(self.looks_at[1]), np.hypot(x, y)

    def across(self) -> tuple[Floats, Floats]:
        """x and y from the field's centre over its radius, each [H, W]."""
        steps = np.arange(self.size, dtype=np.float32) + 0.5
        x, y = ((steps - centre) / self.radius for centre in self.centre)
        return tuple(np.meshgrid(x, y))

    def in_field(self, points: Points) -> Mask:
        """[n, 2] (u, v) -> bool [n]: not within a twentieth of the radius of the field's edge."""
        away = (np.asarray(points) - self.looks_at) * (self.dd / self.radius)
        return (np.hypot(*away.T) < 0.95) & (np.abs(away[:, 1]) < 0.95 * self.cut)


class Stencil:
    """Shapes in (u, v), drawn antialiased: `coverage()` is float32 [H, W] in [0, 1]."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.canvas = Image.new("L", (view.size * SUPERSAMPLE,) * 2)
        self.pen = ImageDraw.Draw(self.canvas)

    def polygon(self, points: Points, strength: float = 1.0) -> None:
        """points: [n, 2] (u, v)."""
        corners = self.view.pixels(points) * SUPERSAMPLE - 0.5
        self.pen.polygon(corners.ravel().tolist(), fill=max(1, round(255 * strength)))

    def ribbon(self, path: Points, widths: Points, strength: float = 1.0) -> None:
        """A line along path [n, 2] (u, v) of widths [n] DD."""
        along = np.gradient(path, axis=0)
        half = along[:, ::-1] * (-0.5, 0.5) * (widths / np.hypot(*along.T))[:, None]
        self.polygon(np.concatenate([path + half, (path - half)[::-1]]), strength)

    def coverage(self) -> Floats:
        return np.asarray(self.canvas.reduce(SUPERSAMPLE), np.float32) / 255


def mottle(rng: Rng, size: int, cells: int) -> Floats:
    """Noise of standard deviation about 1 that varies over 1/cells of the picture, [H, W]."""
    coarse = Image.fromarray(rng.standard_normal((cells + 3, cells + 3)).astype(np.float32))
    box = (1.0, 1.0, cells + 1.0, cells + 1.0)
    fine = coarse.resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.asarray(fine, np.float32) * np.float32(1.4)


def blur(values: Floats, sigma: float) -> Floats:
    """[H, W] in [0, 1] under a Gaussian of sigma pixels (Pillow blurs bytes, not floats)."""
    levels = np.clip(values * 255 + 0.5, 0, 255).astype(np.uint8)
    image = Image.fromarray(levels).filter(ImageFilter.GaussianBlur(sigma))
    return np.asarray(image, np.float32) / 255


def bump(u: Floats, v: Floats, at: tuple[float, float], sigma: float) -> Floats:
    squared = ((u - at[0]) ** 2 + (v - at[1]) ** 2) / (2 * sigma**2)
    return np.exp(-squared, dtype=np.float32)


def paint(picture: Floats, coverage: Floats, change: Sequence[float], strength: Any = 1) -> None:
    """Multiplies picture [3, H, W] by 1 + strength * change [3] where covered, in place."""
    for channel, amount in zip(picture, change, strict=True):
        channel *= 1 + coverage * np.float32(amount * strength)


def wind(
    rng: Rng, start: Points, heading: float, towards: float, length: float, wobble: float = 0.22
) -> Points:
    """A winding path [n, 2] (u, v): leaves at `heading`, bends to `towards`, radians."""
    step = 0.06
    s = np.arange(max(4, round(length / step))) * step
    turn = math.remainder(heading - towards, 2 * math.pi)
    slow, fast, bend = rng.uniform(0, 1, 3)
    angle = towards + turn * np.exp(-s / (0.4 + 0.6 * bend))
    angle += wobble * (np.sin(s * 3 + 6.28 * slow) + 0.7 * np.sin(s * 8 + 6.28 * fast))
    path = np.stack([np.cos(angle), np.sin(angle)], 1).cumsum(axis=0) * step
    return path - path[0] + start
