"""What can be measured of a picture's field in a few milliseconds: the numbers `quality` weighs.

Everything is measured on the field scaled to `SIDE` pixels, so that a vessel is as wide in a
photograph of 224 pixels as in one of 4,288, and in logarithms, so that a darker exposure shifts
what is measured of brightness and leaves what is measured of structure.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Resampling

from dr_cli.photographs.field import Field

SIDE = 192  # of the square that the field is scaled into: a vessel is 1 to 4 pixels wide
SCALES = 5  # of structure: details of 1, 2, 4, 8 and 16 pixels

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


def measure(picture: Image.Image, found: Field) -> Floats:
    """The measures of an RGB picture's field: [M] float32, finite."""
    left, top, right, bottom = found.box
    width, height = right - left, bottom - top
    longer = max(width, height)
    shape = max(8, round(SIDE * width / longer)), max(8, round(SIDE * height / longer))
    field = picture.resize(shape, Resampling.BILINEAR, found.box, reducing_gap=2.0)
    square = Image.new("RGB", (SIDE, SIDE))
    square.paste(field, ((SIDE - shape[0]) // 2, (SIDE - shape[1]) // 2))
    pixels = np.stack([np.asarray(band) for band in square.split()])
    brightest = pixels.max(axis=0)
    mask = brightest > found.level
    logs = _LOGS[pixels]
    inside = _erode(mask)
    parts = (
        [np.log2(min(longer, SIDE)), min(width, height) / longer, found.filled],
        _shape(mask),
        _colour(pixels[:, inside][:, ::3].astype(np.float32)),
        _structure(logs, inside),
        _lines(logs[1], inside),
        _evenness(brightest * mask, mask),
    )
    return np.nan_to_num(np.concatenate([np.asarray(part, np.float32) for part in parts]))


_LOGS = np.log(np.arange(256, dtype=np.float32) + 8)  # 8: the noise of black is no detail


def _erode(mask: Mask, by: int = 5) -> Mask:
    """Without the rim, whose edge would pass for structure."""
    for _ in range(2):
        padded = np.pad(mask, ((by, by), (0, 0)))
        mask = (padded[: -2 * by] & padded[2 * by :] & mask).T
    return mask


def _shape(mask: Mask) -> list[float]:
    """How much like a disc, perhaps cut: area, corners, circle, symmetry, raggedness, sides."""
    corner = SIDE // 7
    corners = (mask[:corner, :corner], mask[:corner, -corner:],
               mask[-corner:, :corner], mask[-corner:, -corner:])  # fmt: skip
    fill = sorted(float(one.mean()) for one in corners)
    edges = (mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum()
    area = float(mask.mean())
    return [
        area,
        *fill,
        float(mask[_CIRCLE].mean()),
        float(mask[~_CIRCLE].mean()),
        float((mask != mask[::-1]).mean()),
        float((mask != mask[:, ::-1]).mean()),
        float(edges) / SIDE / (np.sqrt(area) + 0.05),
        *(float(mask[sector].mean()) for sector in _SECTORS),
    ]


_Y, _X = (np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2) / (SIDE / 2)
_CIRCLE = np.hypot(_X, _Y) < 0.97
_SECTORS = tuple(_CIRCLE & (towards < -0.6) for towards in (_Y, -_Y, _X, -_X))


def _colour(seen: Floats) -> list[float]:
    """Of pixels [3, N]: exposure, and the order red over green over blue that a fundus has."""
    if seen.shape[1] < 20:
        return [0.0] * 33
    red, green, blue = seen + 4
    order = np.log(green / red), np.log(blue / green)
    brightest, darkest = seen.max(axis=0), seen.min(axis=0)
    return [
        *(_quantiles(seen, (0.02, 0.25, 0.5, 0.75, 0.98)) / 255),
        *(seen >= 250).mean(axis=1),
        *((brightest < dark).mean() for dark in (30, 60)),
        brightest.mean() / 255,
        ((red >= green) & (green >= blue - 2)).mean(),
        (brightest - darkest < 12).mean(),
        *(part.mean() for part in order),
        *(part.std() for part in order),
        *_quantiles(np.stack(order), (0.05, 0.5, 0.95)),
    ]


def _quantiles(values: NDArray[np.floating[Any]], at: tuple[float, ...]) -> Floats:
    """Of each row of [R, N], by sorting: numpy's own takes ten times as long."""
    ordered = np.sort(values, axis=1)
    picked: Floats = ordered.astype(np.float32)[
        :, [int(q * (values.shape[1] - 1)) for q in at]
    ].ravel()
    return picked


def _scales(logs: Floats, inside: Mask) -> Iterator[tuple[Floats, Mask]]:
    """At each scale what is lost by halving, [3, h, w], and where that lies inside."""
    for _ in range(SCALES):
        half, whole = _halve(logs), _all_four(inside)
        yield logs - half.repeat(2, axis=1).repeat(2, axis=2), whole.repeat(2, 0).repeat(2, 1)
        logs, inside = half, whole


def _halve(values: Floats) -> Floats:
    """[..., h, w] -> [..., h/2, w/2], means of four."""
    rows = values[..., ::2, :] + values[..., 1::2, :]
    half: Floats = (rows[..., ::2] + rows[..., 1::2]) * np.float32(0.25)
    return half


def _all_four(mask: Mask) -> Mask:
    rows = mask[::2] & mask[1::2]
    return rows[:, ::2] & rows[:, 1::2]


def _structure(logs: Floats, inside: Mask) -> list[float]:
    """At each scale: strength and skewness of green, red and blue against it; blood takes green
    away and hardly any red, while light and shade, as of a wall, take all three alike."""
    found: list[float] = []
    for detail, whole in _scales(logs, inside):
        seen = detail[:, whole]
        if seen.shape[1] < 16:
            found += [0.0] * 8
            continue
        squares = seen @ seen.T / seen.shape[1] + 1e-7 * np.eye(3, dtype=np.float32)
        red, green, blue = np.sqrt(np.diag(squares))
        normal = np.clip(seen[1] / green, -5, 5)
        square = normal * normal
        found += [
            np.log(green),
            np.log(red / green),
            np.log(blue / green),
            squares[0, 1] / red / green,
            squares[2, 1] / blue / green,
            (square * normal).mean(),
            np.log((square * square).mean() + 0.1),
            _chequered(detail[1], whole) / (len(normal) * green**2),
        ]
    return found


def _chequered(detail: Floats, whole: Mask) -> float:
    """The power of a scale's detail that is chequered: a third in noise, less in lines."""
    part = detail[::2, ::2] - detail[::2, 1::2] - detail[1::2, ::2] + detail[1::2, 1::2]
    return float((part[whole[::2, ::2]] ** 2).sum()) / 4


def _lines(green: Floats, inside: Mask) -> list[float]:
    """Of the slopes at two scales: how flat, how much along the axes, how well they run together,
    and how strong in weak and in strong parts of the field."""
    found: list[float] = []
    for _ in range(2):
        down, across = green[1:, :-1] - green[:-1, :-1], green[:-1, 1:] - green[:-1, :-1]
        here = inside[:-1, :-1]
        down, across = down * here, across * here
        square, other, both = down * down, across * across, down * across
        power = square + other
        strong, differing, leaning = _tile(power), _tile(square - other), _tile(both)
        total = float(strong.sum()) + 1e-6
        together = float(np.hypot(differing, 2 * leaning).sum()) / total
        flat = float((power[here] < 1e-6).mean()) if here.any() else 1.0
        full = strong[_tile(here.astype(np.float32)) > 40] / 64
        weak = np.log(_quantiles(full[None], (0.1, 0.5, 0.9)) + 1e-6) if full.size else [0] * 3
        found += [flat, 2 * float(np.abs(both).sum()) / total, together, *weak]
        green, inside = _halve(green), _all_four(inside)
    return found


def _tile(values: Floats) -> Floats:
    """Sums over tiles of 8 by 8; what is left over at the ends falls away."""
    height, width = (length // 8 for length in values.shape)
    cut = values[: height * 8, : width * 8].reshape(height, 8, width, 8)
    tiles: Floats = cut.sum(axis=1).sum(axis=2)
    return tiles


def _evenness(light: NDArray[np.uint8], mask: Mask) -> list[float]:
    """Of the field's light on a grid of 12 by 12: spread, how much lies in the dark, brightest."""
    step = SIDE // 12
    grid = (12, step, 12, step)
    share = mask.reshape(grid).mean(axis=(1, 3))
    full = share > 0.8
    here = (light.reshape(grid).mean(axis=(1, 3))[full] / share[full]).astype(np.float32)
    if here.size < 4:
        return [0.0] * 6
    low, middle, high = _quantiles(here[None], (0.1, 0.5, 0.95))
    return [
        low / 255,
        np.log(here + 8).std(),
        np.log((high + 8) / (middle + 8)),
        np.log((low + 8) / (middle + 8)),
        (here < 0.4 * high).mean(),
        (here < 40).mean(),
    ]
