"""FundusDataset: graded photographs as torch wants them, and their batches as the trainer does."""

import copy
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from dr_cli.dataset.augment import normalise
from dr_cli.device import Processor, memory
from dr_cli.errors import DrError, UsageError
from dr_cli.events import NOTHING, Observer
from dr_cli.labels.layouts import DEFAULT_VAL
from dr_cli.photographs import cache as cache_
from dr_cli.photographs import fundus
from dr_cli.photographs import packed as npz
from dr_cli.photographs.fundus import Preprocessing, UnreadableImage

if TYPE_CHECKING:
    import pandas as pd

ReadImage = Callable[[Path, str], Image.Image]


class FundusDataset(Dataset[tuple[Tensor, int]]):
    """Photographs and their grades, map-style: `dataset[i]` is a picture and a grade.

    A thin view over `crop(i)`, which comes from the cache. Works in a DataLoader with workers,
    spawned ones too.
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
        read_image: ReadImage | None = None,
    ) -> None:
        """
        paths: relative to root; grades: one each, 0-4.
        cache: decode every photograph now, once, into the cache that all runs share; otherwise
        each is decoded whenever it is asked for.
        workers: how many are decoded at a time; by default the number of processors.
        read_image(root, path): gives a picture that is not a file of its own, such as
        "set.npz#train/0", for data sets that pack them.
        """
        self.root, self.paths = Path(root), [str(path) for path in paths]
        self.grades = np.fromiter((int(grade) for grade in grades), np.int64)
        if len(self.grades) != len(self.paths):
            raise UsageError(f"{len(self.paths)} photographs but {len(self.grades)} grades")
        self.preprocessing = preprocessing
        self._read_image = read_image
        self._crops = cache_.Crops(self._load, len(self), preprocessing.size, workers)
        self._cached, self._checked = cache, False
        self.resident: Tensor | None = None  # all crops on a device, see `hold`
        if cache:
            self.prepare(observer)

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
        return self._crops.gather(indices)

    def prepare(self, observer: Observer = NOTHING, workers: int | None = None) -> None:
        """Decode what the cache lacks, in parallel; after it `failed` is complete. Once is enough.

        Without the cache this decodes every photograph only to find the unreadable ones.
        """
        if self._checked:
            return
        self._crops.workers = workers or self._crops.workers
        if self._cached:
            keys = cache_.keys(self.root, self.paths)
            self._crops.fill(keys, cache_.shards_folder(self.preprocessing), observer)
        else:
            self._crops.check(observer)
        self._checked = True

    @property
    def failed(self) -> list[tuple[str, str]]:
        """(path, reason) of the photographs that `prepare` could not read, in order."""
        return [(self.paths[i], reason) for i, reason in sorted(self._crops.failed.items())]

    @property
    def readable(self) -> NDArray[np.int64]:
        """Indices of the photographs that are not among `failed`, [n] int64."""
        return np.array([i for i in range(len(self)) if i not in self._crops.failed], np.int64)

    @property
    def kept(self) -> str:
        """Where most crops are: "disk", "memory", or "nowhere" (decoded at each call)."""
        return self._crops.kept

    def subset(self, indices: Iterable[int]) -> "FundusDataset":
        """These photographs alone, in this order; crops that are there are shared."""
        chosen = [int(index) for index in indices]
        part = copy.copy(self)
        part.paths = [self.paths[index] for index in chosen]
        part.grades = self.grades[chosen]
        part._crops = self._crops.subset(chosen, part._load)
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
        Raises UsageError as `labels.read` does, and for a split without a photograph.
        """
        from dr_cli.labels import reading as labels
        from dr_cli.labels import splits

        found = labels.read(path, observer=observer)
        labels.need_images(found)
        table = splits.assign(found.table, val=val, seed=seed)
        present = [name for name in ("train", "val", "test") if (table["split"] == name).any()]
        if split not in (*present, "all"):
            raise UsageError(f"{path} has no {split} split; it has {', '.join(present)} (or all)")
        rows = table[table["split"].notna() & ((split == "all") | (table["split"] == split))]
        way = Preprocessing(size or measured_size(found.root, rows["path"]))
        whole = cls(found.root, rows["path"], rows["grade"], way, observer=observer, **options)
        if whole.failed:
            observer.warning(
                f"photographs left out because they cannot be read: {len(whole.failed)}"
            )
        return whole.subset(whole.readable)

    def judged(self, rows: "pd.DataFrame") -> "pd.DataFrame":
        """The rows, one a photograph of this set, with `gradable`: 1, or 0 where its quality is
        too low for any grade to mean much (see `fundus.judge`)."""
        low = self._crops.quality < fundus.GRADABLE_FROM
        return rows.assign(gradable=(~low).astype(int))

    def _load(self, index: int) -> cache_.Made:
        path = self.paths[index]
        if self._read_image is None and not npz.inside(path):
            return _made(fundus.load_crop(self.root / path, self.preprocessing))
        try:
            image = (self._read_image or npz.read_image)(self.root, path)
        except (DrError, OSError) as problem:
            raise UnreadableImage(path, str(problem)) from problem
        return _made(fundus.from_image(image, self.preprocessing))


def _made(crop: fundus.Crop) -> cache_.Made:
    return crop.pixels, crop.quality


_MEASURED = 64  # photographs looked at to choose a size: enough for a median


def measured_size(root: Path, paths: Iterable[str]) -> int:
    """The crops' size that suits these photographs, by `fundus.auto_size` of a few of them."""
    listed = list(paths)
    sizes = []
    for path in listed[:: max(1, len(listed) // _MEASURED)]:
        with suppress(DrError):  # the unreadable are told when they are decoded
            if npz.inside(path):
                sizes.append(npz.read_image(root, path).size)
            else:
                sizes.append(fundus.field_size(root / path))
    return fundus.auto_size(sizes)


GPU_SHARE = 0.6  # of the free GPU memory that crops may take; the rest is the network's
CHUNK = 256  # crops copied to the GPU at a time


def hold(dataset: FundusDataset, processor: Processor, observer: Observer = NOTHING) -> None:
    """Put all crops into the GPU's memory where they fit; `batches` then takes them from there.

    Else they stay where the cache has them: mapped from disk, of which the system keeps in RAM
    what fits. Which it is, is said.
    """
    size, room = dataset.preprocessing.size, memory(processor) or 0
    needed = len(dataset) * 3 * size**2
    shown = f"crops: {len(dataset):,} of {size} px, {needed / 1e9:.1f} GB"
    if processor.device.type != "cuda" or needed > GPU_SHARE * room:
        places = {"disk": "mapped from disk", "memory": "in RAM", "nowhere": "decoded each time"}
        observer.note(f"{shown}, {places[dataset.kept]}")
        return
    dataset.resident = resident(dataset, processor.device)
    observer.note(f"{shown}, held in GPU memory")


def resident(dataset: FundusDataset, device: torch.device) -> Tensor:
    """All crops on a device, uint8 [N, 3, S, S]; zeros for those that cannot be read."""
    size = dataset.preprocessing.size
    crops = torch.zeros((len(dataset), 3, size, size), dtype=torch.uint8, device=device)
    for start in range(0, len(dataset.readable), CHUNK):
        chosen = dataset.readable[start : start + CHUNK]
        crops[torch.from_numpy(chosen).to(device)] = torch.from_numpy(dataset.crops(chosen)).to(
            device
        )
    return crops


Batch = tuple[Tensor, Tensor, Tensor]


def batches(
    dataset: FundusDataset,
    indices: Sequence[int] | NDArray[Any],
    batch_size: int,
    prefetch: int = 2,
) -> Iterator[Batch]:
    """The crops of `indices`, in that order, a batch at a time; the last may be smaller.

    Yields (pixels [n, 3, S, S] uint8, grades [n] int64, indices [n] int64), pixels in pinned
    memory where there is a CUDA device, or from the device's own (see `hold`). A thread gathers
    up to `prefetch` batches ahead; it ends when the consumer stops, and what goes wrong in it is
    raised here.
    """
    order = np.asarray(indices, np.int64)
    if dataset.resident is not None:
        yield from _from_device(dataset, dataset.resident, order, batch_size)
        return
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(prefetch)
    stopped = threading.Event()
    pinned = torch.cuda.is_available()

    def gather(chosen: NDArray[np.int64]) -> Batch:
        parts = dataset.crops(chosen), dataset.grades[chosen], chosen
        pixels, grades, numbers = (torch.from_numpy(part) for part in parts)
        if pinned:
            return pixels.pin_memory(), grades.pin_memory(), numbers
        return pixels, grades, numbers

    def run() -> None:
        try:
            for start in range(0, len(order), batch_size):
                if stopped.is_set():
                    return
                ready.put(gather(order[start : start + batch_size]))
            ready.put(None)
        except BaseException as problem:  # raised again where somebody listens
            ready.put(problem)

    thread = threading.Thread(target=run, name="dr-batches", daemon=True)
    thread.start()
    try:
        while (batch := ready.get()) is not None:
            if isinstance(batch, BaseException):
                raise batch
            yield batch
    finally:
        stopped.set()
        while thread.is_alive():  # it may wait for room in the queue
            with suppress(queue.Empty):
                ready.get(timeout=0.01)


def _from_device(
    dataset: FundusDataset, crops: Tensor, order: NDArray[np.int64], batch_size: int
) -> Iterator[Batch]:
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        numbers = torch.from_numpy(chosen)
        yield crops[numbers.to(crops.device)], torch.from_numpy(dataset.grades[chosen]), numbers
