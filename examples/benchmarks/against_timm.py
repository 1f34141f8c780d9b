"""`dr train` against timm's own training script, command by command.

    git clone https://github.com/huggingface/pytorch-image-models; pip install timm
    python examples/benchmarks/against_timm.py --script pytorch-image-models/train.py

Both train the same network on the same crops (JPEG files in a folder a grade), in the same
batches, with SGD, and validate after each epoch; timm with --channels-last, in float32 as `dr`
where the CPU has no bf16, with its usual augmentation and with none. The commands run in turn,
`--repeats` times. Epochs from the second on count: training alone, training without timm's waits
for data (its step), the whole epoch with validation and saving; and the whole command, start-up
and cache included. Ratios of medians; all goes to against_timm.json.
"""

import argparse
import csv
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from compete import ranked, show
from PIL import Image

from dr_cli.dataset.dataset import FundusDataset
from dr_cli.labels import reading
from dr_cli.photographs.crop import Preprocessing
from dr_cli.sample import drawn_set

_STEPS = re.compile(r"Train: (\d+) \[.*?\(([\d.]+)s, .*Data: [\d.]+ \(([\d.]+)\)")
_SAVED = re.compile(r"Current checkpoints")
_OUR_ROW = re.compile(r" +\d+ +[\d.]+ ")


def make(data: Path, folder: Path, train: int, val: int, size: int) -> Path:
    """The first usable photographs as crops: folder/{train,val}/{grade}/*.jpg."""
    table = reading.read(data).table
    rows = table[table["reason"].isna()][: train + val]
    if len(rows) < train + val:
        raise SystemExit(f"{data}: {len(rows)} photographs, {train + val} are needed")
    crops = FundusDataset(data, rows["path"], rows["grade"], Preprocessing(size), cache=False)
    for number, grade in enumerate(crops.grades):
        home = folder / ("train" if number < train else "val") / str(grade)
        home.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(crops.crop(number).transpose(1, 2, 0))
        picture.save(home / f"{number:05}.jpg", quality=92)
    return folder


def lines_of(command: list[str], folder: Path) -> list[tuple[float, str]]:
    """Every line that a command in this folder says, with the second in which it did; its end."""
    start = time.perf_counter()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        cwd=folder,
    ) as process:
        assert process.stdout is not None
        said = [(time.perf_counter() - start, line) for line in process.stdout]
    if process.returncode:
        raise SystemExit("".join(line for _, line in said[-20:]) + f"{command[:3]} failed")
    return [*said, (time.perf_counter() - start, "")]


def between(said: list[tuple[float, str]], pattern: re.Pattern[str]) -> list[float]:
    """Seconds from the line that ends an epoch to the one that ends the next."""
    ends = [second for second, line in said if pattern.match(line)]
    return [after - before for before, after in itertools.pairwise(ends)]


def ours(data: Path, folder: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of `dr train`: training and whole of each epoch but the first, and the command."""
    run = folder / "runs" / f"dr-{time.time_ns()}"
    command = [
        sys.executable, "-m", "dr_cli", "train", str(data), "--arch", options.arch,
        "--size", str(options.size), "--batch-size", str(options.batch_size),
        "--epochs", str(options.epochs), "--optimizer", "sgd", "--lr", "1e-3",
        "--device", options.device, "--name", run.name,
    ]  # fmt: skip
    said = lines_of(command, folder)
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        rates = [float(row["images_per_second"]) for row in csv.DictReader(file)]
    training = [options.images / rate for rate in rates[1:]]
    return {"training": training, "epoch": between(said, _OUR_ROW), "command": [said[-1][0]]}


def timms(
    data: Path, folder: Path, options: argparse.Namespace, more: list[str]
) -> dict[str, list[float]]:
    """The same of timm's script, and the training without its waits for data."""
    command = [
        sys.executable, str(options.script.resolve()), "--data-dir", str(data),
        "--train-split", "train", "--val-split", "val", "--num-classes", "5",
        "--model", options.arch,
        "--img-size", str(options.size), "--crop-pct", "1.0", "-b", str(options.batch_size),
        "--epochs", str(options.epochs), "--warmup-epochs", "0", "--opt", "sgd", "--lr", "1e-3",
        "--device", options.device, "--channels-last", "--workers", str(options.workers),
        "--log-interval", "1", "--output", str(folder), *more,
    ]  # fmt: skip
    said = lines_of(command, folder)
    last = {int(f[1]): (float(f[2]), float(f[3])) for _, line in said if (f := _STEPS.match(line))}
    steps = options.images // options.batch_size
    counted = [last[epoch] for epoch in sorted(last)][1:]
    return {
        "training": [steps * whole for whole, _ in counted],
        "step": [steps * (whole - data) for whole, data in counted],
        "epoch": between(said, _SAVED),
        "command": [said[-1][0]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--script", type=Path, required=True, help="timm's train.py")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="graded photographs")
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--images", type=int, default=160, help="to train on")
    parser.add_argument("--val-images", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="of timm's DataLoader")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("against_timm.json"))
    options = parser.parse_args()
    options.images -= options.images % options.batch_size  # timm leaves a smaller last batch out
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        os.environ["DR_CACHE"] = str(folder / "cache")
        count = options.images + options.val_images
        found = options.data or drawn_set.ensure(
            folder / "cache", images=2 * count, size=options.size
        )
        data = make(found, folder / "data", options.images, options.val_images, options.size)
        (folder / "out").mkdir()
        out = folder / "out"
        contestants = {
            "dr train": lambda: ours(data, out, options),
            "timm": lambda: timms(data, out, options, []),
            "timm --no-aug": lambda: timms(data, out, options, ["--no-aug"]),
        }
        took: dict[str, dict[str, list[float]]] = {
            part: {} for part in ("training", "epoch", "command")
        }
        for _ in range(options.repeats):
            for who, run in contestants.items():
                for part, seconds in run().items():
                    table, key = (part, who) if part != "step" else ("training", f"{who}, its step")
                    took[table].setdefault(key, []).extend(seconds)
    tables: dict[str, Any] = {}
    for part, times in took.items():
        items = options.images * (options.epochs if part == "command" else 1)
        tables[part] = ranked(times, items)
        show(f"{part}, {options.arch}, {options.size} px", tables[part])
    settings = {key: str(value) for key, value in vars(options).items()}
    record = {"settings": settings, "tables": tables, "seconds": took}
    options.out.write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
