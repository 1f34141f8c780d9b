"""A white border round the field, as slides, papers and some exports have, made black as cameras'
are, so that all that follows knows one kind of border.

Of 30 drawn eyes on white, saved as JPEG, the field is found with an intersection over union of
0.989 (lowest 0.976) and none is refused; without this 0.53, and all 30 are. None of 550 photographs
of IDRiD and APTOS is changed, and none of 200 drawn pictures of other things
(examples/benchmarks/not_fundus.py). It takes 0.03 ms, and 12 ms where there is such a border.
"""

import numpy as np
from PIL import Image, ImageChops

_SEEN_AT = 512  # pixels of the longer side
_WHITE = 225  # of 255 in every channel: a corner of such a border
_LIGHT = 128  # what leads inwards from it and is lighter is border, too: its edge is blurred. Of a
# retina the darkest channel, blue, is mostly below 100.
_LEAST, _DISC, _LIT = 0.05, 0.6, 0.2


def blacken(picture: Image.Image) -> Image.Image:
    """An RGB picture with a white border round something like a disc -> one with a black border;
    any other as it is: a page of text is light within, too, and a scene fills no disc."""
    if not _has_white_corners(picture):
        return picture
    small = picture.reduce(max(1, max(picture.size) // _SEEN_AT))
    red, green, blue = small.split()
    light = np.asarray(ImageChops.darker(ImageChops.darker(red, green), blue)) > _LIGHT
    beyond = np.zeros_like(light)
    for axis in (0, 1):  # straight in from each edge
        beyond |= np.logical_and.accumulate(light, axis)
        beyond |= np.flip(np.logical_and.accumulate(np.flip(light, axis), axis), axis)
    inside = ~beyond
    if beyond.mean() < _LEAST or not inside.any() or light[inside].mean() > _LIT:
        return picture
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    if inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() < _DISC:
        return picture
    mask = Image.fromarray(beyond.astype(np.uint8) * 255)
    black = picture.copy()
    black.paste((0, 0, 0), mask=mask.resize(picture.size, Image.Resampling.NEAREST))
    return black


def _has_white_corners(picture: Image.Image) -> bool:
    """At least three of them: in one may stand a mark."""
    width, height = picture.size
    side = max(1, min(width, height) // 32)
    places = [(x, y) for x in (0, width - side) for y in (0, height - side)]
    corners = [picture.crop((x, y, x + side, y + side)) for x, y in places]
    pixels = [np.asarray(corner) for corner in corners]
    return sum(one.mean() > _WHITE and one.min() > _LIGHT for one in pixels) >= 3
