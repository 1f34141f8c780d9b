"""DICOM files as ophthalmic cameras and archives write them, of a picture at hand."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate

SECRET = "Doe^Jane"  # a name that must be seen nowhere


def save(
    path: Path,
    pixels: np.ndarray,
    *,
    kind: str = "RGB",
    syntax: str = uid.ExplicitVRLittleEndian,
    bits: int | None = None,
    frames: int = 1,
    **more: object,
) -> Path:
    """pixels: [H, W] or [H, W, 3], uint8 or uint16, as they are to be stored; compressed as the
    syntax says. kind: the photometric interpretation. bits: stored. more: further elements."""
    told = FileDataset(path, {}, preamble=bytes(128))
    told.file_meta = FileMetaDataset()
    told.file_meta.TransferSyntaxUID = syntax
    told.file_meta.MediaStorageSOPClassUID = told.SOPClassUID = (
        uid.OphthalmicPhotography8BitImageStorage
    )
    told.file_meta.MediaStorageSOPInstanceUID = told.SOPInstanceUID = uid.generate_uid()
    told.PatientName, told.PatientID, told.ImageLaterality = SECRET, "P-17", "R"
    told.Rows, told.Columns = pixels.shape[:2]
    told.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    told.PhotometricInterpretation = kind
    told.BitsAllocated = 8 * pixels.dtype.itemsize
    told.BitsStored = bits or told.BitsAllocated
    told.HighBit, told.PixelRepresentation = told.BitsStored - 1, 0
    if pixels.ndim == 3:
        told.PlanarConfiguration = 0
    if frames > 1:
        told.NumberOfFrames = frames
    for name, value in more.items():
        setattr(told, name, value)
    _store(told, pixels, frames, syntax)
    told.save_as(path, enforce_file_format=True)
    return path


def _store(told: Dataset, pixels: np.ndarray, frames: int, syntax: str) -> None:
    if syntax == uid.RLELossless:
        told.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        told.PixelData = pixels.tobytes() * frames
        told.compress(uid.RLELossless)
    elif syntax in (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian):
        told.PixelData = pixels.tobytes() * frames
    else:
        kept = io.BytesIO()
        form = "JPEG2000" if syntax in (uid.JPEG2000, uid.JPEG2000Lossless) else "JPEG"
        Image.fromarray(pixels).save(kept, form, quality=95)
        told.PixelData = encapsulate([kept.getvalue()] * frames)
        told["PixelData"].VR = "OB"
