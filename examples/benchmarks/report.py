"""How long `dr report` takes over runs with many test images, and how large its page is.

    python examples/benchmarks/report.py --runs 10 --images 7026

Makes the run folders itself: invented predictions, their real figures, and drawn eyes (no
photograph) with the heatmaps of a network that never learnt. Then starts `dr report` and prints
seconds and megabytes; `--keep FOLDER` keeps runs and page.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from dr_cli import runs
from dr_cli.grades import NUM_GRADES, Calibration
from dr_cli.network.resnet import build_resnet, count_parameters, multiply_adds
from dr_cli.photographs.crop import Preprocessing
from dr_cli.sample import drawn_set
from dr_cli.scoring.predictions import PROBABILITIES
from dr_cli.scoring.record import Context, Scoring, build_record
from dr_cli.training import pictures
from dr_cli.training.config import TrainConfig
from dr_cli.writing import write_csv, write_json

SHARES = (0.735, 0.07, 0.15, 0.025, 0.02)  # of the grades in EyePACS
EPOCHS = 30
CALIBRATION = Calibration(temperature=1.2)


class Eyes:
    """Stands for a `FundusDataset`: crops of drawn eyes, any number of them."""

    def __init__(self, count: int, size: int = 224) -> None:
        drawings = [
            drawn_set.draw(0, i + 1, drawn_set.EYES[i % 2], i % NUM_GRADES, size)
            for i in range(count)
        ]
        self.preprocessing = Preprocessing(size)
        self.pixels = [drawing.pixels.transpose(2, 0, 1).copy() for drawing in drawings]

    def crop(self, index: int) -> np.ndarray:
        return self.pixels[index % len(self.pixels)]


def predictions(images: int, seed: int) -> pd.DataFrame:
    """Two eyes a patient; the grades are every run's, what is said of them is the seed's."""
    grade = np.random.default_rng(0).choice(NUM_GRADES, images, p=SHARES)
    rng = np.random.default_rng(seed + 1)
    p = rng.dirichlet(np.full(NUM_GRADES, 0.4), images) + 0.5 * np.eye(NUM_GRADES)[grade]
    p /= p.sum(axis=1, keepdims=True)
    number = np.arange(images)
    table = pd.DataFrame({"path": [f"train/{i // 2}_{drawn_set.EYES[i % 2]}.jpeg" for i in number]})
    table["grade"], table["patient"] = grade, (number // 2).astype(str)
    table["eye"] = np.where(number % 2, "right", "left")
    table[list(PROBABILITIES)] = p.round(6)
    table["predicted"] = p.argmax(axis=1)
    table["gradable"] = True
    return table


def write_run(folder: Path, images: int, seed: int, eyes: Eyes) -> None:
    run, way = runs.Run(folder), Preprocessing(224).to_dict()
    summary = {}
    for split, n in (("val", images // 4), ("test", images)):
        table = predictions(n, seed)
        run.write_table(f"predictions-{split}.csv", runs.PREDICTIONS, table)
        summary[split] = build_record(
            table,
            Context(split=split),
            calibration=CALIBRATION,
            scoring=Scoring(200),
        )
    torch.manual_seed(seed)
    never_learnt = build_resnet("resnet18").eval()
    made = pictures.make_pictures(table, eyes, np.arange(images), never_learnt)  # type: ignore[arg-type]
    write_json(run["pictures.json"], made)
    write_csv(run["metrics.csv"], runs.METRICS, [_epoch(e, seed) for e in range(1, EPOCHS + 1)])
    write_splits(run, 4 * images)
    run.write_config(
        runs.RunConfig(
            options=TrainConfig(epochs=EPOCHS, size=224, seed=seed).to_dict(),
            fold=None,
            preprocessing=way,
            parameters=count_parameters("resnet18"),
            multiply_adds=multiply_adds("resnet18", 224),
            data=runs.DataRecord("eyepacs", "eyepacs", "eyepacs", {}, "0" * 64, {}),
            versions={},
            device="cpu",
            precision="fp32",
            threads=1,
        )
    )
    run.save_model(
        {"fc.bias": never_learnt.fc.bias}, runs.ModelRecord("resnet18", way, CALIBRATION, EPOCHS)
    )
    write_json(run["summary.json"], summary)


def write_splits(run: runs.Run, images: int) -> None:
    rows = predictions(images, 0).assign(split="train", reason="")
    run.write_table("splits.csv", runs.SPLITS, rows)


def _epoch(epoch: int, seed: int) -> dict[str, Any]:
    better = 1 - 1 / (epoch + 1 + seed / 10)
    told = {key: round(0.8 * better, 6) for key in runs.METRICS}
    return told | {"epoch": epoch, "seconds": 300.0, "images_per_second": 120.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--images", type=int, default=7026, help="test images of each run")
    parser.add_argument("--keep", type=Path, help="where to make the runs")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as aside:
        folder = asked.keep or Path(aside)
        eyes = Eyes(pictures.MISTAKES + pictures.RIGHT_A_GRADE * NUM_GRADES)
        for seed in range(asked.runs):
            write_run(folder / f"resnet18-{seed}", asked.images, seed, eyes)
        for flags in (["--no-pictures"], []):
            start = time.perf_counter()
            command = [sys.executable, "-m", "dr_cli", "report", "--quiet", str(folder), *flags]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - start
            size = (folder / "report.html").stat().st_size / 1e6
            print(
                f"{asked.runs} runs of {asked.images:,} test images"
                f"{' without pictures' if flags else ''}: {seconds:.1f} s, {size:.2f} MB"
            )


if __name__ == "__main__":
    main()
