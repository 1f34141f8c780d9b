"""What a `Grader` may be given, and what it makes of it before a network sees it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dr_cli.photographs.crop import Crop, Preprocessing, from_image, load_crop
from dr_cli.photographs.decoding import UnreadableImage

Photograph = str | Path | Image.Image | NDArray[np.uint8] | bytes | BinaryIO
"""A path; a picture in memory, Pillow's in any mode or an array [H, W, 3] or [H, W]; or a file's
content, as bytes or as a file that can be sought in."""
SHOWN = 512  # pixels of a heatmap's side, where what was decoded has them


@dataclass(frozen=True)
class Decoded:
    """A photograph cropped, or the reason why it cannot be."""

    path: str
    """As it was given; of a picture in memory its `filename` or `name`, or ""."""
    crops: Sequence[Crop] = ()
    """One for each network."""
    problem: str | None = None

    @property
    def owner(self) -> tuple[str | None, str | None]:
        """Patient and eye as the file itself says; None for unknown."""
        return (self.crops[0].patient, self.crops[0].eye) if self.crops else (None, None)


def as_several(given: Photograph | Iterable[Photograph]) -> Iterable[Photograph]:
    """Photographs, of one too, though it may be iterable itself: a name's letters are none. Raises
    TypeError for what is neither."""
    kinds = (str, Path, Image.Image, np.ndarray, bytes)
    if isinstance(given, kinds) or hasattr(given, "read"):
        return [cast(Photograph, given)]
    if not isinstance(given, Iterable):
        raise TypeError(f"{type(given).__name__} is no photograph: give a path or picture")
    return given


def decode(photograph: Photograph, ways: Sequence[Preprocessing], show: bool) -> Decoded:
    """A crop each way; one decoding for equal ways. Raises TypeError for what is no photograph."""
    path = _name(photograph)
    try:
        shown = dict.fromkeys(ways[:1], SHOWN * show)  # of the first network, whose map it is
        crops = {way: _crop(photograph, way, shown.get(way, 0)) for way in dict.fromkeys(ways)}
    except UnreadableImage as error:  # the path has a field of its own
        return Decoded(path, problem=error.reason)
    return Decoded(path, [crops[way] for way in ways])


def _name(photograph: Photograph) -> str:
    if isinstance(photograph, (str, Path)):
        return str(photograph)
    named = getattr(photograph, "filename", None) or getattr(photograph, "name", None)
    return named if isinstance(named, str) else ""


def _crop(photograph: Photograph, way: Preprocessing, show: int) -> Crop:
    """Raises UnreadableImage for a file, TypeError for what is no photograph."""
    if isinstance(photograph, Image.Image):
        return from_image(photograph, way, show)
    if isinstance(photograph, np.ndarray):
        if photograph.dtype == np.uint8 and photograph.shape[2:] in ((), (3,)):
            return from_image(Image.fromarray(photograph), way, show)
        shape = f"{photograph.dtype} {list(photograph.shape)}"
        raise TypeError(f"an array {shape} is no picture: give uint8 [H, W, 3] or [H, W]")
    if isinstance(photograph, (str, Path, bytes)) or hasattr(photograph, "read"):
        return load_crop(photograph, way, show=show)
    raise TypeError(f"{type(photograph).__name__} is no photograph: give a path or a picture")
