"""The healthy eye: a person's pigment and camera, where it is aimed, the fundus, its vessels."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dr_cli.sample.canvas import Floats, Points, Rng, Stencil, View, blur, bump, mottle, paint, wind

# Measured, but for the calibres: those were chosen.
DISC_WIDTH = 0.153  # of the field's width
DISC_ASPECT = 1.11  # taller than wide
FOVEA_DISTANCE, FOVEA_DISTANCE_SD = 2.5, 0.16  # DD
FOVEA_ANGLE, FOVEA_ANGLE_SD = 6.4, 4.3  # degrees below the disc
EDGE_COLOUR = (0.71, 0.66, 0.78)  # of the centre's, at the rim of the field
BACKGROUND = (182, 94, 23)  # RGB in the middle; the field's median is then (168, 84, 16)
DISC_COLOUR = (254, 141, 40)
VEIN, ARTERY = (-0.11, -0.38, -0.32), (-0.05, -0.25, -0.2)  # relative change of RGB
VEIN_CALIBRE, ARTERY_CALIBRE, THINNEST = 0.085, 0.057, 0.011  # DD


@dataclass(frozen=True)
class Person:
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


def draw_person(rng: Rng) -> Person:
    """Who sits before the camera, and before which."""
    exposure, hue = rng.standard_normal(2)
    red = BACKGROUND[0] * math.exp(0.13 * exposure)
    green = BACKGROUND[1] * math.exp(0.19 * exposure + 0.12 * hue)  # log-correlation 0.89
    green = min(max(green, 0.36 * red), 0.62 * red)
    blue = green * (0.04 + 0.75 * rng.beta(1.1, 2.6))
    spots = rng.uniform(-0.6, 0.6, (int(rng.integers(1, 4)) if rng.random() < 0.15 else 0, 3))
    spots[:, 2] = rng.uniform(0.008, 0.016, len(spots))
    return Person(
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


def aim(rng: Rng, side: int, size: int, cut: float) -> View:
    """Where the photographer looks; side, size, cut: as `View` has them."""
    radius = size / 2 * float(rng.uniform(0.95, 0.995))
    distance = FOVEA_DISTANCE + FOVEA_DISTANCE_SD * rng.standard_normal()
    angle = math.radians(FOVEA_ANGLE + FOVEA_ANGLE_SD * rng.standard_normal())
    fovea = (distance * math.cos(angle), distance * math.sin(angle))
    # Photographers aim between fovea and disc, mostly near the fovea.
    towards_disc, up = np.clip(rng.standard_normal(2), -2, 2) * (0.45, 0.22) + (0.55, 0.1)
    slack = size / 2 - radius
    return View(
        size=size,
        side=side,
        dd=2 * radius * DISC_WIDTH * float(np.exp(0.07 * np.clip(rng.standard_normal(), -2, 2))),
        radius=radius,
        centre=tuple((size / 2 + slack * rng.uniform(-1, 1, 2)).tolist()),
        looks_at=(fovea[0] - float(towards_disc), fovea[1] - float(up)),
        fovea=fovea,
        cut=cut,
    )


def paint_fundus(rng: Rng, person: Person, view: View) -> Floats:
    """The healthy fundus without vessels, [3, H, W], 1 being the background's colour."""
    u, v, rho = view.grid()
    picture = np.ones((3, view.size, view.size), np.float32)
    rim = np.clip((rho - 0.25) / 0.75, 0, 1.2) ** 1.5
    paint(picture, rim, [edge - 1 for edge in EDGE_COLOUR], person.vignetting)
    noise = sum(
        amplitude * mottle(rng, view.size, cells)
        for cells, amplitude in ((3, 0.04), (8, 0.025), (24, 0.015), (60, 0.012))
    )
    paint(picture, np.float32(noise), (0.6, 1, 0.9))
    _tessellate(rng, picture, person.tessellation, view, u, v)
    depth = rng.uniform(0.6, 1.3)
    paint(picture, bump(u, v, view.fovea, 0.95), (-0.08, -0.12, -0.1), depth)
    paint(picture, bump(u, v, view.fovea, 0.27), (-0.14, -0.24, -0.12), depth)
    _add_sheen(rng, picture, u, v)
    _add_disc(rng, picture, person, u, v)
    return picture


def _tessellate(
    rng: Rng, picture: Floats, strength: float, view: View, u: Floats, v: Floats
) -> None:
    """The large vessels of the choroid shining through, outside the macula."""
    stencil = Stencil(view)
    for start in rng.uniform(-3.5, 3.5, (45, 2)) + view.looks_at:
        outwards = math.atan2(start[1] - view.fovea[1], start[0] - view.fovea[0])
        heading = outwards + rng.normal(0, 0.4)
        path = wind(rng, start, heading, heading, rng.uniform(1, 2.5), wobble=0.5)
        stencil.ribbon(path, np.full(len(path), rng.uniform(0.06, 0.14)))
    cover = blur(stencil.coverage(), 0.02 * view.dd) - np.float32(0.35)
    paint(picture, cover * (1 - bump(u, v, view.fovea, 1.2)), (0.13, 0.22, 0.05), strength)


def _add_sheen(rng: Rng, picture: Floats, u: Floats, v: Floats) -> None:
    """Nerve fibres: faint bright streaks that leave the disc above and below the macula."""
    angle, distance = np.arctan2(v, u), np.hypot(u, v)
    streaks = sum(
        np.cos(k * angle + phase, dtype=np.float32) / 6
        for k, phase in zip((9, 14, 23), rng.uniform(0, 2 * np.pi, 3), strict=True)
    )
    bundles = np.exp(-(((np.abs(angle) - 1.1) / 0.5) ** 2), dtype=np.float32)
    reach = np.exp(-((distance / 2) ** 2), dtype=np.float32) * np.minimum(distance, 1)
    paint(picture, reach * bundles * (1 + streaks), (0.5, 1, 1.6), rng.uniform(0, 0.25))


def _add_disc(rng: Rng, picture: Floats, person: Person, u: Floats, v: Floats) -> None:
    """The disc with its cup, as bright in a dark picture as in a bright one, or nearly."""
    tilt = rng.normal(0, 0.15)
    across, along = u * math.cos(tilt) + v * math.sin(tilt), v * math.cos(tilt) - u * math.sin(tilt)
    distance = np.hypot(across / 0.5, along / (0.5 * DISC_ASPECT))
    if rng.random() < 0.3:  # bare sclera at the temporal rim
        crescent = np.clip((1.25 - np.hypot(across - 0.1, along) / 0.5) / 0.12, 0, 1)
        paint(picture, crescent, (0.2, 0.25, 0.4), rng.uniform(0.4, 1))
    halo = np.exp(-np.maximum(distance - 1, 0) / 0.35, dtype=np.float32)
    paint(picture, halo, (0.08, 0.08, 0.05), rng.uniform(0, 1.5))
    edge = np.clip((1 - distance) / rng.uniform(0.15, 0.35) + 0.5, 0, 1)
    temporal_pallor = 1 + 0.15 * np.clip(across / 0.5, -1, 1)
    typical = np.asarray(DISC_COLOUR) / BACKGROUND
    colour = typical * (np.asarray(BACKGROUND) / person.background) ** 0.7
    paint(picture, edge * temporal_pallor, colour * np.exp(0.05 * rng.standard_normal(3)) - 1)
    cup_distance = np.hypot(across - 0.06, along) / (0.5 * person.cup)
    inside = np.clip((1 - cup_distance) / 0.8 + 0.5, 0, 1)
    paint(picture, inside, (0.05, 0.35, 0.8), rng.uniform(0.5, 1.2))


def _trace_arcade(rng: Rng, up: int, fovea: tuple[float, float]) -> Points:
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


def _trace_trunks(rng: Rng, fovea: tuple[float, float]) -> Iterator[tuple[Points, float]]:
    """The vessels that cross the disc's rim, and their calibre over that of an arcade."""
    for up in (-1, 1):
        yield _trace_arcade(rng, up, fovea), rng.uniform(0.85, 1.1)
        start = np.array([rng.uniform(-0.12, 0.05), 0.04 * up])
        nasal = up * rng.uniform(1.9, 2.6)  # radians: up and away from the fovea
        yield wind(rng, start, up * rng.uniform(1.3, 1.7), nasal, 3.5), rng.uniform(0.5, 0.8)
        macular = up * rng.uniform(0.15, 0.5)
        path = wind(rng, start, up * rng.uniform(0.4, 1), macular, rng.uniform(1.2, 1.9))
        yield path, rng.uniform(0.2, 0.4)


def _branch(
    rng: Rng, path: Points, width: float, fovea: tuple[float, float], depth: int
) -> Iterator[tuple[Points, Points]]:
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
        course = wind(rng, path[i], heading, goal, length)
        yield from _branch(rng, course, child, fovea, depth - 1)


def add_vessels(rng: Rng, picture: Floats, view: View) -> None:
    """Arteries under veins, in place."""
    for calibre, change in ((ARTERY_CALIBRE, ARTERY), (VEIN_CALIBRE, VEIN)):
        stencil = Stencil(view)
        for trunk, relative in _trace_trunks(rng, view.fovea):
            for path, widths in _branch(rng, trunk, calibre * relative, view.fovea, depth=2):
                stencil.ribbon(path, widths, min(1.0, 0.5 + 8 * float(widths[0])))
        paint(picture, stencil.coverage(), change, rng.uniform(0.65, 1.1))
