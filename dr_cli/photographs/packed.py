"""Photographs kept in one .npz file, as MedMNIST does (RetinaMNIST).

Such a photograph's path is `retinamnist_224.npz#train/17`: the file, its split, its place.
"""

import functools
import math
import os
import re
import threading
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format
from numpy.typing import NDArray
from PIL import Image

from dr_cli import machine
from dr_cli.errors import DrError, UsageError

_WITHIN = re.compile(r"(.+\.npz)#([^/]+)/(\d+)", re.DOTALL)
_BROKEN = (  # what foreign bytes raise in zipfile, zlib and numpy
    zipfile.BadZipFile, zlib.error, OSError, ValueError, LookupError, EOFError, RuntimeError,
    MemoryError, OverflowError, SyntaxError, TypeError,
)  # fmt: skip


def inside(path: Path | str) -> bool:
    """Whether this path means a photograph in an .npz file."""
    return _WITHIN.fullmatch(str(path)) is not None


def file_of(path: str) -> str:
    """The file that holds a photograph: the .npz file, or the path itself."""
    found = _WITHIN.fullmatch(path)
    return found[1] if found else path


def keys(file: Path) -> frozenset[str]:
    """The names of its arrays, without reading them; empty when it is no .npz file."""
    try:
        with zipfile.ZipFile(file) as archive:
            return frozenset(name.removesuffix(".npy") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return frozenset()


def array(file: Path, name: str) -> NDArray[np.generic]:
    """One array; nothing in the file is executed. Raises UsageError when it cannot be read, or
    would not go into memory: a file of a few kB may unpack to any number of bytes."""
    shape, dtype = _measure(file, name)
    size, free = math.prod(shape) * dtype.itemsize, machine.free_memory()
    if free is not None and size > free:
        raise UsageError(
            f"{file}: array '{name}' takes {size / 1e9:,.1f} GB of memory; {free / 1e9:,.1f} GB are"
            " free"
        )
    try:
        with np.load(file, allow_pickle=False) as archive:
            return archive[name]
    except _BROKEN as error:
        raise UsageError(f"{file}: array '{name}' cannot be read ({error})") from error


def count(file: Path, name: str) -> int:
    """The length of an array, from its header alone. Raises UsageError."""
    shape, _ = _measure(file, name)
    return shape[0] if shape else 1


def _measure(file: Path, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape and kind that its header tells."""
    headers = {(1, 0): format.read_array_header_1_0, (2, 0): format.read_array_header_2_0}
    try:
        with zipfile.ZipFile(file) as archive, archive.open(f"{name}.npy") as entry:
            shape, _, dtype = headers[format.read_magic(entry)](entry)
            return shape, dtype
    except _BROKEN as error:
        raise UsageError(f"{file}: array '{name}' cannot be read ({error})") from error


def read(root: Path | str, path: Path | str) -> Image.Image:
    """The photograph at `path`, RGB or grey. OSError: no file; DrError: no picture in it."""
    name, split, place = _WITHIN.fullmatch(str(path)).groups()  # type: ignore[union-attr]
    file = Path(root) / name
    status = os.stat(file)
    with _LOADING:
        stack = _stack(file, split, status.st_mtime_ns, status.st_size)
    if int(place) >= len(stack):
        raise DrError(f"no photograph '{split}/{place}'; {split} has {len(stack)}")
    return Image.fromarray(stack[int(place)])


_LOADING = threading.Lock()  # or every thread that finds a split absent would load it


@functools.lru_cache(maxsize=2)  # threads work at the seam of two splits; no more is held
def _stack(file: Path, split: str, changed: int, size: int) -> NDArray[np.uint8]:
    """[N, H, W, 3] or [N, H, W] uint8, of the file as it was `changed`, `size` bytes long."""
    images = array(file, f"{split}_images")
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise DrError(f"'{split}_images' is {images.dtype} {images.shape}, not pictures")
    return images  # type: ignore[return-value]
