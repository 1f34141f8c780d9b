"""Whether memory stays flat: of `dr predict` over very many paths, of `dr train` over more images.

    python examples/benchmarks/memory.py --paths 100000
    python examples/benchmarks/memory.py --train 500 5000

Grades the same few small pictures again and again with a ResNet18 at 32 px, and prints the
memory of the process (resident, MiB) after the first 1,000 paths and at the end. With --train it
runs `dr train` twice on data sets of these sizes (64 px) and prints the second run's anonymous
memory at its end: what is not a map of a file, such as the crop cache. Linux.
"""

import argparse
import csv
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from inference import untrained
from PIL import Image

from dr_cli import Grader


def resident() -> float:
    """MiB in RAM that this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


_TRAIN = """
import sys
from pathlib import Path
from dr_cli.cli import app
app(sys.argv[1:], standalone_mode=False)
print(Path("/proc/self/status").read_text())
"""


def make(folder: Path, count: int) -> Path:
    """A table of `count` small pictures, no two alike."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("image", "grade"))
        for k in range(count):
            Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(folder / f"{k}.jpg")
            table.writerow((k, k % 5))
    return folder


def anonymous(data: Path) -> float:
    """MiB of anonymous memory at the end of a training on crops that are in the cache already."""
    command = [sys.executable, "-c", _TRAIN, "train", str(data), "--size", "64", "--epochs", "1",
               "--batch-size", "16", "--quiet"]  # fmt: skip
    for _ in range(2):
        done = subprocess.run(command, cwd=data, capture_output=True, text=True, check=True)
    found = re.search(r"RssAnon:\s+(\d+) kB", done.stdout)
    assert found is not None
    return int(found[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--paths", type=int, default=100_000)
    parser.add_argument("--train", type=int, nargs="+", metavar="IMAGES")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["DR_CACHE"] = str(folder / "cache")
        for count in options.train or ():
            print(f"{count:,} images: {anonymous(make(folder / str(count), count)):.0f} MiB")
        if options.train:
            return
        for k in range(8):
            Image.new("RGB", (48, 48), (20 * k, 90, 30)).save(folder / f"{k}.png")
        grader = Grader.load(untrained(folder / "run", "resnet18", 32))
        paths = itertools.islice(itertools.cycle(sorted(folder.glob("*.png"))), options.paths)
        start = time.perf_counter()
        for done, _ in enumerate(grader.predict(paths, batch_size=64), start=1):
            if done == 1_000:
                first = resident()
            if done % 10_000 == 0:
                print(f"{done:,} paths: {resident():.0f} MiB, {time.perf_counter() - start:.0f} s")
        if options.paths >= 1_000:
            print(f"grown by {resident() - first:.1f} MiB after the first 1,000")


if __name__ == "__main__":
    main()
