"""What the built-in sample set costs to draw, and whether colour alone could grade it.

    python examples/benchmarks/sample_set.py                   # the default set, timed
    python examples/benchmarks/sample_set.py --sheet eyes.png  # and eyes of each grade, to look at

Colour alone: a logistic regression on the mean, spread and percentiles of each channel within
the field, and on a histogram of 3x8 bins. Within 5 points of the majority's share is luck;
above that, a network need not look for lesions.
"""

import argparse
import csv
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dr_cli.sample import drawn_set

QUANTILES = (1, 5, 25, 50, 75, 95, 99)
Rows = list[dict[str, str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        folder = timed(Path(cache), options)
        with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        colour_alone(folder / "images", rows)
        if options.sheet:
            contact_sheet(folder / "images", rows, options.size).save(options.sheet)


def timed(cache: Path, options: argparse.Namespace) -> Path:
    start = time.perf_counter()
    folder = drawn_set.ensure(
        cache,
        images=options.images,
        size=options.size,
        seed=options.seed,
        workers=options.workers,
    )
    seconds = time.perf_counter() - start
    size = sum(file.stat().st_size for file in folder.rglob("*.jpg"))
    print(f"drawn: {options.images} of {options.size} px in {seconds:.1f} s, {size / 1e6:.1f} MB")
    return folder


def colour_alone(images: Path, rows: Rows) -> None:
    pictures = [np.asarray(Image.open(images / row["image"])) for row in rows]
    fields = [pixels[pixels.max(axis=2) > 25] for pixels in pictures]
    grade = np.array([int(row["grade"]) for row in rows])
    test = np.array([row["split"] == "test" for row in rows])
    patient = [row["patient"] for row in rows]
    print(f"majority: {np.mean(grade[test] == 0):.3f} of test")
    for name, features in (
        ("statistics", np.stack([statistics(field) for field in fields])),
        ("histogram", np.stack([histogram(field) for field in fields])),
    ):
        for strength in (0.1, 1.0, 100.0):
            model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000))
            folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
            cross = cross_val_score(model, features, grade, groups=patient, cv=folds).mean()
            on_test = model.fit(features[~test], grade[~test]).score(features[test], grade[test])
            print(f"colour {name}, C={strength:g}: {on_test:.3f} of test, {cross:.3f} by 5 folds")


def statistics(field: NDArray[np.uint8]) -> NDArray[Any]:
    """[n, 3] pixels -> mean, standard deviation and QUANTILES of each channel, [27]."""
    quantiles = np.percentile(field, QUANTILES, axis=0).ravel()
    return np.concatenate([field.mean(axis=0), field.std(axis=0), quantiles])


def histogram(field: NDArray[np.uint8]) -> NDArray[Any]:
    """[n, 3] pixels -> share in each of 8 bins of each channel, [24]."""
    bins = [np.histogram(field[:, channel], 8, (0, 256))[0] for channel in range(3)]
    return np.concatenate(bins) / len(field)


def contact_sheet(images: Path, rows: Rows, size: int, columns: int = 8) -> Image.Image:
    """A row of eyes for each grade."""
    sheet = Image.new("RGB", (columns * size, 5 * size))
    for grade in range(5):
        chosen = [row for row in rows if int(row["grade"]) == grade][:columns]
        for column, row in enumerate(chosen):
            sheet.paste(Image.open(images / row["image"]), (column * size, grade * size))
    return sheet


if __name__ == "__main__":
    main()
