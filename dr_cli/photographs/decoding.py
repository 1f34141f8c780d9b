"""The one door to a photograph: a file, or a picture within an .npz, as an upright 8-bit picture.

Needs numpy and Pillow alone, because `dr predict` goes through here for every photograph.
"""

import errno
import importlib
import io
import os
import stat
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError, features

from dr_cli.errors import DrError
from dr_cli.photographs import packed

# What Pillow may open. Named, because its whole list holds formats that start other programs (EPS).
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pnm"),
    "WEBP": (".webp",),
    "JPEG2000": (".jp2", ".j2k"),
}
_PLUGINS = ["Jpeg", "Png", "Tiff", "Bmp", "Gif", "Ppm", "WebP", "Jpeg2K"]
if "avif" in features.modules and features.check_module("avif"):  # Pillow from 11.3 on, mostly
    FORMATS["AVIF"] = (".avif",)
    _PLUGINS.append("Avif")
EXTENSIONS = frozenset(extension for each in FORMATS.values() for extension in each)
for _plugin in _PLUGINS:
    importlib.import_module(f"PIL.{_plugin}ImagePlugin")  # else Pillow looks for each when asked
# Pillow's warning from half of what it refuses on would name a library's line.
# For the process, because `warnings.catch_warnings` is not safe among the threads that decode.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class UnreadableImage(DrError):  # noqa: N818 - named as what it is about
    """A file that gives no picture; `reason` says why in plain words."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = str(path), reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.reason)  # crosses to and from worker processes


def limit_pixels(most: int) -> None:
    """From now on a file of more than `most` pixels is refused undecoded; without it, of more
    than 178 million. For the whole process, as Pillow keeps it."""
    Image.MAX_IMAGE_PIXELS = most / 2  # type: ignore[assignment]  # it refuses from twice as many


def decode(
    root: Path | str, path: Path | str | bytes | BinaryIO, at_least: int | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """The upright picture as 8-bit RGB, and the width and height of the upright original.

    path: relative to root; a file, or a picture within one, such as "set.npz#train/3". Or, without
    regard to root, a file's content: bytes, or a file that can be sought in.
    at_least: pixels that the shorter side must keep; a JPEG much larger than that is decoded at
    1/2, 1/4 or 1/8, which takes a quarter of the time. None: at its own size.
    Transparent parts become black; 16-bit grey is scaled to 8 by the bit depth its values need.
    Raises UnreadableImage, and nothing else.
    """
    if not isinstance(path, (str, Path)):
        return _decode_content(io.BytesIO(path) if isinstance(path, bytes) else path, at_least)
    file = Path(root) / path
    try:
        if packed.inside(path):
            picture = to_rgb(packed.read(root, path))
            return picture, picture.size
        return _decode_file(file, at_least)
    except Exception as problem:  # each codec raises errors of its own on foreign bytes
        raise UnreadableImage(file, _reason(file, problem)) from problem


def _decode_content(file: BinaryIO, at_least: int | None) -> tuple[Image.Image, tuple[int, int]]:
    name = Path(str(getattr(file, "name", "")))
    try:
        file.seek(0)
        return _decode_open(file, at_least)
    except Exception as problem:  # each codec raises errors of its own on foreign bytes
        raise UnreadableImage(name, _reason(None, problem)) from problem


def _decode_file(path: Path, at_least: int | None) -> tuple[Image.Image, tuple[int, int]]:
    kind = os.stat(path).st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):  # a pipe would be waited for without end
        raise DrError("a pipe, a socket or a device, not a file")
    return _decode_open(path, at_least)


def _decode_open(
    file: Path | BinaryIO, at_least: int | None
) -> tuple[Image.Image, tuple[int, int]]:
    with Image.open(file, formats=tuple(FORMATS)) as image:
        if image.format != "TIFF" and getattr(image, "is_animated", False):
            raise DrError("an animation, not a photograph")
        width, height = image.size
        if at_least is not None:
            image.draft("RGB", (at_least, at_least))
        image.load()
        orientation = _orientation(image)
        picture = to_rgb(image)
    if orientation in _TURNS:
        picture = picture.transpose(_TURNS[orientation])
    return picture, (height, width) if orientation in _SIDEWAYS else (width, height)


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 (upright) where the file has none, or a broken one."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a broken EXIF block is no reason to refuse the picture
        return 1


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of a picture in any mode, as `decode` makes it."""
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


_REASONS = {
    FileNotFoundError: "no such file",
    PermissionError: "may not be read (permission denied)",
    MemoryError: "too large for this machine's memory",
}


def _reason(path: Path | None, problem: Exception) -> str:
    """Why no picture came of it, in plain words; path: None for a file's content."""
    if isinstance(problem, DrError):
        return str(problem)
    if isinstance(problem, Image.DecompressionBombError):
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        return f"has more pixels than is safe to decode (over {most:,.3g} million)"
    if path and (about := _reason_of_name(path, problem)):
        return about
    if known := next((why for kind, why in _REASONS.items() if isinstance(problem, kind)), None):
        return known
    if isinstance(problem, UnidentifiedImageError):
        return _no_image(path)
    if "truncated" in str(problem).lower():
        return "the file is cut short (truncated)"
    return f"cannot be decoded ({' '.join(str(problem).split()) or type(problem).__name__})"


def _reason_of_name(path: Path, problem: Exception) -> str:
    """What is wrong with what the path leads to, before any of it is read; "" for nothing."""
    if "\0" in str(path):
        return "a name that holds a NUL byte, as no file's does"
    if path.is_dir():  # on Windows a PermissionError
        return "a folder, not a photograph"
    if isinstance(problem, FileNotFoundError) and path.is_symlink():
        return "a link to a file that is not there"
    if isinstance(problem, OSError) and problem.errno == errno.ELOOP:
        return "a link that leads back to itself"
    return ""


def _no_image(path: Path | None) -> str:
    if path is None:
        return _NO_IMAGE
    with open(path, "rb") as file:
        start = file.read(132)
    if not start:
        return "the file is empty (0 bytes)"
    if start[128:] == b"DICM":
        return "a DICOM file: export it as PNG or JPEG first"
    return _NO_IMAGE


_NO_IMAGE = f"not an image, or in a format that dr does not read ({', '.join(FORMATS)} are)"
