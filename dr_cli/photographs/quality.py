"""Whether a picture is a photograph that can be graded: the rule, and its version."""

import numpy as np
from PIL import Image, ImageFilter

VERSION = 1
"""Of the rule; part of the crops' key, because qualities are kept beside them. Whoever changes
what `judge` gives raises it."""

# Over all photographs of IDRiD (516) and APTOS (2,484) the least is 0.41, 0.3% lie below 0.83 and
# 0.63, and so all are gradable. Black, white, flat colour, noise (uniform, Gaussian, dark), linear
# and radial gradients, a checkerboard and a page of text score 0, white on black 0.14.
GRADABLE_FROM = 0.2


def judge(field: Image.Image, filled: float) -> float:
    """How likely a picture cropped to its field (RGB) is a photograph to be graded, in [0, 1].

    The worst of these, each 0 to 1: filled (a disc fills 0.79 of its box); bright enough; not
    washed out; structure of a vessel's size, neither too faint nor stronger than a fundus has;
    the finest detail against that structure, neither a smooth drawing's nor a page's or noise's.
    It tells photographs of a fundus from black, white, flat, noise, gradients and pages of text;
    it is no clinical measure of quality.
    """
    if filled == 0:
        return 0.0
    rgb = field.resize((128, 128), Image.Resampling.BILINEAR)
    pixels = np.asarray(rgb)[_MIDDLE].astype(np.float32)
    green = rgb.getchannel("G")  # where vessels and lesions stand out most
    blurs = green, green.filter(ImageFilter.BoxBlur(1)), green.filter(ImageFilter.BoxBlur(6))
    sharp, smooth, surround = (np.asarray(blur)[_MIDDLE].astype(np.float32) for blur in blurs)
    fine = float(np.abs(sharp - smooth).mean())
    coarse = float(np.abs(smooth - surround).mean())
    washed_out = float((pixels.min(axis=2) >= 250).mean())
    contrast = coarse / (float(surround.mean()) + 4)
    texture = fine / (coarse + 0.3)  # 0.3: rounding to 8 bits alone
    parts = (
        _ramp(filled, 0.4, 0.7),
        _ramp(float(pixels.max(axis=2).mean()), 20, 60),
        _ramp(washed_out, 0.5, 0.1),
        _ramp(contrast, 0.004, 0.015),
        _ramp(contrast, 0.4, 0.2),
        _ramp(texture, 0.05, 0.15),
        _ramp(texture, 1.0, 0.7),
    )
    return round(min(parts), 4)


_MIDDLE = (slice(24, 104), slice(24, 104))  # away from the rim, whose edge would pass for detail


def _ramp(value: float, nothing: float, full: float) -> float:
    """0 at `nothing`, 1 at `full` and beyond, a straight line between."""
    return min(1.0, max(0.0, (value - nothing) / (full - nothing)))
