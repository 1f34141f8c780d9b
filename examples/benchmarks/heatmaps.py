"""Do heatmaps point at lesions? Measured on drawn eyes, whose lesions are known.

    python examples/benchmarks/heatmaps.py runs/resnet18
    python examples/benchmarks/heatmaps.py --cost photographs/

RUN was trained on the built-in sample set. Of its test images of grade 2 and more that it grades
right, the tenth of the field where the map for the predicted grade is strongest is compared with
the whole field, which is what a random place finds: which share of it lies on a drawn lesion, and
which within one cell (16 pixels) of the feature grid. Means over images, with the standard error.

Also of other maps of the same network: the last one, 1/32 of the input's side; that of the crop at
twice its size; the last one with its stage dilated; the one shown, by the exact gradient; LayerCAM
in place of Grad-CAM.

Measured with ResNet18 from scratch, the defaults of `dr train`: share of the map's top tenth on
lesions. At 128 px on `sample:`, 6 epochs, seeds 0 and 1 (QWK 0.80; 41 images); at 128 px on
`sample:n=1200,size=160`, 3 epochs (52 images); at 224 px on `sample:`, 5 epochs (26 images):

    as shown                  0.135 ±0.020, 0.134 ±0.018    0.165 ±0.016    0.139 ±0.017
    by the exact gradient     0.132 ±0.020, 0.139 ±0.018    0.163 ±0.015    0.141 ±0.017
    last map                  0.062 ±0.013, 0.099 ±0.013    0.139 ±0.019    0.094 ±0.016
    of twice the crop         0.046 ±0.013, 0.068 ±0.014    0.067 ±0.012    0.123 ±0.022
    its stage dilated         0.095 ±0.015, 0.116 ±0.019    0.166 ±0.018    0.093 ±0.014
    LayerCAM                  0.102 ±0.018, 0.091 ±0.011    0.128 ±0.012    0.138 ±0.016
    a random place            0.088 ±0.008, 0.082 ±0.008    0.079 ±0.005    0.070 ±0.007

Within a cell says little there: so small a picture has up to hundreds of lesions. At 64 px no map
is told from chance.

--cost: what `--explain` costs, 16 photographs of FOLDER graded with and without in turn by an
untrained ResNet18: the median ratio of processor and of wall time. Measured with one torch thread,
bf16, two cores under load, photographs of 1024×680 (IDRiD), six runs: processor 1.06 at 512 px
(1.05–1.06), 1.14 at 224 (1.12–1.17), 1.20 at 128 (1.18–1.26). What remains at 128 px, where a
photograph takes 12 ms, is a picture of 408 px: 0.9 ms drawing it, 0.4 encoding, 0.2 writing, 0.3
cutting it out and looking back. With a map in floats at the picture's scale it was 1.07, 1.17 and
1.25, with a backward pass through the last stage 1.24, 1.40 and 1.50.
"""

import argparse
import copy
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import maximum_filter
from torch import Tensor, nn

from dr_cli import device
from dr_cli.dataset.augment import normalise
from dr_cli.errors import UsageError
from dr_cli.grades import REFERABLE_FROM, Calibration
from dr_cli.network.activation import STRIDE
from dr_cli.network.grader import Grader, Member
from dr_cli.network.resnet import ResNet, build_resnet
from dr_cli.photographs.crop import Preprocessing, from_image
from dr_cli.photographs.decoding import EXTENSIONS
from dr_cli.plots.heat import field_of, upsample
from dr_cli.runs import ModelRecord, Run
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


def other_maps(network: ResNet, inputs: Tensor, grade: int) -> dict[str, np.ndarray]:
    """What could be shown in place of the map that is: name -> [h, w], of inputs [1, 3, S, S]."""
    weights = network.fc.weight[grade, :, None, None]

    def weigh(features: Tensor) -> np.ndarray:  # CAM: Grad-CAM at the last map, up to scale
        return (features[0] * weights).sum(0).clamp_min(0).float().numpy()

    with torch.no_grad():
        before = network.before_last(inputs)
        larger = nn.functional.interpolate(inputs, scale_factor=2, mode="bicubic")
        told = {
            "last map": weigh(network.layer4(before)),
            "last map of the crop at twice its size": weigh(network.features(larger)),
            "last map, its stage dilated": weigh(dilate(network.layer4)(before)),
        }
    with torch.enable_grad():
        before = before.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(
            network.classify(network.layer4(before))[0, grade], before
        )
    before = before.detach()
    exact = (gradient.mean((2, 3), keepdim=True) * before).sum(1).relu()[0]
    layered = (gradient.relu() * before).sum(1)[0]
    return told | {
        "as shown, by the exact gradient": exact.float().numpy(),
        "LayerCAM before the last stage": layered.float().numpy(),
    }


def dilate(stage: nn.Sequential) -> nn.Sequential:
    """The stage without its step down: what comes after looks as far by dilation."""
    stage = copy.deepcopy(stage)
    for module in stage.modules():
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
            module.stride = (1, 1)
        elif isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.dilation = module.padding = (2, 2)
    return stage


def measured(folder: Path) -> Iterator[tuple[int, dict[str, Shares]]]:
    """The grade and shares of each test image of grade 2 and more that the run grades right, for
    the map that is shown ("") and for others."""
    run = Run(folder)
    member = Member.load(folder, device.choose("cpu", "fp32"))
    _, _, size, seed = (int(part) for part in _sample_name(run).split("-"))
    for row in run.predictions("test").itertuples():
        found = DRAWN.search(str(row.path))
        grade = int(row.grade)  # type: ignore[call-overload]
        if found is None or grade < REFERABLE_FROM or row.predicted != grade:
            continue
        drawing = drawn_set.draw(seed, int(found[1]), found[2], grade, size)  # type: ignore[arg-type]
        pixels, lesions, field = crops(drawing, member.preprocessing)
        batch, side = torch.from_numpy(pixels)[None], pixels.shape[1]
        maps = {"": member.trace(batch).heat(grade)[0]}
        maps |= other_maps(member.network, normalise(batch, member.preprocessing), grade)
        yield (
            grade,
            {
                name: shares(upsample(cells, side, side, side / len(cells)), lesions, field)
                for name, cells in maps.items()
            },
        )


def _sample_name(run: Run) -> str:
    """The sample set's folder, which says how it was drawn: version-images-size-seed."""
    name = Path(run.config().data.root).name
    if not re.fullmatch(rf"{drawn_set.VERSION}-\d+-\d+-\d+", name):
        raise UsageError(f"{run.folder} was not trained on the sample set as it is drawn now")
    return name


def cost(photographs: Path, size: int, images: int = 16, turns: int = 9) -> tuple[float, float]:
    """How much longer grading with heatmaps takes: ratios of processor and of wall time."""
    paths = [p for p in sorted(photographs.rglob("*")) if p.suffix.lower() in EXTENSIONS][:images]
    way = Preprocessing(size, illumination="evened")  # as `dr train` has it
    record = ModelRecord("resnet18", way.to_dict(), Calibration())
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Run(folder).save_model(build_resnet("resnet18").state_dict(), record)
        grader = Grader.load(folder)
        for turn in range(turns + 1):
            spent = {}
            new = folder / f"heat-{turn}"  # files that are there are replaced, which takes longer
            for explain in (None, new) if turn % 2 else (new, None):
                start = np.array([time.process_time(), time.perf_counter()])
                list(grader.predict(paths, explain=explain))
                end = np.array([time.process_time(), time.perf_counter()])
                spent[explain is not None] = end - start
            ratios.append(spent[True] / spent[False])
    processor, wall = np.median(ratios[1:], axis=0)  # the first turn warms up
    return float(processor), float(wall)


def tell(name: str, part: list[Shares]) -> str:
    """A row: how many images, and each share's mean with its standard error."""
    table = np.array(part)
    error = table.std(axis=0) / np.sqrt(len(table))
    told = [f"{m:.3f} ±{e:.3f}" for m, e in zip(table.mean(axis=0), error, strict=True)]
    return f"{name:<40}{len(table):>7}" + "".join(f"{t:>17}" for t in told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--cost", type=Path, metavar="FOLDER", help="of photographs")
    asked = parser.parse_args()
    if asked.cost:
        for size in (128, 224, 512):
            processor, wall = cost(asked.cost, size)
            print(f"{size} px: processor time x {processor:.2f}, wall x {wall:.2f}", flush=True)
        return
    if asked.run is None:
        parser.error("name a RUN, or --cost FOLDER")
    found = list(measured(asked.run))
    print(f"{'':<40} images   on a lesion: map, random place   within a cell: map, random place")
    for grade in (2, 3, 4):
        if part := [maps[""] for true, maps in found if true == grade]:
            print(tell(f"grade {grade}", part))
    for name in found[0][1] if found else ():
        print(tell(name or "all, as shown", [maps[name] for _, maps in found]))


if __name__ == "__main__":
    main()
