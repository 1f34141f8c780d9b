"""How fast a network learns: this trainer, a bare loop, and the course's loop, in turn.

    python examples/benchmarks/training.py --size 224 --images 64
    python examples/benchmarks/training.py --data FOLDER --size 512 --batch-size 8

Each contestant trains the same network on the same photographs in the same batches; one epoch of
each in turn, `--repeats` times after one that does not count, wall clock. Printed are the ratios
of medians with the smallest and largest ratio of a turn; all of it goes to training.json.

- the trainer: `dr train`'s own epoch, crops from its cache, with and without augmentation;
- the bare loop: the same forward, backward and step on tensors that are in memory already;
- the course's loop, as its specification says: Pillow in `__getitem__`, ToTensor, Normalize,
  float32, contiguous, SGD, a DataLoader with workers. Its photographs are crops already.
"""

import argparse
import dataclasses
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from compete import CourseDataset, compete, elsewhere, show
from PIL import Image
from torch.utils.data import DataLoader

from dr_cli import device
from dr_cli.dataset import augment
from dr_cli.labels import reading as labels
from dr_cli.network.resnet import build_resnet
from dr_cli.sample import drawn_set as sample
from dr_cli.training.config import TrainConfig
from dr_cli.training.learner import Learner, Part
from dr_cli.training.plan import Plan, make_plans

MOMENTUM, DECAY, LR = 0.9, 5e-4, 1e-3


def drawn(images: int, size: int) -> Path:
    """A sample set, drawn in the benchmark's own cache."""
    return sample.ensure(Path(os.environ["DR_CACHE"]), images=images, size=size)


def learner(planned: Plan, level: str) -> Learner:
    """`dr train`'s own, with this augmentation."""
    processor = planned.processor
    torch.manual_seed(0)
    network = build_resnet(planned.config.arch)
    network.to(processor.device).to(memory_format=processor.memory_format)
    config = dataclasses.replace(planned.config, augment=level, save_every=1e9)
    return Learner(network, dataclasses.replace(planned, config=config))


def ours(planned: Plan, level: str) -> Callable[[], None]:
    one = learner(planned, level)

    def epoch() -> None:
        one.part = Part()  # else it is where the epoch before has ended, and nothing is left to do
        one.train_once(1)

    return epoch


def bare(planned: Plan) -> Callable[[], None]:
    """The least that an epoch can take with this network, batch and precision."""
    one = learner(planned, "none")
    processor, size = planned.processor, one.config.batch_size or 1
    pixels = torch.from_numpy(planned.dataset.crops(planned.indices("train"))).to(processor.device)
    inputs = augment.normalise(pixels, planned.dataset.preprocessing).contiguous(
        memory_format=processor.memory_format
    )
    grades = torch.from_numpy(planned.grades("train")).to(processor.device)

    def epoch() -> None:
        for start in range(0, len(inputs), size):
            with processor.autocast():
                logits = one.network(inputs[start : start + size])
            loss = one.loss(logits.float(), grades[start : start + size])
            one.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            one.optimizer.step()
        loss.item()

    return epoch


def course(
    arch: str, files: list[Path], grades: list[int], batch: int, workers: int, on: str
) -> Callable[[], None]:
    """The loop of the course's specification, on the crops as JPEG files."""
    loader = DataLoader(
        CourseDataset(files, grades), batch, shuffle=True, num_workers=workers,
        persistent_workers=workers > 0,
    )  # fmt: skip
    target = torch.device(on)
    network = build_resnet(arch).to(target).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=DECAY)
    criterion = torch.nn.CrossEntropyLoss()

    def epoch() -> None:
        running = correct = 0.0
        for images, grade in loader:
            images, grade = images.to(target), grade.to(target)
            optimizer.zero_grad()
            logits = network(images)
            loss = criterion(logits, grade)
            loss.backward()
            optimizer.step()
            running += loss.item()
            correct += (logits.argmax(1) == grade).sum().item()

    return epoch


def as_files(planned: Plan, folder: Path) -> tuple[list[Path], list[int]]:
    """The training crops as JPEG files, and their grades."""
    indices = planned.indices("train")
    files = [folder / f"{index:06}.jpg" for index in indices]
    for index, file in zip(indices, files, strict=True):
        Image.fromarray(planned.dataset.crop(index).transpose(1, 2, 0)).save(file, quality=92)
    return files, planned.dataset.grades[indices].tolist()


def measure(data: Path, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """img/s and ratios of all contestants; the trainer with its usual augmentation is first."""
    config = TrainConfig(
        arch=options.arch, size=options.size, batch_size=options.batch_size, optimizer="sgd", lr=LR,
        illumination="kept",  # as the others keep it
    )  # fmt: skip
    found = labels.read(data)
    if len(found.table) > options.images:
        found = dataclasses.replace(found, table=found.table[: options.images].copy())
    planned = make_plans(config, found, device.choose(options.device, options.precision))[0]
    print(planned.processor.reason)
    table = compete(
        {
            "trainer, standard augmentation": ours(planned, "standard"),
            "trainer, flips": ours(planned, "flip"),
            "trainer, no augmentation": ours(planned, "none"),
            "bare loop on tensors in memory": bare(planned),
            f"the course's loop, {options.workers} workers": elsewhere(
                course,
                options.arch,
                *as_files(planned, folder),
                planned.config.batch_size,
                options.workers,
                planned.processor.device.type,
            ),
        },
        len(planned.indices("train")),
        options.repeats,
    )
    show(f"{options.arch}, {options.size} px, batch {options.batch_size}", table)
    return {"processor": planned.processor.reason, "table": table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="graded photographs")
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--images", type=int, default=96, help="at most, validation included")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="of the course's DataLoader")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--out", type=Path, default=Path("training.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        os.environ["DR_CACHE"] = str(folder / "cache")
        (folder / "course").mkdir()
        data = options.data or drawn(options.images, options.size)
        record = measure(data, options, folder / "course")
    settings = {key: str(value) for key, value in vars(options).items()}
    options.out.write_text(json.dumps({"settings": settings, **record}, indent=1), "utf-8")


if __name__ == "__main__":
    main()
