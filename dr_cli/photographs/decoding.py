"""The one door to a photograph: a file, or a picture within an .npz, as an upright 8-bit picture.

Needs numpy and Pillow alone, because `dr predict` goes through here for every photograph.
"""

import errno
import hashlib
import importlib
import io
import os
import stat
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError, features

from dr_cli.errors import DrError
from dr_cli.photographs import dicom, packed
from dr_cli.photographs.border import blacken
from dr_cli.photographs.patience import Silent, within

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
    "HEIF": (".heic", ".heif", ".hif"),  # by pillow-heif, the extra `heic`
}
_PLUGINS = ["Jpeg", "Png", "Tiff", "Bmp", "Gif", "Ppm", "WebP", "Jpeg2K"]
if "avif" in features.modules and features.check_module("avif"):  # Pillow from 11.3 on, mostly
    FORMATS["AVIF"] = (".avif",)
    _PLUGINS.append("Avif")
DICOM = (".dcm", ".dicom")  # by pydicom, the extra `dicom`
EXTENSIONS = frozenset(e for each in (*FORMATS.values(), DICOM) for e in each)
# What a file may hold several of and be no animation.
_NO_ANIMATION = {"TIFF": "pages", "MPO": "pictures", "HEIF": "pictures"}
for _plugin in _PLUGINS:
    importlib.import_module(f"PIL.{_plugin}ImagePlugin")  # else Pillow looks for each when asked
# Pillow's warning from half of what it refuses on would name a library's line.
# For the process, because `warnings.catch_warnings` is not safe among the threads that decode.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Likewise what it says of broken tags of a picture, which is read all the same, or refused.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class UnreadableImage(DrError):  # noqa: N818 - named as what it is about
    """A file that gives no picture; `reason` says why in plain words."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = str(path), reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.reason)  # crosses to and from worker processes


@dataclass(frozen=True)
class Opened:
    """A photograph as it comes through the door."""

    picture: Image.Image
    """Upright, 8-bit RGB."""
    size: tuple[int, int]
    """Width and height of the upright original, pixels."""
    note: str = ""
    """What a person should know of the file: that it holds more than this picture; "" for
    nothing."""
    patient: str | None = None
    eye: str | None = None
    """left or right; as `patient`, from a DICOM file alone."""


def limit_pixels(most: int) -> None:
    """From now on a file of more than `most` pixels is refused undecoded; without it, of more
    than 178 million. For the whole process, as Pillow keeps it."""
    Image.MAX_IMAGE_PIXELS = most / 2  # type: ignore[assignment]  # it refuses from twice as many


_patience = [60.0]


def limit_seconds(most: float) -> None:
    """From now on a file that is not read and decoded in `most` seconds is refused; without it, in
    60. For the whole process."""
    _patience[0] = most


def decode(
    root: Path | str, path: Path | str | bytes | BinaryIO, at_least: int | None = None
) -> Opened:
    """The photograph at a path or within a file's content.

    path: relative to root; a file, or a picture within one, such as "set.npz#train/3". Or, without
    regard to root, a file's content: bytes, or a file that can be sought in.
    at_least: pixels that the shorter side must keep; a JPEG much larger than that is decoded at
    1/2, 1/4 or 1/8, which takes a quarter of the time. None: at its own size.
    Transparent parts and a white border become black; 16-bit grey is scaled to 8 by the bit depth
    its values need. Of several pages or frames the first is taken. Raises UnreadableImage, and
    nothing else.
    """
    if not isinstance(path, (str, Path)):
        return _decode_content(io.BytesIO(path) if isinstance(path, bytes) else path, at_least)
    file = Path(root) / path
    try:
        return within(_patience[0], partial(_decode_path, root, path, at_least))
    except Silent:  # nothing more is asked of that disk
        late = f"not read within {_patience[0]:g} seconds: does its disk or network share answer?"
        raise UnreadableImage(file, late) from None
    except Exception as problem:  # each codec raises errors of its own on foreign bytes
        raise UnreadableImage(file, _reason(file, problem)) from problem


def take(image: Image.Image) -> Opened:
    """A picture that a program has opened itself, in any mode, as it lies. Raises UnreadableImage,
    because Pillow reads a file only when its pixels are asked for, and that may be damaged."""
    try:
        if not all(image.size):
            raise DrError("a picture without a pixel")
        picture = to_rgb(image)
    except Exception as problem:  # as in `decode`
        name = str(getattr(image, "filename", ""))
        raise UnreadableImage(name, _reason(None, problem)) from problem
    return Opened(picture, picture.size)


def digest_file(root: Path | str, path: Path | str) -> bytes | None:
    """16 bytes that the same content has wherever it lies; None of what is no file, or cannot be
    read in time. About 1 GB a second a core."""

    def look() -> bytes | None:
        _refuse_special(root, path)
        with open(Path(root) / path, "rb") as file:
            return hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16)).digest()

    try:
        return within(_patience[0], look)
    except (Silent, DrError, OSError, ValueError):  # a NUL in a name
        return None


def identify(root: Path | str, path: Path | str) -> tuple[str | None, str | None]:
    """Patient and eye (left or right) as a DICOM file says, without its picture; None where it does
    not, or cannot be read."""

    def look() -> tuple[str | None, str | None]:
        with open(Path(root) / path, "rb") as file:
            return dicom.identify(file) if dicom.is_dicom(file.read(132)) else (None, None)

    try:
        return within(_patience[0], look)
    except (Silent, DrError, OSError):
        return None, None


def _decode_content(file: BinaryIO, at_least: int | None) -> Opened:
    name = Path(str(getattr(file, "name", "")))
    try:
        file.seek(0)
        return _decode_open(file, at_least)
    except Exception as problem:  # each codec raises errors of its own on foreign bytes
        raise UnreadableImage(name, _reason(None, problem)) from problem


def _decode_path(root: Path | str, path: Path | str, at_least: int | None) -> Opened:
    if packed.inside(path):
        picture = to_rgb(packed.read(root, path))
        return Opened(picture, picture.size)
    _refuse_special(root, path)
    with open(Path(root) / path, "rb") as file:
        before = os.fstat(file.fileno())
        try:
            return _decode_open(file, at_least)
        finally:
            after = os.fstat(file.fileno())
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                raise DrError("changed while it was read: give it again when it is written")


def _refuse_special(root: Path | str, path: Path | str) -> None:
    """Raises DrError for what would be waited for without end."""
    kind = os.stat(Path(root) / path).st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        raise DrError("a pipe, a socket or a device, not a file")


def _decode_open(file: BinaryIO, at_least: int | None) -> Opened:
    start = file.read(132)
    file.seek(0)
    if not start:
        raise DrError("the file is empty (0 bytes)")
    if dicom.is_dicom(start):
        found = dicom.read(file, 2 * (Image.MAX_IMAGE_PIXELS or float("inf")))
        note = f"the first of {found.frames:,} frames" * (found.frames > 1)
        return Opened(to_rgb(found.image), found.image.size, note, found.patient, found.eye)
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        _load_heif()
    return _decode_pillow(file, at_least)


_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


def _load_heif() -> None:
    try:
        import pillow_heif
    except ImportError as problem:
        why = "a HEIC file, for which pillow-heif is missing: pip install 'dr-cli[heic]'"
        raise DrError(why) from problem
    if "HEIF" not in Image.OPEN:
        pillow_heif.register_heif_opener()


def _decode_pillow(file: BinaryIO, at_least: int | None) -> Opened:
    formats = tuple(name for name in FORMATS if name != "HEIF" or name in Image.OPEN)
    with Image.open(file, formats=formats) as image:
        several = getattr(image, "is_animated", False)
        if several and image.format not in _NO_ANIMATION:
            raise DrError("an animation, not a photograph")
        note = f"the first of several {_NO_ANIMATION[str(image.format)]}" if several else ""
        width, height = image.size
        if at_least is not None:
            image.draft("RGB", (at_least, at_least))
        image.load()
        orientation = _orientation(image)
        picture = to_rgb(image)
    if orientation in _TURNS:
        picture = picture.transpose(_TURNS[orientation])
    size = (height, width) if orientation in _SIDEWAYS else (width, height)
    return Opened(picture, size, note)


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
    """8-bit RGB of a picture in any mode, as `decode` makes it; a white border becomes black."""
    return blacken(_convert(image))


def _convert(image: Image.Image) -> Image.Image:
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
        return f"not an image, or in a format that dr does not read ({_READ} are)"
    if "truncated" in str(problem).lower():
        return "the file is cut short (truncated)"
    return f"cannot be decoded ({' '.join(str(problem).split()) or type(problem).__name__})"


def _reason_of_name(path: Path, problem: Exception) -> str:
    """What is wrong with what the path leads to, before any of it is read; "" for nothing."""
    if "\0" in str(path):
        return "a name that holds a NUL byte, as no file's does"
    if os.path.isdir(path):  # on Windows a PermissionError
        return "a folder, not a photograph"
    if isinstance(problem, FileNotFoundError) and path.is_symlink():
        return "a link to a file that is not there"
    if isinstance(problem, OSError) and problem.errno == errno.ELOOP:
        return "a link that leads back to itself"
    if isinstance(problem, OSError) and problem.errno == errno.ENAMETOOLONG:
        return "a name or path too long for this system"
    return ""


_READ = ", ".join([*FORMATS, "DICOM"])
