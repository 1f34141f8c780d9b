"""A photograph as a network sees it: its field cut out to a square, its quality judged.

What is done to a photograph is named by `Preprocessing`, which travels with the weights: a method
that changes pixels gets a new name there, and old weights keep asking for the old one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dr_cli.errors import DrError
from dr_cli.photographs import packed, quality
from dr_cli.photographs.decoding import Opened, decode, take
from dr_cli.photographs.field import Box, Field, find_field

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """All that decides the pixels a network sees. Stored with the weights; `recipe` is part of the
    crops' key."""

    size: int
    """Side of the square crop, pixels."""
    decoding: str = "draft"
    """"draft": a JPEG is decoded at 1/2, 1/4 or 1/8 (scaled DCT) while enough pixels are left;
    "full": always at its own size."""
    field: str = "runs-2"
    """How the field is found: the `rim` of `find_field`; "runs-1": its `box`, with the blur and the
    glow round a field; "whole": no cropping."""
    resize: str = "bicubic"
    """The antialiased filter that makes the crop."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    """Of each channel of pixels in [0, 1]: what normalisation subtracts and divides by."""
    illumination: str = "kept"
    """"kept": pixels as they are, less the mean and over the deviation; "evened": the light taken
    out in place of that, see `dr_cli.dataset.illumination`."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise DrError(f"the size of a crop must be at least 1 pixel, not {self.size}")
        for name, known in _KNOWN.items():
            if getattr(self, name) not in known:
                raise DrError(
                    f"unknown preprocessing: {name} = {getattr(self, name)!r}, where this dr knows"
                    f" {', '.join(known)}; these weights were made by a newer dr: upgrade it"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def recipe(self) -> dict[str, Any]:
        """What a crop is made by; what is done to its pixels later is not in it."""
        return {k: v for k, v in asdict(self).items() if k not in _LATER}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """The inverse of `to_dict`. DrError on a key or a method that this version lacks."""
        unknown = set(values) - set(cls.__dataclass_fields__)
        if unknown or "size" not in values:
            what = f"unknown {', '.join(sorted(unknown))}" if unknown else "no size"
            raise DrError(f"preprocessing record with {what}: made by a newer dr? upgrade it")
        values = {"field": "runs-1", **values}  # all that there was once
        plain: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        try:
            made = cls(**plain)
            whole = type(made.size) is int and made.size <= _LARGEST
            if not whole or np.shape([made.mean, made.std]) != (2, 3) or not min(made.std) > 0:
                raise TypeError
        except (TypeError, ValueError) as error:  # ValueError: rows of two lengths
            raise DrError("preprocessing record that holds no size, mean and deviation") from error
        return made


_LATER = ("mean", "std", "illumination")
_LARGEST = 16_384  # pixels of a crop's side; a larger one is a record gone wrong
_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_KNOWN = {
    "decoding": ("draft", "full"),
    "field": ("runs-2", "runs-1", "whole"),
    "resize": tuple(_RESAMPLING),
    "illumination": ("kept", "evened"),
}


@dataclass(frozen=True)
class Crop:
    """A photograph as a network sees it."""

    pixels: NDArray[np.uint8]
    """[3, S, S] uint8 RGB: the field, aspect kept, black where the square exceeds the picture."""
    original_size: tuple[int, int]
    """Width and height of the upright original, pixels."""
    box: Box
    """The field in the upright original."""
    origin: tuple[float, float]
    """Where the crop's top left corner lies in the upright original (may be negative)."""
    scale: float
    """Original pixels a crop pixel, the same both ways."""
    judgement: quality.Judgement
    """Whether it can be graded; see `quality.judge`."""
    note: str = ""
    patient: str | None = None
    eye: str | None = None
    """What its file tells besides; see `decoding.Opened`."""
    shown: NDArray[np.uint8] | None = None
    """[3, T, T] uint8 RGB, T >= S: the same square for a person to look at, if asked for."""

    def to_original(self, x: float, y: float) -> tuple[float, float]:
        """A point of the crop, in pixels from its top left corner, in the upright original."""
        return self.origin[0] + x * self.scale, self.origin[1] + y * self.scale


# --- the crop -----------------------------------------------------------------------------------

_SEEN_AT = 224  # pixels that finding the field and judging quality want, whatever the crop's size


def load_crop(
    path: Path | str | bytes | BinaryIO,
    preprocessing: Preprocessing,
    root: Path | str = Path(),
    show: int = 0,
) -> Crop:
    """A photograph, as `decode` takes it, as a network sees it. Raises UnreadableImage.

    show: pixels of the side of `Crop.shown`, 0 for none; fewer where what was decoded for the
    network has fewer, so that nothing is decoded twice, but never fewer than the crop's.
    """
    at_least = max(preprocessing.size, _SEEN_AT)
    full = preprocessing.decoding == "full"
    opened = decode(root, path, None if full else at_least)
    found = find_field(opened.picture)
    side = _field_box(found, preprocessing).side
    if side < preprocessing.size and opened.picture.size != opened.size:
        # A small field in a large picture: decoded again, larger by what it lacks.
        larger = -(-at_least * preprocessing.size // side)
        opened = decode(root, path, larger)
        found = find_field(opened.picture)
    return _cut(opened, found, preprocessing, show)


def from_image(image: Image.Image, preprocessing: Preprocessing, show: int = 0) -> Crop:
    """As `load_crop`, of a picture that is already in memory, in any Pillow mode."""
    opened = take(image)
    return _cut(opened, find_field(opened.picture), preprocessing, show)


def cut_field(picture: Image.Image, preprocessing: Preprocessing) -> "Square":
    """The crop of an RGB picture that needs no judgement, as of a drawn eye: faster by that."""
    return _square(picture, _field_box(find_field(picture), preprocessing), preprocessing)


def measure_field(path: Path | str, root: Path | str = Path()) -> tuple[int, int]:
    """Width and height of the field in the original, pixels. Raises UnreadableImage."""
    opened = decode(root, path, _SEEN_AT)
    picture, original = opened.picture, opened.size
    if packed.inside(path):  # cut to the field already; the last rows of its disc are field, too
        return original
    box = find_field(picture).rim
    scale = original[0] / picture.width
    return round((box.right - box.left) * scale), round((box.bottom - box.top) * scale)


def choose_size(sizes: Sequence[tuple[int, int]]) -> int:
    """The crop's size for photographs whose fields have these widths and heights, in pixels.

    The median of the longer sides, which become the crop's: so at least half of the photographs
    are not enlarged. At most 512, at least 32, a multiple of 32 (the stride of a ResNet); 224
    for no sizes.
    """
    if not sizes:
        return 224
    median = sorted(max(size) for size in sizes)[(len(sizes) - 1) // 2]
    return int(np.clip(median // 32 * 32, 32, 512))


def _field_box(found: Field, preprocessing: Preprocessing) -> Box:
    return found.rim if preprocessing.field == "runs-2" else found.box


def _cut(opened: Opened, found: Field, preprocessing: Preprocessing, show: int) -> Crop:
    """The square round the field, at the wanted size."""
    picture, original = opened.picture, opened.size
    whole = preprocessing.field == "whole"
    box = Box(0, 0, *picture.size) if whole else _field_box(found, preprocessing)
    cut = _square(picture, box, preprocessing)
    shown = cut.pixels if show else None
    if (side := min(show, box.side)) > preprocessing.size:
        shown = _square(picture, box, replace(preprocessing, size=side)).pixels
    enlarged = original[0] / picture.width  # original pixels a decoded pixel
    ratios = (enlarged, original[1] / picture.height) * 2  # of left, top, right, bottom
    return Crop(
        pixels=cut.pixels,
        original_size=original,
        box=Box(*(round(end * ratio) for end, ratio in zip(box, ratios, strict=True))),
        origin=(cut.left * enlarged, cut.top * enlarged),
        scale=cut.scale * enlarged,
        judgement=quality.judge(picture, found),
        note=opened.note,
        patient=opened.patient,
        eye=opened.eye,
        shown=shown,
    )


class Square(NamedTuple):
    """A crop and where it lies."""

    pixels: NDArray[np.uint8]
    """[3, S, S] uint8 RGB."""
    left: float
    """Of its corner in the picture, as `top`; may be negative."""
    top: float
    scale: float
    """The picture's pixels a crop pixel."""

    @property
    def box(self) -> tuple[int, int, int, int]:
        """What it shows of the picture, to the pixel; its ends may lie outside."""
        side = self.pixels.shape[1] * self.scale
        left, top = self.left, self.top
        return round(left), round(top), round(left + side), round(top + side)


def _square(picture: Image.Image, box: Box, preprocessing: Preprocessing) -> Square:
    """The square round a box of the picture, at the wanted size.

    Only what lies in the picture is resized, to whole pixels of the crop: the source is cut by
    less than one of them at each end, so that the scale stays exactly the same both ways.
    """
    size = preprocessing.size
    scale = box.side / size
    width, left, right = _span(box.left, box.right, scale)
    height, top, bottom = _span(box.top, box.bottom, scale)
    source, filtered = (left, top, right, bottom), _RESAMPLING[preprocessing.resize]
    part = picture.resize((width, height), filtered, source, reducing_gap=2.0)
    x, y = (size - width) // 2, (size - height) // 2
    pixels = np.zeros((3, size, size), np.uint8)
    for channel, band in zip(pixels, "RGB", strict=True):  # a quarter of the time of transposing
        plane = np.frombuffer(part.tobytes("raw", band), np.uint8)
        channel[y : y + height, x : x + width] = plane.reshape(height, width)
    return Square(pixels, left - x * scale, top - y * scale, scale)


def _span(start: int, stop: int, scale: float) -> tuple[int, float, float]:
    """Whole crop pixels that fit between two source pixels, and the source that they cover."""
    count = max(1, int((stop - start) / scale + 1e-6))
    spare = max(0.0, (stop - start) - count * scale) / 2
    return count, start + spare, stop - spare
