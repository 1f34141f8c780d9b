"""What a camera makes of an eye: haze, light, tone, noise, dust, and the edge of the field."""

import math

import numpy as np
from numpy.typing import NDArray

from dr_cli.sample.anatomy import Person
from dr_cli.sample.canvas import Floats, Rng, Stencil, View, blur, paint
from dr_cli.sample.lesions import SMALL_LESIONS, make_ovals

FRAME = (2, 1, 1)  # outside the field


def add_drusen(rng: Rng, view: View, picture: Floats) -> None:
    """A few pale soft spots near the fovea, in any grade: not every bright dot is an exudate."""
    stencil = Stencil(view)
    n = int(rng.integers(3, 12)) if rng.random() < 0.12 else 0
    outlines = make_ovals(rng, SMALL_LESIONS["hard_exudate"], rng.uniform(0.05, 0.1, n))
    for outline in outlines + view.fovea + rng.normal(0, 0.8, (n, 1, 2)):
        stencil.polygon(outline, rng.uniform(0.4, 1))
    paint(picture, blur(stencil.coverage(), 0.02 * view.dd), (0.06, 0.09, 0.05))


def photograph(
    rng: Rng, person: Person, view: View, picture: Floats, field: Floats
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
    _add_veil(rng, picture, colour, x, y)
    sigma = float(np.clip(0.5 * np.exp(0.4 * rng.standard_normal()), 0.2, 1.0)) * view.size / 224
    picture = np.stack([blur(channel, sigma) for channel in picture]) * 255
    picture += person.grain * rng.standard_normal(picture.shape, np.float32)
    black = np.asarray(FRAME, np.float32)[:, None, None]
    framed = np.clip(black + (picture - black) * field + 0.5, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(framed.transpose(1, 2, 0))


def _add_veil(rng: Rng, picture: Floats, colour: Floats, x: Floats, y: Floats) -> None:
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


def show_field(person: Person, view: View) -> Floats:
    """What the camera shows, [H, W] in [0, 1]: a circle, cut above and below, with a notch."""
    x, y = view.across()
    inside = np.clip((1 - np.hypot(x, y)) * view.radius + 0.5, 0, 1)
    inside *= np.clip((view.cut - np.abs(y)) * view.radius + 0.5, 0, 1)
    if person.notch:  # two teeth at the right, above the middle
        for reach, height in ((0.9, -0.42), (0.87, -0.5)):
            inside *= (x < reach) | (np.abs(y - height) > 0.033)
    return inside
