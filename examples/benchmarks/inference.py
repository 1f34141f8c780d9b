"""How fast photographs are graded: `Grader.predict` against a straightforward script, in turn.

    python examples/benchmarks/inference.py --photographs FOLDER --images 200 --size 512

The script opens a photograph with Pillow, resizes it, makes a tensor, normalises it and runs the
network in float32, one at a time. Start-up is left out. Also printed: how far the answers of
other precisions lie from float32's (share of equal grades, largest change of a probability).
Without FOLDER, eyes are drawn for it, 2144×1424. Ratios of medians; all goes to inference.json.

--engines: in its place the network alone, by torch in each of --precisions and by onnxruntime (the
extra `onnx`), on the same crops; and how far the answers lie apart.

On one thread (OMP_NUM_THREADS=1) it is processor time that counts, so that others may use the
machine meanwhile.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compete import compete, elsewhere, ranked, show
from PIL import Image
from torchvision import transforms

from dr_cli import Grader, runs
from dr_cli.grades import Calibration
from dr_cli.network.resnet import build_resnet
from dr_cli.photographs.crop import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, load_crop
from dr_cli.photographs.decoding import EXTENSIONS
from dr_cli.sample import drawn_set


def untrained(folder: Path, arch: str, size: int) -> Path:
    """A run's weights that never learnt: as fast as any."""
    torch.manual_seed(0)
    record = runs.ModelRecord(arch, Preprocessing(size).to_dict(), Calibration())
    folder.mkdir(parents=True, exist_ok=True)
    runs.Run(folder).save_model(build_resnet(arch).state_dict(), record)
    return folder


def originals(folder: Path, count: int) -> list[Path]:
    """Drawn eyes in the shape of a camera's originals."""
    folder.mkdir()
    for k in range(count):
        eye = Image.fromarray(drawn_set.draw(0, k + 1, "left", k % 5, 712).pixels)
        large = Image.new("RGB", (2144, 1424))
        large.paste(eye.resize((1424, 1424), Image.Resampling.BICUBIC), (360, 0))
        large.save(folder / f"drawn_{k:03}.jpg", quality=92)
    return sorted(folder.iterdir())


def ours(run: Path, precision: str, files: list[Path]) -> Callable[[], object]:
    grader = Grader.load(run, precision=precision, engine="torch")
    return lambda: list(grader.predict(files))


def straightforward(run: Path, size: int, files: list[Path]) -> Callable[[], list[int]]:
    """What one writes first to grade files."""
    tensors, record = runs.read_model(run)
    network = build_resnet(record.arch)
    network.load_state_dict(tensors)
    network.eval()
    change = transforms.Compose(
        [
            transforms.Resize((size, size)),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )

    def grade() -> list[int]:
        with torch.no_grad():
            return [
                int(network(change(Image.open(path).convert("RGB"))[None]).argmax())
                for path in files
            ]

    return grade


def agreement(
    run: Path, files: list[Path], precision: str, device: str = "auto"
) -> dict[str, float]:
    """How a precision's answers differ from float32's."""
    exact, other = (
        list(Grader.load(run, device=device, precision=one, engine="torch").predict(files))
        for one in ("fp32", precision)
    )
    p, q = (np.array([r["probabilities"] for r in records]) for records in (exact, other))
    same = [a["predicted"] == b["predicted"] for a, b in zip(exact, other, strict=True)]
    return {"equal_grades": float(np.mean(same)), "largest_change": float(np.abs(p - q).max())}


def whole(run: Path, files: list[Path], options: argparse.Namespace) -> dict[str, Any]:
    """Photographs to grades, against the script: what `compete` gives, and the agreement."""
    contestants = {
        f"Grader.predict, {one}": elsewhere(ours, run, one, files) for one in options.precisions
    }
    contestants["straightforward script"] = elsewhere(straightforward, run, options.size, files)
    if torch.get_num_threads() == 1:
        turns = [{k: ask() for k, ask in contestants.items()} for _ in range(options.repeats + 1)]
        table = ranked({k: [turn[k] for turn in turns[1:]] for k in contestants}, len(files))
    else:
        table = compete(contestants, len(files), options.repeats)
    show(f"{options.arch}, {options.size} px, {len(files)} photographs", table)
    agreements = {p: agreement(run, files, p) for p in options.precisions if p != "fp32"}
    for one, found in agreements.items():
        print(f"{one} against fp32: {found}")
    return {"table": table, "agreement": agreements}


def engines(run: Path, files: list[Path], options: argparse.Namespace) -> dict[str, Any]:
    """The network by torch and by onnxruntime, on the crops of the files: what `compete` gives, and
    the agreement with the first."""
    way = Preprocessing(options.size)
    distinct = {file: load_crop(file, way).pixels for file in set(files)}
    crops = np.stack([distinct[file] for file in files])
    batches = [crops[k : k + 8] for k in range(0, len(crops), 8)]
    graders = {
        f"torch, {one}": Grader.load(run, device="cpu", precision=one, engine="torch")
        for one in options.precisions
    }
    graders["onnxruntime, fp32"] = Grader.load(run, device="cpu", engine="onnx")
    answer: dict[str, Callable[[], Any]] = {
        one: lambda grader=grader: grader.probabilities(
            (torch.from_numpy(some), torch.zeros(0), torch.zeros(0)) for some in batches
        )
        for one, grader in graders.items()
    }
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    table = compete(answer, len(crops), options.repeats, clock)
    first, *others = ((name, ask()) for name, ask in answer.items())
    apart = {name: float(np.abs(found - first[1]).max()) for name, found in others}
    show(f"{options.arch} alone, {options.size} px, batches of 8", table)
    print(f"largest difference of a probability from {first[0]}: {apart}")
    return {"table": table, "apart": apart}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=Path, metavar="FOLDER")
    parser.add_argument("--run", type=Path, help="a trained run, for the agreement")
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precisions", nargs="*", default=["fp32"], help="such as fp32 bf16")
    parser.add_argument("--engines", action="store_true", help="torch against onnxruntime")
    parser.add_argument("--out", type=Path, default=Path("inference.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        os.environ["DR_CACHE"] = str(folder / "cache")
        run = options.run or untrained(folder / "run", options.arch, options.size)
        if options.photographs is None:
            files = originals(folder / "originals", min(8, options.images))
        else:
            found = options.photographs.rglob("*")
            files = sorted(f for f in found if f.suffix.lower() in EXTENSIONS)
        files = (files * -(-options.images // len(files)))[: options.images]
        measure = engines if options.engines else whole
        record = measure(run, files, options)
    options.out.write_text(json.dumps(record, indent=1), "utf-8")


if __name__ == "__main__":
    main()
