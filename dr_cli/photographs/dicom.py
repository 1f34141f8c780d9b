"""Ophthalmic photographs in DICOM files, by pydicom (the extra `dicom`).

What cameras and archives write: 8 or 16 bits, grey (MONOCHROME1, 2), RGB, YBR or a palette, as they
are or in RLE, JPEG (also lossless, of 8 bits) or JPEG 2000. Of several frames the first is taken.
The decoders are pydicom's and Pillow's: gdcm, which knows more of them, ends the process on damaged
files (within 4,000 mutated ones). JPEG-LS, JPEG of 12 bits and HTJ2K are left out: pyjpegls takes 4
to 7 s over a damaged picture of 96×96 pixels (1 in 20 of those mutated), pylibjpeg-libjpeg is under
the GPL. Of a person the id and the side of the eye are read; names are
not: neither are they parsed, nor can a message show one.
"""

import io
import logging
import warnings
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dr_cli.errors import DrError

EXTRA = "a DICOM file, for which pydicom is missing: pip install 'dr-cli[dicom]'"
_NAMED = (
    "SOPClassUID", "Laterality", "ImageLaterality", "PatientID", "Rows", "Columns",
    "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored",
    "PixelRepresentation", "PlanarConfiguration",
)  # fmt: skip
_PALETTE = (
    "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData",
)  # fmt: skip
_EYES = {"R": "right", "OD": "right", "L": "left", "OS": "left"}
_DEFLATED = b"1.2.840.10008.1.2.1.99"  # inflated whole, whatever its size, to be looked at
_META = 2**16  # bytes within which it stands: the group of the file itself comes first
_JPEG_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_JPEG_OF_8_BITS = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", *_JPEG_LOSSLESS)
_BY_PILLOW = (
    "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51",  # JPEG
    "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91",  # JPEG 2000
)  # fmt: skip
_BY_PYDICOM = (
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2",  # as they are
    "1.2.840.10008.1.2.5",  # RLE
)  # fmt: skip

_TOO_FEW = ("less than expected", "cannot reshape")  # bytes, as pydicom and numpy say it


class Frame(NamedTuple):
    """The first picture of a DICOM file, and how many there are."""

    image: Image.Image
    """RGB or grey, grey of any depth."""
    frames: int
    patient: str | None
    eye: str | None
    """left, right, or None where the file does not say."""


def is_dicom(start: bytes) -> bool:
    """Whether a file that begins so, with 132 bytes at least, is one."""
    return start[128:132] == b"DICM"


def read(file: BinaryIO, most: float) -> Frame:
    """The first frame. Raises DrError, and what pydicom and Pillow raise on damaged files.

    most: pixels of a frame above which nothing is decoded.
    """
    told = _read_header(file)
    syntax = told.file_meta.TransferSyntaxUID
    if told.get("Rows") is None or told.get("Columns") is None:
        raise DrError("a DICOM file without a picture")
    if told.Rows * told.Columns > most:
        raise Image.DecompressionBombError
    if syntax not in (*_JPEG_LOSSLESS, *_BY_PILLOW, *_BY_PYDICOM):
        raise DrError(_tell_unread(syntax.name))
    if syntax in _JPEG_OF_8_BITS and int(told.get("BitsStored") or 8) > 8:
        raise DrError(_tell_unread(f"{syntax.name} of {told.BitsStored} bits"))
    image = _open_lossless(file) if syntax in _JPEG_LOSSLESS else _decode(file, told, syntax)
    return Frame(image, int(told.get("NumberOfFrames") or 1), *_identify(told))


def _tell_unread(way: str) -> str:
    return (
        f"a DICOM file whose picture is in {way}, which dr does not read: rewrite it with "
        "gdcmconv --raw (of GDCM), or export it as PNG or JPEG"
    )


def identify(file: BinaryIO) -> tuple[str | None, str | None]:
    """Whose eye it is and which of the two, as far as the file says; raises as `read` does."""
    return _identify(_read_header(file))


def _identify(told: Any) -> tuple[str | None, str | None]:
    patient = " ".join(str(told.get("PatientID") or "").split()) or None
    side = str(told.get("ImageLaterality") or told.get("Laterality") or "").strip().upper()
    return patient, _EYES.get(side)


def _read_header(file: BinaryIO) -> Any:
    """What stands before the picture, of `_NAMED` alone."""
    pydicom = _load()
    file.seek(0)
    if _DEFLATED in file.read(_META):
        raise DrError("a deflated DICOM file, which dr does not read: export it as PNG first")
    file.seek(0)
    try:
        tags = [*_NAMED, *_PALETTE]
        told = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags)
        told.file_meta.TransferSyntaxUID  # noqa: B018  a file without one is none
        for name in _NAMED:
            told.get(name)  # values are parsed when asked for
        return told
    except Exception as problem:  # its message may quote the file, and so a person's name
        raise DrError("a DICOM file whose header is damaged") from problem


def _load() -> Any:
    """pydicom, made silent: what it tells of odd values quotes them."""
    try:
        import pydicom
    except ImportError as problem:
        raise DrError(EXTRA) from problem
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module="pydicom")
    return pydicom


def _open_lossless(file: BinaryIO) -> Image.Image:
    """Lossless JPEG of 8 bits: libjpeg-turbo reads it from 3.0 on, and pydicom does not ask it."""
    from pydicom import dcmread
    from pydicom.encaps import get_frame

    file.seek(0)
    told = dcmread(file, specific_tags=["PixelData", "NumberOfFrames"])
    frames = int(told.get("NumberOfFrames") or 1)
    data = get_frame(told.PixelData, 0, number_of_frames=frames)
    image = Image.open(io.BytesIO(data), formats=("JPEG",))
    image.load()
    return image


def _decode(file: BinaryIO, told: Any, syntax: str) -> Image.Image:
    from pydicom.pixels import apply_color_lut, pixel_array

    file.seek(0)
    plugin = "pillow" if syntax in _BY_PILLOW else ""
    try:
        pixels = pixel_array(file, index=0, decoding_plugin=plugin)
    except ValueError as problem:
        if any(told in str(problem) for told in _TOO_FEW):
            raise DrError("the file is cut short (truncated)") from problem
        raise
    kind = str(told.get("PhotometricInterpretation") or "")
    if kind == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, told)
        depth = 16 if pixels.dtype.itemsize > 1 and pixels.max(initial=0) > 255 else 8
    else:
        depth = int(told.get("BitsStored") or 8 * pixels.dtype.itemsize)
    if kind == "MONOCHROME1":  # white is 0
        pixels = 2**depth - 1 - pixels.astype(np.int64)
    return _to_image(pixels, depth)


def _to_image(pixels: NDArray[Any], depth: int) -> Image.Image:
    """[H, W] or [H, W, 3], values below 2^depth -> a picture; grey keeps its depth."""
    if pixels.ndim == 2 and depth > 8:
        return Image.fromarray(pixels.clip(0, 65535).astype(np.uint16))
    if pixels.ndim == 2 or pixels.shape[2:] == (3,):
        scaled = pixels.clip(0) * (255 / (2**depth - 1)) + 0.5 if depth > 8 else pixels.clip(0, 255)
        return Image.fromarray(scaled.astype(np.uint8))
    raise DrError(f"a DICOM file whose picture has the shape {list(pixels.shape)}")
