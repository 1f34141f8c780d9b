"""What disease adds: lesions as they were measured, how many, where, and how they look."""

import math
from typing import Any, NamedTuple

import numpy as np

from dr_cli.grades import NUM_GRADES
from dr_cli.sample.anatomy import VEIN
from dr_cli.sample.canvas import Floats, Mask, Points, Rng, Stencil, View, blur, paint, wind

Percentiles = tuple[float, float, float]  # low, median, high


class Lesion(NamedTuple):
    """One kind of small lesion; percentiles are the 5th, 50th and 95th.

    diameter: DD. contrast: relative change of green against the surround. colour: the change
    of (R, G, B) for one unit of green's. distance: median from the fovea, DD.
    """

    diameter: Percentiles
    contrast: Percentiles
    colour: tuple[float, float, float]
    aspect: float
    raggedness: float
    distance: float


BLOOD = (-0.35, -1, -0.8)
SMALL_LESIONS = {
    "microaneurysm": Lesion((0.019, 0.033, 0.058), (0.04, 0.09, 0.17), BLOOD, 1.08, 0.05, 1.7),
    "haemorrhage": Lesion((0.038, 0.088, 0.30), (0.04, 0.09, 0.20), BLOOD, 1.33, 0.3, 1.9),
    "hard_exudate": Lesion(
        (0.015, 0.032, 0.104), (0.04, 0.11, 0.28), (0.6, 1, 0.9), 1.23, 0.25, 1.4
    ),
    "cotton_wool": Lesion(
        (0.105, 0.208, 0.442), (0.08, 0.14, 0.37), (0.6, 1, 1.6), 1.23, 0.25, 2.0
    ),
}
LESIONS = (*SMALL_LESIONS, "neovascularisation", "preretinal_haemorrhage")

# How many in grades 0 to 4: quartiles, as measured. Cotton wool: in which share of eyes, then 1
# to 4.
COUNTS: dict[str, tuple[Percentiles | None, ...]] = {
    "microaneurysm": (None, (3, 5, 8), (11, 23, 38), (41, 61, 74), (43, 80, 89)),
    "haemorrhage": (None, None, (4, 9, 16), (19, 32, 44), (34, 49, 52)),
    "hard_exudate": (None, None, (37, 68, 121), (57, 103, 345), (97, 234, 297)),
}
COTTON_WOOL_SHARE = (0.0, 0.0, 0.36, 0.64, 0.44)
MOST_COTTON_WOOL = 4

# What follows was chosen.
# A median microaneurysm is 1.1 px across at 224 px: nothing learns from that in five epochs.
# So a lesion's diameter grows in quadrature by this many pixels, whatever the picture's size:
# large lesions, and all lesions in large pictures, keep their measured size.
VISIBLE_PIXELS = 4.0
VISIBLE_GAIN = 3.0
STRONGEST = 0.9  # contrast that a stencil's full strength stands for
COVERED = 0.4  # share of a pixel that a lesion covers to be in its mask
GROUP = 0.16  # standard deviation of a group of exudates, DD


def add_lesions(rng: Rng, grade: int, view: View, picture: Floats) -> dict[str, Mask]:
    """Draws the grade's lesions into picture [3, H, W], in place; the mask of each kind."""
    masks = {kind: np.zeros(picture.shape[1:], bool) for kind in LESIONS}
    counts = _draw_counts(rng, grade)
    for kind in SMALL_LESIONS:
        centres = _place(rng, kind, counts.get(kind, 0), view)
        if len(centres):
            masks[kind] = _draw_small(rng, kind, centres, view, picture)
    if grade == NUM_GRADES - 1:  # new vessels, blood, or both
        what = rng.random()
        if what < 0.75:
            masks["neovascularisation"] = _draw_new_vessels(rng, view, picture)
        if what > 0.5:
            masks["preretinal_haemorrhage"] = _draw_preretinal(rng, view, picture)
    return masks


def _draw_counts(rng: Rng, grade: int) -> dict[str, int]:
    """How many of each kind; the eye's severity moves all kinds together."""
    severity = rng.standard_normal()
    counts = {}
    for kind, by_grade in COUNTS.items():
        if quartiles := by_grade[grade]:
            z = 0.7 * severity + 0.7 * rng.standard_normal()
            counts[kind] = max(1, round(_spread(quartiles, 0.674, np.clip(z, -1.2, 1.2))))
    if rng.random() < COTTON_WOOL_SHARE[grade]:
        counts["cotton_wool"] = int(rng.integers(1, MOST_COTTON_WOOL + 1))
    return counts


def _place(rng: Rng, kind: str, n: int, view: View) -> Points:
    """Centres [n, 2] (u, v) inside the field, off the disc; exudates in groups."""
    distance = SMALL_LESIONS[kind].distance
    groups = _scatter(rng, int(rng.integers(2, 7)), distance, view)
    found = np.empty((0, 2))
    while len(found) < n:
        spots = _scatter(rng, 4 * n, distance, view)
        if kind == "hard_exudate":
            chosen = rng.integers(0, len(groups), len(spots))
            spots = groups[chosen] + rng.normal(0, GROUP, spots.shape)
        spots = spots[view.in_field(spots) & (np.hypot(*spots.T) > 0.75)]
        found = np.concatenate([found, spots])
    return found[:n]


def _scatter(rng: Rng, n: int, distance: float, view: View) -> Points:
    """n points about the fovea, their median distance as given, [n, 2]."""
    angle = rng.uniform(0, 2 * np.pi, n)
    radius = distance * np.exp(0.45 * rng.standard_normal(n))
    return np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None] + view.fovea


def _draw_small(rng: Rng, kind: str, centres: Points, view: View, picture: Floats) -> Mask:
    lesion = SMALL_LESIONS[kind]
    least = _least_visible(view)
    diameters = np.hypot(_draw_values(rng, lesion.diameter, len(centres)), least)
    gain = 1 + VISIBLE_GAIN * (least / diameters) ** 2
    contrasts = _draw_values(rng, lesion.contrast, len(centres)) * gain
    strengths, shapes = Stencil(view), Stencil(view)
    outlines = make_ovals(rng, lesion, diameters) + centres[:, None]
    for outline, contrast in zip(outlines, np.minimum(contrasts / STRONGEST, 1), strict=True):
        shapes.polygon(outline)
        strengths.polygon(outline, contrast)
    cover = strengths.coverage()
    if kind == "cotton_wool":
        cover = blur(cover, 0.045 * view.dd)
    paint(picture, cover, lesion.colour, STRONGEST)
    return shapes.coverage() >= COVERED


def _draw_values(rng: Rng, percentiles: Percentiles, n: int) -> Floats:
    """n of a positive quantity by its 5th, 50th and 95th percentile."""
    return _spread(percentiles, 1.645, np.clip(rng.standard_normal(n), -2, 2))


def _spread(percentiles: Percentiles, deviate: float, z: Any) -> Any:
    """The value at standard normal z, lognormal on either side of the median.

    `deviate` is the z of high, and low's with the sign changed.
    """
    low, median, high = percentiles
    return median * np.where(z < 0, low / median, high / median) ** (np.abs(z) / deviate)


def _least_visible(view: View) -> float:
    """By how much small lesions grow, DD; below 224 px no more than there."""
    return VISIBLE_PIXELS / view.dd * min(1, view.size / 224)


def make_ovals(rng: Rng, lesion: Lesion, diameters: Points) -> Points:
    """Ragged ovals about (0, 0) of the given diameters [n]: [n, 12, 2] (u, v)."""
    n = len(diameters)
    angle = np.arange(12) * (2 * np.pi / 12)
    radius = 1 + lesion.raggedness * rng.uniform(-1, 1, (n, 12))
    stretch = lesion.aspect ** (0.5 * rng.uniform(0.4, 1.6, (n, 1)))
    turn = rng.uniform(0, np.pi, (n, 1))
    x, y = radius * np.cos(angle) * stretch, radius * np.sin(angle) / stretch
    turned = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], 2)
    return turned * (diameters / 2)[:, None, None]


def _draw_new_vessels(rng: Rng, view: View, picture: Floats) -> Mask:
    """Fine tangles on the disc or along an arcade."""
    stencil = Stencil(view)
    width = math.hypot(0.016, 0.5 * _least_visible(view))
    for _ in range(int(rng.integers(1, 4))):
        side = rng.choice([-1.0, 1.0])
        beside = np.array([rng.uniform(0.8, 2.6), side * rng.uniform(1.5, 2.2)])
        root = np.array([0.1, 0.3 * side]) if rng.random() < 0.4 else beside
        reach = rng.uniform(0.5, 1.0)
        for heading in rng.uniform(0, 2 * np.pi, int(rng.integers(10, 18))):
            length = reach * rng.uniform(0.5, 1.2)
            path = wind(rng, root + rng.normal(0, 0.12, 2), heading, heading, length, wobble=1.1)
            stencil.ribbon(path, np.full(len(path), width), rng.uniform(0.6, 1.0))
    cover = stencil.coverage()
    paint(picture, cover, VEIN)
    return cover >= COVERED / 2


def _draw_preretinal(rng: Rng, view: View, picture: Floats) -> Mask:
    """A boat: blood that settles before the retina, level at the top."""
    stencil = Stencil(view)
    centre = np.asarray(view.fovea) + rng.uniform(-1.3, 1.3, 2) + (0, 0.5)
    half, drop = rng.uniform(0.4, 1.0), rng.uniform(0.4, 0.9)
    angle = np.linspace(0, np.pi, 24)
    ragged = 1 + 0.06 * np.sin(5 * angle + rng.uniform(0, 6))
    hull = np.stack([np.cos(angle) * half, np.sin(angle) * half * drop], 1) * ragged[:, None]
    stencil.polygon(centre + hull)
    cover = stencil.coverage()
    paint(picture, blur(cover, 0.03 * view.dd), (-0.3, -0.55, -0.45))
    return cover >= COVERED


def keep_colours(picture: Floats, healthy: Floats, field: Mask) -> None:
    """Gives each channel of picture [3, H, W] the quantiles that it had without lesions, in place.

    Else the amount of red and yellow would tell the grade, and a network need not look for
    lesions. The curve is monotone: what is darker or brighter than its surround stays so.
    """
    tail = (0, 0.2, 0.5, 1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 40)
    quantiles = (*tail, 50, *(100 - share for share in reversed(tail)))
    for channel, before in zip(picture, healthy, strict=True):
        now, then = (np.percentile(values[field], quantiles) for values in (channel, before))
        channel[:] = np.interp(channel, now, then)
