"""Damaged files by the thousand: each gives a picture or one clear line; no crash, no hang, no
growth.

They are decoded in a process of their own, so that a decoder that kills it is told from one that
raises. A mutant is a whole file of each format in which bytes are changed, cut out, doubled or cut
off; most of them within its first part, where the headers stand.
"""

import io
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dr_cli.sample import drawn_set

NAME = "Doe"  # in the DICOM files

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "DICOM", "DICOM JPEG", "HEIF")


def eye(number: int, size: int = 96) -> Image.Image:
    return Image.fromarray(drawn_set.draw(0, number, "left", number % 5, size).pixels)


def whole_file(form: str, folder: Path) -> bytes:
    """A drawn eye in a format; b"" where what reads it is not installed."""
    picture = eye(3)
    if form.startswith("DICOM"):
        if not has("pydicom"):
            return b""
        from pydicom import uid

        from tests.builders import dicom

        jpeg = {"syntax": uid.JPEGBaseline8Bit, "kind": "YBR_FULL_422"} if "JPEG" in form else {}
        return dicom.save(folder / "eye.dcm", np.asarray(picture), **jpeg).read_bytes()
    if form == "HEIF":
        if not has("pillow_heif"):
            return b""
        import pillow_heif

        pillow_heif.register_heif_opener()
    kept, options = io.BytesIO(), {}
    if form == "TIFF":
        options = {"save_all": True, "append_images": [picture], "compression": "tiff_lzw"}
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(kept, form, **options, **({"exif": exif} if form == "JPEG" else {}))
    return kept.getvalue()


def has(module: str) -> bool:
    try:
        __import__(module)
    except ImportError:
        return False
    return True


def mutate(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 2, 8, 40])):
        reach = len(changed) if rng.random() < 0.4 else min(len(changed), 600)
        place = rng.randrange(reach)
        kind = rng.random()
        if kind < 0.7:
            changed[place] = rng.choice([0, 0xFF, 0x80, rng.randrange(256)])
        elif kind < 0.8:
            del changed[place : place + rng.randrange(1, 9)]
        elif kind < 0.9:
            changed[place:place] = changed[place : place + rng.randrange(1, 9)]
        else:
            changed[place : place + 4] = rng.randrange(2**32).to_bytes(4, "big")[
                : len(changed) - place
            ]
    return bytes(changed[: rng.randrange(1, len(changed))] if rng.random() < 0.2 else changed)


CHILD = """
import os, sys
from pathlib import Path
from tests.photographs.test_mutated import decode_mutants
decode_mutants(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
"""


def decode_mutants(folder: Path, form: str, count: int, seed: int) -> None:
    """In the child: decodes them; prints how many gave a picture and how many a reason, and the
    growth of the process in MiB after its first third. The last one stays as `last`."""
    from dr_cli.photographs.crop import Preprocessing, load_crop
    from dr_cli.photographs.decoding import UnreadableImage, limit_pixels, limit_seconds

    limit_pixels(4_000_000)  # or most of the time goes into pictures of what a header promises
    limit_seconds(20)
    data, rng, start = (folder / "whole").read_bytes(), random.Random(seed), 0
    reasons: list[str] = []
    for k in range(count):
        (folder / "last").write_bytes(mutate(data, rng))
        try:
            crop = load_crop(folder / "last", Preprocessing(64))
            assert crop.pixels.shape == (3, 64, 64)
        except UnreadableImage as problem:
            reasons.append(problem.reason)
        if k == count // 3:
            start = resident()
    for odd in ("\n", NAME, "not read within"):
        assert not [reason for reason in reasons if odd in reason]
    assert all(reasons)
    print(count - len(reasons), len(reasons), (resident() - start) // 2**20)


def resident() -> int:
    """Bytes that the process holds in memory; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def decode_in_a_child(folder: Path, form: str, count: int, seed: int) -> tuple[int, int, int]:
    (folder / "whole").write_bytes(whole_file(form, folder))
    if not (folder / "whole").stat().st_size:
        pytest.skip(f"what reads {form} is not installed")
    told = [sys.executable, "-c", CHILD, folder, form, str(count), str(seed)]
    done = subprocess.run(told, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    kept = folder / "last"
    assert done.returncode == 0, f"{form}: {kept} ends the process: {done.stderr[-2000:]}"
    graded, refused, grown = map(int, done.stdout.split())
    return graded, refused, grown


@pytest.mark.parametrize("form", FORMATS)
def test_some_damaged_files_end_nothing(tmp_path, form):
    graded, refused, _ = decode_in_a_child(tmp_path, form, 60, 1)
    assert graded + refused == 60
    assert refused > 10, "they are damaged indeed"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("form", FORMATS)
def test_damaged_files_by_the_thousand_end_nothing(tmp_path, form):
    graded, refused, grown = decode_in_a_child(tmp_path, form, 4000, 2)
    assert graded + refused == 4000
    assert grown < 64, f"{grown} MiB"
