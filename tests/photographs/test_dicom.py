"""Photographs in DICOM files: every way that cameras store them, and whose eye they show."""

import sys
from pathlib import Path

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")
from PIL import Image  # noqa: E402
from pydicom import uid  # noqa: E402

from dr_cli.photographs import decoding  # noqa: E402
from dr_cli.photographs.crop import Preprocessing, load_crop  # noqa: E402
from dr_cli.photographs.decoding import UnreadableImage  # noqa: E402
from tests.builders import dicom  # noqa: E402
from tests.builders.photographs import eye  # noqa: E402

RGB = eye(96, 80, radius=38)
GREY = RGB[..., 0]


def opened(path):
    return decoding.decode(path.parent, path.name)


def ybr(pixels):
    return np.asarray(Image.fromarray(pixels).convert("YCbCr"))


WAYS = {
    "rgb": (RGB, {}),
    "implicit": (RGB, {"syntax": uid.ImplicitVRLittleEndian}),
    "rle": (RGB, {"syntax": uid.RLELossless}),
    "jpeg": (RGB, {"syntax": uid.JPEGBaseline8Bit, "kind": "YBR_FULL_422"}),
    "jpeg 2000": (RGB, {"syntax": uid.JPEG2000Lossless, "kind": "YBR_RCT"}),
    "ybr": (ybr(RGB), {"kind": "YBR_FULL"}),
    "16 bits": (RGB.astype(np.uint16) * 257, {}),
    "12 of 16 bits": (RGB.astype(np.uint16) * 16, {"bits": 12}),
}


@pytest.mark.parametrize("name", WAYS)
def test_each_way_of_storing_colours_gives_the_same_photograph(tmp_path, name):
    pixels, options = WAYS[name]
    found = opened(dicom.save(tmp_path / "eye.dcm", pixels, **options))
    apart = np.abs(np.asarray(found.picture).astype(int) - RGB)
    assert (found.picture.mode, found.size, found.note) == ("RGB", (96, 80), "")
    assert (apart.mean(), apart.max()) <= ((3, 40) if name == "jpeg" else (1, 4))


@pytest.mark.parametrize(
    ("kind", "pixels", "bits"),
    [
        ("MONOCHROME2", GREY, 8),
        ("MONOCHROME1", 255 - GREY, 8),
        ("MONOCHROME2", GREY.astype(np.uint16) * 16, 12),
        ("MONOCHROME1", 4095 - GREY.astype(np.uint16) * 16, 12),
        ("MONOCHROME2", GREY.astype(np.uint16) * 257, 16),
    ],
)
def test_grey_of_either_sense_and_any_depth(tmp_path, kind, pixels, bits):
    found = opened(dicom.save(tmp_path / "eye.dcm", pixels, kind=kind, bits=bits))
    assert np.abs(np.asarray(found.picture)[..., 0].astype(int) - GREY).max() <= 1


def test_a_palette_gives_its_colours(tmp_path):
    table = {}
    for k, name in enumerate(("Red", "Green", "Blue")):
        table[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        ramp = (np.arange(256) * (0, 128, 257)[k]).astype("<u2")
        table[f"{name}PaletteColorLookupTableData"] = ramp.tobytes()
    path = dicom.save(tmp_path / "eye.dcm", GREY, kind="PALETTE COLOR", **table)
    pixels = np.asarray(opened(path).picture).astype(int)
    assert pixels[..., 0].max() == 0
    assert np.abs(pixels[..., 2] - GREY).max() <= 1
    assert np.abs(pixels[..., 1] - GREY * (128 / 257)).max() <= 1


def test_lossless_jpeg_of_8_bits():
    """The same picture of pydicom's own, lossless and in RLE."""
    folder = Path(pydicom.data.__file__).parent / "test_files"
    lossless, plain = (
        np.asarray(opened(next(folder.rglob(name))).picture)
        for name in ("SC_rgb_jpeg_gdcm.dcm", "SC_rgb_rle.dcm")
    )
    assert (lossless == plain).all()


def test_of_several_frames_the_first_and_it_is_said(tmp_path):
    jpeg = {"syntax": uid.JPEGBaseline8Bit, "kind": "YBR_FULL_422"}
    for options in ({}, jpeg):
        path = dicom.save(tmp_path / "eye.dcm", RGB, frames=3, **options)
        found = opened(path)
        assert found.note == "the first of 3 frames"
        assert load_crop(path, Preprocessing(32)).note == found.note


def test_whose_eye_it_is_without_a_name(tmp_path):
    path = dicom.save(tmp_path / "eye.dcm", RGB)
    found = opened(path)
    assert (found.patient, found.eye) == ("P-17", "right")
    assert "Doe" not in repr(found)
    other = dicom.save(tmp_path / "b.dcm", RGB, ImageLaterality="", Laterality="L", PatientID="")
    assert (opened(other).patient, opened(other).eye) == (None, "left")


@pytest.mark.parametrize(
    ("why", "options"),
    [
        (r"JPEG-LS Lossless .* gdcmconv --raw", {"syntax": uid.JPEGLSLossless}),
        (r"High-Throughput .* gdcmconv --raw", {"syntax": uid.HTJ2KLossless}),
        (
            r"Extended .* of 12 bits, .* gdcmconv --raw",
            {"syntax": uid.JPEGExtended12Bit, "bits": 12},
        ),
        ("deflated", {"syntax": uid.DeflatedExplicitVRLittleEndian}),
        ("more pixels", {"Rows": 60000, "Columns": 60000}),
        ("without a picture", {"Rows": None}),
    ],
)
def test_what_cannot_be_read_says_why_and_names_nobody(tmp_path, why, options):
    path = dicom.save(tmp_path / "eye.dcm", RGB, **options)
    with pytest.raises(UnreadableImage, match=why) as caught:
        opened(path)
    assert "Doe" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cut_picture_is_told_as_that(tmp_path):
    path = dicom.save(tmp_path / "eye.dcm", RGB)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UnreadableImage, match="cut short"):
        opened(path)


def test_a_cut_file_names_nobody(tmp_path, capfd, caplog):
    whole = dicom.save(tmp_path / "eye.dcm", RGB).read_bytes()
    for length in range(133, len(whole), 97):
        (tmp_path / "cut.dcm").write_bytes(whole[:length])
        with pytest.raises(UnreadableImage) as caught:
            opened(tmp_path / "cut.dcm")
        assert "Doe" not in caught.value.reason
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_without_pydicom_the_row_names_the_extra(tmp_path, monkeypatch):
    path = dicom.save(tmp_path / "eye.dcm", RGB)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UnreadableImage, match=r"pip install 'dr-cli\[dicom\]'"):
        opened(path)
