"""Do heatmaps point at lesions? Measured on drawn eyes, whose lesions are known.

    python examples/benchmarks/heatmaps.py runs/resnet18

RUN was trained on the built-in sample set. Of its test images of grade 2 and more that it grades
right, the tenth of the field where the map for the predicted grade is strongest is compared with
the whole field, which is what a random place finds: which share of it lies on a drawn lesion, and
which within one cell (16 pixels) of the feature grid. Means over images, with the standard error.

Measured with ResNet18 from scratch, AdamW, batches of 8, `--augment flip`. 128 pixels, six epochs
(QWK 0.80): 0.197 ±0.026 of the map's top tenth lies on lesions, 0.087 ±0.008 of a random place (24
images). 64 pixels, four epochs (QWK 0.30): 0.082 ±0.014 and 0.075 ±0.009
(13). Other maps of the same networks: the last one, at 1/32 of the input's side, 0.078 ±0.014 and
0.027 ±0.007; that of the crop at twice its size 0.118 and 0.044; with the last stage dilated 0.128
and 0.079; LayerCAM in place of Grad-CAM 0.163 and 0.095. Within a cell says little there: so small
a picture has up to hundreds of lesions.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import maximum_filter

from dr_cli import device
from dr_cli.errors import UsageError
from dr_cli.grades import REFERABLE_FROM
from dr_cli.network.activation import STRIDE
from dr_cli.network.grader import Member
from dr_cli.photographs.crop import Preprocessing, from_image
from dr_cli.plots.heat import field_of, upsample
from dr_cli.runs import Run
from dr_cli.sample import drawn_set

TOP = 0.1  # of the field's pixels
DRAWN = re.compile(r"drawn_(\d+)_(left|right)\.\w+$")


class Shares(NamedTuple):
    """Of the map's top tenth and of the whole field: on a lesion, and within a cell of one."""

    top_on: float
    field_on: float
    top_near: float
    field_near: float


def shares(heat: np.ndarray, lesions: np.ndarray, field: np.ndarray) -> Shares:
    """heat: float [H, W]; lesions, field: bool [H, W]."""
    lesions = lesions & field
    near = maximum_filter(lesions, 2 * STRIDE + 1) & field
    strongest = np.flatnonzero(field)[np.argsort(-heat[field], kind="stable")]
    top = strongest[: max(1, round(TOP * field.sum()))]
    return Shares(
        *(
            float(part)
            for mask in (lesions, near)
            for part in (mask.flat[top].mean(), mask[field].mean())
        )
    )


def crops(
    drawing: drawn_set.Drawing, way: Preprocessing
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The network's view: pixels uint8 [3, S, S]; lesions and field, bool [S, S], over it."""
    crop = from_image(Image.fromarray(drawing.pixels), way)
    ends = [crop.to_original(k, k) for k in (0, way.size)]
    lesions = np.any(list(drawing.masks.values()), axis=0)
    over = Image.fromarray(lesions).transform(
        (way.size, way.size), Image.Transform.EXTENT, (*ends[0], *ends[1]), Image.Resampling.NEAREST
    )
    return crop.pixels, np.asarray(over), field_of(crop.pixels)


def measured(folder: Path) -> Iterator[tuple[int, Shares]]:
    """The grade and shares of each test image of grade 2 and more that the run grades right."""
    run = Run(folder)
    member = Member.load(folder, device.choose())
    _, _, size, seed = (int(part) for part in _sample_name(run).split("-"))
    for row in run.predictions("test").itertuples():
        found = DRAWN.search(str(row.path))
        grade = int(row.grade)  # type: ignore[call-overload]
        if found is None or grade < REFERABLE_FROM or row.predicted != grade:
            continue
        drawing = drawn_set.draw(seed, int(found[1]), found[2], grade, size)  # type: ignore[arg-type]
        pixels, lesions, field = crops(drawing, member.preprocessing)
        cells = member.trace(torch.from_numpy(pixels)[None]).heat(grade)[0]
        side = pixels.shape[1]
        yield grade, shares(upsample(cells, side, side, STRIDE), lesions, field)


def _sample_name(run: Run) -> str:
    """The sample set's folder, which says how it was drawn: version-images-size-seed."""
    name = Path(run.config().data.root).name
    if not re.fullmatch(rf"{drawn_set.VERSION}-\d+-\d+-\d+", name):
        raise UsageError(f"{run.folder} was not trained on the sample set as it is drawn now")
    return name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    found = list(measured(parser.parse_args().run))
    print("grade  images   on a lesion: map   random place   within a cell: map   random place")
    for name, part in [
        *((str(g), [s for grade, s in found if grade == g]) for g in (2, 3, 4)),
        ("all", [s for _, s in found]),
    ]:
        if not part:
            continue
        table = np.array(part)
        error = table.std(axis=0) / np.sqrt(len(table))
        told = [f"{m:.3f} ±{e:.3f}" for m, e in zip(table.mean(axis=0), error, strict=True)]
        print(f"{name:>5}{len(table):>8}" + "".join(f"{t:>18}" for t in told))


if __name__ == "__main__":
    main()
