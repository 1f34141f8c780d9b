"""One photograph: decode it, find the field, crop it to a square, judge its quality.

Needs numpy and Pillow alone, because `dr predict` goes through here for every photograph.

What is done to a photograph is named by `Preprocessing`, which travels with the weights: a method
that changes pixels gets a new name there, and old weights keep asking for the old one.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import (  # the plugins register what `FORMATS` names: otherwise Pillow looks for them
    BmpImagePlugin,  # noqa: F401
    ExifTags,
    GifImagePlugin,  # noqa: F401
    Image,
    ImageChops,
    ImageFilter,
    Jpeg2KImagePlugin,  # noqa: F401
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    PpmImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from dr_cli.errors import DrError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# What Pillow may open. Named, because its whole list holds formats that start other programs (EPS).
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "PPM", "WEBP", "JPEG2000")
# Pillow refuses 178 million pixels; its warning from half of that on would name a library's line.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
EXTENSIONS = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".tif",
        ".tiff",
        ".bmp",
        ".gif",
        ".ppm",
        ".pgm",
        ".pnm",
        ".webp",
        ".jp2",
        ".j2k",
    ]
)


class UnreadableImage(DrError):  # noqa: N818 - named as what it is about
    """A file that gives no picture; `reason` says why in plain words."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = str(path), reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.reason)  # crosses to and from worker processes


@dataclass(frozen=True)
class Preprocessing:
    """All that decides the pixels a network sees. Stored with the weights, part of cache keys."""

    size: int
    """Side of the square crop, pixels."""
    decoding: str = "draft"
    """"draft": a JPEG is decoded at 1/2, 1/4 or 1/8 (scaled DCT) while enough pixels are left;
    "full": always at its own size."""
    field: str = "runs-1"
    """How the field is found: `find_field`, version 1; or "whole": no cropping."""
    resize: str = "bicubic"
    """The antialiased filter that makes the crop."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    """Of each channel of pixels in [0, 1]: what normalisation subtracts and divides by."""

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

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """The inverse of `to_dict`. DrError on a key or a method that this version lacks."""
        unknown = set(values) - set(cls.__dataclass_fields__)
        if unknown or "size" not in values:
            what = f"unknown {', '.join(sorted(unknown))}" if unknown else "no size"
            raise DrError(f"preprocessing record with {what}: made by a newer dr? upgrade it")
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**plain)


_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_KNOWN = {"decoding": ("draft", "full"), "field": ("runs-1", "whole"), "resize": tuple(_RESAMPLING)}


class Box(NamedTuple):
    """A rectangle of pixels: left and top inside, right and bottom outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def side(self) -> int:
        """The longer side."""
        return max(self.right - self.left, self.bottom - self.top)


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
    quality: float
    """In [0, 1]; see `judge`."""
    gradable: bool

    def to_original(self, x: float, y: float) -> tuple[float, float]:
        """A point of the crop, in pixels from its top left corner, in the upright original."""
        return self.origin[0] + x * self.scale, self.origin[1] + y * self.scale


# --- decoding -----------------------------------------------------------------------------------


def decode(path: Path | str, at_least: int | None = None) -> Image.Image:
    """The upright picture as 8-bit RGB.

    at_least: pixels that the shorter side must keep; a JPEG much larger than that is decoded at
    1/2, 1/4 or 1/8, which takes a quarter of the time. None: at its own size.
    Transparent parts become black; 16-bit grey is scaled to 8 by the bit depth its values need.
    Raises UnreadableImage.
    """
    return _decode(Path(path), at_least)[0]


def _decode(path: Path, at_least: int | None) -> tuple[Image.Image, tuple[int, int]]:
    """The picture, and the width and height of the upright original."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if at_least is not None:
                image.draft("RGB", (at_least, at_least))
            image.load()
            turn = _TURNS.get(_orientation(image))
            picture = _to_rgb(image)
    except Exception as problem:  # each codec raises errors of its own on foreign bytes
        raise UnreadableImage(path, _reason(path, problem)) from problem
    if turn is None:
        return picture, (width, height)
    picture = picture.transpose(turn)
    return picture, (height, width) if turn in _SIDEWAYS else (width, height)


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = tuple(_TURNS[orientation] for orientation in (5, 6, 7, 8))


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 (upright) where the file has none, or a broken one."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a broken EXIF block is no reason to refuse the picture
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode[0] in "IF":  # 16 or 32 bits a pixel, grey
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        black = Image.new("RGB", image.size)
        black.paste(image, mask=image.getchannel("A"))
        return black
    return image.convert("RGB")


def _to_8_bits(grey: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey of any depth -> uint8. Cameras store 10, 12 or 14 bits in files of 16."""
    values = np.nan_to_num(grey.astype(np.float32), posinf=0.0, neginf=0.0)
    highest = float(values.max(initial=0.0))
    unit = [1.0] if grey.dtype.kind == "f" else []
    depths = [*unit, 255.0, 1023.0, 4095.0, 16383.0, 65535.0, highest]
    white = next(depth for depth in depths if highest <= depth)
    return np.clip(values * (255 / white) + 0.5, 0, 255).astype(np.uint8)


def _reason(path: Path, problem: Exception) -> str:
    """Why no picture came of it, in plain words."""
    if isinstance(problem, FileNotFoundError):
        return "no such file"
    if path.is_dir():
        return "a folder, not a photograph"
    if isinstance(problem, PermissionError):
        return "may not be read (permission denied)"
    if isinstance(problem, Image.DecompressionBombError):
        return "has more pixels than is safe to decode (over 178 million)"
    if isinstance(problem, MemoryError):
        return "too large for this machine's memory"
    if isinstance(problem, UnidentifiedImageError):
        return _no_image(path)
    if "truncated" in str(problem).lower():
        return "the file is cut short (truncated)"
    return f"cannot be decoded ({' '.join(str(problem).split()) or type(problem).__name__})"


def _no_image(path: Path) -> str:
    with open(path, "rb") as file:
        start = file.read(132)
    if not start:
        return "the file is empty (0 bytes)"
    if start[128:] == b"DICM":
        return "a DICOM file: export it as PNG or JPEG first"
    return f"not an image, or in a format that dr does not read ({', '.join(FORMATS)} are)"


# --- the field ----------------------------------------------------------------------------------

# The border is near-black: over IDRiD and APTOS its corners are at most 8 and 19 of 255, and the
# darkest rim of a field is 20 to 30. A corner brighter than this is not a border but the field.
_DARKEST_FIELD = 24
_ABOVE_BORDER = 8
_PART_OF_FIELD = 0.1  # of the field's brightness: above the glow that a bright field casts round it
# Rows (columns) whose longest run of bright pixels is shorter than this part of the longest of all
# are not the field's: so text and its letters fall away, and 0.4% of a circle's height at each end.
_SHORTEST_RUN = 0.12


def find_field(rgb: NDArray[np.uint8]) -> Box:
    """The bounding box of the field, the bright disc on black, in a picture [H, W, 3] uint8.

    The disc may be cut at any side, have a notch, or fill the whole picture; text in the border
    is passed over. The whole picture where nothing stands out from black. Exact to one part in
    256 of the picture's longer side.
    """
    picture = Image.fromarray(rgb)
    return _find_field(picture).box


class _Found(NamedTuple):
    box: Box
    """In the picture."""
    thumbnail: Image.Image
    """The field alone, small: what quality is judged on."""
    filled: float
    """Part of the box that is brighter than the border; 0 where no field was found."""


def _find_field(picture: Image.Image) -> _Found:
    step = max(1, max(picture.size) // 256)
    small = picture.reduce(step)
    bright = ImageChops.lighter(ImageChops.lighter(*small.split()[:2]), small.getchannel("B"))
    mask = np.asarray(bright) > _border_level(bright)
    if not mask.any():
        return _Found(Box(0, 0, *picture.size), small, 0.0)
    top, bottom = _band(_longest_runs(mask))
    left, right = _band(_longest_runs(mask.T))
    box = Box(
        left * step,
        top * step,
        min(right * step, picture.width),
        min(bottom * step, picture.height),
    )
    inside = mask[top:bottom, left:right]
    return _Found(box, small.crop((left, top, right, bottom)), float(inside.mean()))


def _border_level(bright: Image.Image) -> float:
    """The level of a picture in grey above which a pixel belongs to the field."""
    level = np.asarray(bright)
    a = max(1, min(level.shape) // 24)
    corners = (level[:a, :a], level[:a, -a:], level[-a:, :a], level[-a:, -a:])
    border = min(_DARKEST_FIELD, *(float(corner.mean()) for corner in corners))
    counts = np.cumsum(bright.histogram())
    typical = int(np.searchsorted(counts, 0.8 * counts[-1]))  # of the field: over a fifth of all
    return border + max(_ABOVE_BORDER, _PART_OF_FIELD * (typical - border))


def _longest_runs(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The length of the longest run of True in each row: [H, W] -> [H]."""
    count = np.cumsum(mask, axis=1)
    before = np.maximum.accumulate(np.where(mask, 0, count), axis=1)
    return (count - before).max(axis=1)


def _band(runs: NDArray[np.int64]) -> tuple[int, int]:
    """First and past-last of the unbroken rows round the longest run that are long enough."""
    peak = int(runs.argmax())
    short = np.flatnonzero(runs < max(1.0, _SHORTEST_RUN * float(runs[peak])))
    above, below = short[short < peak], short[short > peak]
    return int(above.max(initial=-1)) + 1, int(below.min(initial=len(runs)))


# --- the crop -----------------------------------------------------------------------------------

_LOOK = 224  # pixels that finding the field and judging quality want, whatever the crop's size


def load_crop(path: Path | str, preprocessing: Preprocessing) -> Crop:
    """A photograph file as a network sees it. Raises UnreadableImage."""
    return _crop(*_open(Path(path), preprocessing), preprocessing)


def from_image(image: Image.Image, preprocessing: Preprocessing) -> Crop:
    """As `load_crop`, of a picture that is already in memory, in any Pillow mode."""
    picture = _to_rgb(image)
    return _crop(picture, picture.size, _locate(picture, preprocessing), preprocessing)


def field_size(path: Path | str) -> tuple[int, int]:
    """Width and height of the field in the original, pixels. Raises UnreadableImage."""
    picture, original = _decode(Path(path), _LOOK)
    box = _find_field(picture).box
    scale = original[0] / picture.width
    return round((box.right - box.left) * scale), round((box.bottom - box.top) * scale)


def auto_size(sizes: Sequence[tuple[int, int]]) -> int:
    """The crop's size for photographs whose fields have these widths and heights, in pixels.

    The median of the longer sides, which become the crop's: so at least half of the photographs
    are not enlarged. At most 512, at least 32, a multiple of 32 (the stride of a ResNet); 224
    for no sizes.
    """
    if not sizes:
        return 224
    median = sorted(max(size) for size in sizes)[(len(sizes) - 1) // 2]
    return int(np.clip(median // 32 * 32, 32, 512))


def _open(path: Path, preprocessing: Preprocessing) -> tuple[Image.Image, tuple[int, int], _Found]:
    """The picture, large enough for the crop; the upright original's size; the field in it."""
    if preprocessing.decoding == "full":
        picture, original = _decode(path, None)
        return picture, original, _locate(picture, preprocessing)
    at_least = max(preprocessing.size, _LOOK)
    picture, original = _decode(path, at_least)
    found = _locate(picture, preprocessing)
    if found.box.side < preprocessing.size and picture.size != original:
        # A small field in a large picture: decoded again, larger by what it lacks.
        picture, original = _decode(path, -(-at_least * preprocessing.size // found.box.side))
        found = _locate(picture, preprocessing)
    return picture, original, found


def _locate(picture: Image.Image, preprocessing: Preprocessing) -> _Found:
    found = _find_field(picture)
    if preprocessing.field == "whole":
        return found._replace(box=Box(0, 0, *picture.size))
    return found


class _Square(NamedTuple):
    pixels: NDArray[np.uint8]
    left: float
    """Where its left edge lies in the picture, pixels; may be negative, as top may."""
    top: float
    scale: float
    """The picture's pixels a crop pixel."""


def _square(picture: Image.Image, box: Box, preprocessing: Preprocessing) -> _Square:
    """The square round a box, at the wanted size.

    Only what lies in the picture is resized, to whole pixels of the crop: the source is cut by
    less than one of them at each end, so that the scale stays exactly the same both ways.
    """
    size, scale = preprocessing.size, box.side / preprocessing.size
    width, left, right = _span(box.left, box.right, scale)
    height, top, bottom = _span(box.top, box.bottom, scale)
    part = picture.resize(
        (width, height),
        _RESAMPLING[preprocessing.resize],
        box=(left, top, right, bottom),
        reducing_gap=2.0,
    )
    x, y = (size - width) // 2, (size - height) // 2
    pixels = np.zeros((3, size, size), np.uint8)
    pixels[:, y : y + height, x : x + width] = np.asarray(part).transpose(2, 0, 1)
    return _Square(pixels, left - x * scale, top - y * scale, scale)


def _crop(
    picture: Image.Image, original: tuple[int, int], found: _Found, preprocessing: Preprocessing
) -> Crop:
    square = _square(picture, found.box, preprocessing)
    enlarged = original[0] / picture.width  # original pixels a decoded pixel
    quality = judge(found.thumbnail, found.filled)
    return Crop(
        pixels=square.pixels,
        original_size=original,
        box=_scale(found.box, original, picture.size),
        origin=(square.left * enlarged, square.top * enlarged),
        scale=square.scale * enlarged,
        quality=quality,
        gradable=quality >= GRADABLE_FROM,
    )


def _span(start: int, stop: int, scale: float) -> tuple[int, float, float]:
    """Whole crop pixels that fit between two source pixels, and the source that they cover."""
    count = max(1, int((stop - start) / scale + 1e-6))
    spare = max(0.0, (stop - start) - count * scale) / 2
    return count, start + spare, stop - spare


def _scale(box: Box, original: tuple[int, int], decoded: tuple[int, int]) -> Box:
    x, y = original[0] / decoded[0], original[1] / decoded[1]
    return Box(round(box.left * x), round(box.top * y), round(box.right * x), round(box.bottom * y))


# --- quality ------------------------------------------------------------------------------------

# Over all photographs of IDRiD (516) and APTOS (2,484) the least is 0.41, 0.3% lie below 0.83 and
# 0.63, and so all are gradable. Black, white, flat colour, noise (uniform, Gaussian, dark), linear
# and radial gradients, a checkerboard and a page of text score 0, white on black 0.14.
GRADABLE_FROM = 0.2


def judge(field: Image.Image, filled: float = 1.0) -> float:
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
    sharp = _green(green)
    smooth = _green(green.filter(ImageFilter.BoxBlur(1)))
    surround = _green(green.filter(ImageFilter.BoxBlur(6)))
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


def _green(channel: Image.Image) -> NDArray[np.float32]:
    return np.asarray(channel)[_MIDDLE].astype(np.float32)


def _ramp(value: float, nothing: float, full: float) -> float:
    """0 at `nothing`, 1 at `full` and beyond, a straight line between."""
    return min(1.0, max(0.0, (value - nothing) / (full - nothing)))
