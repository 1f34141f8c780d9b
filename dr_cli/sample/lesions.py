"""What disease adds: lesions as they were measured, how many, where, and how they look."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dr_cli.grades import NUM_GRADES
from dr_cli.sample.anatomy import VEIN, Generation
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
        (0.015, 0.032, 0.104), (0.04, 0.11, 0.28), (0.6, 1, 0.3), 1.23, 0.25, 1.4
    ),
    "cotton_wool": Lesion(
        (0.105, 0.208, 0.442), (0.08, 0.14, 0.37), (0.6, 1, 1.6), 1.23, 0.25, 2.0
    ),
}
LARGE_LESIONS = (
    "venous_beading",
    "irma",
    "neovascularisation",
    "preretinal_haemorrhage",
    "fibrous_band",
)
LESIONS = (*SMALL_LESIONS, *LARGE_LESIONS)

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
VISIBLE_PIXELS = 3.0
VISIBLE_GAIN = 2.0
STRONGEST = 0.9  # contrast that a stencil's full strength stands for
COVERED = 0.4  # share of a pixel that a lesion covers to be in its mask
GROUP = 0.16  # standard deviation of a group of exudates, DD
SPREAD = 2.0  # of the counts, in deviations: screening shows far milder eyes than the measured ones
ONE_KIND = 0.2  # of grade 2: exudates without haemorrhages, or the other way round
RINGS, PLAQUES = 0.25, 0.45  # of groups of exudates; of eyes with exudates that run together
FLAMES = 0.3  # of haemorrhages, which lie along the nerve fibres
# Which share of eyes of grades 0 to 4 has them; a scar of laser is no lesion, but tells of one.
LARGE_SHARE = {
    "venous_beading": (0, 0, 0, 0.35, 0.35),
    "irma": (0, 0, 0, 0.5, 0.4),
    "fibrous_band": (0, 0, 0, 0, 0.25),
}


def add_lesions(
    rng: Rng, grade: int, view: View, picture: Floats, veins: Generation
) -> dict[str, Mask]:
    """Draws the grade's lesions into picture [3, H, W], in place; the mask of each kind."""
    masks = {kind: np.zeros(picture.shape[1:], bool) for kind in LESIONS}
    counts = _draw_counts(rng, grade)
    has = {kind: rng.random() < shares[grade] for kind, shares in LARGE_SHARE.items()}
    if has["venous_beading"]:
        masks["venous_beading"] = _draw_beading(rng, view, picture, veins)
    if has["irma"]:
        masks["irma"] = _draw_irma(rng, view, picture)
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
        if has["fibrous_band"]:
            masks["fibrous_band"] = _draw_band(rng, view, picture)
    return masks


def _draw_counts(rng: Rng, grade: int) -> dict[str, int]:
    """How many of each kind; the eye's severity moves all kinds together."""
    severity = rng.standard_normal()
    counts = {}
    for kind, by_grade in COUNTS.items():
        if quartiles := by_grade[grade]:
            z = 0.8 * severity + 0.6 * rng.standard_normal()
            counts[kind] = max(1, round(_spread(quartiles, 0.674, np.clip(z, -SPREAD, 1.2))))
    if grade == 2 and rng.random() < ONE_KIND:
        del counts[("haemorrhage", "hard_exudate")[rng.random() < 0.6]]
    if rng.random() < COTTON_WOOL_SHARE[grade]:
        counts["cotton_wool"] = int(rng.integers(1, MOST_COTTON_WOOL + 1))
    return counts


def _place(rng: Rng, kind: str, n: int, view: View) -> Points:
    """Centres [n, 2] (u, v) inside the field, off the disc; exudates in groups and rings."""
    distance = SMALL_LESIONS[kind].distance
    found = np.empty((0, 2))
    if kind == "hard_exudate" and n:
        groups = _scatter(rng, int(rng.integers(1, 7)), distance, view)
        rings = np.where(rng.random(len(groups)) < RINGS, rng.uniform(0.2, 0.6, len(groups)), 0)
        share = rng.dirichlet(np.ones(len(groups)))
    while len(found) < n:
        spots = _scatter(rng, 4 * n, distance, view)
        if kind == "hard_exudate":
            chosen = rng.choice(len(groups), len(spots), p=share)
            turn, radius = rng.uniform(0, 2 * np.pi, len(spots)), rings[chosen]
            wide = np.where(radius > 0, 0.3 * GROUP, GROUP)[:, None]
            spots = groups[chosen] + wide * rng.standard_normal(spots.shape)
            spots += radius[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1)
        spots = spots[view.in_field(spots) & (np.hypot(*spots.T) > 0.75)]
        if kind == "hard_exudate" and len(spots) < n / 4:  # a group outside the field
            groups = _scatter(rng, len(groups), distance, view)
        found = np.concatenate([found, spots])
    return found[:n]


def _scatter(rng: Rng, n: int, distance: float, view: View) -> Points:
    """n points about the fovea, their median distance as given, [n, 2]."""
    angle = rng.uniform(0, 2 * np.pi, n)
    radius = distance * np.exp(0.45 * rng.standard_normal(n))
    return np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None] + view.fovea


def _draw_small(rng: Rng, kind: str, centres: Points, view: View, picture: Floats) -> Mask:
    lesion, n = SMALL_LESIONS[kind], len(centres)
    diameters, colour = _draw_values(rng, lesion.diameter, n), np.array(lesion.colour)
    contrasts = _draw_values(rng, lesion.contrast, n)
    # How dense blood and how thick lipid is differs by eye, and so does the camera's blue.
    contrasts *= np.exp(0.25 * np.clip(rng.standard_normal(), -1.5, 1.5))
    colour[2] *= rng.uniform(-0.5, 1.5)
    if kind == "hard_exudate" and rng.random() < PLAQUES:
        large = rng.random(n) < rng.uniform(0.05, 0.3)
        diameters = np.where(large, diameters * rng.uniform(2, 5), diameters)
        contrasts = np.where(large, contrasts * rng.uniform(1.2, 2), contrasts)
    least = _least_visible(view)
    diameters = np.hypot(diameters, least)
    contrasts *= 1 + VISIBLE_GAIN * (least / diameters) ** 2
    aspects, turns = np.full(n, lesion.aspect), rng.uniform(0, np.pi, n)
    if kind == "haemorrhage":
        flames = rng.random(n) < FLAMES
        aspects = np.where(flames, rng.uniform(2, 4, n), aspects)
        turns = np.where(flames, np.arctan2(centres[:, 1], centres[:, 0]), turns)
    outlines = make_ovals(rng, lesion, diameters, aspects, turns) + centres[:, None]
    strengths, shapes = Stencil(view), Stencil(view)
    shapes.polygons(outlines)
    strengths.polygons(outlines, np.minimum(contrasts / STRONGEST, 1))
    cover = strengths.coverage()
    if kind == "cotton_wool":
        cover = blur(cover, 0.045 * view.dd)
    paint(picture, cover, tuple(colour), STRONGEST)
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


def make_ovals(
    rng: Rng, lesion: Lesion, diameters: Floats, aspects: Floats, turns: Floats
) -> Points:
    """Ragged ovals about (0, 0), of the given diameters, aspects and turns (radians), each [n]:
    [n, 12, 2] (u, v)."""
    n = len(diameters)
    angle = np.arange(12) * (2 * np.pi / 12)
    radius = 1 + lesion.raggedness * rng.uniform(-1, 1, (n, 12))
    stretch = aspects[:, None] ** (0.5 * rng.uniform(0.4, 1.6, (n, 1)))
    turn = turns[:, None]
    x, y = radius * np.cos(angle) * stretch, radius * np.sin(angle) / stretch
    turned = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], 2)
    return turned * (diameters / 2)[:, None, None]


def _draw_beading(rng: Rng, view: View, picture: Floats, veins: Generation) -> Mask:
    """Veins that swell like strings of beads."""
    stencil = Stencil(view)
    for number in rng.permutation(len(veins.paths))[: int(rng.integers(1, 4))]:
        path, width = veins.paths[number], float(veins.calibres[number]) * 0.8
        spacing = rng.uniform(2, 3.5) * width
        along = np.concatenate([[0], np.hypot(*np.diff(path, axis=0).T).cumsum()])
        places = np.arange(0.5 + rng.uniform(0, 1), along[-1], spacing)
        beads = np.stack([np.interp(places, along, values) for values in path.T], 1)
        sizes = width * rng.uniform(1.5, 2.1, len(beads))
        flat = np.full(len(beads), 1.1)
        ovals = make_ovals(rng, SMALL_LESIONS["microaneurysm"], sizes, flat, flat)
        stencil.polygons(ovals + beads[:, None])
    cover = stencil.coverage()
    paint(picture, cover, VEIN, 0.8)
    return cover >= COVERED


def _draw_irma(rng: Rng, view: View, picture: Floats) -> Mask:
    """Fine crooked vessels within the retina, a few in a place."""
    stencil = Stencil(view)
    places = _scatter(rng, int(rng.integers(1, 6)), 2.2, view)
    roots = np.repeat(places, rng.integers(3, 7, len(places)), axis=0)
    roots = roots + rng.normal(0, 0.1, roots.shape)
    headings = rng.uniform(0, 2 * np.pi, len(roots))
    lengths = rng.uniform(0.3, 0.7, len(roots))
    paths = wind(rng, roots, headings, headings, lengths, wobble=1.3)
    width = math.hypot(0.02, 0.35 * _least_visible(view))
    stencil.ribbons(paths, [np.full(len(p), width) for p in paths], rng.uniform(0.5, 0.9))
    cover = stencil.coverage()
    paint(picture, cover, VEIN)
    return cover >= COVERED / 2


def _draw_new_vessels(rng: Rng, view: View, picture: Floats) -> Mask:
    """Fine tangles on the disc or along an arcade."""
    stencil = Stencil(view)
    width = math.hypot(0.016, 0.5 * _least_visible(view))
    for _ in range(int(rng.integers(1, 4))):
        side = rng.choice([-1.0, 1.0])
        beside = np.array([rng.uniform(0.8, 2.6), side * rng.uniform(1.5, 2.2)])
        root = np.array([0.1, 0.3 * side]) if rng.random() < 0.4 else beside
        headings = rng.uniform(0, 2 * np.pi, int(rng.integers(10, 18)))
        lengths = rng.uniform(0.5, 1.0) * rng.uniform(0.5, 1.2, len(headings))
        roots = root + rng.normal(0, 0.12, (len(headings), 2))
        paths = wind(rng, roots, headings, headings, lengths, wobble=1.1)
        strengths = rng.uniform(0.6, 1.0, len(paths))
        stencil.ribbons(paths, [np.full(len(path), width) for path in paths], strengths)
    cover = stencil.coverage()
    paint(picture, cover, VEIN)
    return cover >= COVERED / 2


def _draw_preretinal(rng: Rng, view: View, picture: Floats) -> Mask:
    """A boat: blood that settles before the retina, level at the top; or a ragged cloud."""
    stencil = Stencil(view)
    centre = np.asarray(view.fovea) + rng.uniform(-1.3, 1.3, 2) + (0, 0.5)
    half, drop = rng.uniform(0.4, 1.2), rng.uniform(0.3, 0.9)
    full = rng.random() < 0.5
    angle = np.linspace(0, 2 * np.pi if full else np.pi, 24)
    ragged = 1 + sum(
        rng.uniform(0, 0.25 if full else 0.06) * np.sin(k * angle + rng.uniform(0, 6))
        for k in (2, 3, 5)
    )
    hull = np.stack([np.cos(angle) * half, np.sin(angle) * half * drop], 1) * ragged[:, None]
    stencil.polygons((centre + hull)[None])
    cover = stencil.coverage()
    strength = rng.uniform(0.7, 1.4)
    paint(picture, blur(cover, rng.uniform(0.02, 0.08) * view.dd), (-0.3, -0.55, -0.45), strength)
    return cover >= COVERED


def _draw_band(rng: Rng, view: View, picture: Floats) -> Mask:
    """Fibrous tissue: pale sheets along an arcade or over the disc."""
    stencil = Stencil(view)
    root = np.array([rng.uniform(-0.3, 2.5), rng.choice([-1, 1]) * rng.uniform(0.2, 2.0)])
    headings = rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.5, int(rng.integers(2, 6)))
    roots = root + rng.normal(0, 0.15, (len(headings), 2))
    lengths = rng.uniform(0.6, 2.0, len(headings))
    paths = wind(rng, roots, headings, headings, lengths, wobble=0.5)
    widths = rng.uniform(0.1, 0.35, len(paths))
    tapered = [w * np.linspace(1, 0.4, len(p)) for p, w in zip(paths, widths, strict=True)]
    stencil.ribbons(paths, tapered, rng.uniform(0.5, 1, len(paths)))
    cover = stencil.coverage()
    paint(picture, blur(cover, 0.04 * view.dd), (0.2, 0.4, 0.6), rng.uniform(0.6, 1.2))
    return cover >= COVERED


SHADES = 4096  # of a tone curve: far finer than the levels of a picture
BRIGHTEST = 8.0  # of the background's colour; a disc's blue may be six times that


def keep_colours(picture: Floats, healthy: Floats, field: Mask) -> None:
    """Gives each channel of picture [3, H, W] the quantiles that it had without lesions, in place.

    Else the amount of red and yellow would tell the grade, and a network need not look for
    lesions. The curve is monotone: what is darker or brighter than its surround stays so.
    """
    tail = (0, 0.2, 0.5, 1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 40)
    quantiles = (*tail, 50, *(100 - share for share in reversed(tail)))
    shades = np.linspace(0, BRIGHTEST, SHADES)
    for channel, before in zip(picture, healthy, strict=True):
        now, then = (_take_quantiles(values[field], quantiles) for values in (channel, before))
        curve = np.interp(shades, now, then).astype(np.float32)
        shade = np.clip(channel * np.float32(SHADES / BRIGHTEST), 0, SHADES - 1)
        channel[:] = curve[shade.astype(np.uint16)]


def _take_quantiles(values: Floats, percents: Sequence[float]) -> Floats:
    """np.percentile by sorting: many of them take it five times as long."""
    values = np.sort(values)
    return values[np.round(np.asarray(percents) / 100 * (len(values) - 1)).astype(int)]
