"""Tiny pictures that stand for photographs: a disc on black whose brightness tells the grade."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

_BORDER = (2, 1, 1)


def picture(grade: int, seed: int = 0, size: int = 64) -> Image.Image:
    """RGB, `size` pixels square."""
    rng = np.random.default_rng((grade, seed))
    y, x = np.mgrid[:size, :size] / (size - 1) * 2 - 1
    field = (x**2 + y**2 < 0.92)[..., None]
    colour = np.array([90 + 30 * grade, 140 - 20 * grade, 40])
    noise = rng.normal(0, 8, (size, size, 3))
    return Image.fromarray((field * (colour + noise)).clip(0, 255).astype(np.uint8))


def eye(width=400, height=300, centre=None, radius=120, seed=0):
    """A disc on a border of (2, 1, 1) and noise, as a camera writes it; [H, W, 3] uint8."""
    rng = np.random.default_rng(seed)
    x0, y0 = centre or (width / 2, height / 2)
    y, x = np.mgrid[:height, :width] + 0.5
    inside = (x - x0) ** 2 + (y - y0) ** 2 <= radius**2
    shade = np.where(inside, 0.7 + 0.3 * (x - x0) / radius, 0)[..., None]
    picture = _BORDER + shade * np.array([168, 84, 15]) + rng.normal(0, 2, (height, width, 3))
    return picture.clip(0, 255).astype(np.uint8)


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
