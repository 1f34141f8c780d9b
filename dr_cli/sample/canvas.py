"""What an eye is drawn with: where the retina lies in the picture, stencils, noise, blur, paint.

Lengths are in disc diameters (DD), positions on the retina are (u, v) from the disc's centre: u
towards the fovea, v downwards, so that a right eye is a left eye mirrored.
"""

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


def _supersampling(size: int) -> int:
    """How many times larger lesions and vessels are drawn, then averaged."""
    return 4 if size <= 256 else 3 if size <= 512 else 2


@dataclass(frozen=True)
class View:
    """Where the retina lies in the picture: (u, v) in DD to (x, y) in pixels and back."""

    size: int
    side: int  # +1: the fovea is to the right of the disc (left eye), -1: to the left
    dd: float  # pixels, vertically
    radius: float  # of the field, pixels, vertically
    squash: float  # horizontal lengths over vertical ones: 1, or less in a squashed picture
    centre: tuple[float, float]  # of the field, pixels
    looks_at: tuple[float, float]  # (u, v) in the middle of the field
    fovea: tuple[float, float]  # (u, v)
    cut: float  # half the height of the field, of its radius

    def pixels(self, points: Points) -> Points:
        """[..., 2] (u, v) -> [..., 2] (x, y)."""
        across = self.side * self.squash * self.dd
        u, v = self.looks_at
        shift = (self.centre[0] - u * across, self.centre[1] - v * self.dd)
        return np.asarray(points, np.float64) * (across, self.dd) + shift

    def grid(self) -> tuple[Floats, Floats, Floats]:
        """u, v and the distance from the field's centre over its radius, each [H, W]."""
        x, y = self.across()
        scale = np.float32(self.radius / self.dd)
        u = x * (self.side * scale) + np.float32(self.looks_at[0])
        return u, y * scale + np.float32(self.looks_at[1]), np.hypot(x, y)

    def across(self) -> tuple[Floats, Floats]:
        """x and y from the field's centre over its radius, each [H, W]."""
        steps = np.arange(self.size, dtype=np.float32) + 0.5
        x = (steps - self.centre[0]) / (self.radius * self.squash)
        y = (steps - self.centre[1]) / self.radius
        return tuple(np.meshgrid(x, y))

    def in_field(self, points: Points) -> Mask:
        """[n, 2] (u, v) -> bool [n]: in the picture, and not within a twentieth of the radius of
        the field's edge."""
        away = (np.asarray(points) - self.looks_at) * (self.dd / self.radius)
        seen = (np.hypot(*away.T) < 0.95) & (np.abs(away[:, 1]) < 0.95 * self.cut)
        from_middle = np.abs(self.pixels(points) - self.size / 2) / self.size
        return seen & (from_middle < 0.48).all(axis=1)


class Stencil:
    """Shapes in (u, v), drawn antialiased: `coverage()` is float32 [H, W] in [0, 1]."""

    def __init__(self, view: View) -> None:
        self.view, self.scale = view, _supersampling(view.size)
        self.canvas = Image.new("L", (view.size * self.scale,) * 2)
        self.pen = ImageDraw.Draw(self.canvas)

    def polygons(self, outlines: Points, strengths: Floats | float = 1.0) -> None:
        """outlines: [n, k, 2] (u, v), n shapes of k corners; strengths: one for all, or [n]."""
        corners = self.view.pixels(outlines) * self.scale - 0.5
        inks = np.maximum(1, np.round(255 * np.broadcast_to(strengths, len(corners)))).astype(int)
        flat = corners.reshape(len(corners), 2 * np.shape(outlines)[1])
        for shape, ink in zip(flat.tolist(), inks.tolist(), strict=True):
            self.pen.polygon(shape, fill=ink)

    def ribbons(
        self, paths: Sequence[Points], widths: Sequence[Points], strengths: Floats | float = 1.0
    ) -> None:
        """Lines along paths, each [n, 2] (u, v), of widths [n] DD; strengths: for all, or of each.

        All at once, because numpy takes as long for one of them.
        """
        if not paths:
            return
        path, ends = np.concatenate(paths), np.cumsum([len(path) for path in paths])
        starts = ends - [len(path) for path in paths]
        along = np.empty_like(path)
        along[1:-1] = path[2:] - path[:-2]
        along[starts] = path[starts + 1] - path[starts]
        along[ends - 1] = path[ends - 1] - path[ends - 2]
        half = along[:, ::-1] * (-0.5, 0.5)
        half *= (np.concatenate(widths) / np.maximum(np.hypot(*along.T), 1e-9))[:, None]
        left, right = (self.view.pixels(path + way * half) * self.scale - 0.5 for way in (1, -1))
        inks = np.maximum(1, np.round(255 * np.broadcast_to(strengths, len(paths)))).astype(int)
        for start, end, ink in zip(starts.tolist(), ends.tolist(), inks.tolist(), strict=True):
            ring = np.concatenate([left[start:end], right[start:end][::-1]])
            self.pen.polygon(ring.ravel().tolist(), fill=ink)

    def coverage(self) -> Floats:
        return np.asarray(self.canvas.reduce(self.scale), np.float32) / 255


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


STEP = 0.06  # between a path's points, DD


def wind(
    rng: Rng,
    starts: Points,
    headings: Floats,
    towards: Floats,
    lengths: Floats,
    wobble: float = 0.22,
) -> list[Points]:
    """Winding paths, each [n, 2] (u, v): from starts [k, 2] at `headings` [k], bending to
    `towards` [k], radians; lengths [k] in DD. All at once, as `Stencil.ribbons`."""
    counts = np.maximum(4, np.round(np.asarray(lengths) / STEP).astype(int))
    if not len(counts):
        return []
    s = np.arange(counts.max()) * STEP
    turns = np.remainder(np.asarray(headings) - towards + np.pi, 2 * np.pi) - np.pi
    slow, fast, bend = rng.uniform(0, 1, (3, len(counts), 1))
    angle = np.reshape(towards, (-1, 1)) + turns[:, None] * np.exp(-s / (0.4 + 0.6 * bend))
    angle += wobble * (np.sin(s * 3 + 6.28 * slow) + 0.7 * np.sin(s * 8 + 6.28 * fast))
    steps = np.stack([np.cos(angle), np.sin(angle)], 2) * STEP
    paths = steps.cumsum(axis=1) - steps[:, :1] + np.reshape(starts, (-1, 1, 2))
    return [path[:count] for path, count in zip(paths, counts, strict=True)]
