"""Run folders as `dr train` leaves them, by its own writers; the figures are invented."""

import base64
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import torch

from dr_cli.grades import NAMES, NUM_GRADES, Calibration, OperatingPoint, Threshold
from dr_cli.photographs.crop import Preprocessing
from dr_cli.runs import METRICS, PREDICTIONS, SPLITS, DataRecord, ModelRecord, Run, RunConfig
from dr_cli.training.config import TrainConfig
from dr_cli.writing import write_csv, write_json

ROOT = "/data/secret-clinic"
SAMPLE = "/home/me/.cache/dr/sample/1-600-224-0"
THRESHOLD = 0.31
IMAGES = (40, 4, 30, 16, 10)  # of each grade, in validation and in testing
TRAINED = 580  # images


def write_run(
    folder: Path, *, seed: int = 0, qwk: float = 0.6, drawn: bool = False, **options: Any
) -> Path:
    """A finished run of four epochs: 580 images to train on, 100 in validation, 100 in testing.

    qwk: validation's, in summary.json; drawn: the eyes are the built-in sample set's.
    """
    run = Run(folder)
    folder.mkdir(parents=True, exist_ok=True)
    options = {"arch": "resnet18", "epochs": 4, "size": 224} | options
    preprocessing = Preprocessing(options["size"]).to_dict()
    root = SAMPLE if drawn else ROOT
    run.write_config(
        RunConfig(
            options=TrainConfig(**options).to_dict(),
            fold=None,
            preprocessing=preprocessing,
            parameters=11_179_077,
            multiply_adds=1_800_000_000,
            data=DataRecord(root, root, "table" if drawn else "idrid", {}, "ab12", {}, drawn),
            versions={"torch": "2.9"},
            device="CPU (no GPU found), 2 threads",
            precision="fp32",
            threads=2,
        )
    )
    point = OperatingPoint(Threshold(THRESHOLD, "sensitivity=0.90"))
    run.save_model(
        {"fc.bias": torch.zeros(NUM_GRADES)},
        ModelRecord(options["arch"], preprocessing, Calibration(None, 1.3, point), epoch=3),
    )
    tables = {split: _predictions(split, seed, drawn) for split in ("val", "test")}
    for split, table in tables.items():
        run.write_table(f"predictions-{split}.csv", PREDICTIONS, table)
    train = _images("train", np.arange(TRAINED) % NUM_GRADES, drawn)
    placed = [train, *(table.assign(split=split) for split, table in tables.items())]
    run.write_table("splits.csv", SPLITS, pd.concat(placed).assign(reason=None))
    write_csv(run["metrics.csv"], METRICS, [_epoch(e, seed) for e in range(1, 5)])
    counts = pd.crosstab(tables["test"]["grade"], tables["test"]["predicted"])
    counts = counts.reindex(index=range(5), columns=range(5), fill_value=0).to_numpy()
    summary = {"val": record(counts, "val", qwk), "test": record(counts, "test", qwk - 0.02)}
    write_json(run["summary.json"], summary)
    return folder


def _predictions(split: str, seed: int, drawn: bool) -> pd.DataFrame:
    """The grades are every run's; what is said of them is the seed's."""
    grade = np.random.default_rng(5).permutation(np.repeat(range(NUM_GRADES), IMAGES))
    said = np.random.default_rng(seed).dirichlet(np.ones(NUM_GRADES), grade.size)
    said += 0.4 * np.eye(NUM_GRADES)[grade]
    said = (said / said.sum(axis=1, keepdims=True)).round(6)
    table = _images(split, grade, drawn)
    table[[f"p{k}" for k in range(NUM_GRADES)]] = said
    return table.assign(predicted=said.argmax(axis=1), gradable=1)


def _images(split: str, grade: np.ndarray, drawn: bool) -> pd.DataFrame:
    """Two eyes a patient; the rows of splits.csv."""
    patient = [f"patient{i // 2}{split}" for i in range(grade.size)]
    eye = [("left", "right")[i % 2] for i in range(grade.size)]
    begin = "images/drawn_" if drawn else "img/"
    path = [f"{begin}{one}_{side}.jpg" for one, side in zip(patient, eye, strict=True)]
    table = pd.DataFrame({"path": path, "grade": grade, "patient": patient, "eye": eye})
    return table.assign(split=split)


def _epoch(e: int, seed: int) -> dict[str, float | None]:
    row = (
        e, 0.01, 2 / e, 0.3 + 0.12 * e + seed / 50, 2.2 / e, 0.3 + 0.1 * e, 0.15 * e,
        0.3 + 0.09 * e + seed / 40, None if e == 1 else 0.14 * e + seed / 30, 15 + e, 60 - e,
    )  # fmt: skip
    return dict(zip(METRICS, row, strict=True))


def figure(value: float) -> dict[str, Any]:
    """A figure of a record with an interval of 0.05 to each side."""
    return {"value": value, "ci95": [value - 0.05, min(1, value + 0.05)]}


def record(confusion: np.ndarray, split: str, qwk: float) -> dict[str, Any]:
    """What summary.json says of a split; the referable AUC is undefined."""
    counts = confusion.sum(axis=1)
    return {
        "run": "x",
        "data": ROOT,
        "split": split,
        "n": int(counts.sum()),
        "patients": int(counts.sum()) // 2,
        "failed": 0,
        "grade_counts": counts.tolist(),
        "accuracy": figure(confusion.trace() / counts.sum()),
        "balanced_accuracy": figure(0.4),
        "qwk": figure(qwk),
        "macro_f1": figure(0.39),
        "mean_absolute_error": figure(0.6),
        "referable": {
            "auc": {"value": None, "ci95": None},
            "threshold": THRESHOLD,
            "rule": "sensitivity=0.90",
            "sensitivity": figure(0.85),
            "specificity": figure(0.8),
            "threshold_from": "val of x",
        },
        "calibration": {"ece": 0.05, "brier": 0.4, "nll": 1.1, "temperature": 1.3},
        "per_grade": [
            {"grade": g, "name": NAMES[g], "support": int(counts[g]), "precision": 0.5}
            | {"recall": 0.5, "specificity": 0.9, "f1": 0.5, "auc": None if g == 4 else 0.8}
            for g in range(NUM_GRADES)
        ],
        "confusion": confusion.tolist(),
        "baselines": {"majority": {"accuracy": 0.33, "qwk": 0.0}, "fellow_eye": None},
        "warnings": ["only 4 images of grade 1"],
    }


def jpeg(colour: tuple[int, int, int], side: int = 32) -> str:
    """A picture of one colour, in base64."""
    data = io.BytesIO()
    PIL.Image.new("RGB", (side, side), colour).save(data, "JPEG")
    return base64.b64encode(data.getvalue()).decode("ascii")


def write_pictures(run: Path, **changed: Any) -> list[dict[str, Any]]:
    """pictures.json with three mistakes and two right ones of each grade, as a run ends with."""
    entries = [
        {
            "kind": "right" if right else "mistake",
            "path": f"img/{'right' if right else 'mistake'}{i}.jpg",
            "grade": grade,
            "predicted": grade if right else 0,
            "probabilities": [0.5, 0.2, 0.1, 0.15, 0.05],
            "photograph": jpeg((200, 20 * i, 0)),
            "heatmap": jpeg((0, 20 * i, 200)),
        }
        | changed
        for i, (right, grade) in enumerate(
            [(False, 4), (False, 3), (False, 1)] + [(True, g) for g in range(5) for _ in range(2)]
        )
    ]
    (run / "pictures.json").write_text(json.dumps(entries), encoding="utf-8")
    return entries


@contextmanager
def edit(path: Path) -> Iterator[Any]:
    """The contents of a JSON file, to be changed."""
    told = json.loads(path.read_text(encoding="utf-8"))
    yield told
    write_json(path, told)


def replace_in(path: Path, old: str, new: str) -> None:
    """Other text in a file."""
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
