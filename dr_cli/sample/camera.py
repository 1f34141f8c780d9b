"""What lies before and beside the disease: harmless spots and scars; then what a camera makes of
an eye: haze, light, reflections, tone, noise, dust, and the edge of the field."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from dr_cli.sample.anatomy import Person
from dr_cli.sample.canvas import Floats, Rng, Stencil, View, blur, bump, paint
from dr_cli.sample.lesions import SMALL_LESIONS, make_ovals

FRAME = (2, 1, 1)  # outside the field
# Shares of eyes, of whatever grade.
DRUSEN, REFLEXES, HAZE, SHADE, RIM_LIGHT, FLASH = 0.2, 0.2, 0.2, 0.12, 0.22, 0.1
LASERED = (0.02, 0.02, 0.06, 0.12, 0.35)  # of grades 0 to 4: some had it for another disease


def add_drusen(rng: Rng, view: View, picture: Floats) -> None:
    """A few pale soft spots near the fovea, in any grade: not every bright dot is an exudate."""
    if rng.random() > DRUSEN:
        return
    stencil, n = Stencil(view), int(rng.integers(3, 40))
    ones = np.ones(n)
    outlines = make_ovals(
        rng, SMALL_LESIONS["hard_exudate"], rng.uniform(0.03, 0.1, n), 1.2 * ones, ones
    )
    centres = view.fovea + rng.normal(0, rng.uniform(0.4, 1.0), (n, 1, 2))
    stencil.polygons(outlines + centres, rng.uniform(0.4, 1, n))
    paint(picture, blur(stencil.coverage(), 0.02 * view.dd), (0.06, 0.1, 0.07), rng.uniform(0.7, 2))


def add_reflexes(rng: Rng, view: View, picture: Floats, u: Floats, v: Floats) -> None:
    """Light that a young retina throws back: bright arcs round the macula, and a dot in it."""
    if rng.random() > REFLEXES:
        return
    away, radius = np.hypot(u - view.fovea[0], v - view.fovea[1]), rng.uniform(0.6, 1.6)
    angle = np.arctan2(v - view.fovea[1], u - view.fovea[0])
    wave = sum(rng.uniform(0, 1) * np.sin(k * angle + rng.uniform(0, 6)) for k in (1, 2, 3, 5))
    arc = np.clip(0.3 + wave, 0, 1) * np.exp(
        -(((away - radius * (1 + 0.1 * wave)) / rng.uniform(0.08, 0.3)) ** 2), dtype=np.float32
    )
    paint(picture, np.float32(arc), (0.12, 0.25, 0.45), rng.uniform(0.3, 1.2))
    if rng.random() < 0.5:
        paint(picture, bump(u, v, view.fovea, 0.04), (0.2, 0.4, 0.6), rng.uniform(0.3, 1))


def add_scars(rng: Rng, view: View, grade: int, picture: Floats) -> None:
    """Laser scars outside the macula: pale rounds in rows, some with pigment in the middle."""
    if rng.random() > LASERED[grade]:
        return
    spacing = rng.uniform(0.35, 0.7)
    rows = np.arange(-6, 6, spacing)
    places = np.stack(np.meshgrid(rows, rows), -1).reshape(-1, 2)
    places = places + rng.normal(0, 0.25 * spacing, places.shape) + view.looks_at
    away = places - view.fovea
    begins = rng.uniform(1.4, 2.6)
    sector = np.cos(np.arctan2(away[:, 1], away[:, 0]) - rng.uniform(0, 6.3))
    places = places[
        (np.hypot(*away.T) > begins) & (np.hypot(*places.T) > 1) & (sector > rng.uniform(-1.5, 0.5))
    ]
    n, pale, dark = len(places), Stencil(view), Stencil(view)
    ones, size = np.ones(n), rng.uniform(0.12, 0.3)
    for stencil, share in ((pale, 1.0), (dark, rng.uniform(0.3, 0.6))):
        sizes = size * share * rng.uniform(0.7, 1.3, n)
        ovals = make_ovals(rng, SMALL_LESIONS["cotton_wool"], sizes, 1.2 * ones, ones)
        stencil.polygons(ovals + places[:, None], rng.uniform(0.2, 1, n))
    soft = 0.03 * view.dd
    paint(picture, blur(pale.coverage(), soft), (0.15, 0.3, 0.4), rng.uniform(0.4, 1))
    paint(picture, blur(dark.coverage(), soft), (-0.5, -0.5, -0.4), rng.uniform(0, 1))


def photograph(
    rng: Rng, person: Person, view: View, picture: Floats, field: Floats
) -> NDArray[np.uint8]:
    """What the patient's camera makes of picture [3, H, W] (1 = background): uint8 [H, W, 3]."""
    x, y = view.across()
    exposure = np.exp(rng.normal(0, 0.06) + np.array([0.04, 0.06, 0.08]) * rng.standard_normal(3))
    colour = (person.background * exposure / 255).astype(np.float32)[:, None, None]
    picture = picture * _light(rng, person, x, y) * colour
    _add_veil(rng, picture, colour, x, y)
    levels = np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    image = Image.fromarray(np.ascontiguousarray(levels))
    sigma = float(np.clip(0.5 * np.exp(0.5 * rng.standard_normal()), 0.2, 1.4)) * view.size / 224
    image = image.filter(ImageFilter.GaussianBlur(sigma))
    if person.sharpened:
        wide = rng.uniform(0.005, 0.02) * view.size
        image = image.filter(ImageFilter.UnsharpMask(wide, round(100 * person.sharpened), 0))
    curves = _tone(rng, colour[:, 0, 0])
    noise = person.grain * rng.standard_normal(field.shape, np.float32)
    result = np.empty((*field.shape, 3), np.uint8)
    for channel, black in enumerate(FRAME):
        seen = curves[channel][np.asarray(image)[..., channel]]
        seen = seen + np.roll(noise, 7 * channel, (0, 1))
        result[..., channel] = np.clip(black + (seen - black) * field + 0.5, 0, 255)
    return result


def _light(rng: Rng, person: Person, x: Floats, y: Floats) -> Floats:
    """How much light falls where, [H, W]: tilted, shaded by the iris, dust on the lens."""
    tilt = np.clip(0.15 * rng.standard_normal(2), -0.35, 0.35).astype(np.float32)
    light = np.exp(tilt[0] * x + tilt[1] * y)
    if rng.random() < SHADE:
        where = rng.uniform(0, 2 * np.pi)
        into = x * math.cos(where) + y * math.sin(where) - rng.uniform(0.2, 0.8)
        light *= 1 - rng.uniform(0.3, 0.8) / (1 + np.exp(-into / rng.uniform(0.05, 0.25)))
    for spot_x, spot_y, radius in person.dust:
        light *= 1 - 0.25 * np.clip(2 - 1.5 * np.hypot(x - spot_x, y - spot_y) / radius, 0, 1)
    return np.float32(light)


def _tone(rng: Rng, background: Floats) -> Floats:
    """What the camera's software does to each channel's levels: float32 [3, 256]. Its background
    [3], in [0, 1], stays what it is."""
    tone = math.exp(float(np.clip(0.18 * rng.standard_normal(), -0.36, 0.36)))
    levels = np.arange(256, dtype=np.float32) / 255
    own = np.maximum(background, 0.02)[:, None]
    return np.float32(255 * own * (levels / own) ** tone)


def _add_veil(rng: Rng, picture: Floats, colour: Floats, x: Floats, y: Floats) -> None:
    """Haze of a cloudy lens, light that comes in over the iris at one side, and the flash's own
    image; in place."""
    haze = rng.uniform(0.1, 0.5) if rng.random() < HAZE else rng.uniform(0, 0.06)
    whitish = np.array([0.85, 0.92, 1.1], np.float32)[:, None, None]
    picture += np.float32(haze) * (whitish * colour - picture)
    if rng.random() < RIM_LIGHT:
        where, inner = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 0.85)
        side = np.clip(x * math.cos(where) + y * math.sin(where), 0, 1)
        crescent = side**2 * np.clip((np.hypot(x, y) - inner) / (1 - inner), 0, 1) ** 2
        strength, tint = rng.uniform(0.1, 0.5), rng.uniform((1, 0.6, 0.2), (1.001, 1.1, 0.8))
        for channel, share in zip(picture, tint, strict=True):
            channel += crescent * np.float32(strength * share)
    if rng.random() < FLASH:
        at, wide = rng.uniform(-0.6, 0.6, 2), rng.uniform(0.04, 0.3)
        spot = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * wide**2), dtype=np.float32)
        strength = rng.uniform(0.05, 0.25)
        for channel, share in zip(picture, (0.8, 0.9, 1.0), strict=True):
            channel += spot * np.float32(strength * share)


def show_field(person: Person, view: View) -> Floats:
    """What the camera shows, [H, W] in [0, 1]: a circle, cut above and below, with a notch."""
    x, y = view.across()
    inside = np.clip((1 - np.hypot(x, y)) * view.radius + 0.5, 0, 1)
    inside *= np.clip((view.cut - np.abs(y)) * view.radius + 0.5, 0, 1)
    if person.notch:  # two teeth at the right, above the middle
        for reach, height in ((0.9, -0.42), (0.87, -0.5)):
            inside *= (x < reach) | (np.abs(y - height) > 0.033)
    return inside
