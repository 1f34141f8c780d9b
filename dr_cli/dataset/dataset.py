"""FundusDataset: graded photographs as torch wants them."""

import copy
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from dr_cli.dataset.augment import normalise
from dr_cli.errors import DrError, UsageError
from dr_cli.events import NOTHING, Observer
from dr_cli.labels.layouts import DEFAULT_VAL, SPLITS
from dr_cli.photographs import quality
from dr_cli.photographs.cache import Crops
from dr_cli.photographs.crop import Preprocessing, choose_size, measure_field

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 256  # crops copied to a device at a time


class FundusDataset(Dataset[tuple[Tensor, int]]):
    """Photographs and their grades, map-style: `dataset[i]` is a picture and a grade.

    A picture is a tensor [3, S, S] float32, RGB, S pixels square: the crop's values in [0, 1] less
    the mean, over the deviation, of each channel (`Preprocessing`). A grade is an int from 0 to 4.
    `crop(i)` is the same picture before that, uint8 in [0, 255]; crops come from the cache. Works
    in a DataLoader with workers, spawned ones too.

    A photograph that cannot be read stays in its place and is listed in `failed`; asking for it
    raises UnreadableImage. UsageError where there are not as many grades as paths.

    >>> import os, tempfile
    >>> from PIL import Image
    >>> from dr_cli import FundusDataset
    >>> from dr_cli.photographs.crop import Preprocessing
    >>> folder = tempfile.TemporaryDirectory()
    >>> for name, red in (("left.png", 102), ("right.png", 204)):
    ...     Image.new("RGB", (300, 280), (red, 90, 30)).save(os.path.join(folder.name, name))
    >>> way = Preprocessing(size=224)
    >>> dataset = FundusDataset(folder.name, ["left.png", "right.png"], [0, 3], way, cache=False)
    >>> picture, grade = dataset[1]
    >>> picture.shape, picture.dtype, grade
    (torch.Size([3, 224, 224]), torch.float32, 3)
    >>> round(float(picture[0, 112, 112]), 2)  # (204 / 255 - 0.485) / 0.229
    1.38
    >>> dataset.crop(0)[:, 112, 112].tolist()
    [102, 90, 30]
    >>> folder.cleanup()
    """

    def __init__(
        self,
        root: Path | str,
        paths: Iterable[str],
        grades: Iterable[int],
        preprocessing: Preprocessing,
        *,
        cache: bool = True,
        observer: Observer = NOTHING,
        workers: int | None = None,
    ) -> None:
        """
        paths: relative to root, a file or a picture within one ("set.npz#train/0"); grades: one
        each, 0-4.
        cache: decode every photograph now, once, into the cache that all runs share; otherwise
        each is decoded whenever it is asked for.
        workers: how many are decoded at a time; by default the number of processors.
        """
        self.root, self.paths = Path(root), [str(path) for path in paths]
        self.grades = np.fromiter((int(grade) for grade in grades), np.int64)
        if len(self.grades) != len(self.paths):
            raise UsageError(f"{len(self.paths)} photographs but {len(self.grades)} grades")
        self.preprocessing = preprocessing
        self._crops = Crops(self.root, self.paths, preprocessing, workers)
        self._numbers = np.arange(len(self))  # of these photographs among the crops
        self.resident: Tensor | None = None
        """All crops on a device, [N, 3, S, S] uint8, zeros for the unreadable, once `keep_on` put
        them there."""
        if cache:
            self._crops.fill(observer)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """float32 [3, S, S], normalised as the network wants, and the grade.

        Raises UnreadableImage for a photograph that is among `failed`.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        pixels = torch.from_numpy(self.crops([index]))
        return normalise(pixels, self.preprocessing)[0], int(self.grades[index])

    def crop(self, index: int) -> NDArray[np.uint8]:
        """Pixels in [0, 255], RGB, [3, S, S] uint8."""
        return self.crops([index])[0]

    def crops(self, indices: Iterable[int]) -> NDArray[np.uint8]:
        """Many crops at once, [n, 3, S, S] uint8."""
        return self._crops.gather(self._numbers[index] for index in indices)

    def readable_crops(
        self, indices: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The crops, [m, 3, S, S] uint8, of those of these photographs that can still be read,
        and their indices, [m]; the others are among `failed` from now on."""
        crops, readable = self._crops.gather_readable(self._numbers[indices])
        return crops, indices[readable]

    def lost(self) -> int:
        """How many cannot be read, so far as is known, of all that these were taken from."""
        return len(self._crops.failed)

    def hear_failed(self, failed: Mapping[int, str]) -> None:
        """What another process with the same photographs could not read is lost here, too; failed:
        reasons by the number of a photograph, as `reasons` gives them."""
        self._crops.failed.update(failed)

    @property
    def reasons(self) -> dict[int, str]:
        """Why what is lost cannot be read, by number."""
        return dict(self._crops.failed)

    def rotten(self) -> int:
        """How many crops were damaged on disk, so far as is known, and are decoded anew."""
        return len(self._crops.rotten)

    def prepare(self, observer: Observer = NOTHING) -> None:
        """Find the unreadable, in parallel; after it `failed` is complete.

        With the cache it has been done; without, what was not yet seen is decoded and not kept.
        """
        self._crops.check(self._numbers.tolist(), observer)

    def keep_on(self, device: torch.device) -> None:
        """Copy all crops to a device's memory, where `resident` has them."""
        size = self.preprocessing.size
        pixels = torch.zeros((len(self), 3, size, size), dtype=torch.uint8, device=device)
        readable = self.readable
        for rows in np.array_split(readable, range(CHUNK, len(readable), CHUNK)):
            crops = torch.from_numpy(self.crops(rows))
            pixels[torch.from_numpy(rows).to(device)] = crops.to(device)
        self.resident = pixels

    @property
    def failed(self) -> list[tuple[str, str]]:
        """(path, reason) of the photographs that `prepare` could not read, in order."""
        reasons = [self._crops.failed.get(number) for number in self._numbers.tolist()]
        return [(path, why) for path, why in zip(self.paths, reasons, strict=True) if why]

    @property
    def readable(self) -> NDArray[np.int64]:
        """Indices of the photographs that are not among `failed`, [n] int64."""
        return np.flatnonzero(~np.isin(self._numbers, list(self._crops.failed)))

    @property
    def kept(self) -> str:
        """Where most crops are: "disk", "memory", or "nowhere" (decoded at each call)."""
        return self._crops.kept

    def subset(self, indices: Iterable[int]) -> "FundusDataset":
        """These photographs alone, in this order; crops that are there are shared."""
        chosen = np.fromiter((int(index) for index in indices), np.int64)
        part = copy.copy(self)
        part.paths = [self.paths[index] for index in chosen]
        part.grades, part._numbers = self.grades[chosen], self._numbers[chosen]
        part.resident = None
        return part

    @classmethod
    def from_folder(
        cls,
        path: Path | str,
        split: str = "train",
        size: int | None = None,
        *,
        val: float | str = DEFAULT_VAL,
        seed: int = 0,
        observer: Observer = NOTHING,
        **options: Any,
    ) -> "FundusDataset":
        """One split ("train", "val", "test" or "all") of a data set in any known layout.

        size: of the crops, pixels; by default as `dr train` would choose. val, seed: how a
        validation split is made where the data set brings none, as `splits.assign` takes them.
        Photographs that are missing or unreadable are left out, with a warning to the observer.
        Raises UsageError as `reading.read` does, and for a split without a photograph.
        """
        from dr_cli.labels import reading, splits

        found = reading.read(path, observer=observer)
        reading.need_images(found)
        table = splits.assign(found.table, val=val, seed=seed)
        present = [name for name in SPLITS if (table["split"] == name).any()]
        if split not in (*present, "all"):
            raise UsageError(f"{path} has no {split} split; it has {', '.join(present)} (or all)")
        rows = table[table["split"].notna() & ((split == "all") | (table["split"] == split))]
        way = Preprocessing(size or measured_size(found.root, rows["path"]))
        whole = cls(found.root, rows["path"], rows["grade"], way, observer=observer, **options)
        whole.prepare(observer)
        if lost := len(whole.failed):
            observer.warning(f"photographs left out because they cannot be read: {lost}")
        return whole.subset(whole.readable)

    def mark_gradable(self, rows: "pd.DataFrame") -> "pd.DataFrame":
        """The rows, one a photograph of this set, with `gradable`: 1, or 0 where its quality is
        too low for any grade to mean much (see `quality.judge`)."""
        low = self._crops.quality[self._numbers] < quality.GRADABLE_FROM
        return rows.assign(gradable=(~low).astype(int))


_MEASURED = 64  # photographs at least that choose a size, where so many are there: for a median


def measured_size(root: Path, paths: Iterable[str]) -> int:
    """The crops' size that suits these photographs, by `choose_size` of a few of them."""
    listed = list(paths)
    sizes = []
    for path in listed[:: max(1, len(listed) // _MEASURED)]:
        with suppress(DrError):  # the unreadable are told when they are decoded
            sizes.append(measure_field(path, root))
    return choose_size(sizes)
