"""The built-in sample set: eyes DRAWN by procedure. No photograph, no patient, no clinical use.

It lets every command be tried, and a network be seen to learn, with nothing downloaded. The
anatomy, colours, lesion sizes, contrasts and counts follow what was measured on IDRiD (516
photographs, lesion masks of 81; Porwal et al., Data 2018, 3(3):25). Lengths are in disc
diameters (DD), positions on the retina are (u, v) from the disc's centre: u towards the fovea,
v downwards, so that a right eye is a left eye mirrored.

Every eye is a function of (seed, patient, eye), in separate streams for anatomy, lesions and
camera: the same eye drawn with two grades differs in its lesions and in nothing else.
"""

import csv
import math
import os
import secrets
import shutil
import signal
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from dr_cli import machine
from dr_cli.errors import DrError
from dr_cli.events import NOTHING, Observer
from dr_cli.grades import NUM_GRADES

Eye = Literal["left", "right"]
Floats = NDArray[np.floating[Any]]

VERSION = 3  # of the drawing: another version is another folder in the cache
EYES: tuple[Eye, Eye] = ("left", "right")
LESIONS = (
    "microaneurysm",
    "haemorrhage",
    "hard_exudate",
    "cotton_wool",
    "neovascularisation",
    "preretinal_haemorrhage",
)

# ------------------------------------------------------------------ what was measured

DISC_WIDTH = 0.153  # of the field's width
DISC_ASPECT = 1.11  # taller than wide
FOVEA_DISTANCE, FOVEA_DISTANCE_SD = 2.5, 0.16  # DD
FOVEA_ANGLE, FOVEA_ANGLE_SD = 6.4, 4.3  # degrees below the disc
EDGE_COLOUR = (0.71, 0.66, 0.78)  # of the centre's, at the rim of the field
BACKGROUND = (182, 94, 23)  # RGB in the middle; the field's median is then (168, 84, 16)
DISC_COLOUR = (254, 141, 40)
VEIN, ARTERY = (-0.11, -0.38, -0.32), (-0.05, -0.25, -0.2)  # relative change of RGB
FRAME = (2, 1, 1)  # outside the field


def _between(quantiles: tuple[float, float, float], deviate: float, z: Any) -> Any:
    """The value at standard normal z, lognormal on either side of the median.

    quantiles: low, median, high; `deviate` is the z of high, and low's with the sign changed.
    """
    low, median, high = quantiles
    return median * np.where(z < 0, low / median, high / median) ** (np.abs(z) / deviate)


class Spread(NamedTuple):
    """A positive quantity by its 5th, 50th and 95th percentile."""

    low: float
    median: float
    high: float

    def sample(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        z = np.clip(rng.standard_normal(n), -2, 2)
        return np.asarray(_between(self, 1.645, z))


class Lesion(NamedTuple):
    """One kind of small lesion.

    diameter: DD. contrast: relative change of green against the surround. colour: the change
    of (R, G, B) for one unit of green's. distance: median from the fovea, DD.
    """

    diameter: Spread
    contrast: Spread
    colour: tuple[float, float, float]
    aspect: float
    raggedness: float
    distance: float


SMALL_LESIONS = {
    "microaneurysm": Lesion(
        Spread(0.019, 0.033, 0.058), Spread(0.04, 0.09, 0.17), (-0.35, -1, -0.8), 1.08, 0.05, 1.7
    ),
    "haemorrhage": Lesion(
        Spread(0.038, 0.088, 0.30), Spread(0.04, 0.09, 0.20), (-0.35, -1, -0.8), 1.33, 0.3, 1.9
    ),
    "hard_exudate": Lesion(
        Spread(0.015, 0.032, 0.104), Spread(0.04, 0.11, 0.28), (0.6, 1, 0.9), 1.23, 0.25, 1.4
    ),
    "cotton_wool": Lesion(
        Spread(0.105, 0.208, 0.442), Spread(0.08, 0.14, 0.37), (0.6, 1, 1.6), 1.23, 0.25, 2.0
    ),
}

# How many by grade: quartiles, as measured. Cotton wool: in which share of eyes, then 1 to 4.
COUNTS: dict[int, dict[str, tuple[float, float, float]]] = {
    0: {},
    1: {"microaneurysm": (3, 5, 8)},
    2: {"microaneurysm": (11, 23, 38), "haemorrhage": (4, 9, 16), "hard_exudate": (37, 68, 121)},
    3: {
        "microaneurysm": (41, 61, 74),
        "haemorrhage": (19, 32, 44),
        "hard_exudate": (57, 103, 345),
    },
    4: {
        "microaneurysm": (43, 80, 89),
        "haemorrhage": (34, 49, 52),
        "hard_exudate": (97, 234, 297),
    },
}
COTTON_WOOL_SHARE = (0.0, 0.0, 0.36, 0.64, 0.44)
MOST_COTTON_WOOL = 4

# ------------------------------------------------------------------ what was chosen

# A median microaneurysm is 1.1 px across at 224 px: nothing learns from that in five epochs.
# So a lesion's diameter grows in quadrature by this many pixels, whatever the picture's size:
# large lesions, and all lesions in large pictures, keep their measured size.
VISIBLE_PIXELS = 4.0
VISIBLE_GAIN = 3.0
STRONGEST = 0.9  # contrast that a stencil's full strength stands for
COVERED = 0.4  # share of a pixel that a lesion covers to be in its mask
GROUP = 0.16  # standard deviation of a group of exudates, DD
SUPERSAMPLE = 4  # lesions and vessels are drawn this many times larger, then averaged
VEIN_CALIBRE, ARTERY_CALIBRE, THINNEST = 0.085, 0.057, 0.011  # DD

SHARES = (0.36, 0.16, 0.16, 0.16, 0.16)  # of the grades
TEST_SHARE = 0.25
AGREEMENT = 0.87  # of fellow eyes, as in EyePACS
DISAGREEMENTS = ((0, 1), (1, 2), (2, 3), (3, 4), (0, 1), (0, 2))
WORTH_PROCESSES = 32  # pictures; starting a process costs as much as drawing several

# Streams of randomness.
PLAN, PERSON, ANATOMY, LESION, CAMERA = range(5)


def _generator(seed: int, *address: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *address])))


# ------------------------------------------------------------------ the eye


@dataclass(frozen=True)
class Drawing:
    """A drawn photograph and what is known about it.

    pixels: uint8 [H, W, 3] RGB. masks: for each of LESIONS a bool [H, W]. disc, fovea: centres,
    (x, y) in pixels, perhaps outside the field. disc_diameter: pixels, horizontal.
    jpeg_quality: what this patient's camera writes, 70 to 95.
    """

    pixels: NDArray[np.uint8]
    masks: dict[str, NDArray[np.bool_]]
    disc: tuple[float, float]
    fovea: tuple[float, float]
    disc_diameter: float
    jpeg_quality: int


@dataclass(frozen=True)
class _Person:
    """What a patient's two eyes share: the pigment of the fundus, and the camera."""

    background: Floats  # [3] RGB of the fundus in the middle of the field
    vignetting: float
    tessellation: float
    cup: float
    cut: float  # half the height of the field, of its radius
    notch: bool
    jpeg_quality: int
    grain: float  # standard deviation of the sensor's noise, levels
    dust: Floats  # [n, 3] (x, y, radius) of spots on the lens, of the field's radius


def _person(seed: int, patient: int) -> _Person:
    rng = _generator(seed, PERSON, patient)
    exposure, hue = rng.standard_normal(2)
    red = BACKGROUND[0] * math.exp(0.13 * exposure)
    green = BACKGROUND[1] * math.exp(0.19 * exposure + 0.12 * hue)  # log-correlation 0.89
    green = min(max(green, 0.36 * red), 0.62 * red)
    blue = green * (0.04 + 0.75 * rng.beta(1.1, 2.6))
    spots = rng.uniform(-0.6, 0.6, (int(rng.integers(1, 4)) if rng.random() < 0.15 else 0, 3))
    spots[:, 2] = rng.uniform(0.008, 0.016, len(spots))
    return _Person(
        background=np.clip([red, green, blue], (130, 50, 3), (240, 140, 85)).astype(np.float32),
        vignetting=float(rng.uniform(0.3, 1.6)),
        tessellation=float(rng.uniform(0.5, 1.0) if rng.random() < 0.2 else rng.uniform(0, 0.15)),
        cup=float(rng.uniform(0.25, 0.6)),
        cut=float(rng.uniform(0.78, 0.95) if rng.random() < 0.6 else 1.0),
        notch=bool(rng.random() < 0.5),
        jpeg_quality=int(rng.integers(70, 96)),
        grain=float(rng.uniform(0.5, 1.8)),
        dust=spots.astype(np.float32),
    )


@dataclass(frozen=True)
class _View:
    """Where the retina lies in the picture: (u, v) in DD to (x, y) in pixels and back."""

    size: int
    side: int  # +1: the fovea is to the right of the disc (left eye), -1: to the left
    dd: float  # pixels
    radius: float  # of the field, pixels
    centre: tuple[float, float]  # of the field, pixels
    looks_at: tuple[float, float]  # (u, v) in the middle of the field
    fovea: tuple[float, float]  # (u, v)
    cut: float  # half the height of the field, of its radius

    def pixels(self, points: NDArray[Any]) -> NDArray[np.float64]:
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

    def in_field(self, points: NDArray[Any], margin: float = 0.95) -> NDArray[np.bool_]:
        """[n, 2] (u, v) -> bool [n]."""
        away = (np.asarray(points) - self.looks_at) * (self.dd / self.radius)
        return (np.hypot(*away.T) < margin) & (np.abs(away[:, 1]) < margin * self.cut)


def _view(rng: np.random.Generator, eye: Eye, size: int, cut: float) -> _View:
    radius = size / 2 * float(rng.uniform(0.95, 0.995))
    distance = FOVEA_DISTANCE + FOVEA_DISTANCE_SD * rng.standard_normal()
    angle = math.radians(FOVEA_ANGLE + FOVEA_ANGLE_SD * rng.standard_normal())
    fovea = (distance * math.cos(angle), distance * math.sin(angle))
    # Photographers aim between fovea and disc, mostly near the fovea.
    towards_disc, up = np.clip(rng.standard_normal(2), -2, 2) * (0.45, 0.22) + (0.55, 0.1)
    slack = size / 2 - radius
    return _View(
        size=size,
        side=1 if eye == "left" else -1,
        dd=2 * radius * DISC_WIDTH * float(np.exp(0.07 * np.clip(rng.standard_normal(), -2, 2))),
        radius=radius,
        centre=(
            size / 2 + slack * float(rng.uniform(-1, 1)),
            size / 2 + slack * float(rng.uniform(-1, 1)),
        ),
        looks_at=(fovea[0] - float(towards_disc), fovea[1] - float(up)),
        fovea=fovea,
        cut=cut,
    )


# ------------------------------------------------------------------ tools to draw with


class _Stencil:
    """Shapes in (u, v), drawn antialiased: `coverage()` is float32 [H, W] in [0, 1]."""

    def __init__(self, view: _View) -> None:
        self.view = view
        self.canvas = Image.new("L", (view.size * SUPERSAMPLE,) * 2)
        self.pen = ImageDraw.Draw(self.canvas)

    def polygon(self, points: NDArray[Any], strength: float = 1.0) -> None:
        """points: [n, 2] (u, v)."""
        corners = self.view.pixels(points) * SUPERSAMPLE - 0.5
        self.pen.polygon(corners.ravel().tolist(), fill=max(1, round(255 * strength)))

    def ribbon(self, path: NDArray[Any], widths: NDArray[Any], strength: float = 1.0) -> None:
        """A line along path [n, 2] (u, v) of widths [n] DD."""
        along = np.empty_like(path)
        along[1:-1], along[0], along[-1] = (
            path[2:] - path[:-2],
            path[1] - path[0],
            path[-1] - path[-2],
        )
        half = along[:, ::-1] * (-0.5, 0.5) * (widths / np.hypot(*along.T))[:, None]
        self.polygon(np.concatenate([path + half, (path - half)[::-1]]), strength)

    def coverage(self) -> Floats:
        return np.asarray(self.canvas.reduce(SUPERSAMPLE), np.float32) / 255


def _smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Floats:
    """Noise of standard deviation about 1 that varies over 1/cells of the picture, [H, W]."""
    coarse = Image.fromarray(rng.standard_normal((cells + 3, cells + 3)).astype(np.float32))
    box = (1.0, 1.0, cells + 1.0, cells + 1.0)
    fine = coarse.resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.asarray(fine, np.float32) * np.float32(1.4)


def _blurred(values: Floats, sigma: float) -> Floats:
    """[H, W] in [0, 1] under a Gaussian of sigma pixels (Pillow blurs bytes, not floats)."""
    levels = np.clip(values * 255 + 0.5, 0, 255).astype(np.uint8)
    image = Image.fromarray(levels).filter(ImageFilter.GaussianBlur(sigma))
    return np.asarray(image, np.float32) / 255


def _bump(u: Floats, v: Floats, at: tuple[float, float], sigma: float) -> Floats:
    squared = ((u - at[0]) ** 2 + (v - at[1]) ** 2) / (2 * sigma**2)
    return np.exp(-squared, dtype=np.float32)


def _paint(picture: Floats, coverage: Floats, change: Sequence[float], strength: Any = 1) -> None:
    """Multiplies picture [3, H, W] by 1 + strength * change [3] where covered, in place."""
    for channel, amount in zip(picture, change, strict=True):
        channel *= 1 + coverage * np.float32(amount * strength)


# ------------------------------------------------------------------ anatomy


def _fundus(rng: np.random.Generator, person: _Person, view: _View) -> Floats:
    """The healthy fundus without vessels, [3, H, W], 1 being the background's colour."""
    u, v, rho = view.grid()
    picture = np.ones((3, view.size, view.size), np.float32)
    rim = np.clip((rho - 0.25) / 0.75, 0, 1.2) ** 1.5
    _paint(picture, rim, [edge - 1 for edge in EDGE_COLOUR], person.vignetting)
    mottle = sum(
        amplitude * _smooth_noise(rng, view.size, cells)
        for cells, amplitude in ((3, 0.04), (8, 0.025), (24, 0.015), (60, 0.012))
    )
    _paint(picture, np.float32(mottle), (0.6, 1, 0.9))
    _tessellate(rng, picture, person.tessellation, view)
    depth = rng.uniform(0.6, 1.3)
    _paint(picture, _bump(u, v, view.fovea, 0.95), (-0.08, -0.12, -0.1), depth)
    _paint(picture, _bump(u, v, view.fovea, 0.27), (-0.14, -0.24, -0.12), depth)
    _sheen(rng, picture, u, v)
    _disc(rng, picture, person, u, v)
    return picture


def _tessellate(rng: np.random.Generator, picture: Floats, strength: float, view: _View) -> None:
    """The large vessels of the choroid shining through, outside the macula."""
    stencil = _Stencil(view)
    for start in rng.uniform(-3.5, 3.5, (45, 2)) + view.looks_at:
        outwards = math.atan2(start[1] - view.fovea[1], start[0] - view.fovea[0])
        path = _course(rng, start, outwards + rng.normal(0, 0.4), rng.uniform(1, 2.5), wobble=0.5)
        stencil.ribbon(path, np.full(len(path), rng.uniform(0.06, 0.14)))
    u, v, _ = view.grid()
    cover = _blurred(stencil.coverage(), 0.02 * view.dd) - np.float32(0.35)
    _paint(picture, cover * (1 - _bump(u, v, view.fovea, 1.2)), (0.13, 0.22, 0.05), strength)


def _sheen(rng: np.random.Generator, picture: Floats, u: Floats, v: Floats) -> None:
    """Nerve fibres: faint bright streaks that leave the disc above and below the macula."""
    angle, distance = np.arctan2(v, u), np.hypot(u, v)
    streaks = sum(
        np.cos(k * angle + phase, dtype=np.float32) / 6
        for k, phase in zip((9, 14, 23), rng.uniform(0, 2 * np.pi, 3), strict=True)
    )
    bundles = np.exp(-(((np.abs(angle) - 1.1) / 0.5) ** 2), dtype=np.float32)
    reach = np.exp(-((distance / 2) ** 2), dtype=np.float32) * np.minimum(distance, 1)
    _paint(picture, reach * bundles * (1 + streaks), (0.5, 1, 1.6), rng.uniform(0, 0.25))


def _disc(rng: np.random.Generator, picture: Floats, person: _Person, u: Floats, v: Floats) -> None:
    """The disc with its cup, as bright in a dark picture as in a bright one, or nearly."""
    tilt = rng.normal(0, 0.15)
    across, along = u * math.cos(tilt) + v * math.sin(tilt), v * math.cos(tilt) - u * math.sin(tilt)
    distance = np.hypot(across / 0.5, along / (0.5 * DISC_ASPECT))
    if rng.random() < 0.3:  # bare sclera at the temporal rim
        crescent = np.clip((1.25 - np.hypot(across - 0.1, along) / 0.5) / 0.12, 0, 1)
        _paint(picture, crescent, (0.2, 0.25, 0.4), rng.uniform(0.4, 1))
    halo = np.exp(-np.maximum(distance - 1, 0) / 0.35, dtype=np.float32)
    _paint(picture, halo, (0.08, 0.08, 0.05), rng.uniform(0, 1.5))
    edge = np.clip((1 - distance) / rng.uniform(0.15, 0.35) + 0.5, 0, 1)
    temporal_pallor = 1 + 0.15 * np.clip(across / 0.5, -1, 1)
    typical = np.asarray(DISC_COLOUR) / BACKGROUND
    colour = typical * (np.asarray(BACKGROUND) / person.background) ** 0.7
    _paint(picture, edge * temporal_pallor, colour * np.exp(0.05 * rng.standard_normal(3)) - 1)
    cup_distance = np.hypot(across - 0.06, along) / (0.5 * person.cup)
    inside = np.clip((1 - cup_distance) / 0.8 + 0.5, 0, 1)
    _paint(picture, inside, (0.05, 0.35, 0.8), rng.uniform(0.5, 1.2))


def _course(
    rng: np.random.Generator,
    start: NDArray[Any],
    heading: float,
    length: float,
    towards: float | None = None,
    wobble: float = 0.22,
) -> NDArray[np.float64]:
    """A winding path [n, 2] (u, v): leaves at `heading`, bends to `towards` (radians)."""
    step = 0.06
    s = np.arange(max(4, round(length / step))) * step
    goal = heading if towards is None else towards
    turn = math.remainder(heading - goal, 2 * math.pi)
    slow, fast, bend = rng.uniform(0, 1, 3)
    angle = goal + turn * np.exp(-s / (0.4 + 0.6 * bend))
    angle += wobble * (np.sin(s * 3 + 6.28 * slow) + 0.7 * np.sin(s * 8 + 6.28 * fast))
    path = np.stack([np.cos(angle), np.sin(angle)], 1).cumsum(axis=0) * step
    return path - path[0] + start


def _arcade(rng: np.random.Generator, up: int, fovea: tuple[float, float]) -> NDArray[np.float64]:
    """From the disc above (up = -1) or below (+1) round the fovea: part of an ellipse."""
    width, height = rng.normal(2.9, 0.25), rng.normal(2.3, 0.25)
    t = np.linspace(0, rng.uniform(0.72, 0.95) * np.pi, 80)
    phases = rng.uniform(0, 2 * np.pi, 3)
    wander = sum(0.05 * np.sin(k * t + p) for k, p in zip((4, 9, 16), phases, strict=True))
    wander = wander * np.minimum(1, t * 2)
    spread = 1 + 0.25 * np.maximum(0, t / np.pi - 0.5)  # the raphe: ends do not close on it
    u = (width + wander) * (1 - np.cos(t)) - 0.06 * np.exp(-4 * t)
    v = up * (height + wander) * np.sin(t) * spread + fovea[1] * (1 - np.cos(t)) / 2
    return np.stack([u, v], 1)


def _trunks(
    rng: np.random.Generator, fovea: tuple[float, float]
) -> Iterator[tuple[NDArray[np.float64], float]]:
    """The vessels that cross the disc's rim, and their calibre over that of an arcade."""
    for up in (-1, 1):
        yield _arcade(rng, up, fovea), rng.uniform(0.85, 1.1)
        start = np.array([rng.uniform(-0.12, 0.05), 0.04 * up])
        nasal = up * rng.uniform(1.9, 2.6)  # radians: up and away from the fovea
        yield _course(rng, start, up * rng.uniform(1.3, 1.7), 3.5, nasal), rng.uniform(0.5, 0.8)
        macular = up * rng.uniform(0.15, 0.5)
        path = _course(rng, start, up * rng.uniform(0.4, 1), rng.uniform(1.2, 1.9), macular)
        yield path, rng.uniform(0.2, 0.4)


def _branches(
    rng: np.random.Generator,
    path: NDArray[Any],
    width: float,
    fovea: tuple[float, float],
    depth: int,
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """The vessel and all that leaves it, thinner and thinner: (path, widths in DD)."""
    widths = np.linspace(width, 0.4 * width, len(path))
    yield path, widths
    step = float(np.hypot(*(path[1] - path[0])))
    side = rng.choice([-1, 1])
    at = rng.uniform(0.3, 0.8)
    while depth and (i := int(at / step)) < len(path) - 2:
        side, at = -side, at + rng.uniform(0.35, 1.1)
        child = widths[i] * rng.uniform(0.45, 0.75)
        forward = path[i + 1] - path[i]
        heading = math.atan2(forward[1], forward[0]) + side * rng.uniform(0.5, 1.1)
        away = path[i] - fovea
        outwards = math.atan2(away[1], away[0])
        inside = math.cos(heading - outwards) < 0
        length = rng.uniform(0.8, 2.2) * (child / 0.03) ** 0.5
        if inside:  # none reaches the fovea
            length = min(length, math.hypot(*away) - 0.45)
        if child < THINNEST or length < 0.25:
            continue
        goal = outwards + (math.pi if inside else 0) + rng.normal(0, 0.4)
        course = _course(rng, path[i], heading, length, goal)
        yield from _branches(rng, course, child, fovea, depth - 1)


def _vessels(rng: np.random.Generator, picture: Floats, view: _View) -> None:
    """Arteries under veins, in place."""
    for calibre, change in ((ARTERY_CALIBRE, ARTERY), (VEIN_CALIBRE, VEIN)):
        stencil = _Stencil(view)
        for trunk, relative in _trunks(rng, view.fovea):
            for path, widths in _branches(rng, trunk, calibre * relative, view.fovea, depth=2):
                stencil.ribbon(path, widths, min(1.0, 0.5 + 8 * float(widths[0])))
        _paint(picture, stencil.coverage(), change, rng.uniform(0.65, 1.1))


# ------------------------------------------------------------------ lesions


def _add_lesions(
    rng: np.random.Generator, grade: int, view: _View, picture: Floats
) -> dict[str, NDArray[np.bool_]]:
    """Draws the grade's lesions into picture [3, H, W], in place; the mask of each kind."""
    counts = _counts(rng, grade)
    masks = {
        kind: _draw_small(rng, kind, _places(rng, kind, counts.get(kind, 0), view), view, picture)
        for kind in SMALL_LESIONS
    }
    what = rng.random() if grade == NUM_GRADES - 1 else None  # new vessels, blood, or both
    tufts = int(rng.integers(1, 4)) if what is not None and what < 0.75 else 0
    masks["neovascularisation"] = _draw_new_vessels(rng, tufts, view, picture)
    masks["preretinal_haemorrhage"] = _draw_preretinal(rng, (what or 0) > 0.5, view, picture)
    return masks


def _counts(rng: np.random.Generator, grade: int) -> dict[str, int]:
    """How many of each kind; the eye's severity moves all kinds together."""
    severity = rng.standard_normal()
    counts = {}
    for kind, quartiles in COUNTS[grade].items():
        z = 0.7 * severity + 0.7 * rng.standard_normal()
        counts[kind] = max(1, round(_between(quartiles, 0.674, np.clip(z, -1.2, 1.2))))
    if rng.random() < COTTON_WOOL_SHARE[grade]:
        counts["cotton_wool"] = int(rng.integers(1, MOST_COTTON_WOOL + 1))
    return counts


def _places(rng: np.random.Generator, kind: str, n: int, view: _View) -> NDArray[np.float64]:
    """Centres [n, 2] (u, v) inside the field, off the disc; exudates in groups."""
    distance = SMALL_LESIONS[kind].distance
    groups = _ring(rng, int(rng.integers(2, 7)), distance, view)
    found = np.empty((0, 2))
    while len(found) < n:
        spots = _ring(rng, 4 * n, distance, view)
        if kind == "hard_exudate":
            chosen = rng.integers(0, len(groups), len(spots))
            spots = groups[chosen] + rng.normal(0, GROUP, spots.shape)
        spots = spots[view.in_field(spots) & (np.hypot(*spots.T) > 0.75)]
        found = np.concatenate([found, spots])
    return found[:n]


def _ring(rng: np.random.Generator, n: int, distance: float, view: _View) -> NDArray[np.float64]:
    """n points about the fovea, their median distance as given, [n, 2]."""
    angle = rng.uniform(0, 2 * np.pi, n)
    radius = distance * np.exp(0.45 * rng.standard_normal(n))
    return np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None] + view.fovea


def _draw_small(
    rng: np.random.Generator, kind: str, centres: NDArray[Any], view: _View, picture: Floats
) -> NDArray[np.bool_]:
    if len(centres) == 0:
        return np.zeros(picture.shape[1:], bool)
    lesion = SMALL_LESIONS[kind]
    least = _least_visible(view)
    diameters = np.hypot(lesion.diameter.sample(rng, len(centres)), least)
    gain = 1 + VISIBLE_GAIN * (least / diameters) ** 2
    contrasts = lesion.contrast.sample(rng, len(centres)) * gain
    strengths, shapes = _Stencil(view), _Stencil(view)
    for outline, contrast in zip(
        _outlines(rng, lesion, diameters) + centres[:, None],
        np.minimum(contrasts / STRONGEST, 1),
        strict=True,
    ):
        shapes.polygon(outline)
        strengths.polygon(outline, contrast)
    cover = strengths.coverage()
    if kind == "cotton_wool":
        cover = _blurred(cover, 0.045 * view.dd)
    _paint(picture, cover, lesion.colour, STRONGEST)
    return shapes.coverage() >= COVERED


def _least_visible(view: _View) -> float:
    """By how much small lesions grow, DD; below 224 px no more than there."""
    return VISIBLE_PIXELS / view.dd * min(1, view.size / 224)


def _outlines(
    rng: np.random.Generator, lesion: Lesion, diameters: NDArray[Any]
) -> NDArray[np.float64]:
    """Ragged ovals about (0, 0) of the given diameters [n]: [n, 12, 2] (u, v)."""
    n = len(diameters)
    angle = np.arange(12) * (2 * np.pi / 12)
    radius = 1 + lesion.raggedness * rng.uniform(-1, 1, (n, 12))
    stretch = lesion.aspect ** (0.5 * rng.uniform(0.4, 1.6, (n, 1)))
    turn = rng.uniform(0, np.pi, (n, 1))
    x, y = radius * np.cos(angle) * stretch, radius * np.sin(angle) / stretch
    turned = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], 2)
    return turned * (diameters / 2)[:, None, None]


def _draw_new_vessels(
    rng: np.random.Generator, tufts: int, view: _View, picture: Floats
) -> NDArray[np.bool_]:
    """Fine tangles on the disc or along an arcade."""
    if tufts == 0:
        return np.zeros(picture.shape[1:], bool)
    stencil = _Stencil(view)
    width = math.hypot(0.016, 0.5 * _least_visible(view))
    for _ in range(tufts):
        side = rng.choice([-1.0, 1.0])
        beside = np.array([rng.uniform(0.8, 2.6), side * rng.uniform(1.5, 2.2)])
        root = np.array([0.1, 0.3 * side]) if rng.random() < 0.4 else beside
        reach = rng.uniform(0.5, 1.0)
        for heading in rng.uniform(0, 2 * np.pi, int(rng.integers(10, 18))):
            length = reach * rng.uniform(0.5, 1.2)
            path = _course(rng, root + rng.normal(0, 0.12, 2), heading, length, wobble=1.1)
            stencil.ribbon(path, np.full(len(path), width), rng.uniform(0.6, 1.0))
    cover = stencil.coverage()
    _paint(picture, cover, VEIN)
    return cover >= COVERED / 2


def _draw_preretinal(
    rng: np.random.Generator, present: bool, view: _View, picture: Floats
) -> NDArray[np.bool_]:
    """A boat: blood that settles before the retina, level at the top."""
    if not present:
        return np.zeros(picture.shape[1:], bool)
    stencil = _Stencil(view)
    centre = np.asarray(view.fovea) + rng.uniform(-1.3, 1.3, 2) + (0, 0.5)
    half, drop = rng.uniform(0.4, 1.0), rng.uniform(0.4, 0.9)
    angle = np.linspace(0, np.pi, 24)
    ragged = 1 + 0.06 * np.sin(5 * angle + rng.uniform(0, 6))
    hull = np.stack([np.cos(angle) * half, np.sin(angle) * half * drop], 1) * ragged[:, None]
    stencil.polygon(centre + hull)
    cover = stencil.coverage()
    _paint(picture, _blurred(cover, 0.03 * view.dd), (-0.3, -0.55, -0.45))
    return cover >= COVERED


def _keep_colours(picture: Floats, healthy: Floats, field: NDArray[np.bool_]) -> None:
    """Gives each channel of picture [3, H, W] the quantiles that it had without lesions, in place.

    Else the amount of red and yellow would tell the grade, and a network need not look for
    lesions. The curve is monotone: what is darker or brighter than its surround stays so.
    """
    tail = (0, 0.2, 0.5, 1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 40)
    quantiles = (*tail, 50, *(100 - share for share in reversed(tail)))
    for channel, before in zip(picture, healthy, strict=True):
        now, then = (np.percentile(values[field], quantiles) for values in (channel, before))
        channel[:] = np.interp(channel, now, then)


# ------------------------------------------------------------------ the camera


def _add_drusen(rng: np.random.Generator, view: _View, picture: Floats) -> None:
    """A few pale soft spots near the fovea, in any grade: not every bright dot is an exudate."""
    stencil = _Stencil(view)
    n = int(rng.integers(3, 12)) if rng.random() < 0.12 else 0
    outlines = _outlines(rng, SMALL_LESIONS["hard_exudate"], rng.uniform(0.05, 0.1, n))
    for outline in outlines + view.fovea + rng.normal(0, 0.8, (n, 1, 2)):
        stencil.polygon(outline, rng.uniform(0.4, 1))
    _paint(picture, _blurred(stencil.coverage(), 0.02 * view.dd), (0.06, 0.09, 0.05))


def _photograph(
    rng: np.random.Generator, person: _Person, view: _View, picture: Floats, field: Floats
) -> NDArray[np.uint8]:
    """What the patient's camera makes of picture [3, H, W] (1 = background): uint8 [H, W, 3]."""
    x, y = view.across()
    exposure = np.exp(rng.normal(0, 0.06) + np.array([0.04, 0.06, 0.08]) * rng.standard_normal(3))
    tilt = np.clip(0.13 * rng.standard_normal(2), -0.26, 0.26).astype(np.float32)
    light = np.exp(tilt[0] * x + tilt[1] * y)
    for spot_x, spot_y, radius in person.dust:
        light *= 1 - 0.25 * np.clip(2 - 1.5 * np.hypot(x - spot_x, y - spot_y) / radius, 0, 1)
    colour = (person.background * exposure / 255).astype(np.float32)[:, None, None]
    tone = np.float32(np.exp(np.clip(0.15 * rng.standard_normal(), -0.3, 0.3)))
    picture = (picture * light) ** tone * colour
    _veil(rng, picture, colour, x, y)
    sigma = float(np.clip(0.5 * np.exp(0.4 * rng.standard_normal()), 0.2, 1.0)) * view.size / 224
    picture = np.stack([_blurred(channel, sigma) for channel in picture]) * 255
    picture += person.grain * rng.standard_normal(picture.shape, np.float32)
    black = np.asarray(FRAME, np.float32)[:, None, None]
    framed = np.clip(black + (picture - black) * field + 0.5, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(framed.transpose(1, 2, 0))


def _veil(rng: np.random.Generator, picture: Floats, colour: Floats, x: Floats, y: Floats) -> None:
    """Haze of a cloudy lens, and light that comes in over the iris at one side; in place."""
    haze = rng.uniform(0.1, 0.4) if rng.random() < 0.2 else rng.uniform(0, 0.06)
    whitish = np.array([0.85, 0.92, 1.1], np.float32)[:, None, None]
    picture += np.float32(haze) * (whitish * colour - picture)
    strength = rng.uniform(0.1, 0.35) if rng.random() < 0.18 else 0.0
    where = rng.uniform(0, 2 * np.pi)
    side = np.clip(x * math.cos(where) + y * math.sin(where), 0, 1)
    crescent = side**2 * np.clip((np.hypot(x, y) - 0.72) / 0.28, 0, 1) ** 2
    for channel, share in zip(picture, (1.0, 0.75, 0.5), strict=True):
        channel += crescent * np.float32(strength * share)


def _field(person: _Person, view: _View) -> Floats:
    """What the camera shows, [H, W] in [0, 1]: a circle, cut above and below, with a notch."""
    x, y = view.across()
    inside = np.clip((1 - np.hypot(x, y)) * view.radius + 0.5, 0, 1)
    inside *= np.clip((view.cut - np.abs(y)) * view.radius + 0.5, 0, 1)
    if person.notch:  # two teeth at the right, above the middle
        for reach, height in ((0.9, -0.42), (0.87, -0.5)):
            inside *= (x < reach) | (np.abs(y - height) > 0.033)
    return inside


def draw(seed: int, patient: int, eye: Eye, grade: int, size: int = 224) -> Drawing:
    """Draws one eye: the same arguments, the same picture, whatever was drawn before.

    seed, patient: integers from 0. grade: 0 to 4. size: side of the square picture, pixels,
    64 or more. Raises ValueError for other values.
    """
    if eye not in EYES or not 0 <= grade < NUM_GRADES or size < 64:
        raise ValueError(f"no such eye: {eye!r}, grade {grade!r}, {size!r} px")
    address = (patient, EYES.index(eye))
    person = _person(seed, patient)
    anatomy = _generator(seed, ANATOMY, *address)
    view = _view(anatomy, eye, size, person.cut)
    picture = _fundus(anatomy, person, view)
    _vessels(anatomy, picture, view)
    _add_drusen(anatomy, view, picture)
    field = _field(person, view)
    healthy = picture.copy()
    masks = _add_lesions(_generator(seed, LESION, *address), grade, view, picture)
    _keep_colours(picture, healthy, field > 0.5)
    pixels = _photograph(_generator(seed, CAMERA, *address), person, view, picture, field)
    masks = {kind: mask & (field > 0.5) for kind, mask in masks.items()}
    disc, fovea = view.pixels(np.array([(0.0, 0.0), view.fovea])).tolist()
    return Drawing(pixels, masks, tuple(disc), tuple(fovea), view.dd, person.jpeg_quality)


# ------------------------------------------------------------------ the set


class Planned(NamedTuple):
    """One picture of the set. patient: from 1. split: "train" or "test"."""

    patient: int
    eye: Eye
    grade: int
    split: str


def plan(images: int = 600, seed: int = 0) -> list[Planned]:
    """Who is drawn: two eyes a patient, SHARES of each grade, TEST_SHARE of the patients in test.

    Fellow eyes agree in AGREEMENT of the pairs and otherwise lie a grade or two apart. From 500
    images on, at least 20 of each grade are in test. Raises ValueError for fewer than one image.
    """
    if images < 1:
        raise ValueError(f"a sample set of {images} images")
    rng = _generator(seed, PLAN)
    patients = (images + 1) // 2
    test = round(patients * TEST_SHARE)
    pairs = [(pair, "train") for pair in _pairs(rng, patients - test)]
    pairs += [(pair, "test") for pair in _pairs(rng, test)]
    rows = [
        Planned(patient, eye, grade, pairs[i][1])
        for patient, i in enumerate(rng.permutation(patients), start=1)
        for eye, grade in zip(EYES, pairs[i][0], strict=True)
    ]
    return rows[:images]


def _pairs(rng: np.random.Generator, patients: int) -> list[list[int]]:
    """(left, right) grades of each patient. Exchanging two right eyes keeps the grades' shares."""
    exact = np.asarray(SHARES) * patients
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: patients - counts.sum()]] += 1
    pairs = [[grade, grade] for grade in range(NUM_GRADES) for _ in range(counts[grade])]
    disagreeing = patients * (1 - AGREEMENT)
    for low, high in islice(cycle(DISAGREEMENTS), round(disagreeing / 2)):
        one, other = pairs.index([low, low]), pairs.index([high, high])
        pairs[one][1], pairs[other][1] = high, low
    return [pairs[i] for i in rng.permutation(patients)]


README = """\
These pictures are DRAWN by a computer program (dr, dr_cli/sample.py). They are not photographs,
show no person's eye, and must never be used for a clinical purpose: not to grade, not to
validate a grader, not to set a threshold. What a network learns here says nothing about what it
does on real eyes. They exist so that the program can be tried with nothing downloaded.

labels.csv: image (under images/), grade 0 to 4, patient, eye, split.
"""


def ensure(
    cache: Path,
    *,
    images: int = 600,
    size: int = 224,
    seed: int = 0,
    observer: Observer = NOTHING,
    workers: int | None = None,
) -> Path:
    """The sample set's folder below `cache`; drawn if it is not there yet, whole or not at all.

    It holds labels.csv (image,grade,patient,eye,split), images/*.jpg and README.txt. JPEG, at a
    quality that varies by camera, because that is how real sets come: a sixth of PNG's bytes,
    and the artefacts belong to the task. workers: processes, by default one a core (at most 8).
    Raises DrError where the folder cannot be written.
    """
    folder = Path(cache) / "sample" / f"{VERSION}-{images}-{size}-{seed}"
    if folder.is_dir():
        return folder
    # Two processes may come here at once: each draws aside, the first to rename wins.
    aside = folder.with_name(f".{folder.name}-{os.getpid()}-{secrets.token_hex(4)}")
    rows = plan(images, seed)
    try:
        (aside / "images").mkdir(parents=True)
        _draw_all(aside / "images", rows, size, seed, observer, workers or machine.cores())
        _write_labels(aside, rows)
        (aside / "README.txt").write_text(README, encoding="utf-8")
        aside.rename(folder)
    except OSError as error:
        if not folder.is_dir():
            raise DrError(
                f"cannot write the sample set to {folder}: {error.strerror or error}; "
                "free some space there, or set DR_CACHE to another folder"
            ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def file_name(row: Planned) -> str:
    """A name that nobody takes for a real photograph's."""
    return f"drawn_{row.patient:04d}_{row.eye}.jpg"


def _write_labels(folder: Path, rows: list[Planned]) -> None:
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "grade", "patient", "eye", "split"])
        for row in rows:
            patient = f"drawn_{row.patient:04d}"
            writer.writerow([file_name(row), row.grade, patient, row.eye, row.split])


def _draw_all(
    folder: Path, rows: list[Planned], size: int, seed: int, observer: Observer, workers: int
) -> None:
    write = partial(_write_picture, folder, size, seed)
    if workers > 1 and len(rows) >= WORTH_PROCESSES:
        # Spawned, not forked: the caller may hold threads (torch's, a progress bar's). An
        # interrupt is the parent's to handle.
        quietly = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN)}
        try:
            with ProcessPoolExecutor(workers, get_context("spawn"), **quietly) as pool:
                _watch(pool.map(write, rows, chunksize=8), len(rows), observer)
            return
        except (BrokenProcessPool, PermissionError):
            observer.note("drawing in one process: others cannot be started here")
    _watch(map(write, rows), len(rows), observer)


def _watch(written: Iterable[None], total: int, observer: Observer) -> None:
    for done, _ in enumerate(written, start=1):
        observer.progress("drawing the sample set", done, total)


def _write_picture(folder: Path, size: int, seed: int, row: Planned) -> None:
    drawing = draw(seed, row.patient, row.eye, row.grade, size)
    Image.fromarray(drawing.pixels).save(folder / file_name(row), quality=drawing.jpeg_quality)
