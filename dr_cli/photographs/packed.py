"""Photographs kept in one .npz file, as MedMNIST does (RetinaMNIST).

Such a photograph's path is `retinamnist_224.npz#train/17`: the file, its split, its place.
"""

import functools
import zipfile
from pathlib import Path

import numpy as np
from numpy.lib import format
from numpy.typing import NDArray
from PIL import Image

from dr_cli.errors import DrError, UsageError

_MARK = ".npz#"


def inside(path: str) -> bool:
    """Whether this path means a photograph in an .npz file."""
    return _MARK in path


def keys(file: Path) -> frozenset[str]:
    """The names of its arrays, without reading them; empty when it is no .npz file."""
    try:
        with zipfile.ZipFile(file) as archive:
            return frozenset(name.removesuffix(".npy") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return frozenset()


def array(file: Path, name: str) -> NDArray[np.generic]:
    """One array; nothing in the file is executed. Raises UsageError when it cannot be read."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            return archive[name]
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, EOFError) as error:
        raise UsageError(f"{file}: array '{name}' cannot be read ({error})") from error


def count(file: Path, name: str) -> int:
    """The length of an array, from its header alone. Raises UsageError."""
    headers = {(1, 0): format.read_array_header_1_0, (2, 0): format.read_array_header_2_0}
    try:
        with zipfile.ZipFile(file) as archive, archive.open(f"{name}.npy") as entry:
            shape = headers[format.read_magic(entry)](entry)[0]
        return int(shape[0])
    except (zipfile.BadZipFile, OSError, ValueError, LookupError, EOFError) as error:
        raise UsageError(f"{file}: array '{name}' cannot be read ({error})") from error


def read_image(root: Path, path: str) -> Image.Image:
    """The photograph at `path`, RGB; grey ones get three equal channels. Raises DrError."""
    name, _, place = path.rpartition("#")
    split, _, number = place.partition("/")
    stack = _stack(str(root / name), split)
    if not number.isdecimal() or int(number) >= len(stack):
        raise DrError(f"{root / name}: no photograph '{place}'; {split} has {len(stack)}")
    return Image.fromarray(stack[int(number)]).convert("RGB")


@functools.lru_cache(maxsize=3)
def _stack(file: str, split: str) -> NDArray[np.uint8]:
    """[N, H, W, 3] or [N, H, W] uint8, kept: 3 splits of 224 px are 241 MB."""
    images = array(Path(file), f"{split}_images")
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise DrError(f"{file}: '{split}_images' is {images.dtype} {images.shape}, not pictures")
    return images  # type: ignore[return-value]
