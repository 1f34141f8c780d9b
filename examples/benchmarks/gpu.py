"""Everything that only a GPU can show, in one table; on a CPU in small, to see that it works.

    python examples/benchmarks/gpu.py
    python examples/benchmarks/gpu.py --only steps --compile no
    python examples/benchmarks/gpu.py --device cpu --size 64 --batches 8 --archs resnet18 \\
        --images 48 --test-images 16 --epochs 1 --steps 3

steps: of each network and batch the bare step (forward, backward and step on one batch in memory),
`dr train`'s own epoch and its share of that, with crops mapped from disk and, where they fit, in
GPU memory; the same compiled, what compiling costs in seconds, and after how many photographs it
has paid. lab: the course's four networks as `dr train` trains them, evaluation each epoch.
inference: the network alone, and camera originals graded, in bf16 and fp32, and how far the answers
lie apart. decoding: photographs whose crops are not cached, by this program's threads and by
torchvision's decode_jpeg on the GPU (nvjpeg). All of it goes to gpu.json as well.
"""

import argparse
import dataclasses
import json
import os
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import inference
import lab_experiment
import torch
import training
from compete import compete, seconds
from safetensors.torch import save_file
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms.functional import resize

from dr_cli import Grader, device, machine
from dr_cli.dataset.feeding import hold
from dr_cli.labels import reading
from dr_cli.network.resnet import build_resnet
from dr_cli.photographs.cache import spread
from dr_cli.photographs.crop import Preprocessing, load_crop
from dr_cli.training.config import TrainConfig
from dr_cli.training.plan import make_plans

COLUMNS = ("part", "what", "img/s", "of bare step", "seconds", "peak GB", "remark")
EPOCHS = {"resnet18": 1.0, "resnet50": 0.5}  # the course trains the larger ones half as long
Row = dict[str, Any]


def timed(work: Callable[[], object]) -> float:
    """Seconds, with all that the GPU has still to do."""

    def whole() -> None:
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return seconds(whole, time.perf_counter)


def peak() -> float | None:
    """GB of GPU memory at most since it was last asked; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    most = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return most


# --- steps --------------------------------------------------------------------------------------


def steps(data: Path, asked: Namespace) -> Iterator[Row]:
    for arch in asked.archs:
        for batch in asked.batches:
            yield from step(data, arch, batch, asked)


def step(data: Path, arch: str, batch: int, asked: Namespace) -> Iterator[Row]:
    """One network and batch; where it is compiled, that too."""
    config = TrainConfig(
        arch=arch, size=asked.size, batch_size=batch, optimizer="sgd", lr=1e-3, illumination="kept"
    )
    found = reading.read(data)
    train = found.table.index[found.table["split"] == "train"][batch * asked.steps :]
    found = dataclasses.replace(found, table=found.table.drop(train).reset_index(drop=True))
    plan = make_plans(config, found, device.choose(asked.device, asked.precision))[0]
    what, count = f"{arch}, {asked.size} px, batch {batch}", len(plan.indices("train"))
    bare = lab_experiment.bare_rate(plan, asked.steps)
    yield {"part": "bare step", "what": what, "img/s": bare, "peak GB": peak()}

    def train(name: str, compiled: bool = False) -> Row:
        planned = dataclasses.replace(plan, config=dataclasses.replace(config, compile=compiled))
        epoch = training.ours(planned, "turn")
        first, later = timed(epoch), min(timed(epoch) for _ in range(2))
        rate = count / later
        return {"part": name, "what": what, "img/s": rate, "of bare step": rate / bare,
                "peak GB": peak(), "seconds": first - later if compiled else None}  # fmt: skip

    yield (eager := train("trainer, crops mapped"))
    hold(plan.dataset, plan.processor)
    if plan.dataset.resident is not None:
        yield (eager := train("trainer, crops on the GPU"))
    if asked.compile == "yes":
        row = train("trainer, --compile", compiled=True)
        saved = 1 / eager["img/s"] - 1 / row["img/s"]
        pays = f"pays from {row['seconds'] / saved:,.0f} photographs on"
        yield row | {"remark": pays if saved > 0 else "never pays"}
        torch._dynamo.reset()


# --- the course's experiment --------------------------------------------------------------------


def lab(data: Path, folder: Path, asked: Namespace) -> Iterator[Row]:
    """The four networks; the pretrained ones start from weights that lie there, of no meaning."""
    for arch in asked.archs:
        given = folder / f"{arch}.safetensors"
        save_file(build_resnet(arch).state_dict(), given)
        for weights in (None, str(given)):
            options = Namespace(
                **vars(asked) | {"compile": False, "weights": weights, "network": arch},
                batch_size=asked.batches[0],
            )
            options.epochs = max(1, round(asked.epochs * EPOCHS.get(arch, 1.0)))
            record = lab_experiment.experiment(data, folder, options)
            cached = record["seconds"]["looking and caching"]
            tuned = record["share_of_h100_roofline"]
            yield {
                "part": "lab",
                "what": f"{arch}{', from weights' if weights else ''}, {options.epochs} epochs",
                "img/s": record["images_per_second"],
                "of bare step": record["share_of_bare_step"],
                "seconds": record["seconds"]["dr train"], "peak GB": peak(),
                "remark": f"evaluations {record['seconds']['its evaluations']:.0f} s, looking and "
                f"caching before {cached:.0f} s" + (f"; {tuned:.2f} of an H100's roofline"
                if tuned else ""),
            }  # fmt: skip


# --- inference and decoding ---------------------------------------------------------------------


def grading(files: list[Path], folder: Path, asked: Namespace) -> Iterator[Row]:
    """The network alone, on crops in memory; `Grader.predict` from files, which decoding may hold
    up; and the precisions' agreement with fp32."""
    batch = asked.batches[0]
    pixels = torch.randint(0, 256, (batch, 3, asked.size, asked.size), dtype=torch.uint8)
    some = [(pixels, torch.zeros(batch), torch.arange(batch))] * asked.steps
    for arch in asked.archs:
        run = inference.untrained(folder / arch, arch, asked.size)
        graders = {
            one: Grader.load(run, device=asked.device, precision=one) for one in asked.precisions
        }
        alone = {one: partial(grader.probabilities, some) for one, grader in graders.items()}
        for one, row in compete(alone, batch * asked.steps, 2).items():
            what = f"{arch}, {asked.size} px, {one}, network alone, batch {batch}"
            yield {"part": "inference", "what": what, "img/s": row["per_second"], "peak GB": peak()}
        table = compete(
            {one: partial(grade, grader, files) for one, grader in graders.items()}, len(files), 2
        )
        for one, row in table.items():
            what = f"{arch}, {asked.size} px, {one}, originals"
            apart = inference.agreement(run, files, one, asked.device) if one != "fp32" else None
            remark = apart and (
                f"{apart['equal_grades']:.3f} of the grades as in fp32, probabilities within "
                f"{apart['largest_change']:.1g} (random weights)"
            )
            yield {"part": "inference", "what": what, "img/s": row["per_second"],
                   "peak GB": peak(), "remark": remark}  # fmt: skip


def grade(grader: Grader, files: list[Path]) -> None:
    for _ in grader.predict(files):
        pass


def decoding(files: list[Path], asked: Namespace) -> Iterator[Row]:
    """JPEG originals to squares on the device: threads and Pillow's scaled decoding, which also
    find the field and judge quality, against whole decoding and resizing there."""
    target = device.choose(asked.device, asked.precision).device
    way, threads = Preprocessing(asked.size), machine.cores()

    def ours() -> None:
        crops = spread(lambda file: load_crop(file, way).pixels, files, threads)
        torch.stack([torch.from_numpy(one.result()) for one in crops]).to(target)

    def theirs() -> None:
        for start in range(0, len(files), 16):
            raw = [read_file(str(file)) for file in files[start : start + 16]]
            pictures = decode_jpeg(raw, ImageReadMode.RGB, device=target)
            size = [asked.size, asked.size]
            torch.stack([resize(one, size, antialias=True) for one in pictures])
        if target.type == "cuda":
            torch.cuda.synchronize()

    name = "nvjpeg" if target.type == "cuda" else "libjpeg-turbo, whole"
    named = {
        f"load_crop, {threads} threads": ours,
        f"decode_jpeg on {target.type} ({name})": theirs,
    }
    try:
        table = compete(named, len(files), 2)
    except RuntimeError as why:  # a build of torchvision without nvjpeg
        yield {"part": "decoding", "what": f"decode_jpeg on {target.type}", "remark": str(why)}
        return
    for what, row in table.items():
        yield {"part": "decoding", "what": what, "img/s": row["per_second"]}


# --- the table ----------------------------------------------------------------------------------


def line(row: Row) -> str:
    digits = {"img/s": ",.1f", "of bare step": ".2f", "seconds": ",.1f", "peak GB": ".2f"}
    cells = [
        "" if row.get(name) is None else format(row[name], digits.get(name, "")) for name in COLUMNS
    ]
    return f"| {' | '.join(cells)} |"


def measure(folder: Path, asked: Namespace) -> Iterator[Row]:
    """All rows, as they are known."""
    wanted = asked.only or ["steps", "lab", "inference", "decoding"]
    if {"steps", "lab"} & {*wanted}:
        train = max(asked.images, max(asked.batches) * asked.steps)
        data = lab_experiment.make(folder / "data", train, asked.test_images, asked.size)
        asked.images = train
    if "steps" in wanted:
        yield from steps(data, asked)
    if "lab" in wanted:
        yield from lab(data, folder, asked)
    if {"inference", "decoding"} & {*wanted}:
        few = inference.originals(folder / "originals", min(16, asked.originals))
        files = (few * -(-asked.originals // len(few)))[: asked.originals]
        if "inference" in wanted:
            yield from grading(files, folder, asked)
        if "decoding" in wanted:
            yield from decoding(files, asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", help="of steps, lab, inference, decoding")
    parser.add_argument("--archs", nargs="*", default=["resnet18", "resnet50"])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batches", type=int, nargs="*", default=[64, 128])
    parser.add_argument("--steps", type=int, default=20, help="of a batch, for its rate")
    parser.add_argument("--compile", choices=["yes", "no"], default="yes")
    parser.add_argument("--images", type=int, default=28_100, help="that the lab trains on")
    parser.add_argument("--test-images", type=int, default=7_026)
    parser.add_argument("--epochs", type=int, default=10, help="of resnet18; resnet50 has half")
    parser.add_argument("--originals", type=int, default=512, help="photographs graded, decoded")
    parser.add_argument("--precisions", nargs="*", default=["bf16", "fp32"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    asked = parser.parse_args()
    asked.out = asked.out.resolve()
    settings = {key: str(value) for key, value in vars(asked).items()}
    rows = []
    print(device.choose(asked.device, asked.precision).reason)
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        os.environ["DR_CACHE"] = str(Path(name, "cache"))
        for row in measure(Path(name), asked):
            rows.append(row)
            print(line(row), flush=True)
    asked.out.write_text(json.dumps({"settings": settings, "rows": rows}, indent=1), "utf-8")


if __name__ == "__main__":
    main()
