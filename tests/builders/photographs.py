"""Tiny pictures that stand for photographs: a disc on black whose brightness tells the grade."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image


def picture(grade: int, seed: int = 0, size: int = 64) -> Image.Image:
    """RGB, `size` pixels square."""
    rng = np.random.default_rng((grade, seed))
    y, x = np.mgrid[:size, :size] / (size - 1) * 2 - 1
    field = (x**2 + y**2 < 0.92)[..., None]
    colour = np.array([90 + 30 * grade, 140 - 20 * grade, 40])
    noise = rng.normal(0, 8, (size, size, 3))
    return Image.fromarray((field * (colour + noise)).clip(0, 255).astype(np.uint8))


def course(folder: Path, train: int = 40, test: int = 20, size: int = 64) -> Path:
    """A folder in the course lab's layout: every patient has two eyes."""
    folder.mkdir(parents=True, exist_ok=True)
    first = 1
    for split, n in (("train", train), ("test", test)):
        names, grades = [], []
        (folder / split).mkdir()
        for k in range(n):
            patient, eye = first + k // 2, ("left", "right")[k % 2]
            names.append(f"{patient}_{eye}")
            grades.append(k % 5)
            picture(k % 5, seed=first + k, size=size).save(folder / split / f"{names[-1]}.jpeg")
        first += n
        for kind, values in (("img", names), ("label", grades)):
            (folder / f"{split}_{kind}.csv").write_text("".join(f"{v}\n" for v in values))
    return folder


def table(folder: Path, n: int = 30) -> Path:
    """A folder with labels.csv (`photo,stage`) and its pictures, without splits."""
    (folder / "images").mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["photo", "stage"])
        for k in range(n):
            picture(k % 5, seed=k).save(folder / "images" / f"p{k:02}.png")
            writer.writerow([f"p{k:02}.png", k % 5])
    return folder
