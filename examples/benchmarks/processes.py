"""What several processes cost and gain on a CPU: the trainer's own steps, side by side.

    python examples/benchmarks/processes.py --size 128 --share 16 --rounds 3

Each round times, one after the other: one process of one thread; two processes of one thread each
that train one network on twice the batch; one process of two threads on that batch; and two
processes of one thread that have nothing to do with each other, which is what the machine itself
allows. Pictures are drawn at random: only time is measured. Efficiency is the images a second of
two processes over twice those of one.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

WAYS = {  # processes that train together, threads of each, copies of all that side by side
    "1 process, 1 thread": (1, 1, 1),
    "2 processes, 1 thread each": (2, 1, 1),
    "1 process, 2 threads": (1, 2, 1),
    "2 trainings, 1 thread each": (1, 1, 2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--share", type=int, default=16, help="images a step of one thread")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--step", metavar="FOLDER", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        take_steps(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), 8 * options.share)
        found: dict[str, list[float]] = {name: [] for name in WAYS}
        for _ in range(options.rounds):
            for name, way in WAYS.items():
                found[name].append(sum(run(options, folder, *way)))
    base = [2 * rate for rate in found["1 process, 1 thread"]]
    print(f"{options.arch}, {options.size} px, {options.share} images a thread and step")
    print(f"{'':28} img/s   over twice one process of one thread")
    for name, rates in found.items():
        shares = [rate / twice for rate, twice in zip(rates, base, strict=True)]
        mean, low, high = statistics.median(shares), min(shares), max(shares)
        rate = statistics.median(rates)
        print(f"{name:28} {rate:5.1f}   {mean:.2f} ({low:.2f} to {high:.2f})")


def draw(folder: Path, count: int) -> None:
    """Graded pictures of noise."""
    rows = ["image,grade,split"]
    for k in range(count + 8):
        pixels = np.random.default_rng(k).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.png")
        rows.append(f"{k}.png,{k % 5},{'train' if k < count else 'val'}")
    (folder / "labels.csv").write_text("\n".join(rows))


def run(
    options: argparse.Namespace, folder: str, count: int, threads: int, copies: int
) -> list[float]:
    """Images a second of each training."""
    batch = options.share * count * threads
    command = [sys.executable, __file__, "--step", folder, "--arch", options.arch,
               "--size", options.size, "--share", batch, "--steps", options.steps,
               "--precision", options.precision]  # fmt: skip
    processes = []
    for _ in range(copies):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for rank in range(count):
            told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port,
                    "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1",
                    "OMP_NUM_THREADS": threads}  # fmt: skip
            env = os.environ | {name: str(value) for name, value in told.items()}
            text = list(map(str, command))
            processes.append(subprocess.Popen(text, env=env, stdout=subprocess.PIPE, text=True))
    said = [process.communicate()[0] for process in processes]
    return [json.loads(line) for line in said if line.strip()]


def take_steps(options: argparse.Namespace) -> None:
    """One process's part: prints the images a second of the whole step, median."""
    import torch

    from dr_cli import device
    from dr_cli.labels import reading
    from dr_cli.network.resnet import build_resnet
    from dr_cli.ranks import Ranks
    from dr_cli.training.config import TrainConfig
    from dr_cli.training.learner import Learner, draw_order, readable_batches
    from dr_cli.training.plan import make_plans, replace

    ranks, processor = Ranks.of_environment(), device.choose("cpu", options.precision)
    batch = options.share
    config = TrainConfig(arch=options.arch, size=options.size, batch_size=batch)
    with ranks.joined(torch.device("cpu")):
        plan = make_plans(config, reading.read(options.step), processor, cache=False)[0]
        plan = replace(plan, ranks=ranks)
        learner = Learner(build_resnet(options.arch), plan)
        learner.network.train()
        order = np.resize(draw_order(plan, 1), batch)
        [share] = readable_batches(plan, order, batch, ranks)
        taken = []
        for _ in range(options.steps):
            begun = time.perf_counter()
            learner.step(1, *share, whole=batch)
            taken.append(time.perf_counter() - begun)
        ranks.wait()
    if ranks.first:
        print(json.dumps(batch / statistics.median(taken[2:])))


if __name__ == "__main__":
    main()
