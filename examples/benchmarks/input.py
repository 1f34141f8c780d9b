"""How fast photographs become batches: decoding, the cache's format, augmentation, a whole epoch.

    python examples/benchmarks/input.py                      on eyes drawn for it
    python examples/benchmarks/input.py --photographs FOLDER  on your own

Each part runs this program and its peer in turn, several times, and prints the ratio of medians
with the smallest and largest ratio of a turn; all figures go to input.json as well. The peers:
Pillow at full size for decoding; JPEG, WebP and PNG for the cache; torchvision's transforms on
Pillow pictures for augmentation; and for an epoch the loop that the course's specification
describes (Pillow in `__getitem__`, ToTensor, Normalize, a DataLoader with workers).

What runs on one thread (decoding, formats, augmentation) is timed by the processor time it
takes, so that other work on the machine counts less; threads and the epoch by the wall clock.
"""

import argparse
import dataclasses
import io
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compete import CourseDataset, compete, show
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms

from dr_cli import FundusDataset
from dr_cli.dataset.augment import LEVELS, augment
from dr_cli.dataset.feeding import batches
from dr_cli.photographs.crop import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, load_crop
from dr_cli.photographs.decoding import EXTENSIONS
from dr_cli.sample import drawn_set

FORMATS: dict[str, dict[str, Any]] = {
    "JPEG q95": {"format": "JPEG", "quality": 95, "subsampling": 0},
    "WebP lossless": {"format": "WEBP", "lossless": True},
    "PNG": {"format": "PNG"},
}


def draw_originals(folder: Path, count: int) -> None:
    """Drawn eyes at the size that cameras write: 4288 x 2848, JPEG."""
    for k in range(count):
        eye = drawn_set.draw(0, k // 2, ("left", "right")[k % 2], k % 5, size=712)
        square = Image.fromarray(eye.pixels).resize((2848, 2848), Image.Resampling.BICUBIC)
        whole = Image.new("RGB", (4288, 2848), (2, 1, 1))
        whole.paste(square, (720, 0))
        whole.save(folder / f"{k:03}.jpg", quality=92)


def decoding(files: list[Path], size: int, repeats: int) -> dict[str, Any]:
    """One photograph at a time; ours also finds the field and judges quality."""

    def plain(file: Path) -> np.ndarray:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB").resize((size, size)))

    ways = {name: Preprocessing(size, decoding=name) for name in ("draft", "full")}
    return compete(
        {
            "load_crop": lambda: [load_crop(file, ways["draft"]) for file in files],
            "load_crop, full decoding": lambda: [load_crop(file, ways["full"]) for file in files],
            "Pillow open, resize": lambda: [plain(file) for file in files],
        },
        len(files),
        repeats,
        time.thread_time,
    )


def threads(files: list[Path], size: int, repeats: int) -> dict[str, Any]:
    """As many photographs at a time as there are threads."""
    way = Preprocessing(size)

    def run(count: int) -> None:
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(lambda file: load_crop(file, way), files))

    counts = sorted({2**k for k in range(7) if 2**k <= (os.cpu_count() or 1)})
    return compete({f"{n} threads": lambda n=n: run(n) for n in counts}, len(files), repeats)


def formats(crops: np.ndarray, folder: Path, repeats: int) -> dict[str, Any]:
    """Crops [n, 3, S, S] read one by one in random order, as arrays of that shape."""
    order = np.random.default_rng(0).permutation(len(crops))
    crops.tofile(folder / "crops.raw")
    raw = np.memmap(folder / "crops.raw", np.uint8, "r", shape=crops.shape)
    stored: dict[str, list[bytes]] = {name: [] for name in FORMATS}
    for name, options in FORMATS.items():
        for crop in crops:
            file = io.BytesIO()
            Image.fromarray(crop.transpose(1, 2, 0)).save(file, **options)
            stored[name].append(file.getvalue())
    out = np.empty(crops.shape[1:], np.uint8)

    def read_raw() -> None:
        for k in order:
            out[:] = raw[k]

    def read(name: str) -> None:
        for k in order:
            with Image.open(io.BytesIO(stored[name][k])) as image:
                out[:] = np.asarray(image).transpose(2, 0, 1)

    runs: dict[str, Callable[[], object]] = {"raw, memory-mapped": read_raw}
    runs |= {name: lambda name=name: read(name) for name in FORMATS}
    table = compete(runs, len(crops), repeats, time.thread_time)
    table["raw, memory-mapped"]["bytes"] = crops[0].nbytes
    for name in FORMATS:
        table[name]["bytes"] = statistics.mean(len(content) for content in stored[name])
    return table


def augmentation(crops: np.ndarray, repeats: int) -> dict[str, Any]:
    """Decoded crops -> normalised float32 tensors, one thread each."""
    pixels, ids = torch.from_numpy(crops), np.arange(len(crops))
    way = Preprocessing(crops.shape[2])
    pictures = [Image.fromarray(crop.transpose(1, 2, 0)) for crop in crops]
    peer = transforms.Compose(
        [
            transforms.RandomHorizontalFlip(),
            transforms.RandomVerticalFlip(),
            transforms.RandomAffine(180, (0.05, 0.05), (0.87, 1.15)),
            transforms.ColorJitter(0.2, 0.2),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    epochs = itertools.count()

    evened = dataclasses.replace(way, illumination="evened")

    def ours(level: str, way: Preprocessing = way) -> None:
        epoch = next(epochs)
        for at in range(0, len(pixels), 8):
            augment(pixels[at : at + 8], way, level, 0, epoch, ids[at : at + 8])

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    runs: dict[str, Callable[[], object]] = {
        level: lambda level=level: ours(level) for level in sorted(LEVELS, key="standard".__ne__)
    }
    runs["turn, light evened"] = lambda: ours("turn", evened)
    runs["torchvision, as standard"] = lambda: torch.stack([peer(image) for image in pictures])
    table = compete(runs, len(crops), repeats, time.thread_time)
    torch.set_num_threads(before)
    return table


def epoch(crops: np.ndarray, folder: Path, repeats: int, workers: int) -> dict[str, Any]:
    """An epoch's input with nothing else to do. The course's files are crops already, JPEG q92;
    its epochs begin with the start of the workers, as a DataLoader's do."""
    files = [folder / f"{k:05}.jpg" for k in range(len(crops))]
    for file, crop in zip(files, crops, strict=True):
        Image.fromarray(crop.transpose(1, 2, 0)).save(file, quality=92)
    size = crops.shape[2]
    names = [file.name for file in files]
    dataset = FundusDataset(folder, names, [0] * len(names), Preprocessing(size))
    order = np.random.default_rng(0).permutation(len(crops))

    def ours(level: str) -> None:
        for pixels, _, index in batches(dataset, order, 8):
            augment(pixels, dataset.preprocessing, level, 0, 0, index)

    def course() -> None:
        for _ in DataLoader(
            CourseDataset(files, [0] * len(files)), 8, shuffle=True, num_workers=workers
        ):
            pass

    return compete(
        {
            "cache, augmented (standard)": lambda: ours("standard"),
            "cache, no augmentation": lambda: ours("none"),
            f"the course's loop, {workers} workers": course,
        },
        len(crops),
        repeats,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=Path, metavar="FOLDER")
    parser.add_argument("--size", type=int, default=512, help="of the crops, pixels")
    parser.add_argument("--images", type=int, default=64, help="at most")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="of the course's DataLoader")
    parser.add_argument("--out", type=Path, default=Path("input.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        os.environ["DR_CACHE"] = str(folder / "cache")
        originals = options.photographs
        if originals is None:
            originals = folder / "originals"
            originals.mkdir()
            draw_originals(originals, min(8, options.images))
        found = sorted(f for f in originals.rglob("*") if f.suffix.lower() in EXTENSIONS)
        files = found[: options.images]
        few = files[:16]
        crops = np.stack([load_crop(file, Preprocessing(options.size)).pixels for file in files])
        many = np.concatenate([crops] * -(-options.images // len(crops)))[: options.images]
        (folder / "epoch").mkdir()
        parts = {
            "decoding": decoding(few, options.size, options.repeats),
            "threads": threads(few, options.size, options.repeats),
            "formats": formats(many, folder, options.repeats),
            "augmentation": augmentation(many[:32], options.repeats),
            "epoch": epoch(many, folder / "epoch", options.repeats, options.workers),
        }
        for title, table in parts.items():
            show(f"{title}, {options.size} px", table)
        record = {
            "size": options.size,
            "photographs": "drawn" if options.photographs is None else "own",
            "processors": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
            "parts": parts,
        }
        options.out.write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
