"""The course's experiment as this program does it, one network a command, timed part by part.

    python examples/benchmarks/lab_experiment.py --images 28100 --test-images 7026 \\
        --network resnet18 --epochs 10
    python examples/benchmarks/lab_experiment.py --images 200 --test-images 50 --size 128 --epochs 1

28,100 + 7,026 photographs of 512 px are made on the spot (few drawn eyes, shifted and brightened
so that no two files are equal), as large JPEG files as the course's. Then `dr train` runs as a
person runs it, with evaluation of both splits each epoch. Printed: seconds of making, caching,
training, evaluation; img/s; the share of a bare step's rate on the same processor; on an H100
the share of the roofline of shared/PERFORMANCE.md. All of it goes to lab_experiment.json.
"""

import argparse
import csv
import json
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dr_cli import device, runs
from dr_cli.dataset import augment
from dr_cli.events import Observer
from dr_cli.labels import reading as labels
from dr_cli.network.resnet import build_resnet
from dr_cli.sample import drawn_set as sample
from dr_cli.training import trainer
from dr_cli.training.config import TrainConfig
from dr_cli.training.learner import Learner
from dr_cli.training.plan import Plan, make_plans

SHARES = (0.735, 0.07, 0.15, 0.025, 0.02)  # of the grades in the course's label files
ROOFLINE_512 = {"resnet18": 4787, "resnet50": 1126, "resnet101": 737, "resnet152": 521}  # img/s
DRAWN = 40  # different eyes; drawing 35,126 would take longer than training on them


def make(folder: Path, train: int, test: int, size: int) -> Path:
    """A data set in the course's layout."""
    rng = np.random.default_rng(0)
    grades = rng.choice(5, train + test, p=SHARES)
    jobs = []
    for split, first, count in (("train", 0, train), ("test", train, test)):
        (folder / split).mkdir(parents=True)
        names = [f"{first // 2 + k // 2}_{sample.EYES[k % 2]}" for k in range(count)]
        chosen = grades[first : first + count].tolist()
        for kind, values in (("img", names), ("label", chosen)):
            with (folder / f"{split}_{kind}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([value] for value in values)
        jobs += [
            (str(folder / split / f"{name}.jpeg"), grade, first + k, size)
            for k, (name, grade) in enumerate(zip(names, chosen, strict=True))
        ]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for _ in pool.map(write, jobs, chunksize=64):
            pass
    return folder


def write(job: tuple[str, int, int, int]) -> None:
    """One file: an eye of the grade, made different from all others."""
    path, grade, number, size = job
    eye = drawn(grade, number % (DRAWN // 5), size)
    shifted = np.roll(eye, (number * 7 % 9 - 4, number * 5 % 9 - 4), axis=(0, 1))
    light = 0.8 + 0.4 * (number % 997) / 997
    Image.fromarray(np.clip(shifted * light, 0, 255).astype(np.uint8)).save(path, quality=88)


_EYES: dict[tuple[int, int, int], np.ndarray] = {}


def drawn(grade: int, number: int, size: int) -> np.ndarray:
    key = grade, number, size
    if key not in _EYES:
        _EYES[key] = sample.draw(0, number + 1, "left", grade, size).pixels
    return _EYES[key]


class Watch(Observer):
    """Keeps the rows of the epochs."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def note(self, text: str) -> None:
        print(text)

    def epoch(self, row: Any, best: bool) -> None:
        self.rows.append(dict(row))
        print({key: row[key] for key in ("epoch", "train_loss", "images_per_second", "seconds")})


def bare_rate(planned: Plan, steps: int) -> float:
    """img/s of forward, backward and step on one batch that is in memory."""
    processor, config = planned.processor, planned.config
    one = Learner(_network(planned), planned)
    indices = planned.indices("train")[: config.batch_size]
    pixels = torch.from_numpy(planned.dataset.crops(indices)).to(processor.device)
    inputs = augment.normalise(pixels, planned.dataset.preprocessing).contiguous(
        memory_format=processor.memory_format
    )
    grade = torch.from_numpy(planned.dataset.grades[indices]).to(processor.device)
    taken = []
    for _ in range(steps + 3):
        start = time.perf_counter()
        loss, _ = one.add_gradients(inputs, grade)
        one.optimizer.step()
        loss.item()
        taken.append(time.perf_counter() - start)
    return len(indices) / float(np.median(taken[3:]))


def _network(planned: Plan) -> Any:
    processor = planned.processor
    network = build_resnet(planned.config.arch)
    return network.to(processor.device).to(memory_format=processor.memory_format)


def experiment(data: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One network of the course's, trained as a person trains it: seconds of each part, rates."""
    config = TrainConfig(
        arch=options.network, weights=options.weights, epochs=options.epochs, size=options.size,
        batch_size=options.batch_size, optimizer="sgd", lr=1e-3, nesterov=False, val="test",
        illumination="kept", compile=options.compile,
    )  # fmt: skip
    marks = [time.perf_counter()]
    processor = device.choose(options.device, options.precision)
    planned = make_plans(config, labels.read(data), processor)[0]
    marks.append(time.perf_counter())
    watch = Watch()
    run = runs.new_run(folder / "runs", None, options.network, trainer.describe_run(planned))
    trainer.fill_run(planned, run, observer=watch)
    marks.append(time.perf_counter())
    bare = bare_rate(planned, options.steps)
    rate = float(np.median([row["images_per_second"] for row in watch.rows]))
    training = sum(options.images / row["images_per_second"] for row in watch.rows)
    caching, whole = np.diff(marks).tolist()
    return {
        "processor": processor.reason,
        "seconds": {
            "looking and caching": caching, "dr train": whole, "its training phases": training,
            "its evaluations": sum(row["seconds"] for row in watch.rows) - training,
        },
        "images_per_second": rate,
        "share_of_bare_step": rate / bare,
        "share_of_h100_roofline": (
            rate / ROOFLINE_512[options.network]
            if processor.device.type == "cuda" and options.size == 512
            and options.network in ROOFLINE_512 else None
        ),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=28_100)
    parser.add_argument("--test-images", type=int, default=7_026)
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--weights", help="a local start, for the pretrained half")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=None)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--steps", type=int, default=10, help="of the bare rate")
    parser.add_argument("--out", type=Path, default=Path("lab_experiment.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        os.environ["DR_CACHE"] = str(folder / "cache")
        start = time.perf_counter()
        data = make(folder / "data", options.images, options.test_images, options.size)
        making = time.perf_counter() - start
        record = experiment(data, folder, options)
    record["seconds"] = {"making the files": making} | record["seconds"]
    settings = {key: str(value) for key, value in vars(options).items()}
    record = {"settings": settings, **record}
    print(json.dumps(record, indent=1))
    options.out.write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
