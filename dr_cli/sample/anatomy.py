"""The healthy eye: a person's pigment and camera, where it is aimed, the fundus, its vessels."""

import math
from dataclasses import dataclass
from typing import NamedTuple

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
FAINTEST = 0.03  # tessellation that is drawn at all
VEIN_CALIBRE, ARTERY_CALIBRE, THINNEST = 0.085, 0.057, 0.011  # DD


@dataclass(frozen=True)
class Person:
    """What a patient's two eyes share: the pigment of the fundus, and the camera."""

    background: Floats  # [3] RGB of the fundus in the middle of the field
    vignetting: float
    tessellation: float
    cup: float
    fill: float  # the field's radius over half the picture's side, vertically
    squash: float  # horizontal lengths over vertical ones: others squashed pictures to squares
    cut: float  # half the height of the field, of its radius
    notch: bool
    jpeg_quality: int
    grain: float  # standard deviation of the sensor's noise, levels
    sharpened: float  # by the camera's software: 0, or the strength of its unsharp mask
    dust: Floats  # [n, 3] (x, y, radius) of spots on the lens, of the field's radius


def draw_person(rng: Rng) -> Person:
    """Who sits before the camera, and before which."""
    spots = rng.uniform(-0.6, 0.6, (int(rng.integers(1, 4)) if rng.random() < 0.15 else 0, 3))
    spots[:, 2] = rng.uniform(0.008, 0.016, len(spots))
    fill, squash, cut = _draw_field(rng)
    return Person(
        background=_draw_background(rng),
        vignetting=float(rng.uniform(0.3, 1.6)),
        tessellation=float(rng.uniform(0.5, 1.0) if rng.random() < 0.2 else rng.uniform(0, 0.15)),
        cup=float(rng.uniform(0.25, 0.6)),
        fill=fill,
        squash=squash,
        cut=cut,
        notch=bool(rng.random() < 0.5),
        jpeg_quality=int(rng.integers(50, 96)),
        grain=float(rng.uniform(0.5, 2.2)),
        sharpened=float(rng.uniform(0.3, 1.2)) if rng.random() < 0.25 else 0.0,
        dust=spots.astype(np.float32),
    )


def _draw_background(rng: Rng) -> Floats:
    """[3] RGB of the fundus as its camera shows it. Over APTOS 5% of the fields have a median
    red below 68, 5% a blue above 55."""
    exposure, hue = rng.standard_normal(2) - (0.35, 0)
    red = min(max(BACKGROUND[0] * math.exp(0.2 * exposure), 75.0), 240.0)
    green = BACKGROUND[1] * math.exp(0.22 * exposure + 0.15 * hue)  # log-correlation 0.83
    green = min(max(green, 0.34 * red), 0.68 * red)
    blue = green * (0.04 + 0.8 * rng.beta(1.1, 2.2))
    return np.array([red, green, blue], np.float32)


def _draw_field(rng: Rng) -> tuple[float, float, float]:
    """`fill`, `squash` and `cut` of a camera and of whoever kept its pictures: a whole circle, one
    cut above and below, one that touches all sides, or one squashed with its picture (APTOS: the
    field is 0.75 to 1 as wide as high, and fills 0.79 to 0.91 of its box)."""
    kind = rng.random()
    if kind < 0.4:
        cut = float(rng.uniform(0.78, 0.95) if rng.random() < 0.6 else 1.0)
        return float(rng.uniform(0.95, 0.995)), 1.0, cut
    if kind < 0.6:
        return float(rng.uniform(1.0, 1.2)), float(rng.uniform(0.93, 1.0)), 1.0
    squash = float(rng.uniform(0.64, 0.9))
    return float(rng.uniform(0.95, min(1.3, 1.0 / squash))), squash, 1.0


def aim(rng: Rng, side: int, size: int, person: Person) -> View:
    """Where the photographer looks; side, size: as `View` has them."""
    radius = size / 2 * person.fill
    distance = FOVEA_DISTANCE + FOVEA_DISTANCE_SD * rng.standard_normal()
    angle = math.radians(FOVEA_ANGLE + FOVEA_ANGLE_SD * rng.standard_normal())
    fovea = (distance * math.cos(angle), distance * math.sin(angle))
    # Photographers aim between fovea and disc, mostly near the fovea.
    towards_disc, up = np.clip(rng.standard_normal(2), -2, 2) * (0.45, 0.22) + (0.55, 0.1)
    slack = np.maximum(0.0, size / 2 - radius * np.array([person.squash, 1.0]))
    return View(
        size=size,
        side=side,
        dd=2 * radius * DISC_WIDTH * float(np.exp(0.09 * np.clip(rng.standard_normal(), -2, 2))),
        radius=radius,
        squash=person.squash,
        centre=tuple((size / 2 + slack * rng.uniform(-1, 1, 2)).tolist()),
        looks_at=(fovea[0] - float(towards_disc), fovea[1] - float(up)),
        fovea=fovea,
        cut=person.cut,
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
    _add_pigment(rng, picture)
    _tessellate(rng, picture, person.tessellation, view, u, v)
    depth = rng.uniform(0.5, 2.0)
    paint(picture, bump(u, v, view.fovea, 0.95), (-0.08, -0.12, -0.1), depth)
    paint(picture, bump(u, v, view.fovea, 0.27), (-0.14, -0.24, -0.12), depth)
    _add_sheen(rng, picture, u, v)
    _add_disc(rng, picture, person, u, v)
    return picture


def _add_pigment(rng: Rng, picture: Floats) -> None:
    """Patches of another colour, as pigment and JPEG make them: over the field red goes with green
    by 0.7 to 0.8, once the light is taken out."""
    for channel, strength in ((0, rng.uniform(0.2, 1)), (2, rng.uniform(0.2, 1.5))):
        for cells, amplitude in ((10, 0.015), (28, 0.02), (56, 0.015)):
            patches = mottle(rng, picture.shape[1], cells)
            picture[channel] *= 1 + patches * np.float32(strength * amplitude)


def _tessellate(
    rng: Rng, picture: Floats, strength: float, view: View, u: Floats, v: Floats
) -> None:
    """The large vessels of the choroid shining through, outside the macula."""
    if strength < FAINTEST:
        return
    stencil = Stencil(view)
    starts = rng.uniform(-3.5, 3.5, (45, 2)) + view.looks_at
    outwards = np.arctan2(starts[:, 1] - view.fovea[1], starts[:, 0] - view.fovea[0])
    headings = outwards + rng.normal(0, 0.4, len(starts))
    paths = wind(rng, starts, headings, headings, rng.uniform(1, 2.5, len(starts)), wobble=0.5)
    widths = rng.uniform(0.06, 0.14, len(paths))
    stencil.ribbons(paths, [np.full(len(p), w) for p, w in zip(paths, widths, strict=True)])
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
    paint(picture, reach * bundles * (1 + streaks), (0.5, 1, 1.6), rng.gamma(1.0, 0.15))


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


def _trace_trunks(rng: Rng, fovea: tuple[float, float]) -> tuple[list[Points], Floats]:
    """The six vessels that cross the disc's rim, and their calibres over that of an arcade."""
    arcades = [_trace_arcade(rng, up, fovea) for up in (-1, 1)]
    up = np.array([-1, -1, 1, 1])
    starts = np.stack([np.repeat(rng.uniform(-0.12, 0.05, 2), 2), 0.04 * up], 1)
    # To the nasal side, up and away from the fovea; then to the macula.
    headings = up * rng.uniform((1.3, 0.4, 1.3, 0.4), (1.7, 1.0, 1.7, 1.0))
    towards = up * rng.uniform((1.9, 0.15, 1.9, 0.15), (2.6, 0.5, 2.6, 0.5))
    lengths = np.array([3.5, 1.55, 3.5, 1.55]) * rng.uniform((1, 0.8, 1, 0.8), (1, 1.2, 1, 1.2))
    others = wind(rng, starts, headings, towards, lengths)
    least, most = (0.85, 0.85, 0.5, 0.2, 0.5, 0.2), (1.1, 1.1, 0.8, 0.4, 0.8, 0.4)
    return arcades + others, rng.uniform(least, most)


class Generation(NamedTuple):
    """Vessels that left their parents alike: padded paths and their widths at the root."""

    paths: list[Points]  # each [n, 2] (u, v)
    calibres: Floats  # [k] DD at the root, 0.4 of that at the end

    def widths(self) -> list[Points]:
        """Of each path [n]."""
        taper = [np.linspace(1, 0.4, len(path)) for path in self.paths]
        return [t * calibre for t, calibre in zip(taper, self.calibres, strict=True)]


def _branch(rng: Rng, parents: Generation, fovea: tuple[float, float]) -> Generation:
    """The vessels that leave these, thinner, on alternate sides; none reaches the fovea."""
    n, most = len(parents.paths), 8
    steps = np.array([np.hypot(*(path[1] - path[0])) for path in parents.paths])
    counts = np.array([len(path) for path in parents.paths])
    at = rng.uniform(0.3, 0.8, (n, 1)) + np.cumsum(rng.uniform(0.35, 1.1, (n, most)), 1) - 0.35
    index = (at / steps[:, None]).astype(int)
    parent, child = np.nonzero(index < counts[:, None] - 2)
    index = index[parent, child]
    sides = rng.choice([-1, 1], n)[parent] * (-1) ** child
    ends = np.cumsum(counts)
    points = np.concatenate(parents.paths)
    flat = ends[parent] - counts[parent] + index
    roots, forward = points[flat], points[flat + 1] - points[flat]
    tapered = parents.calibres[parent] * (1 - 0.6 * index / (counts[parent] - 1))
    calibres = tapered * rng.uniform(0.45, 0.75, len(flat))
    headings = np.arctan2(forward[:, 1], forward[:, 0]) + sides * rng.uniform(0.5, 1.1, len(flat))
    away = roots - fovea
    outwards = np.arctan2(away[:, 1], away[:, 0])
    inside = np.cos(headings - outwards) < 0
    lengths = rng.uniform(0.8, 2.2, len(flat)) * (calibres / 0.03) ** 0.5
    lengths = np.where(inside, np.minimum(lengths, np.hypot(*away.T) - 0.45), lengths)
    goals = outwards + np.where(inside, np.pi, 0) + rng.normal(0, 0.4, len(flat))
    kept = (calibres >= THINNEST) & (lengths >= 0.25)
    chosen = (values[kept] for values in (roots, headings, goals, lengths))
    return Generation(wind(rng, *chosen), calibres[kept])


def add_vessels(rng: Rng, picture: Floats, view: View) -> Generation:
    """Arteries under veins, in place; returns the veins that leave the disc."""
    for calibre, change in ((ARTERY_CALIBRE, ARTERY), (VEIN_CALIBRE, VEIN)):
        paths, relative = _trace_trunks(rng, view.fovea)
        trunks = generation = Generation(paths, calibre * relative)
        stencil, grown = Stencil(view), [trunks]
        for _ in range(2):
            grown.append(generation := _branch(rng, generation, view.fovea))
        for vessels in reversed(grown):  # the thin ones first: the thick lie over them
            strengths = np.minimum(1.0, 0.5 + 8 * vessels.calibres)
            stencil.ribbons(vessels.paths, vessels.widths(), strengths)
        paint(picture, stencil.coverage(), change, rng.uniform(0.65, 1.4))
    return trunks
